"""Recomputation: a forward pass that is forgotten and made again gives the same bits, for at most one forward pass."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from graphs import close, same_bits, traced
from zoo import ZOO, batch, build

import tinynet as tn
from tinynet.program.compile import compiled
from tinynet.program.plan import workspace_bound
from tinynet.program.recompute import added_flops, kept_bytes, recomputed, segments_of, turn_of

pytestmark = pytest.mark.usefixtures("any_program_backend")


def flops_of(graph, stop=None):
    return sum(
        each.op.cost(*graph.operands(each), **each.attributes)[0]
        for each in graph.instructions[:stop] if not each.view
    )  # fmt: skip


def cuts(graph):
    """Several ways to cut the forward pass, each a list of segments: fine, coarse, one, and some of them only."""
    kept = kept_bytes(graph)
    sizes = sorted({max((n for _, n in kept), default=1), sum(n for _, n in kept) // 2 or 1, 1 << 40})
    found = [segments_of(graph, size) for size in (1, *sizes)]
    found += [found[0][::2], found[0][1::2], found[0][-1:], [(0, turn_of(graph))]]
    return [each for i, each in enumerate(found) if each and each not in found[:i]]


def again(step, *args):
    """Compares programs in which segments of the forward pass are made again with the whole one; gives its graph."""
    found = traced(step, *args)
    base = found.simplified()
    expected, forward = found.run(), flops_of(base, turn_of(base))
    for segments in cuts(base):
        graph = recomputed(base, segments)
        assert 0 <= added_flops(base, graph) <= forward
        same_bits(found.run(graph), expected)
        same_bits(found.run(compiled(graph, fuse=False)), expected)
        close(found.run(compiled(graph, fuse=True)), expected, rtol=1e-4, atol=1e-5)
    return base


@pytest.mark.parametrize(("kind", "optimizer"), [("mse", "momentum"), ("ce", "adam")])
@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_with_segments_made_again(name, kind, optimizer):
    """Among them dropout, which repeats its mask; shared and tied weights; views that are kept for backward."""
    again(build(name, kind, optimizer, clip=1.0, outputs=True)[1], *batch(1, name, kind))


@pytest.mark.parametrize("name", ["deep", "dropout", "shared"])
def test_something_is_made_again(name):
    found = traced(build(name, "ce", "adam")[1], *batch(1, name, "ce"))
    base = found.simplified()
    for segments in cuts(base)[:3]:
        assert len(recomputed(base, segments)) > len(base)


def test_less_memory_is_taken_in_a_deep_network():
    found = traced(build("deep", "mse", "momentum")[1], *batch(0, "deep", n=512))
    base = found.simplified()
    whole = workspace_bound(compiled(base, True), "numpy")
    kept = kept_bytes(base)
    segments = segments_of(base, 4 * kept[0][1])
    assert 2 <= len(segments) <= 4
    fewer = workspace_bound(compiled(base, True, lambda g: recomputed(g, segments)), "numpy")
    assert fewer < 0.7 * whole


def test_what_a_later_segment_starts_from_is_kept_and_not_made_again():
    """Otherwise it would be there twice, and every layer would be computed again and again."""
    found = traced(build("deep", "mse", "momentum")[1], *batch(0, "deep", n=512))
    base = found.simplified()
    turn, kept = turn_of(base), kept_bytes(base)
    graph = recomputed(base, segments_of(base, 3 * kept[0][1]))
    again = {r.name.rstrip("'") for r in graph.registers if r.name.endswith("'")}
    read = {graph.registers[r].name for each in graph.instructions[turn:] for r in each.inputs}
    assert again and not again & read and len(again) < len(kept)


def test_segments_cover_the_forward_pass_in_order_and_keep_what_they_may():
    found = traced(build("deep", "mse", "momentum")[1], *batch(0, "deep", n=512))
    base = found.simplified()
    kept = dict(kept_bytes(base))
    for limit in (1, 30_000, 60_000, 1 << 30):
        segments = segments_of(base, limit)
        assert segments[0][0] == 0 and all(a[1] == b[0] for a, b in itertools.pairwise(segments))
        assert segments[-1][1] <= turn_of(base)
        for start, stop in segments:
            inside = [nbytes for place, nbytes in kept.items() if start <= place < stop]
            assert inside and (sum(inside) <= limit or len(inside) == 1)


def test_weights_that_change_between_the_passes_are_not_read_again():
    """The forward pass reads w, which is written before backward begins: what w made cannot be made again."""
    w = tn.tensor(np.linspace(-1, 1, 36, dtype=np.float32).reshape(6, 6))
    v = tn.tensor(np.linspace(1, -1, 36, dtype=np.float32).reshape(6, 6), requires_grad=True)

    def step(x):
        v.grad = None
        hidden = tn.tanh(x @ w)
        out = tn.tanh(tn.tanh(hidden @ v))
        loss = out.mean()
        with tn.no_grad():
            tn.ops.assign(w, w * 2.0)
        loss.backward()
        with tn.no_grad():
            tn.ops.gd(v, v.grad, tn.tensor(np.float32(0.1)))
        return loss

    again(step, np.linspace(-1, 1, 96, dtype=np.float32).reshape(16, 6))


def test_two_passes_and_an_update_in_between():
    w = tn.tensor(np.linspace(-1, 1, 36, dtype=np.float32).reshape(6, 6), requires_grad=True)
    opt = tn.optim.GD([w], lr=0.1, momentum=0.9)

    def step(x):
        losses = []
        for _ in range(2):
            opt.zero_grad()
            loss = tn.sigmoid(tn.tanh(tn.tanh(x @ w) @ w) @ w).mean()
            loss.backward()
            opt.step()
            losses.append(loss)
        return losses[0], losses[1]

    again(step, np.linspace(-1, 1, 96, dtype=np.float32).reshape(16, 6))


def test_views_that_backward_reads_are_views_of_what_is_made_again():
    w = tn.tensor(np.linspace(-1, 1, 36, dtype=np.float32).reshape(6, 6), requires_grad=True)

    def step(x):
        w.grad = None
        hidden = tn.tanh(x @ w)
        parts = [hidden[:, :3], hidden[:, 3:], hidden.T.reshape(-1, 6)[:, :3]]
        loss = (parts[0] * parts[1]).sum() + tn.exp(hidden.reshape(-1)).mean() + tn.tanh(parts[2]).sum()
        loss.backward()
        with tn.no_grad():
            tn.ops.gd(w, w.grad, tn.tensor(np.float32(0.01)))
        return loss, hidden[0]

    again(step, np.linspace(-1, 1, 96, dtype=np.float32).reshape(16, 6))


def test_a_step_without_backward_has_nothing_to_make_again():
    found = traced(lambda x: tn.tanh(tn.exp(x)), np.ones((4, 3), np.float32))
    assert turn_of(found.graph) == 2 and kept_bytes(found.graph) == [] and segments_of(found.graph, 1) == []


def test_gradients_of_gradients_with_segments_made_again():
    w = tn.tensor(np.linspace(-1, 1, 36, dtype=np.float32).reshape(6, 6), requires_grad=True)

    def step(x):
        w.grad = None
        slope = tn.grad(lambda v: tn.tanh(tn.tanh(x @ v) @ v).sum())(w)
        loss = (slope * slope).sum()
        loss.backward()
        return loss, w.grad

    again(step, np.linspace(-1, 1, 96, dtype=np.float32).reshape(16, 6))
