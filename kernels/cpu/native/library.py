"""The library: every operation of this package as machine code, compiled once per machine and kept.

``operation`` files a function of int64 arguments; ``load`` compiles all that are filed for one size of elements, links
them with the interpreter into one object, keeps that in the folder of ``machine``, and says where each begins. A later
process reads the object and needs no numba for it.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import hmac
import sys
import time
from collections.abc import Callable
from pathlib import Path

import llvmlite.binding as llvm

from ...files import only_one, write_whole
from . import machine

Maker = Callable[[int, int], Callable]
_makers: dict[str, Maker] = {}


def operation(name: str) -> Callable[[Maker], Maker]:
    """Decorator: files ``make(size, width) -> function(words, thread, threads)`` as the operation ``name``.

    The function is Python that numba compiles. ``words`` is the address of its arguments, which ``word`` and
    ``real`` of ``words`` read; ``thread`` is one of ``threads`` that all run the function, each its share. It touches
    no Python object, allocates nothing, and raises nothing.
    """

    def file(make: Maker) -> Maker:
        if name in _makers:
            raise ValueError(f"operation {name!r}: is there already")
        _makers[name] = make
        return make

    return file


class Library:
    """Machine code for elements of ``size`` bytes and vectors of ``width`` bits.

    Attributes:
        addresses: operation -> address of its function.
        run, start, join, work: see ``interpreter.write``; as functions of Python integers, which run without Python's
            lock.
    """

    def __init__(self, names: list[str], code: bytes):
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        self.addresses = {name: self._engine.get_function_address(name) for name in names}
        word, argument = ctypes.c_int64, ctypes.c_void_p  # both 64 bits; this one takes ctypes half the time to make
        self.run, self.start, self.join, self.work = (
            ctypes.CFUNCTYPE(result, *[argument] * count)(self._engine.get_function_address(name))
            for name, result, count in (("run", None, 1), ("start", word, 3), ("join", None, 3), ("work", None, 4))
        )


@functools.cache
def load(size: int, width: int | None = None) -> Library:
    """The library for elements of 4 or 8 bytes, compiled if this machine has not done that yet.

    Args:
        width: bits of a vector; None for the widest of this processor.

    Raises:
        ImportError: it has to be compiled, and numba cannot be imported; ``obstacle`` says so beforehand.
    """
    width = width or machine.widths()[0]
    path = _path(size, width)
    if path is None:
        return Library(*_compile(size, width))
    kept = _read(path)
    if kept is None:
        with only_one(path.with_name("lock")):
            kept = _read(path)  # another process may have been faster
            if kept is None:
                kept = _compile(size, width)
                _write(path, *kept)
    return Library(*kept)


@functools.cache
def obstacle(size: int) -> str | None:
    """Why ``load`` would fail for elements of this size; None where the library is kept, or can be compiled.

    It imports numba where that would have to compile, and compiles nothing.
    """
    path = _path(size, machine.widths()[0])
    if path is not None and _read(path) is not None:
        return None
    try:
        import numba  # noqa: F401
    except Exception as error:  # of whatever type: what numba is made of does not always fit
        return f"numba cannot be imported: {error}"
    return None


def _path(size: int, width: int) -> Path | None:
    """Where a library is kept; None where none is."""
    folder = machine.cache_folder()
    return None if folder is None else folder / f"library-{8 * size}-{width}.o"


def _compile(size: int, width: int) -> tuple[list[str], bytes]:
    from .code import compiling, operations  # noqa: F401  (importing the operations files them)

    refusal = machine.cache_refusal()
    kept = f"kept in {machine.cache_folder()}"
    if refusal is not None:
        kept = f"not kept, because {refusal}; TINYNET_CACHE can name another folder"
    print(
        f"tinynet: compiling kernels for float{8 * size} on this processor, about 20 s for each element type, once; "
        f"{kept}", file=sys.stderr, flush=True,
    )  # fmt: skip
    start = time.perf_counter()
    code = compiling.object_code({name: make(size, width) for name, make in _makers.items()})
    print(f"tinynet: compiled in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return list(_makers), code


def target_machine():
    """What code is made for: the processor of this machine, all of its features."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()  # for the instruction that a waiting core is told to pause with
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3, reloc="default",
        codemodel="jitdefault", jit=True,
    )  # fmt: skip


# ---- files: a digest, the names of the operations, the object ----


def _read(path: Path) -> tuple[list[str], bytes] | None:
    """What is kept there, if it is whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, content = content[:32], content[32:]
    if not hmac.compare_digest(digest, hashlib.sha256(content).digest()):
        return None
    names, _, code = content.partition(b"\n")
    return names.decode().split(), code


def _write(path: Path, names: list[str], code: bytes) -> None:
    """Keeps a library. A disk that is full costs the next process the compilation, no more."""
    content = " ".join(names).encode() + b"\n" + code
    write_whole(path, hashlib.sha256(content).digest() + content)
