"""read_idx: arrays in IDX, the binary format in which MNIST is published.

An IDX file is two zero bytes, one byte for the element type, one for the number of dimensions, each dimension as
a big-endian 32-bit integer, and the elements, big-endian, row by row (http://yann.lecun.com/exdb/mnist/). What
the arrays mean is the business of :mod:`.images`.
"""

from __future__ import annotations

import math
import os
import struct

import numpy as np

from tinynet.errors import DataError

__all__ = ["read_idx"]

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DIMENSIONS = 32  # what every NumPy can hold
_MAX_INFLATION = 1032  # deflate cannot make more than 1032 bytes out of one
_CHUNK = 1 << 20
_DOWNLOAD = "fetch or copy the file again"


def read_idx(path) -> np.ndarray:
    """Read an IDX file, plain or compressed with gzip (recognised by its content).

    Returns a writable array in native byte order: uint8, int8, int16, int32, float32 or float64. The header is
    held against the length of the file before the array is allocated, so a header that lies costs no memory.

    Raises:
        DataError: the file is missing, no IDX file, truncated or too long, its dimensions are absurd, its name
            ends in .gz and it is not gzip, or the gzip stream is damaged. The message names the file.
    """
    return read_verified(path, md5=None)


def read_verified(path, md5: str | None) -> np.ndarray:
    """As :func:`read_idx`; where ``md5`` is given, the unpacked bytes (header and all) must have that sum."""
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if packed:
                return _read_gzip(file, path, size, md5)
            if path.endswith(".gz"):
                raise DataError(
                    path,
                    expected="a gzip file, as its name says",
                    got="other content",
                    mend=f"if it is unpacked already, take .gz off its name; otherwise {_DOWNLOAD}",
                )
            return _read_stream(file, path, size, md5)
    except OSError as error:
        raise DataError(
            path, expected="a readable file", got=error.strerror or str(error), mend="check the path"
        ) from error


def _read_gzip(file, path: str, size: int, md5: str | None) -> np.ndarray:
    import gzip  # here and below: the standard library's heavier modules are loaded when a file is read
    import zlib

    try:
        with gzip.GzipFile(fileobj=file) as stream:
            return _read_stream(stream, path, None, md5, at_most=size * _MAX_INFLATION)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(path, expected="an intact gzip file", got=str(error), mend=_DOWNLOAD) from error


def _read_stream(stream, path: str, size: int | None, md5: str | None, at_most: int = 0) -> np.ndarray:
    """Header, length check, elements, checksum. ``size`` is None where only reading to the end tells it; then
    ``at_most`` bounds it."""
    header, dtype, shape = _read_header(stream, path)
    length = math.prod(shape) * dtype.itemsize
    # NumPy multiplies the dimensions of an array without elements, too, and refuses what overflows.
    if math.prod(n or 1 for n in shape) * dtype.itemsize >= 2**63:
        raise DataError(path, expected="dimensions that memory can hold", got=_times(shape), mend=_DOWNLOAD)

    expected = f"{length} bytes of data, for {_times(shape)} of {dtype.name}"
    bound = at_most if size is None else size - len(header)
    if bound < length or (size is not None and bound > length):
        got = f"{bound}" if size is not None else f"at most {bound}"
        raise DataError(path, expected=expected, got=got, mend=_DOWNLOAD)

    data = bytearray()
    while len(data) <= length:  # one byte beyond the end is asked for, to see that there is none
        chunk = stream.read(min(_CHUNK, length + 1 - len(data)))
        if not chunk:
            break
        data += chunk
    if len(data) != length:
        got = f"only {len(data)}" if len(data) < length else "more"
        raise DataError(path, expected=expected, got=got, mend=_DOWNLOAD)
    if md5 is not None:
        _check_md5(path, header, data, md5)
    return np.frombuffer(data, dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _read_header(stream, path: str) -> tuple[bytes, np.dtype, tuple[int, ...]]:
    magic = stream.read(4)
    if len(magic) < 4:
        raise DataError(path, expected="an IDX header", got=f"{len(magic)} bytes in all", mend=_DOWNLOAD)
    zero, code, ndim = struct.unpack(">HBB", magic)
    if zero != 0 or code not in _DTYPES:
        raise DataError(
            path,
            expected="an IDX magic number (two zero bytes, a type from 08 to 0e, the number of dimensions)",
            got=magic.hex(" "),
            mend="check that this is the IDX file, and not a page or an archive that came in its place",
        )
    if not 1 <= ndim <= _MAX_DIMENSIONS:
        raise DataError(path, expected=f"1 to {_MAX_DIMENSIONS} dimensions", got=str(ndim), mend=_DOWNLOAD)
    sizes = stream.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise DataError(
            path,
            expected=f"a header of {4 + 4 * ndim} bytes for {ndim} dimensions",
            got=f"{4 + len(sizes)} bytes in all",
            mend=_DOWNLOAD,
        )
    return magic + sizes, np.dtype(_DTYPES[code]), struct.unpack(f">{ndim}I", sizes)


def _check_md5(path: str, header: bytes, data: bytearray, expected: str) -> None:
    import hashlib

    digest = hashlib.md5(header, usedforsecurity=False)  # tells damage, not malice
    digest.update(data)
    if digest.hexdigest() != expected:
        raise DataError(
            path,
            expected=f"MD5 {expected} of the unpacked bytes",
            got=digest.hexdigest(),
            mend=f"{_DOWNLOAD}, or pass verify=False to read other data in the same format",
        )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
