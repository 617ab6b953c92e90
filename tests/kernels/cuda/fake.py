"""A GPU that is not there: a device that records what it is asked for and does it late, and a backend of its memory.

The device has streams, events and graphs, as one by CUDA has. Work that is put on a stream is done when somebody waits
for it, streams in whichever order their events allow: a dependency that is missing shows itself in wrong numbers.
Launches run in the harness, on the very arrays whose addresses they hold. Its memory is NumPy's, under another class,
and none is given to anybody else: a pool, too, gives memory away only for what comes later on its stream.
"""

from __future__ import annotations

import contextlib
import ctypes
import random
from typing import NamedTuple

import harness
import numpy as np

from tinynet.backend.arrays import NumPyBackend, _Block
from tinynet.kernels.cuda import device
from tinynet.kernels.cuda.device import Device, GraphError
from tinynet.kernels.cuda.encoding import address


class DeviceArray(np.ndarray):
    """An array in the memory of the device. Assignment is NumPy's, at once: so it waits."""

    def __setitem__(self, index, value):
        if isinstance(device.get(), FakeDevice):
            device.get().finish()
        super().__setitem__(index, value)


class Record(NamedTuple):
    """What was put on a stream: "launch", "graph", "copy", "upload", "record", "wait"; and of what."""

    kind: str
    stream: int
    what: tuple


class Stream:
    def __init__(self, device: FakeDevice, number: int):
        self.device, self.number, self.queue = device, number, []

    def __enter__(self):
        self.device.streams_in_use.append(self)

    def __exit__(self, *_):
        self.device.streams_in_use.pop()


class Event:
    def __init__(self, number: int):
        self.number, self.recorded, self.reached = number, 0, 0


class FakeDevice(Device):
    """See the module.

    Args:
        order: which streams go first, where events allow: "first" or "last" the one that was made first, or a seed;
            with "now" nothing is late. Only so kernels of CuPy may be among the calls, whose place NumPy's take here.
        graphs: whether it can capture.

    Attributes:
        records: all that was put on streams, in the order of the calls.
        loaded: the kernels that were loaded before their launch.
        drained: how often somebody waited for everything.
        waited: how often somebody waited for an event that was not reached yet.
    """

    def __init__(self, order="first", graphs=True):
        self.streams: list[Stream] = []
        self.streams_in_use = [self.stream()]
        self.records: list[Record] = []
        self.loaded: list[str] = []
        self.drained = self.waited = self._events = 0
        self._held: list[np.ndarray] = []
        self._capturing: tuple[Stream, list] | None = None
        self._can_capture, self._order = graphs, order
        self._random = random.Random(order)

    def obstacle(self):
        return None

    def number(self):
        return 0

    # ---- work ----

    def load(self, found):
        self.loaded.append(found.function)

    def launch(self, found):
        assert found.function in self.loaded, "a capture would have to compile"
        if self._capturing is not None:
            assert self.current() is self._capturing[0]
            self._capturing[1].append(found)
        else:
            self._put("launch", self.current(), (found,), lambda: self._run((found,)))

    def copy(self, to, source, nbytes):
        self._put("copy", self.current(), (to, source, nbytes), lambda: ctypes.memmove(to, source, nbytes))

    def upload(self, to, source, stream):
        assert type(source) is np.ndarray and source.flags.c_contiguous
        at, nbytes = source.ctypes.data, source.nbytes
        self._put("upload", stream, (to, at, nbytes), lambda: ctypes.memmove(to, at, nbytes))

    def _put(self, kind, stream, what, work):
        assert self._capturing is None, f"{kind} within a capture"
        self.records.append(Record(kind, stream.number, what))
        stream.queue.append(work)
        if self._order == "now":
            self.finish()

    def _run(self, launches):
        for each in launches:
            harness.run([each], orders=("forward",), races=False)

    # ---- graphs ----

    def capture(self, calls):
        if not self._can_capture:
            raise GraphError("this device has none")
        stream, found = self.stream(), []
        with stream:
            self._capturing = stream, found
            try:
                for function, arguments in calls:
                    function(*arguments)
            finally:
                self._capturing = None
        launches = tuple(found)
        return lambda: self._put("graph", self.current(), launches, lambda: self._run(launches))

    # ---- order ----

    def current(self):
        return self.streams_in_use[-1]

    def stream(self):
        self.streams.append(Stream(self, len(self.streams)))
        return self.streams[-1]

    def event(self):
        self._events += 1
        return Event(self._events)

    def record(self, event, stream):
        event.recorded += 1
        count = event.recorded
        self._put("record", stream, (event.number,), lambda: setattr(event, "reached", count))

    def wait(self, stream, event):
        count = event.recorded
        work = lambda: None if event.reached >= count else self.WAITING
        self._put("wait", stream, (event.number,), work)

    WAITING = object()

    def reach(self, event):
        count = event.recorded
        self.waited += event.reached < count
        self._until(lambda: event.reached >= count)

    def drain(self):
        self.drained += 1
        self._until(lambda: not any(stream.queue for stream in self.streams))

    def finish(self):
        """What a copy to the host waits for."""
        self._until(lambda: not any(stream.queue for stream in self.streams))

    def hold(self, array):
        """An array, which lives as long as the device."""
        array = array.view(DeviceArray)
        self._held.append(array)
        return array

    def _until(self, reached):
        while not reached():
            streams = [stream for stream in self.streams if stream.queue]
            if self._order == "last":
                streams.reverse()
            elif self._order != "first":
                self._random.shuffle(streams)
            for stream in streams:
                if stream.queue[0]() is not self.WAITING:
                    stream.queue.pop(0)
                    break
            else:
                raise AssertionError("all streams wait for events that nobody will record")

    # ---- memory ----

    def is_host(self, array):
        return not isinstance(array, DeviceArray)

    def pinned(self, shape, dtype):
        return np.full(shape, 77, dtype)


