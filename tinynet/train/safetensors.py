r"""Files of named arrays in the safetensors layout: written atomically, read without trust.

The layout (https://github.com/huggingface/safetensors, section "Format"): eight bytes give the length of the
header, little-endian; the header is a JSON object, padded with spaces, that gives every tensor's dtype, shape
and byte range; the rest of the file is the tensors' bytes, little-endian, in C order, without holes. The key
``__metadata__`` holds strings by string. Nothing in such a file is ever executed.

Files written here carry checksums in that metadata, where every other reader of the format passes them by:

    {"__metadata__":{"tinynet.sha256":"<seal>","tinynet.checksums":"{\"0.weight\":\"<sha256>\",...}",...},...}

The *seal* is the SHA-256 of the length and the whole header, padding included, without the seal's own 64
digits. It stands at a fixed place, so checking it needs no parsing and no bit of the header escapes it; the
header in turn holds the SHA-256 of each tensor's bytes. Why not CRC-32: measured on one core with SHA
instructions it sums 3.8 GB/s against 1.7, but forcing a file to disk ran at 1.2 GB/s; even with SHA-256 a file
is written at 0.7 and read at 1.1 GB/s, and damage of every kind shows, not only short bursts.

Could damage turn the checking off by destroying the mark that asks for it? With ``checksums="require"`` never:
a file that does not begin with the mark is refused; models are loaded so. With ``"if present"``, meant for
weights that other programs wrote, a file is taken unchecked only if no metadata key begins with "tinynet".
There are two such keys, so damage must hit both to pass.

A checksum shows accidents, not malice: who can change the file can also seal it again. Against malice stand the
checks of ``read``. What the tensors and the metadata mean is not known here; see the checkpoint module.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import reprlib
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from tinynet.errors import ArgumentError, CheckpointError

__all__ = ["atomic_write", "read", "write"]

# The format's names of the element types that both NumPy and the safetensors library read, with NumPy's.
_DTYPES = {"F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
           "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "b1"}  # fmt: skip
_CODES = {numpy_name: code for code, numpy_name in _DTYPES.items()}

_METADATA = "__metadata__"
_SEAL, _CHECKSUMS = "tinynet.sha256", "tinynet.checksums"
_MARK = f'{{"{_METADATA}":{{"{_SEAL}":"'.encode()  # how the header of every file written here begins
_SEAL_DIGITS = slice(8 + len(_MARK), 8 + len(_MARK) + 64)

_HEADER_LIMIT = 100_000_000  # the safetensors library's own
_NAME_LIMIT, _RANK_LIMIT = 1000, 64  # of characters; of dimensions, as in NumPy
_ALIGNMENT = 64  # of the data's first byte, for readers that map the file; the library asks for 8
_BLOCK = 1 << 20  # bytes hashed right after they are read or before they are written, while still in the cache

_DAMAGED = "the file is damaged or was not written in this format: take another copy of it"
_HOSTILE = "do not trust this file: no sound writer of the format makes it so"


class _Entry(NamedTuple):  # what the header says of one tensor
    code: str
    shape: tuple[int, ...]
    begin: int  # in bytes from the start of the data
    end: int


def write(path: str | os.PathLike[str], tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write `tensors` and `metadata` to `path` with checksums, atomically (see ``atomic_write``).

    Arrays may be strided and of either byte order; their values arrive. They are streamed block by block, so
    no second copy of the model is made; they must not change meanwhile. The header keeps the order of
    `tensors`; the data goes by falling item size, which leaves every tensor aligned to its own items.

    Raises:
        CheckpointError: a value is no array, its dtype is none of F64 F32 F16 I64 I32 I16 I8 U64 U32 U16 U8
            BOOL, a name would be refused by ``read``, or the metadata is not strings by strings. Nothing has
            been written then.
        OSError: the file system failed; a file that was there is untouched.
    """
    where = os.fspath(path)
    _check_metadata(metadata, where)
    ours = [key for key in (_SEAL, _CHECKSUMS) if key in metadata]
    _demand(not ours, where, "metadata without keys of the checksums", ours, "they are added here: leave them out")
    entries = _lay_out(tensors, where)
    digests = dict.fromkeys(entries, "0" * 64)
    blank = _header(entries, metadata, digests)
    sound = len(blank) - 8 <= _HEADER_LIMIT
    _demand(sound, where, f"at most {_HEADER_LIMIT} bytes of header", len(blank) - 8, "shorten the metadata")
    with _replacement(path) as file:
        file.write(blank)  # holds the place: the checksums are known after the data, their length before it
        for name in _by_place(entries):
            digest = hashlib.sha256()
            for block in _blocks(np.asarray(tensors[name])):
                digest.update(block)
                file.write(block)
            digests[name] = digest.hexdigest()
        file.seek(0)
        file.write(_header(entries, metadata, digests))


