"""Training steps beside those of the peers: which networks, which losses are right, and the rounds in turn."""

from __future__ import annotations

import contextlib
import functools

import numpy as np

from .. import workloads
from ..processes import PeerError
from ..timing import Pace, Runner, cells, interleave
from .pacing import Deadline
from .peers import PEERS
from .table import Target, row
from .worker import DEVICE

LARGE = workloads.Network((4096, 8192, 8192, 10), 4096)
MIDDLE = workloads.BY_NAME["784-512-512-10"]
# What has a target comes first: what does not fit into the time is at the end.
WORKLOADS = (
    (MIDDLE, "float32"), (LARGE, "bf16"),
    *((each, "float32") for each in workloads.NETWORKS if each is not MIDDLE),
)  # fmt: skip
BY_NAME = {str(network): network for network, _ in WORKLOADS}
TARGETS = {
    str(MIDDLE): (Target("torch", 3.0), Target("torch graph", 1.0)), str(LARGE): (Target("torch.compile graph", 1.0),),
}  # fmt: skip
TOLERANCES = {"float32": workloads.TOLERANCE, "tf32": 5e-3, "bf16": 3e-2}  # of a loss, relative
LARGE_STEPS, LARGE_RING = 2, 2
NEEDED = 25.0  # seconds, below which a network is not begun


def is_large(network: workloads.Network) -> bool:
    return network.sizes == LARGE.sizes


def steps_of(network: workloads.Network) -> int:
    """How many losses are compared."""
    return LARGE_STEPS if is_large(network) else workloads.CHECKED_STEPS


def ring_of(network: workloads.Network) -> list[tuple[np.ndarray, np.ndarray]]:
    return workloads.batches(network, LARGE_RING if is_large(network) else workloads.BATCHES)


def reference_losses(xp, network: workloads.Network, steps: int) -> list[float]:
    """As ``workloads.reference_losses``, of cross-entropy, by another array library: where NumPy would take minutes."""
    parameters = [xp.array(p).astype("float64") for p in workloads.weights(network)]
    m, v = ([xp.zeros_like(p) for p in parameters] for _ in range(2))
    ring, losses, beta1, beta2 = ring_of(network), [], workloads.BETA1, workloads.BETA2
    for t in range(1, steps + 1):
        x, y = map(xp.array, ring[(t - 1) % len(ring)])
        values = [x.astype("float64")]
        for w, b in zip(parameters[::2], parameters[1::2]):
            values.append(xp.maximum(values[-1] @ w + b, 0 if w is not parameters[-2] else -xp.inf))
        logits = values.pop()
        p = xp.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        places = xp.arange(len(y))
        losses.append(float(-xp.log(p[places, y]).mean()))
        p[places, y] -= 1
        g, gradients = p / len(y), []
        for i in reversed(range(len(values))):
            gradients[:0] = [values[i].T @ g, g.sum(axis=0)]
            g = (g @ parameters[2 * i].T) * (values[i] > 0)
        for i, g in enumerate(gradients):
            m[i] = beta1 * m[i] + (1 - beta1) * g
            v[i] = beta2 * v[i] + (1 - beta2) * g * g
            rate = workloads.LEARNING_RATE / (1 - beta1**t)
            parameters[i] = parameters[i] - rate * m[i] / (xp.sqrt(v[i] / (1 - beta2**t)) + workloads.EPSILON)
    return losses


def check(answer: dict, expected: list[float], precision: str) -> str | None:
    """What is wrong with the first losses of a peer, or None."""
    errors = [abs(a - b) / abs(b) if np.isfinite(a) else float("inf") for a, b in zip(answer["losses"], expected)]
    return None if max(errors) <= TOLERANCES[precision] else f"losses differ by {max(errors):.1e}"


def rows(start, lacking: dict[str, str], deadline: Deadline):
    """Two rows for each network, of seconds and of device bytes; one that says so where the time does not suffice.

    Args:
        start: ``start(entry) -> bench.gpu.worker.Process``, which begins at its first request.
        lacking: peer -> why it takes no part.
    """
    asked = [entry for entry in PEERS if entry.name not in lacking]
    for network, precision in WORKLOADS:
        title = f"{network}, batch {network.batch}, {precision}"
        if deadline.left() < NEEDED:
            yield row("training", title, "s", {"tinynet": {"state": "left out: the time was used up"}})
            continue
        try:
            expected = _expected(network, start, deadline)
        except PeerError as error:
            yield row("training", title, "s", {"tinynet": {"state": f"failed: no reference: {error}"}})
            continue
        processes = [start(entry) for entry in asked]
        try:
            _get_ready(processes, deadline)
            judge = functools.partial(check, expected=expected, precision=precision)
            request = {"op": "training", "network": str(network), "precision": precision}
            runners = [Runner(e.name, process, request, judge) for e, process in zip(asked, processes)]
            pace = Pace(0.15, 9, max(2.0, deadline.left() / 40), timeout=max(5.0, deadline.left() / 4), repeats=1)
            answers = _remembered(runners)
            # one after another: kernels are chosen by measurement while a step is prepared
            interleave(runners, pace, together=False)
        finally:
            for process in processes:
                process.close()
        found = [(r.name, "", r.samples, r.state) for r in runners]
        yield row("training", title, "s", cells(found), targets=TARGETS.get(str(network), ()))
        sizes = [(name, "", {0: answer["memory"]}, None) for name, answer in answers.items()]
        notes = [f"planned {answers['tinynet']['planned']:,} bytes of it"] if "tinynet" in answers else []
        yield row("device memory", title, "bytes", cells(sizes), note="; ".join(notes))


def _expected(network: workloads.Network, start, deadline: Deadline) -> list[float]:
    """The first losses in float64; those of the large network on the device, in a process that leaves it again."""
    if not is_large(network):
        return workloads.reference_losses(network)
    device = start(DEVICE)
    try:
        return device.ask("reference", deadline.left(), network=str(network), steps=steps_of(network))["losses"]
    finally:
        device.close()


def _get_ready(processes: list, deadline: Deadline) -> None:
    """All import what they need, at the same time; who cannot, says so again when it is asked for more."""
    for process in processes:
        process.send("ready")
    for process in processes:
        with contextlib.suppress(PeerError):
            process.receive(max(5.0, deadline.left() / 2))


def _remembered(runners: list[Runner]) -> dict[str, dict]:
    """Peer -> its answer, of those whose losses are right, once they have been checked."""
    answers: dict[str, dict] = {}
    for runner in runners:
        judge = runner.check

        def keep(answer, name=runner.name, judge=judge):
            wrong = judge(answer)
            if wrong is None:
                answers[name] = answer
            return wrong

        runner.check = keep
    return answers
