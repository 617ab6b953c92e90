"""Data sets on disk: folders of ``.npy`` files whose rows are read when they are asked for.

A stored data set is a folder with ``x.npy`` and ``y.npy``, which anyone can read with NumPy, and ``dataset.json``,
which says what belongs to them. Rows are read into buffers of the reader, never mapped: pages of a mapped file count
as memory of the process. Writing them is the business of :mod:`.storing`.
"""

from __future__ import annotations

import json
import math
import os
import threading
import weakref

import numpy as np

from tinynet.errors import DataError, DTypeError, RangeError, ShapeError

from .dataset import Dataset

__all__ = ["DESCRIPTION", "FORMAT", "VERSION", "StoredArray", "stored"]

DESCRIPTION = "dataset.json"
FORMAT, VERSION = "tinynet.dataset", 1
_AGAIN = "store the data set again"


def stored(path) -> Dataset:
    """Opens a data set that :func:`store` wrote. Nothing but its description is read.

    Returns:
        A Dataset whose ``x`` and ``y`` are :class:`StoredArray`; classes, names and preprocessor as they were stored.
        Its slices read nothing either (``data[:900_000]``, ``data[900_000:]`` divide it); index arrays give copies in
        memory.

    Raises:
        DataError: no such folder, one that was not written to its end, or files that are not what the description says.
    """
    path = os.fspath(path)
    described = _description(os.path.join(path, DESCRIPTION))
    x, y = StoredArray(os.path.join(path, "x.npy")), StoredArray(os.path.join(path, "y.npy"))
    for name, array in (("x", x), ("y", y)):
        if len(array) != described["rows"]:
            raise DataError(
                array.path, expected=f"{described['rows']} rows, as {DESCRIPTION} says of {name}", got=str(len(array)),
                mend=_AGAIN,
            )  # fmt: skip
    preprocessor = described.get("preprocessor")
    if preprocessor is not None:
        from .preprocess import Preprocessor

        preprocessor = Preprocessor.from_dict(preprocessor)
    return Dataset(x, y, classes=described.get("classes"), names=described.get("names"), preprocessor=preprocessor)


def _description(path: str) -> dict:
    try:
        with open(path, encoding="utf-8") as file:
            described = json.load(file)
    except OSError as error:
        raise DataError(
            path, expected="the description of a stored data set", got=error.strerror or str(error),
            mend="pass the folder that tn.data.store wrote; one that was not finished has no description",
        ) from error  # fmt: skip
    except ValueError as error:
        raise DataError(path, expected="JSON", got=str(error), mend=_AGAIN) from error
    found = described if isinstance(described, dict) else {}
    if (found.get("format"), found.get("version")) != (FORMAT, VERSION):
        raise DataError(
            path, expected=f"format {FORMAT!r}, version {VERSION}",
            got=f"format {found.get('format')!r}, version {found.get('version')!r}",
            mend="pass the folder that tn.data.store wrote",
        )  # fmt: skip
    if type(found.get("rows")) is not int or found["rows"] < 1:
        raise DataError(path, expected="rows, an integer of at least 1", got=repr(found.get("rows")), mend=_AGAIN)
    for name in ("classes", "names"):
        texts = found.get(name)
        if texts is not None and not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
            raise DataError(path, expected=f"{name}, a list of texts", got=repr(texts)[:80], mend=_AGAIN)
    return found


class _File:
    """An open ``.npy`` file: where its rows begin, how long they are, and reading from any place by any thread."""

    def __init__(self, path: str):
        self.path, self.lock = path, threading.Lock()
        self.absolute = os.path.abspath(path)  # for another process, which may be in another folder
        try:
            with open(path, "rb") as file:
                self.shape, fortran, self.dtype = _header(file)
                self.start = file.tell()
            self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise DataError(path, expected="a .npy file", got=error.strerror or str(error), mend=_AGAIN) from error
        except (ValueError, KeyError) as error:
            raise DataError(path, expected="a .npy file of version 1 or 2", got=str(error), mend=_AGAIN) from error
        weakref.finalize(self, os.close, self.descriptor)
        if self.dtype.hasobject or not self.shape or (fortran and len(self.shape) > 1):
            raise DataError(
                path, expected="rows of numbers, one after the other",
                got=f"{self.dtype} of shape {self.shape}{' in Fortran order' * fortran}", mend=_AGAIN,
            )  # fmt: skip
        self.row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        size, due = os.fstat(self.descriptor).st_size, self.start + self.shape[0] * self.row_bytes
        if size < due:
            raise DataError(path, expected=f"{due} bytes", got=f"{size}: it was cut short", mend=_AGAIN)

    def read(self, first: int, out: np.ndarray) -> None:
        """Fills ``out``, which is contiguous, with the rows from ``first`` on."""
        view, at = memoryview(out.reshape(-1).view(np.uint8)), self.start + first * self.row_bytes
        while len(view):
            try:
                count, reason = self._read_at(view, at), "the end of the file: it was cut short"
            except OSError as error:
                count, reason = 0, error.strerror or str(error)
            if not count:
                where = f"{self.path}, rows {first} to {first + len(out) - 1}"
                raise DataError(where, expected=f"{len(view)} more bytes", got=reason, mend="check file and disk")
            view, at = view[count:], at + count

    def _read_at(self, view: memoryview, at: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self.descriptor, [view], at)
        with self.lock:
            os.lseek(self.descriptor, at, os.SEEK_SET)
            found = os.read(self.descriptor, len(view))
        view[: len(found)] = found
        return len(found)


