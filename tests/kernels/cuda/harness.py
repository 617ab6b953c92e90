"""Runs the kernels for CUDA on a processor: what encoders make of NumPy arrays, by the very sources that a GPU gets.

    harness.run(launches)       runs launches whose addresses are those of NumPy arrays, which then hold the results
    harness.prepare(files)      builds several files into one executable, where each alone would be many small builds

A source is built with g++ (``harness.hpp``, and the machine ``harness.cpp``) into an executable, kept by the digest of
everything that goes into it, and serves launches from then on. Faults are errors that name the kernel, the block and
the thread: what is out of bounds by a byte, at either end; memory of the block that nobody has written, barriers that
not all threads reach, and what one thread writes and another reads without a barrier between. Each launch is run with
the threads in several orders besides: a result that depends on it is an error.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import importlib
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

HERE = Path(__file__).parent
ORDERS = ("forward", "reverse", "shuffled")
COMPILER = "g++"
COMMON = ("-std=c++20", "-g", "-fno-pie", f"-I{HERE}")
# What is instrumented is the kernels alone; the machine is a file of its own.
KERNELS = (
    "-O1", "-fsanitize=thread,undefined", "-fno-sanitize-recover=all", "-fno-strict-aliasing", "-ffp-contract=off",
    "--param=tsan-instrument-func-entry-exit=0", "-DTINYNET_HARNESS", "-Wall", "-Wextra", "-Wno-unknown-pragmas",
    "-Wno-unused-parameter", "-Wno-tsan",
)  # fmt: skip
MACHINE = ("-O2", "-Wall", "-Wextra")

_launch = importlib.import_module("tinynet.kernels.cuda.launch")
Launch = _launch.Launch


class HarnessError(AssertionError):
    """A fault of a kernel, or of a launch."""


def available() -> bool:
    return shutil.which(COMPILER) is not None


# ---- building ----


def _cache() -> Path:
    folder = os.environ.get("TINYNET_HARNESS_CACHE")
    path = Path(folder) if folder else Path(tempfile.gettempdir()) / f"tinynet-harness-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise HarnessError(f"{path} belongs to somebody else: set TINYNET_HARNESS_CACHE")
    return path


def _built(suffix: str, digest_of: list, make) -> Path:
    """The file that ``make(path)`` makes, made once for what it is made of."""
    digest = hashlib.sha256("\0".join(map(str, digest_of)).encode()).hexdigest()[:24]
    path = _cache() / (digest + suffix)
    with open(_cache() / (digest + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=_cache()) as folder:
                made = Path(folder) / "made"
                make(made)
                made.replace(path)
    return path


def _compile(*arguments) -> None:
    done = subprocess.run([COMPILER, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise HarnessError(f"{COMPILER} refuses:\n{done.stderr[:8000]}")
    if done.stderr:
        raise HarnessError(f"{COMPILER} warns:\n{done.stderr[:8000]}")


def _machine() -> Path:
    source = HERE / "harness.cpp"
    parts = [path.read_text() for path in (*sorted(HERE.glob("harness*.hpp")), source)]
    make = lambda path: _compile(*COMMON, *MACHINE, "-c", source, "-o", path)
    return _built(".o", [COMMON, MACHINE, *parts], make)


def build(source: str) -> Path:
    """The executable that serves the kernels of a source."""
    machine = _machine()

    def make(path: Path) -> None:
        file, compiled = path.with_suffix(".cu"), path.with_suffix(".o")
        file.write_text(source)
        _compile(*COMMON, *KERNELS, "-x", "c++", "-c", file, "-o", compiled)
        _compile("-no-pie", "-fsanitize=undefined", compiled, machine, "-o", path)

    return _built("", [COMMON, KERNELS, machine.name, source], make)


_together: dict[str, tuple[str, ...]] = {}  # file -> the files that it is built with
_processes: dict[tuple[str, ...], _Process] = {}


def prepare(files) -> None:
    """Builds these files (names as in ``Launch.file``) into one executable. Their kernels need different names."""
    files = tuple(dict.fromkeys(files))
    for file in files:
        _together[file] = files


def _process(file: str) -> _Process:
    files = _together.get(file, (file,))
    if files not in _processes:
        source = "\n".join(_launch.source(each) for each in files)
        _processes[files] = _Process(build(source), " ".join(files))
    return _processes[files]


# ---- serving ----


class _Process:
    """An executable and its requests; started when there is one, and again after a fault."""

    def __init__(self, executable: Path, name: str):
        self.executable, self.name, self._running = executable, name, None

    def _start(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._running = subprocess.Popen(
            [self.executable], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )
        words = self.ask("kernels").split()
        self.types = dict(zip(words[0::2], words[1::2]))

    def begin(self) -> None:
        if self._running is None:
            self._start()

    def send(self, line: str, *data: bytes) -> None:
        try:
            self._running.stdin.write(line.encode() + b"\n" + b"".join(data))
        except BrokenPipeError:
            self._fault()

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # then reading sees the end
            self._running.stdin.flush()

    def ask(self, line: str) -> str:
        self.send(line)
        self.flush()
        answer = self._running.stdout.readline()
        if not answer.endswith(b"\n"):
            self._fault()
        return answer.decode()

    def read(self, identity: int, nbytes: int) -> bytes:
        self.send(f"read {identity}")
        self.flush()
        found = self._running.stdout.read(nbytes)
        if len(found) < nbytes:
            self._fault()
        return found

    def _fault(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._running.stdin.close()
        self._running.stdout.close()
        self._running.wait()
        self._running = None
        with self._errors as errors:
            errors.seek(0)
            text = errors.read().decode(errors="replace")
        raise HarnessError(f"{self.name}: {text.strip()}{self._place(text)}") from None

    def _place(self, text: str) -> str:
        """The line of the source of a faulty access, where there is what tells it."""
        last = text.strip().rsplit("\n", 1)[-1]
        if not last.startswith("at 0x") or shutil.which("addr2line") is None:
            return ""
        command = ["addr2line", "-i", "-s", "-e", self.executable, hex(int(last[3:], 16) - 1)]
        lines = subprocess.run(command, capture_output=True, text=True).stdout.split("\n")
        return " = " + " in ".join(line.split(" (")[0] for line in lines if line)


# ---- arrays ----


class _Span(NamedTuple):
    """Memory that is one buffer: of arrays that overlap."""

    low: int
    high: int
    rights: bytearray
    name: str


def _spans(launches) -> list[_Span]:
    arrays: dict[tuple, np.ndarray] = {}
    for launch in launches:
        for each in launch.keep:
            arrays.setdefault((each.ctypes.data, each.shape, each.strides, each.dtype.str), each)
    found = []
    named = [(np.lib.array_utils.byte_bounds(each), each, i) for i, each in enumerate(arrays.values()) if each.size]
    for (low, high), array, i in sorted(named, key=lambda each: each[0]):
        name = f"array {i} of keep, {array.dtype}{list(array.shape)}"
        if found and low < found[-1].high:
            last = found.pop()
            last.rights.extend(bytes(max(0, high - last.high)))
            span = _Span(last.low, max(high, last.high), last.rights, f"{last.name} and {name}")
        else:
            span = _Span(low, high, bytearray(high - low), name)
        found.append(span)
        rights = np.frombuffer(span.rights, np.uint8)
        shape, strides = (*array.shape, array.itemsize), (*array.strides, 1)
        at = array.ctypes.data - span.low
        held = np.ndarray(shape, np.uint8, rights, at, strides)
        held |= np.uint8(3 if array.flags.writeable else 1)
        del held, rights  # which would keep the bytes from growing
    return found


_FORMATS = {"i": "<i4x", "I": "<I4x", "q": "<q", "Q": "<Q", "f": "<f4x", "d": "<d"}
_DTYPES = {"i": "int32", "I": "uint32", "q": "int64", "Q": "uint64", "f": "float32", "d": "float64", "p": "uint64"}


def _words(launch: Launch, types: str, spans: list[_Span]) -> str:
    """The arguments as the process reads them: pairs of a buffer, or -1, and a number."""
    if len(types) != len(launch.arguments):
        raise HarnessError(f"{launch.function}: expected {len(types)} arguments ({types}), got {len(launch.arguments)}")
    words = []
    for i, (code, value) in enumerate(zip(types, launch.arguments)):
        if str(getattr(value, "dtype", type(value))) != _DTYPES[code]:
            raise HarnessError(
                f"{launch.function}: expected a NumPy scalar of {_DTYPES[code]} as argument {i}, got {value!r}"
            )
        if code == "p":
            at = int(value)
            inside = [k for k, span in enumerate(spans) if span.low <= at < span.high]
            if not inside and at and all(each.size for each in launch.keep):
                raise HarnessError(f"{launch.function}: argument {i} is the address of no array in keep")
            words += [inside[0], at - spans[inside[0]].low] if inside else [-1, 0]
        else:
            words += [-1, struct.unpack("<Q", struct.pack(_FORMATS[code], value))[0]]
    return " ".join(map(str, words))


def launches_of(calls) -> list[Launch]:
    """The launches of what a kernel's ``bind`` gives; an error where a call is anything else."""
    found = []
    for each in calls:
        if not isinstance(each, Launch):
            function, arguments = each
            if function is not _launch.run:
                raise HarnessError(f"expected launches only, got a call of {function}")
            (each,) = arguments
        found.append(each)
    return found


