"""store: a data set, or chunks of one as they come, written to a folder that :func:`stored` opens.

Chunks are written one after the other, so that a data set may be larger than memory. The folder gets its name when all
of it is on disk: one that was begun is never taken for a whole one. How it is read is the business of :mod:`.disk`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import numpy as np

from tinynet.errors import ArgumentError, DataError, DTypeError, ShapeError, TinynetError

from .dataset import Dataset
from .disk import DESCRIPTION, FORMAT, VERSION, stored

__all__ = ["store"]

_PIECE = 4 << 20  # bytes that are written at once


def store(
    path,
    data: Dataset | tuple | Iterable,
    *,
    classes: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    preprocessor=None,
) -> Dataset:
    """Writes a data set to a folder, from which :func:`stored` opens it.

    Args:
        path: the folder, which must not exist yet; the one it is to be in must.
        data: a Dataset (also one on disk), a tuple ``(x, y)`` of arrays, or an iterable of such chunks, of which one is
            held at a time: a generator may give more than fits into memory. All chunks are of the dtypes of the first,
            and their rows of its shapes.
        classes, names, preprocessor: as for ``Dataset``. Those of a Dataset are kept where none are given.

    Returns:
        The data set, opened.

    Rows lie as they came. A ``Loader`` mixes those of 32 blocks at a time; where rows that lie together are alike, they
    are better mixed once and for all. A ``Loader`` is such an iterable, too, and holds a batch at a time::

        store("mixed", Loader(stored("sorted"), 10_000, shuffle="rows"), classes=("no", "yes"))

    Raises:
        DataError: the folder exists, or cannot be written. ArgumentError: something else than data sets, or no rows.
        ShapeError, DTypeError, RangeError: a chunk that is no Dataset, or does not go with the first; the message tells
        which. Nothing is left on disk then, whatever was raised.
    """
    path = os.fspath(path)
    if os.path.lexists(path):
        raise DataError(path, expected="a path that does not exist yet", got="one that does", mend="choose another")
    if isinstance(data, Dataset):
        classes = data.classes if classes is None else classes
        names = data.names if names is None else names
        preprocessor = data.preprocessor if preprocessor is None else preprocessor
    chunks = _chunks(data, {"classes": classes, "names": names})
    partial = f"{os.path.normpath(path)}.partial-{os.urandom(4).hex()}"
    with _writing(path):
        os.mkdir(partial)
    try:
        rows = _write_rows(partial, chunks)
        described = {
            "format": FORMAT, "version": VERSION, "rows": rows,
            "classes": None if classes is None else list(classes), "names": None if names is None else list(names),
            "preprocessor": None if preprocessor is None else preprocessor.to_dict(),
        }  # fmt: skip
        with _durable(os.path.join(partial, DESCRIPTION)) as file:
            file.write(json.dumps(described, indent=1).encode())
        with _writing(path):
            os.rename(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return stored(path)


def _chunks(data, options: dict) -> Iterator[Dataset]:
    """The chunks, each checked by itself as a Dataset."""
    if isinstance(data, (Dataset, tuple)):
        data = [data]
    elif isinstance(data, np.ndarray) or not isinstance(data, Iterable):
        raise ArgumentError(
            "store", expected="a Dataset, a tuple (x, y), or an iterable of them", got=type(data).__name__,
            mend="give the targets, too: (x, y)",
        )  # fmt: skip
    for number, chunk in enumerate(data):
        pair = (chunk.x, chunk.y) if isinstance(chunk, Dataset) else chunk
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ArgumentError(
                f"store, chunk {number}", expected="a Dataset or a tuple (x, y)", got=type(chunk).__name__,
                mend="give inputs and targets of its rows",
            )  # fmt: skip
        try:
            yield Dataset(*pair, **options)
        except TinynetError as error:
            error.add_note(f"in chunk {number} of the data to store")
            raise


def _write_rows(folder: str, chunks: Iterator[Dataset]) -> int:
    """Writes x.npy and y.npy; how many rows they have."""
    first, rows = None, 0
    with contextlib.ExitStack() as stack:
        for number, chunk in enumerate(chunks):
            if first is None:
                first = {name: (array.shape[1:], array.dtype) for name, array in (("x", chunk.x), ("y", chunk.y))}
                files = {name: stack.enter_context(_durable(os.path.join(folder, f"{name}.npy"))) for name in first}
                for name, (shape, dtype) in first.items():
                    _write_header(files[name], (0, *shape), dtype)
            for name, array in (("x", chunk.x), ("y", chunk.y)):
                _check(f"store, chunk {number}", name, array, *first[name])
            for name, array in (("x", chunk.x), ("y", chunk.y)):
                _write(files[name], array)
            rows += len(chunk)
        if not rows:
            raise ArgumentError("store", expected="at least one row", got="none", mend="check where chunks come from")
        for name, (shape, dtype) in first.items():
            with _writing(files[name].name):
                files[name].seek(0)
            _write_header(files[name], (rows, *shape), dtype)
    return rows


def _check(where: str, name: str, array, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if dtype.kind not in "biufc":
        raise DTypeError(where, expected=f"{name} of numbers", got=str(dtype), mend="convert it to a dtype of NumPy")
    if array.shape[1:] != shape:
        raise ShapeError(
            where, expected=f"rows of {name} of shape {shape}, as in the first chunk", got=str(array.shape[1:]),
            mend="give all rows the same shape",
        )  # fmt: skip
    if array.dtype != dtype:
        raise DTypeError(
            where, expected=f"{name} of {dtype}, as in the first chunk", got=str(array.dtype),
            mend=f"convert it: {name}.astype({dtype.name!r})",
        )  # fmt: skip


def _write_header(file, shape: tuple[int, ...], dtype: np.dtype) -> None:
    # NumPy leaves room for the first length to grow, so that a header written again is as long as before.
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with _writing(file.name):
        np.lib.format.write_array_header_1_0(file, described)


def _write(file, array) -> None:
    """The rows of an array, in memory or on disk, piece by piece."""
    step = max(1, _PIECE * len(array) // max(1, array.nbytes))
    for start in range(0, len(array), step):
        piece = np.ascontiguousarray(array[start : start + step]).reshape(-1).view(np.uint8)
        with _writing(file.name):
            file.write(piece)


@contextlib.contextmanager
def _durable(path: str) -> Iterator[BinaryIO]:
    """A new file, which is on disk when it is closed."""
    with _writing(path):
        opened = open(path, "xb")  # noqa: SIM115
    with _closing(opened) as file:
        yield file
        with _writing(path):
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def _closing(file: BinaryIO) -> Iterator[BinaryIO]:
    """Closes a file, which may write what is left in its buffer."""
    try:
        yield file
    except BaseException:
        with contextlib.suppress(OSError):
            file.close()
        raise
    with _writing(file.name):
        file.close()


@contextlib.contextmanager
def _writing(path: str) -> Iterator[None]:
    """Tells faults of the system from those of where the chunks come from."""
    try:
        yield
    except OSError as error:
        got = error.strerror or str(error)
        raise DataError(path, expected="a place that can be written", got=got, mend="check path and disk") from error