class FakeGPU(NumPyBackend):
    """NumPy's arrays as if they were in the memory of a device. Eager kernels are NumPy's, at once: so they wait."""

    target = "cupy"
    feeds = True
    alignment = 256

    def __init__(self, device):
        super().__init__()
        self.name, self.fake = "fake gpu", device
        self.blocks: list[int] = []

    def owns(self, array):
        return isinstance(array, DeviceArray)

    def empty(self, shape, dtype):
        self.fake.finish()
        return self.fake.hold(super().empty(shape, dtype))

    def zeros(self, shape, dtype):
        return self.fake.hold(super().zeros(shape, dtype))

    def from_host(self, array):
        return super().from_host(np.asarray(array))

    def to_host(self, array):
        self.fake.finish()
        return np.array(array, subok=False)

    def copy(self, array):
        self.fake.finish()
        return self.fake.hold(super().copy(array))

    def copier(self, array):
        if not array.flags.c_contiguous:
            return lambda: self.copy(array)

        def later():
            copy = self.fake.hold(np.empty(array.shape, array.dtype))
            if array.size:
                self.fake.copy(address(copy), address(array), array.nbytes)
            return copy

        return later

    def block(self, nbytes):
        self.blocks.append(nbytes)
        block = super().block(nbytes)
        self.fake.hold(block)
        return block

    def carve(self, block, offset, shape, dtype):
        return DeviceArray(shape, dtype, block, offset)

    def owner(self, array):
        while isinstance(array.base, np.ndarray) and not isinstance(array.base, _Block):
            array = array.base
        return array

    def expressions(self, array, name):
        return f"{array}.flags.c_contiguous", f"{name(self.owner)}({array})"

    def quiet(self):  # in which kernels of NumPy are run
        self.fake.finish()
        return super().quiet()

    def synchronize(self):
        self.fake.finish()


@contextlib.contextmanager
def gpu(order="first", graphs=True):
    """A fake device and its backend in force: gives both."""
    import tinynet as tn

    fake = FakeDevice(order, graphs)
    backend = FakeGPU(fake)
    tn.register_backend("fake gpu", lambda: backend)
    with device.using(fake), tn.use_backend("fake gpu"):
        yield fake, backend