def run(calls, orders=ORDERS, races: bool = True) -> None:
    """Runs launches, or what a kernel's ``bind`` gives, on the NumPy arrays whose addresses they hold.

    Args:
        orders: in which the threads of a block, and the blocks, take their turns. The results have to be the same.
        races: whether what a thread touches is compared with what others have touched since the last barrier.

    Raises:
        HarnessError: a fault.
    """
    launches = launches_of(calls)
    if not launches:
        return
    spans = _spans(launches)
    before = [ctypes.string_at(span.low, span.high - span.low) for span in spans]
    after, digests = before, None
    for seed, order in enumerate(orders):
        contents, found = before, []
        for launch in launches:
            contents, digest = _run_one(launch, spans, contents, order, seed, races)
            found.append(digest)
        if digests is None:
            after, digests = contents, found
        for launch, one, other in zip(launches, digests, found):
            if one != other:
                raise HarnessError(
                    f"fault: a barrier is missing: the result depends on the order of the threads ({orders[0]}, "
                    f"{order}): {_difference(spans, after, contents)}\nin kernel {launch.function}"
                )
    for span, content in zip(spans, after):
        ctypes.memmove(span.low, content, len(content))


def _run_one(launch: Launch, spans, contents: list[bytes], order: str, seed: int, races: bool):
    """The contents of all spans after one launch, and their digest."""
    process = _process(launch.file)
    process.begin()
    if launch.function not in process.types:
        raise HarnessError(f"{launch.file}.cu has no kernel {launch.function}; it has {', '.join(process.types)}")
    words = _words(launch, process.types[launch.function], spans)
    process.send("clear")
    for i, (span, content) in enumerate(zip(spans, contents)):
        process.send(f"buffer {i} {len(content)} {span.low % 256} {span.name}", content, bytes(span.rights))
    sizes = " ".join(map(str, (*launch.grid, *launch.block)))
    request = f"launch {launch.function} {sizes} {launch.shared} {order} {seed} {int(races)}\n{words}"
    digest = process.ask(request)
    return [process.read(i, len(content)) for i, content in enumerate(contents)], digest


def _difference(spans, one: list[bytes], other: list[bytes]) -> str:
    for span, a, b in zip(spans, one, other):
        differing = np.flatnonzero(np.frombuffer(a, np.uint8) != np.frombuffer(b, np.uint8))
        if differing.size:
            return f"{differing.size} bytes of {span.name}, the first is byte {differing[0]}"
    return "in between"
