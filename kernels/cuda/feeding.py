"""How the arguments of a call get into the slots of a program on a GPU.

What comes from the host goes through pinned memory, and a copy stream, to a staging area on the device, while the step
before is still running; the program's own stream then moves it to the slots, which the step before uses for other
things towards its end. Two areas of pinned memory take turns, so that the host can prepare a call while the last one is
on its way. Nothing waits for the device, except for the transfer of two calls ago.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import numpy as np

from .device import Device, get
from .encoding import address

TURNS = 2
_left: list[tuple] = []  # device, events and pinned memory of feeds that are gone: a pool would give it away at once


class Feed:
    """Fills the slots of one program, again and again.

    Args:
        slots: arrays on the device, in C order.
        staging: for each slot as many bytes on the device, which are used for nothing else by what comes later on the
            stream that is current at the first call.
    """

    def __init__(self, slots: Sequence[object], staging: Sequence[object]):
        self._slots = [(slot, address(slot), slot.size * slot.dtype.itemsize) for slot in slots]
        self._staging = [address(each) for each in staging]
        self._keep = tuple(staging)
        self._device: Device | None = None

    def __call__(self, *arrays) -> None:
        """Puts an array into each slot, of its shape and dtype, from the host or the device, on the current stream."""
        device = get()
        if device is not self._device:
            self._begin(device)
        stream = device.current()
        if stream != self._stream:  # slots and staging are those of the calls on another one
            device.drain()
            self._stream = stream
        hosts = []
        for i, (array, (slot, at, nbytes)) in enumerate(zip(arrays, self._slots)):
            if device.is_host(array):
                hosts.append(i)
            elif array.flags.c_contiguous and nbytes:
                device.copy(at, address(array), nbytes)
            else:
                slot[...] = array
        if hosts:
            self._send(device, stream, [(i, arrays[i]) for i in hosts if self._slots[i][2]])

    def _begin(self, device: Device) -> None:
        while _left:
            where, events, _ = _left.pop()
            for event in events:
                where.reach(event)
        self._device, self._stream, self._copies = device, device.current(), device.stream()
        self._rooms: list[list[np.ndarray | None]] = [[None] * len(self._slots) for _ in range(TURNS)]
        self._sent = [device.event() for _ in range(TURNS)]
        self._taken, self._turn = device.event(), 0
        device.record(self._taken, self._stream)  # who had the memory of the staging area before may still use it there
        weakref.finalize(self, _left.append, (device, self._sent, self._rooms)).atexit = False

    def _send(self, device: Device, stream, hosts: list[tuple[int, np.ndarray]]) -> None:
        rooms, sent = self._rooms[self._turn], self._sent[self._turn]
        self._turn = (self._turn + 1) % TURNS
        device.reach(sent)
        device.wait(self._copies, self._taken)
        for i, array in hosts:
            if rooms[i] is None:
                slot = self._slots[i][0]
                rooms[i] = device.pinned(slot.shape, np.dtype(slot.dtype))
            rooms[i][...] = array
            device.upload(self._staging[i], rooms[i], self._copies)
        device.record(sent, self._copies)
        device.wait(stream, sent)
        for i, _ in hosts:
            _, at, nbytes = self._slots[i]
            device.copy(at, self._staging[i], nbytes)
        device.record(self._taken, stream)
