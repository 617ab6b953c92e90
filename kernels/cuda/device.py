"""What launches, graphs and transfers ask of a GPU: streams, events, memory, one interface, and the one through CuPy.

All of it is asynchronous: work is put on a stream, and done in its order there. Nothing here knows what is computed,
so the interface can be stood in for by one that records what is asked of it (``using``).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import threading
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from . import launch

capturing = threading.Lock()  # held while a stream is captured: CUDA forbids to wait for a device then


class GraphError(RuntimeError):
    """The device, or its driver, cannot capture these calls."""


class Device:
    """A GPU by way of CuPy: the device that is current in a thread, and the stream that is current there.

    Streams and events are CuPy's own objects.
    """

    @property
    def _cupy(self):
        import cupy

        return cupy

    def obstacle(self) -> str | None:
        """Why there is none; None where there may be one."""
        return "cupy is not installed" if importlib.util.find_spec("cupy") is None else None

    # ---- work ----

    def load(self, found: launch.Launch) -> None:
        """Compiles and loads a kernel, so that launching it later allocates and waits for nothing."""
        self._function(found).num_regs  # noqa: B018 - asking for it makes the driver load the kernel now

    def launch(self, found: launch.Launch) -> None:
        """A launch, on the current stream."""
        self._function(found)(found.grid, found.block, found.arguments, shared_mem=found.shared)

    def copy(self, to: int, source: int, nbytes: int) -> None:
        """Bytes from one address on the device to another, on the current stream."""
        runtime = self._cupy.cuda.runtime
        runtime.memcpyAsync(to, source, nbytes, runtime.memcpyDeviceToDevice, self.current().ptr)

    def upload(self, to: int, source: np.ndarray, stream) -> None:
        """What ``pinned`` gave to an address on the device, on a stream. It has to stay as it is until that is done."""
        runtime = self._cupy.cuda.runtime
        runtime.memcpyAsync(to, source.ctypes.data, source.nbytes, runtime.memcpyHostToDevice, stream.ptr)

    def _function(self, found: launch.Launch):
        return _function(found.file, found.function, found.shared, self._cupy.cuda.runtime.getDevice())

    # ---- graphs ----

    def capture(self, calls: Iterable[tuple[Callable, tuple]]) -> Callable[[], None]:
        """Calls that launch as one: a function that puts them all on the stream that is current then.

        Raises:
            GraphError: it cannot be done here; nothing has been put on any stream then.
        """
        stream, failure, graph = self.stream(), None, None
        with capturing, stream:
            try:
                stream.begin_capture()
            except Exception as error:
                raise GraphError(f"{type(error).__name__}: {error}") from error
            try:
                for function, arguments in calls:
                    function(*arguments)
            except BaseException as error:  # Ctrl-C too: the capture has to be ended in any case
                failure = error
            try:
                graph = stream.end_capture()
                graph.upload(stream)
            except Exception as error:
                failure = failure or error
        if failure is not None and not isinstance(failure, Exception):
            raise failure
        if failure is not None:
            raise GraphError(f"{type(failure).__name__}: {failure}") from failure
        return graph.launch

    # ---- order ----

    def number(self) -> int:
        """Of the current device."""
        return self._cupy.cuda.runtime.getDevice()

    def current(self):
        """The current stream."""
        return self._cupy.cuda.get_current_stream()

    def stream(self):
        """A new stream, which waits for no other."""
        return self._cupy.cuda.Stream(non_blocking=True)

    def event(self):
        """A new event, which counts as reached until it is recorded."""
        return self._cupy.cuda.Event(disable_timing=True)

    def record(self, event, stream) -> None:
        """The event is reached when the stream has done all that is on it by now."""
        event.record(stream)

    def wait(self, stream, event) -> None:
        """What is put on the stream from now on comes after the event, as it was last recorded."""
        stream.wait_event(event)

    def reach(self, event) -> None:
        """Returns when the event is reached."""
        event.synchronize()

    def drain(self) -> None:
        """Returns when the device has done everything."""
        with capturing:
            self._cupy.cuda.runtime.deviceSynchronize()

    # ---- memory ----

    def is_host(self, array) -> bool:
        """Whether an array is in the memory of the host."""
        return isinstance(array, (np.ndarray, np.generic))

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """A host array that a device can read by itself."""
        count = int(np.prod(shape))
        memory = self._cupy.cuda.alloc_pinned_memory(max(1, count * dtype.itemsize))
        return np.frombuffer(memory, dtype, count).reshape(shape)


@functools.cache
def _module(file: str):
    import cupy

    return cupy.RawModule(code=launch.source(file), options=launch.NVRTC_OPTIONS)


@functools.cache
def _function(file: str, function: str, shared: int, device: int):
    found = _module(file).get_function(function)
    if shared > launch.STATIC_SHARED:
        found.max_dynamic_shared_size_bytes = shared
    return found


_devices = [Device()]


def get() -> Device:
    """The one in force."""
    return _devices[-1]


@contextlib.contextmanager
def using(device: Device) -> Iterator[None]:
    """Puts another one in the place of CuPy's, for the block, in all threads."""
    _devices.append(device)
    try:
        yield
    finally:
        _devices.remove(device)