def atomic_write(path: str | os.PathLike[str], chunks: Iterable[bytes | bytearray | memoryview]) -> None:
    """Write `chunks` one after the other to `path`, so that a reader finds the old file or the whole new one.

    They go to a temporary file in the same folder (``.tinynet-*.tmp``, readable by its owner alone), which is
    forced to disk and then takes the name `path`; the folder is forced to disk too. The new file has the
    permissions of the one it replaces, else those the umask gives. A symbolic link stays a link. On any failure,
    also one of `chunks`, the temporary file goes and an existing file stays; only a killed process leaves one.

    Raises:
        OSError: the file system failed. If it was the last step, forcing the folder to disk, the new file is
            in place, but might not survive a power cut.
        TypeError: a chunk is not bytes-like.
    """
    with _replacement(path) as file:
        for chunk in chunks:
            file.write(chunk)


@contextlib.contextmanager
def _replacement(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write that becomes `path` when the block ends well, and nothing when it does not."""
    target = os.path.realpath(path)  # replacing a link's target, as open() would, not the link
    folder = os.path.dirname(target)
    handle, temporary = tempfile.mkstemp(prefix=".tinynet-", suffix=".tmp", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.chmod(temporary, _permissions(target))
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:  # an interrupt from the keyboard must leave no litter either
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _permissions(target: str) -> int:
    with contextlib.suppress(FileNotFoundError):
        return os.stat(target).st_mode & 0o777
    umask = os.umask(0o077)  # can only be read by setting it; another thread's file is private meanwhile, never open
    os.umask(umask)
    return 0o666 & ~umask


def _sync_folder(folder: str) -> None:
    with contextlib.suppress(PermissionError):  # nor can Windows open any, nor POSIX one without read permission
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
                raise
        finally:
            os.close(handle)


def _lay_out(tensors: dict[str, np.ndarray], where: str) -> dict[str, _Entry]:
    """Every tensor's place in the data; the entries keep the order of `tensors`."""
    for name, array in tensors.items():
        _check_name(name, where)
        kind = array.dtype if isinstance(array, np.ndarray) else type(array)
        sound = isinstance(kind, np.dtype) and kind.str[1:] in _CODES
        expected = f"an array of one of the dtypes {', '.join(_DTYPES)}"
        _demand(sound, _of(where, name), expected, kind, "convert it, as with numpy.asarray(x, numpy.float32)")
    places, begin = {}, 0
    for name, array in sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize):
        places[name] = _Entry(_CODES[array.dtype.str[1:]], array.shape, begin, begin + array.nbytes)
        begin += array.nbytes
    return {name: places[name] for name in tensors}


def _header(entries: dict[str, _Entry], metadata: dict[str, str], digests: dict[str, str]) -> bytes:
    """The file up to its data, sealed. Its length does not depend on the values of `digests`."""
    table = {_METADATA: {_SEAL: "0" * 64, _CHECKSUMS: json.dumps(digests), **metadata}}
    for name, entry in entries.items():
        table[name] = {"dtype": entry.code, "shape": entry.shape, "data_offsets": (entry.begin, entry.end)}
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    head = bytearray(len(text).to_bytes(8, "little") + text)
    head[_SEAL_DIGITS] = _seal(head)
    return bytes(head)


def _seal(head: bytes | bytearray) -> bytes:
    return hashlib.sha256(head[: _SEAL_DIGITS.start] + head[_SEAL_DIGITS.stop :]).hexdigest().encode()