def _header(file) -> tuple[tuple[int, ...], bool, np.dtype]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    return readers[np.lib.format.read_magic(file)](file)


class StoredArray:
    """Rows of a ``.npy`` file, read when they are asked for.

    A slice with step 1 is a StoredArray of those rows; an integer gives one row, an index array a copy of the rows in
    memory. ``np.asarray(array)`` reads all of it. It can be pickled and used by several threads.

    Args:
        path: a ``.npy`` file in C order.

    Attributes:
        path: of the file.
        shape, dtype, ndim, size, nbytes: as of a NumPy array.

    Raises:
        DataError: no such file, or not such an array. Reading raises it for a file that was cut short, or a disk that
            fails, with the rows.
    """

    __slots__ = ("_file", "_first", "shape")
    on_disk = True

    def __init__(self, path):
        self._file = _File(os.fspath(path))
        self._first, self.shape = 0, self._file.shape

    @property
    def path(self) -> str:
        return self._file.path

    @property
    def dtype(self) -> np.dtype:
        return self._file.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """The rows from ``start`` to before ``stop`` as an array in memory.

        Args:
            out: where to read them to: contiguous, of their shape and dtype. A new array by default.

        Raises:
            RangeError: not within the array. ShapeError: an ``out`` that does not fit.
        """
        if not 0 <= start <= stop <= len(self):
            raise RangeError("StoredArray.read", expected=f"rows within 0 to {len(self)}", got=f"{start} to {stop}")
        shape = (stop - start, *self.shape[1:])
        if out is None:
            out = np.empty(shape, self.dtype)
        elif out.shape != shape or out.dtype != self.dtype or not out.flags.c_contiguous:
            raise ShapeError(
                "StoredArray.read", expected=f"a contiguous out of {self.dtype}, shape {shape}",
                got=f"{out.dtype}, shape {out.shape}", mend="leave it out",
            )  # fmt: skip
        if out.size:
            self._file.read(self._first + start, out)
        return out

    def take(self, rows, axis: int = 0) -> np.ndarray:
        """Copies of the rows of an array of integers, in its order; read from the front of the file to its end.

        Raises:
            RangeError: rows that there are not, or another axis than 0. DTypeError: no integers.
        """
        rows = np.asarray(rows)
        if rows.dtype.kind not in "iu" and rows.size:
            raise DTypeError("StoredArray", expected="a slice, an integer or an array of integers", got=f"{rows.dtype}")
        if axis != 0:
            raise RangeError("StoredArray.take", expected="axis 0", got=str(axis), mend="take rows, then columns")
        if rows.size and (rows.min() < -len(self) or rows.max() >= len(self)):
            got = f"{rows.min()} to {rows.max()}"
            raise RangeError("StoredArray", expected=f"rows from {-len(self)} to {len(self) - 1}", got=got)
        flat = rows.astype(np.int64).reshape(-1)
        flat[flat < 0] += len(self)
        out = np.empty((len(flat), *self.shape[1:]), self.dtype)
        order = np.argsort(flat, kind="stable")
        ascending = flat[order]
        gaps = (np.flatnonzero(np.diff(ascending) > 1) + 1).tolist()  # neighbours are read together
        for low, high in zip([0, *gaps], [*gaps, len(flat)]):
            if low < high:
                first = int(ascending[low])
                out[order[low:high]] = self.read(first, int(ascending[high - 1]) + 1)[ascending[low:high] - first]
        return out.reshape((*rows.shape, *self.shape[1:]))[()]  # a number, where one is all that is left

    def __getitem__(self, key):
        if not isinstance(key, slice):
            return self.take(key)
        start, stop, step = key.indices(len(self))
        if step != 1:
            return self.take(np.arange(start, stop, step))
        part = object.__new__(StoredArray)
        part._file, part._first = self._file, self._first + start
        part.shape = (max(0, stop - start), *self.shape[1:])
        return part

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if copy is False:
            raise ValueError("rows on disk cannot be an array in memory without a copy")
        return self.read(0, len(self)).astype(self.dtype if dtype is None else dtype, copy=False)

    def __reduce__(self):
        return _reopened, (self._file.absolute, self._first, self._first + len(self))

    def __repr__(self) -> str:
        return f"StoredArray({self.path!r}, shape {self.shape}, {self.dtype})"


def _reopened(path: str, first: int, last: int) -> StoredArray:
    return StoredArray(path)[first:last]
