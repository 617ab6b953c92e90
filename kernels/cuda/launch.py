"""A launch, which is one call of a kernel on a device, as data; and the sources of kernels."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

CODE = Path(__file__).parent / "code"
_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)
OPTIONS = ("--std=c++17",)
# For the compiler that CuPy calls, which until CUDA 13 takes lambdas for functions of the host.
NVRTC_OPTIONS = (*OPTIONS, "--device-as-default-execution-space")
STATIC_SHARED = 48 * 1024  # bytes of shared memory, beyond which a kernel has to ask for them


class Launch(NamedTuple):
    """One call of a kernel.

    Attributes:
        file: ``code/FILE.cu``, or what ``keep_source`` gave for a source that is made.
        function: its name there.
        grid, block: blocks, and threads of each.
        arguments: NumPy scalars: uint64 for a pointer, int64, int32, float32, float64.
        shared: bytes of dynamic shared memory.
        keep: the arrays whose addresses are among the arguments, which have to live as long.
        note: why it is this one, for who asks.
    """

    file: str
    function: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    arguments: tuple
    shared: int = 0
    keep: tuple = ()
    note: str = ""


_made: dict[str, str] = {}


def keep_source(text: str) -> str:
    """Keeps a source that was made, and gives the name by which launches call it."""
    import hashlib  # a millisecond that only those pay who make sources

    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    _made[name] = text
    return name


@functools.cache
def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def source(file: str) -> str:
    """The text of a source, with the headers in it; compilers tell its lines as they are in the file."""
    return _whole(_made[file] if file in _made else _read(CODE / f"{file}.cu"), f"{file}.cu")


def _whole(text: str, name: str) -> str:
    def header(found: re.Match) -> str:
        following = text.count("\n", 0, found.start()) + 2
        return f'{_whole(_read(CODE / found[1]), found[1])}\n#line {following} "{name}"'

    return f'#line 1 "{name}"\n{_INCLUDE.sub(header, text)}'


def run(launch: Launch) -> None:
    """Makes a launch on the current device, in its current stream. Does not wait for it."""
    from . import device  # which is made of what is here

    device.get().launch(launch)