def _blocks(array: np.ndarray) -> Iterator[memoryview]:
    """The array's bytes, little-endian in C order; views of its memory where that is how it lies."""
    little = array.dtype.newbyteorder("<")
    for piece in np.nditer(array, ["external_loop", "buffered", "zerosize_ok"], [["readonly", "contig"]], [little],
                           order="C", casting="equiv", buffersize=_BLOCK // little.itemsize):  # fmt: skip
        if little.kind == "b":  # a NumPy boolean viewed from foreign bytes can hold 2 for true; the format cannot
            piece = piece.view(np.uint8) != 0
        yield memoryview(piece.view(np.uint8))


def read(path: str | os.PathLike[str], checksums: str = "if present") -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a file in the safetensors layout: ``(tensors, metadata)``, both in the order of its header.

    Args:
        path: the file.
        checksums: ``"require"`` refuses every file that ``write`` has not sealed; use it wherever the file
            ought to be tinynet's own. ``"if present"`` takes files of other programs as well, unchecked, unless
            their metadata names tinynet.

    Every array owns its memory, aligned, writable and in the machine's byte order; the bytes are read straight
    into it. The metadata comes without the checksums.

    The file is taken for hostile until shown otherwise. No array is made before the whole header is found
    sound: every key occurs once; every entry has exactly a dtype, a shape and a byte range that agree; the
    ranges cover the data without hole or overlap; names are 1 to 1000 printable characters without path
    separators or "..". So the arrays together are never larger than the file. (Python's objects for a header are
    larger than its text, some ten to thirty times; the format's limit of 100 MB bounds the text.)

    Raises:
        CheckpointError: the file breaks any of this, a checksum does not match (the tensor is named), or a
            dtype is none of those that ``write`` takes.
        ArgumentError: `checksums` is neither of the two.
        OSError: the file cannot be opened or read.
    """
    if checksums not in ("require", "if present"):
        raise ArgumentError("safetensors.read", expected="checksums 'require' or 'if present'", got=_short(checksums))
    where = os.fspath(path)
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        head = _read_head(file, size, where)
        sealed = _check_seal(head, checksums == "require", where)
        table = _parse(head[8:], "the header", where)
        metadata = table.pop(_METADATA, {})
        _check_metadata(metadata, where)
        entries = _check_entries(table, size - len(head), where)
        digests = _digests(metadata, sealed, entries, where)
        arrays = {n: _read_tensor(file, entries[n], digests.get(n), _of(where, n)) for n in _by_place(entries)}
    return {name: arrays[name] for name in entries}, metadata


def _read_head(file: BinaryIO, size: int, where: str) -> bytes:
    """The header with the eight bytes of its length before it."""
    _demand(size >= 8, where, "a file of at least 8 bytes", size)
    head = bytearray(8)
    _fill(file, memoryview(head), where)
    length, most = int.from_bytes(head, "little"), min(size - 8, _HEADER_LIMIT)
    _demand(length <= most, where, f"a header of at most {most} bytes", length)
    head += bytes(length)
    _fill(file, memoryview(head)[8:], where)
    return bytes(head)


def _check_seal(head: bytes, required: bool, where: str) -> bool:
    """Whether the header is sealed; raises where the seal is broken, or `required` and not there."""
    if head[8 : _SEAL_DIGITS.start] != _MARK:
        mend = "take another copy, or if another program wrote it, read it with checksums='if present'"
        _demand(not required, where, "a file that tinynet wrote, with checksums", head[8 : _SEAL_DIGITS.start], mend)
        return False
    found, computed = head[_SEAL_DIGITS], _seal(head)
    _demand(found == computed, where, f"a header with the checksum {found!r}", computed)
    return True


def _parse(text: bytes, what: str, where: str) -> dict:
    """The JSON object in `text`, in which no key occurs twice."""

    def once(pairs: list[tuple[str, object]]) -> dict:
        found = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"the key {_short(key)} twice")
            found[key] = value
        return found

    try:
        if text[:1] != b"{":
            raise ValueError(f"one that begins with {text[:1]!r}")
        return json.loads(text.decode(), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:  # also bytes that are no UTF-8, and integers of 5000 digits
        raise CheckpointError(where, expected=f"{what} as a JSON object", got=str(error), mend=_DAMAGED) from error


def _check_metadata(metadata: object, where: str) -> None:
    expected, mend = "metadata of strings by strings", "turn values into strings before saving, as with json.dumps"
    _demand(isinstance(metadata, dict), where, expected, metadata, mend)
    for key, value in metadata.items():
        _demand(_is_text(key) and _is_text(value), where, expected, {key: value}, mend)


def _is_text(value: object) -> bool:
    # JSON's escapes can spell halves of surrogate pairs, which UTF-8 cannot hold
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value))


def _check_name(name: object, where: str) -> None:
    # a name must not mislead whoever prints it, nor escape from whoever makes a file name of it
    sound = isinstance(name, str) and 0 < len(name) <= _NAME_LIMIT and name.isprintable() and name != _METADATA
    sound = sound and not any(part in name for part in ("/", "\\", ".."))
    expected = f"tensor names of 1 to {_NAME_LIMIT} printable characters, without '/', '\\' and '..'"
    _demand(sound, where, expected, name, "rename the tensor in the program that saves it")


def _check_entries(table: dict, room: int, where: str) -> dict[str, _Entry]:
    """The entries of a parsed header, each sound by itself, together covering all `room` bytes of the data."""
    entries, covered = {}, 0
    for name, entry in table.items():
        _check_name(name, where)
        entries[name] = _check_entry(entry, room, _of(where, name))
    for name in _by_place(entries):
        begin, expected = entries[name].begin, f"its data to begin at byte {covered}, where those before end"
        _demand(begin == covered, _of(where, name), expected, begin, _HOSTILE)
        covered = entries[name].end
    _demand(covered == room, where, f"{covered} bytes of data, as the header says", room)
    return entries


def _check_entry(entry: object, room: int, where: str) -> _Entry:
    keys = ("dtype", "shape", "data_offsets")
    _demand(isinstance(entry, dict) and entry.keys() == set(keys), where, f"exactly the keys {', '.join(keys)}", entry)
    code, shape, offsets = (entry[key] for key in keys)
    sound = isinstance(code, str) and code in _DTYPES
    _demand(sound, where, f"one of the dtypes {', '.join(_DTYPES)}", code, "convert it in the program that saves it")
    sound = isinstance(shape, list) and len(shape) <= _RANK_LIMIT and all(_is_extent(extent) for extent in shape)
    _demand(sound, where, f"a shape of at most {_RANK_LIMIT} integers from 0 to 2**63 - 1", shape)
    sound = isinstance(offsets, list) and len(offsets) == 2 and all(_is_extent(offset) for offset in offsets)
    _demand(sound and offsets[0] <= offsets[1] <= room, where, f"a byte range within {room} bytes of data", offsets)
    itemsize, length = np.dtype(_DTYPES[code]).itemsize, offsets[1] - offsets[0]
    _demand(math.prod(shape) * itemsize == length, where, f"a shape of {code} that fills {length} bytes", shape)
    # NumPy cannot address a shape like [0, 2**62, 2**62] either, although it holds nothing
    addressed = math.prod(max(extent, 1) for extent in shape) * itemsize
    _demand(_is_extent(addressed), where, "a shape that NumPy can hold", shape)
    return _Entry(code, tuple(shape), *offsets)


def _is_extent(value: object) -> bool:
    return type(value) is int and 0 <= value <= sys.maxsize  # to isinstance, JSON's true is an int too


def _digests(metadata: dict[str, str], sealed: bool, entries: dict[str, _Entry], where: str) -> dict[str, str]:
    """Take the checksums out of `metadata`: those of the tensors by name, none where the file is not sealed."""
    if not sealed:
        ours = [key for key in metadata if key.casefold().startswith("tinynet")]
        mend = "take another copy, or if another program rewrote the file, let it drop these keys of the metadata"
        _demand(not ours, where, "checksums, as its metadata names tinynet", ours, mend)
        return {}
    del metadata[_SEAL]
    digests = _parse(metadata.pop(_CHECKSUMS, "").encode(), "the list of checksums", where)
    sound = digests.keys() == entries.keys() and all(isinstance(digest, str) for digest in digests.values())
    _demand(sound, where, "one checksum for every tensor", digests, _HOSTILE)
    return digests


def _read_tensor(file: BinaryIO, entry: _Entry, expected: object, where: str) -> np.ndarray:
    array = np.empty(entry.shape, "<" + _DTYPES[entry.code])
    flat = array.reshape(-1).view(np.uint8)
    digest = None if expected is None else hashlib.sha256()
    _fill(file, memoryview(flat), where, digest)
    computed = digest and digest.hexdigest()
    _demand(computed == expected, where, f"data with the checksum {_short(expected)}", computed)
    sound = entry.code != "BOOL" or flat.max(initial=0) <= 1
    _demand(sound, where, "booleans of 0 or 1", "other bytes")
    return array.astype(array.dtype.newbyteorder("="), copy=False)  # copies on a big-endian machine only


def _fill(file: BinaryIO, view: memoryview, where: str, digest: hashlib._Hash | None = None) -> None:
    """Read until `view` is full, block by block, adding each block to `digest`."""
    done = 0
    while done < len(view):
        count = file.readinto(view[done : done + _BLOCK])
        _demand(count, where, f"{len(view) - done} bytes more", "the end", "the file became shorter while it was read")
        if digest is not None:
            digest.update(view[done : done + count])
        done += count


def _by_place(entries: dict[str, _Entry]) -> list[str]:
    # By the end too: a tensor without bytes must come before the one that begins where it stands.
    return sorted(entries, key=lambda name: (entries[name].begin, entries[name].end))


def _short(value: object) -> str:
    # as repr, but of bounded length: what a hostile file holds is not to fill the screen
    cut = reprlib.Repr()
    cut.maxstring = cut.maxother = 100
    return cut.repr(value)


def _of(where: str, name: str) -> str:
    return f"{where}, tensor {_short(name)}"


def _demand(sound: object, where: str, expected: str, got: object, mend: str = _DAMAGED) -> None:
    if not sound:
        raise CheckpointError(where, expected=expected, got=_short(got), mend=mend)
