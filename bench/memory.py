"""What a training step takes beyond parameters: the growth of the resident set of a peer's own process."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import pathlib

from . import workloads
from .peers.base import Unsupported

STATUS, RESET = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")


def resident() -> dict[str, int]:
    """VmRSS and VmHWM, the largest it has been, in bytes."""
    lines = (line.split() for line in STATUS.read_text().splitlines() if line.startswith(("VmRSS", "VmHWM")))
    return {name.rstrip(":"): int(value) * 1024 for name, value, *_ in lines}


def give_back() -> None:
    """Has the allocator return what is free: memory that a model's making has left would else be used again, and what
    takes it would not count."""
    with contextlib.suppress(OSError, AttributeError):  # a C library that has no such function
        ctypes.CDLL(None).malloc_trim(0)


def growth(peer, network: workloads.Network) -> dict:
    """Bytes from the model alone to the peak of the steps: with the first ones, and of those after them alone.

    A small network is trained before, so that libraries, kernels and pools of threads are there already. Moments count
    as growth, parameters and the batch do not.
    """
    try:
        RESET.write_text("5")  # VmHWM begins anew
    except OSError:
        raise Unsupported("this system does not count the peak of a process") from None
    small = workloads.NETWORKS[1]
    step = peer.training(peer.model(small, workloads.weights(small)))
    for _ in range(4):
        peer.value(step(peer.batch(*workloads.batches(small, 1)[0])))
    del step
    gc.collect()
    model = peer.model(network, workloads.weights(network))
    batch = peer.batch(*workloads.batches(network, 1)[0])
    gc.collect()
    give_back()
    RESET.write_text("5")
    before = resident()["VmRSS"]
    step = peer.training(model)
    losses = [peer.value(step(batch)) for _ in range(4)]
    first = resident()["VmHWM"] - before
    RESET.write_text("5")
    losses += [peer.value(step(batch)) for _ in range(4)]
    steady = resident()["VmHWM"] - before
    return {"first": first, "steady": steady, "plan": peer.plan(network), "losses": losses}
