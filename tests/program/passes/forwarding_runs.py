"""Steps before and after results are forwarded, run on each target: what the tests of that share."""

import numpy as np
import pytest
from graphs import TARGETS, close, names, same_bits, traced

from tinynet.program import Program
from tinynet.program.passes import forward_results, fuse_elementwise, remove_dead

RNG = np.random.default_rng(2)


def array(*shape, dtype=np.float32):
    return RNG.normal(size=shape).astype(dtype)


@pytest.fixture(params=TARGETS, autouse=True)
def target(request):
    return request.param


@pytest.fixture
def forwarded(target):
    """(names, graph) of a step after the pass, or the passes ``first`` and it; it has kept every bit of the results."""

    def run(step, *args, first=(), fuse=False, **options):
        found = traced(step, *args, **options)
        graph = found.simplified()
        for each in (*first, *((fuse_elementwise,) if fuse else ())):
            each(graph)
        before = graph.copy()
        forward_results(graph)
        remove_dead(graph)
        same_bits(results(found, graph, target), results(found, before, target))
        close(results(found, graph, target), found.run())
        return names(graph), graph

    return run


def results(found, graph, target):
    """Outputs, inputs and state after a run on copies; tensors that share memory share it in the copies, too."""
    inputs, state = [np.array(x) for x in found.inputs], {r: np.array(x) for r, x in found.state.items()}
    return [*Program(graph.copy(), effort=0, target=target).run(inputs, state), *inputs, *state.values()]


def copies(now):
    return now.count("assign")
