"""Calls that follow each other, as one launch: a CUDA graph, captured when they are first made.

Launches and products by cuBLAS can be captured: they take no memory, and the addresses that they were bound to stay. A
kernel of CuPy's may take memory for as long as it runs, which a graph would go on using; it stays a call of its own.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable

from . import blas, launch
from .device import Device, GraphError, get

_last_multiplied: dict[int, object] = {}  # of a device: the stream on which cuBLAS's workspace was last used
_multiplying = threading.Lock()


class Graph:
    """Calls as one.

    Where a graph cannot be captured, the same calls are made one by one on the stream.

    Attributes:
        calls: as given.
        note: what became of them, for who asks; empty before the first call.
    """

    def __init__(self, calls: Iterable[tuple[Callable, tuple]]):
        self.calls = tuple(calls)
        self.note = ""
        self._launch: Callable[[], None] | None = None
        self._device: Device | None = None

    def __call__(self) -> None:
        if self._launch is None or self._device is not get():
            self._capture(get())
        self._launch()

    def _capture(self, device: Device) -> None:
        for function, arguments in self.calls:
            if function is launch.run:
                device.load(arguments[0])  # a capture must not wait for a compiler
        count = f"{len(self.calls):,} launch{'es' if len(self.calls) > 1 else ''}"
        multiplies = any(isinstance(function, blas.Call) for function, _ in self.calls)
        try:
            with _multiplying if multiplies else contextlib.nullcontext():  # cuBLAS's handle is on one stream at a time
                made = device.capture(self.calls)
            self.note = f"{count} as one CUDA graph"
        except GraphError as error:
            made = self._one_by_one
            self.note = f"{count} on a stream, since no graph could be captured ({error})"
        self._launch, self._device = (_in_turn(made) if multiplies else made), device

    def _one_by_one(self) -> None:
        for function, arguments in self.calls:
            function(*arguments)


def _in_turn(made: Callable[[], None]) -> Callable[[], None]:
    """The same, after whatever used cuBLAS's workspace on another stream: all of a device share one."""

    def call() -> None:
        device = get()
        stream, key = device.current(), device.number()
        with _multiplying:
            if _last_multiplied.setdefault(key, stream) != stream:
                device.drain()
                _last_multiplied[key] = stream
            made()

    return call


def link(calls: Iterable[tuple[Callable, tuple]]) -> tuple[list[tuple[Callable, tuple]], bool]:
    """The same calls, those that follow each other and can be captured made one; and whether all of them can."""
    linked: list[tuple[Callable, tuple]] = []
    waiting: list[tuple[Callable, tuple]] = []
    captured = True

    def close() -> None:
        if waiting:
            linked.append((Graph(waiting), ()))
            waiting.clear()

    for call in calls:
        if call[0] is launch.run or isinstance(call[0], blas.Call):
            waiting.append(call)
        else:
            close()
            linked.append(call)
            captured = False
    close()
    return linked, captured
