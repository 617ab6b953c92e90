"""What a peer is asked to do. Every peer of the table is a class with these methods, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..workloads import Network


class Unsupported(Exception):
    """What a peer, or this system, cannot do; the table shows it as not taking part."""


class Peer:
    """A framework at its best setting.

    threads: as many as there are cores to run on. variant: one of the entry's. executor: for tinynet alone.
    What a peer does not have a method of its own for, or not for these arguments, is ``Unsupported``.
    """

    def __init__(self, threads: int, variant: str = "", executor: str | None = None):
        self.threads, self.variant, self.executor = threads, variant, executor

    def version(self) -> str:
        raise Unsupported

    def model(self, network: Network, weights: list[np.ndarray]) -> Any:
        """The network with these first weights, copied, and nothing that only training needs."""
        raise Unsupported

    def batch(self, x: np.ndarray, y: np.ndarray) -> Any:
        """A batch as the step takes it."""
        raise Unsupported

    def training(self, model: Any) -> Callable[[Any], Any]:
        """A step: takes a batch, changes the model by one step of Adam, gives the loss before it in any form."""
        raise Unsupported

    def value(self, loss: Any) -> float:
        """What a step has returned, as a number; waits until the step is done."""
        return float(loss)

    def inference(self, model: Any, batch: int) -> Callable[[np.ndarray], np.ndarray]:
        """The forward pass of the model as it is now, from an array on the host to an array on the host."""
        raise Unsupported

    def expected(self, outputs: np.ndarray, network: Network) -> np.ndarray:
        """What inference must give, where the network gives ``outputs``."""
        return outputs

    def elementwise(self, kind: str, arrays: list[np.ndarray]) -> tuple[Callable[[], Any], Callable[[], np.ndarray]]:
        """ "chain": x sigmoid(x) + y; "adam": an update. (What does it and returns something to wait for, what reads
        the first thousand elements of the result.)"""
        raise Unsupported

    def wait(self, result: Any) -> None:
        """Until the work behind a result of ``elementwise`` is done."""

    def plan(self, network: Network) -> dict[str, int]:
        """What the peer itself says that a step takes beyond parameters, by name; empty where it says nothing."""
        return {}
