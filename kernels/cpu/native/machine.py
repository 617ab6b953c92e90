"""What this processor has, the tiles that follow from it, and where compiled kernels are kept.

The cache of compiled code is a folder of this user alone: its files are loaded as code. Its name holds a fingerprint of
all sources that the code is made of, of numba, llvmlite and of the processor, because numba itself looks at one file of
them only.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import re
import stat
import sys
from pathlib import Path
from typing import NamedTuple

import llvmlite
import llvmlite.binding as llvm

WIDTHS = (512, 256, 128)


class Tile(NamedTuple):
    """A register tile: ``height`` rows by ``breadth`` vectors of ``lanes`` elements."""

    height: int
    breadth: int
    lanes: int


@functools.cache
def features() -> dict[str, bool]:
    return dict(llvm.get_host_cpu_features())


@functools.cache
def widths() -> tuple[int, ...]:
    """Bits of the vectors that this processor can execute, the widest first.

    128 is there on every machine: LLVM has an answer for vectors that a processor lacks, if only scalar code.
    """
    has = features()
    return tuple(
        width for width in WIDTHS
        if width == 128 or (width == 512 and has.get("avx512f") and has.get("avx512vl"))
        or (width == 256 and has.get("avx2") and has.get("fma"))
    )  # fmt: skip


@functools.cache
def streams() -> bool:
    """Whether vectors can be written past the caches: x86, whose stores of 32 bytes and more do that well."""
    return widths()[0] > 128


@functools.cache
def registers() -> int:
    """Vector registers: what the tile has to fit."""
    return 32 if features().get("neon") or features().get("avx512vl") else 16


def tile(size: int, width: int) -> Tile:
    """The register tile for elements of ``size`` bytes and vectors of ``width`` bits.

    C, one row of B and one element of A have to fit: 24 + 4 + 1 of 32 registers, 24 + 3 + 1 of 32 (NEON, whose vectors
    are short, so that a tile nearer to a square loads less), 12 + 2 + 1 of 16.
    """
    lanes = width // 8 // size
    if width == 512:
        return Tile(6, 4, lanes)
    if width == 128 and features().get("neon"):
        return Tile(8, 3, lanes)
    return Tile(6, 2, lanes)


@functools.cache
def second_level_cache() -> int:
    """Bytes of the cache in which a block of B is to stay; a cautious guess where the system does not say."""
    return _cache(2) or 2**20


@functools.cache
def last_level_cache() -> int:
    """Bytes of the largest cache; where the system does not say a large number, which errs on the side of caution."""
    return max(_cache(index) for index in (2, 3, 4)) or 2**28


def _cache(index: int) -> int:
    """Bytes of a cache as the system counts them: 2 is that of the second level. 0 where it knows of none."""
    try:
        text = Path(f"/sys/devices/system/cpu/cpu0/cache/index{index}/size").read_text().strip()
        return int(text[:-1]) * {"K": 2**10, "M": 2**20}[text[-1]]
    except (OSError, ValueError, KeyError, IndexError):
        return 0


# ---- the cache of compiled code ----


@functools.cache
def fingerprint() -> str:
    parts = [sys.version, _version("numba"), llvmlite.__version__]
    parts += [llvm.get_host_cpu_name(), str(sorted(features().items()))]
    return digest(parts + list(sources().values()))


_IMPORT = re.compile(r"^from (\.+)([\w.]*) import (\([^)]*\)|.*)", re.MULTILINE)


def sources() -> dict[Path, str]:
    """What compiled code is made of: this package, and the modules beyond it that the operations import from.

    Imports are followed by their text: to import the operations would be to import numba.
    """
    own = Path(__file__).parent
    found = {path: path.read_text() for path in sorted(own.rglob("*.py"))}
    waiting = [path for path in found if path.parent == own / "code"]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path] = path.read_text()
        more = _imported(path, found[path]) - seen
        waiting += sorted(more)
        seen |= more
    return found


def _imported(path: Path, text: str) -> set[Path]:
    """The modules of ``kernels`` that one of them imports from, or imports from a package."""
    found = set()
    for dots, module, names in _IMPORT.findall(text):
        base = path.parents[len(dots) - 1].joinpath(*filter(None, module.split(".")))
        of_package = (base / f"{name}.py" for name in re.findall(r"\w+", names))
        found.update(filter(Path.is_file, of_package if base.is_dir() else (base.with_suffix(".py"),)))
    return found


def digest(parts: list[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _version(package: str) -> str:
    """The version of a package that is not imported for this: what it compiled is kept, and mostly all that is used."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def cache_root() -> Path | None:
    """Where kernels are kept: ``TINYNET_CACHE``, or a folder of the user's caches; None for a user without a home."""
    chosen, caches = os.environ.get("TINYNET_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(chosen).expanduser() if chosen else Path(caches or Path.home() / ".cache") / "tinynet"
    except RuntimeError:
        return None


def cache_folder() -> Path | None:
    """The folder, made if need be; None where there is none that is this user's own.

    A folder of another user, or one that others may write to, could hold anything, and its content would be run.
    """
    root = cache_root()
    return None if root is None or _refusal(root) else _folder_in(root)


def cache_refusal() -> str | None:
    """Why there is no ``cache_folder``; None where there is one."""
    root = cache_root()
    return "there is no home directory" if root is None else _refusal(root)


def _folder_in(root: Path) -> Path:
    return root / f"native-{fingerprint()}"


@functools.cache
def _refusal(root: Path) -> str | None:
    folder = _folder_in(root)
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        found, around = folder.lstat(), root.stat()
    except FileExistsError as error:
        return f"{error.filename} is no folder"
    except OSError as error:
        return f"{error.filename} cannot be made: {error.strerror}"
    if not stat.S_ISDIR(found.st_mode):
        return f"{folder} is no folder"
    if hasattr(os, "getuid"):
        if found.st_uid != os.getuid():
            return f"{folder} belongs to another user"
        if found.st_mode & 0o077:
            return f"others may open {folder}"
        if around.st_mode & 0o022 and not around.st_mode & stat.S_ISVTX:  # others could put their folder in its place
            return f"others may write to {root}"
    return None


def compiled(signature, *closure: int):
    """Decorator: numba's ``njit`` for one signature, without the interpreter's lock, kept in the cache.

    ``reassoc`` and its like are left to the vector code, which spells its arithmetic out; NaN and infinities keep their
    meaning everywhere.

    Args:
        closure: the numbers that the function is made for. They become a part of its name, and so of its file's: numba
            numbers the files of one name, and two processes that compile for different numbers at a time would count to
            the same one.
    """

    import numba
    from numba.core import config

    def compile_(python):
        python.__qualname__ = "_".join(map(str, (python.__qualname__, *closure)))
        folder, before = cache_folder(), config.CACHE_DIR
        if folder is None:
            return numba.njit(signature, nogil=True)(python)
        config.CACHE_DIR = str(folder)
        try:
            return numba.njit(signature, nogil=True, cache=True)(python)
        finally:
            config.CACHE_DIR = before

    return compile_
