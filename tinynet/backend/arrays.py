"""What the engine may ask of an array library: one class per kind of backend.

``Backend`` wraps any module that follows the array-API standard, on one device of it; NumPy (here) and CuPy (``gpu``)
override what they can do better. One thing is asked beyond the standard: basic indexing and reshaping of contiguous
arrays give views that share memory, because the parameters of a model are views of one segment.

Element types are ``numpy.dtype`` objects everywhere above this module, whatever the library calls its own.

New arrays of NumPy and CuPy take their memory from the arena in force in their thread, if there is one (``lending``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from tinynet.errors import BackendError, DTypeError

from .lending import lent, thread

DType = np.dtype
HostArray = np.ndarray
HostScalar = np.generic
INTEGERS = (int, np.integer)
_KNOWN = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")
_DTYPES = {name: np.dtype(name) for name in _KNOWN}
_SUPPORTED = frozenset(_DTYPES.values())


def as_dtype(dtype) -> np.dtype:
    """The canonical element type for a name, a NumPy type or an array library's own type.

    Raises:
        DTypeError: the type is not one that the engine computes with (complex, strings, objects, float16).
    """
    try:
        found = np.dtype(dtype)
    except TypeError:  # another library's type object: its name is the last word of its repr
        found = _DTYPES.get(str(dtype).rsplit(".", 1)[-1])
    if found is None or found.newbyteorder("=") not in _SUPPORTED:
        raise DTypeError(
            "dtype", expected=f"one of {', '.join(_KNOWN)}", got=repr(dtype), mend="convert the data first"
        )
    return found.newbyteorder("=")


def is_floating(dtype: np.dtype) -> bool:
    return dtype.kind == "f"


def is_integer(dtype: np.dtype) -> bool:
    return dtype.kind in "iu"


def integer_range(dtype: np.dtype) -> tuple[int, int]:
    """The smallest and the largest number that an integer type holds."""
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


class Backend:
    """An array-API namespace on one of its devices.

    Args:
        name: what users call it, in ``use_backend`` and in error messages.
        namespace: the array-API module.
        device: a device of that module, or None for its default.

    Attributes:
        xp: the namespace.
        target: which family of kernels runs on these arrays (``tinynet.kernels`` looks them up by it).
        captures: whether training captures its steps here unless told otherwise.
        feeds: whether programs bring arrays of the host here by themselves, without waiting for what runs.
        alignment: at which multiples of bytes arrays should begin.
    """

    target = "reference"
    captures = feeds = False
    alignment = 64  # a cache line, and the widest vector register

    def __init__(self, name: str, namespace, device=None):
        self.name, self.xp, self.device = name, namespace, device
        self._native = {np.dtype(known): getattr(namespace, known) for known in _KNOWN if hasattr(namespace, known)}
        self._canonical = {native: dtype for dtype, native in self._native.items()}
        self._array_type = type(namespace.empty(0))

    def __repr__(self) -> str:
        return f"<backend {self.name}>"

    def __reduce__(self):  # a backend is a process-wide object: copies of models share it
        from .choice import get_backend

        return get_backend, (self.name,)

    def owns(self, array) -> bool:
        """Whether ``array`` is this library's array on this device."""
        return isinstance(array, self._array_type) and (self.device is None or array.device == self.device)

    def dtype_of(self, array) -> np.dtype:
        return self._canonical.get(array.dtype) or as_dtype(array.dtype)

    def native_dtype(self, dtype: np.dtype):
        return self._native[dtype]

    def empty(self, shape: tuple[int, ...], dtype: np.dtype):
        """Fresh memory of unspecified content."""
        return self.xp.empty(shape, dtype=self._native[dtype], device=self.device)

    def full(self, shape: tuple[int, ...], value, dtype: np.dtype):
        with self.quiet():  # a number too large for the type is an infinity
            return self.xp.full(shape, value, dtype=self._native[dtype], device=self.device)

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype):
        return self.xp.zeros(shape, dtype=self._native[dtype], device=self.device)

    def from_host(self, array: np.ndarray):
        """A copy of a host array, on this backend; later changes of ``array`` do not show in it."""
        return self.xp.asarray(array, dtype=self._native[array.dtype], device=self.device, copy=True)

    def to_host(self, array) -> np.ndarray:
        """The array as NumPy's: a view where the memory is the host's, else a copy. Waits for pending work."""
        host = self.xp.Device("CPU_DEVICE") if hasattr(self.xp, "Device") else None
        return np.asarray(array.to_device(host) if host is not None else array)

    def reshape(self, array, shape: tuple[int, ...]) -> tuple[object, bool]:
        """The array in another shape, and whether it still shares memory with the original."""
        try:
            return self.xp.reshape(array, shape, copy=False), True
        except (ValueError, AttributeError):  # array-api-strict 2.6 says AttributeError where NumPy says ValueError
            return self.xp.reshape(array, shape, copy=True), False

    def writable(self, array) -> bool:
        """Whether the array may be written to, as far as the library says."""
        return True

    def copy(self, array):
        """The same values in memory of their own."""
        return self.xp.asarray(array, copy=True)

    def copier(self, array):
        """A function that gives ``copy`` of an array, again and again, in as little time as there is to it."""
        return functools.partial(self.copy, array)

    def contiguous(self, array):
        """The array itself if its elements lie in C order without gaps, else a copy that does."""
        return array

    def address(self, array) -> int:
        """Where the memory of an array begins, for alignment; 0 where the library does not say."""
        return 0

    def carve(self, block, offset: int, shape: tuple[int, ...], dtype: np.dtype):
        """An array within a block of bytes.

        Raises:
            BackendError: the array library cannot say so.
        """
        raise self._no_blocks("capture steps on the backend 'numpy'")

    def block(self, nbytes: int):
        """Bytes of unspecified content, from no arena, that begin at a multiple of ``alignment``.

        Raises:
            BackendError: the array library has no arrays within a block of bytes.
            MemoryError: there is not so much memory.
        """
        raise self._no_blocks("use the backend 'numpy' or 'cupy'")

    def free_bytes(self) -> int | None:
        """How much a ``block`` may take; None where the library does not say."""
        return None

    def lend(self, block, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> tuple[object, object]:
        """An array within what ``block`` gave, and its ``owner``."""
        raise self._no_blocks("use the backend 'numpy' or 'cupy'")

    def owner(self, array):
        """What holds the memory of an array: one object for all its views, and views of those, that lives as long.

        Arrays of two owners share no byte, where the library says whose a view is. Lent arrays have an owner each.
        """
        while hasattr(getattr(array, "base", None), "shape"):
            array = array.base
        return array

    def expressions(self, array: str, name: Callable[[object], str]) -> tuple[str, str]:
        """For a function that is being written: whether ``contiguous`` gives an array back, and its ``owner``.

        Args:
            array: the expression of the array.
            name: gives an object a name in the function.
        """
        return f"{name(self.contiguous)}({array}) is {array}", f"{name(self.owner)}({array})"

    def _no_blocks(self, mend: str) -> BackendError:
        return BackendError(
            f"backend {self.name!r}",
            expected="arrays within a block of bytes, as NumPy and CuPy have them",
            got="a library without them",
            mend=mend,
        )

    def synchronize(self) -> None:
        """Returns when all work issued so far is done."""

    def quiet(self):
        """A context in which floating-point exceptions make infinities and NaN, without a warning."""
        return np.errstate(all="ignore")


class _Block(np.ndarray):
    """Bytes out of which arrays are lent.

    A view of a NumPy array holds on to the array that owns the memory, past all views between them, but not past an
    array of another class (numpy.memmap needs that). Thus views of a lent array, and views of those, hold on to the
    lent array itself, which holds on to the block.
    """


class _Quiet(np.errstate):
    """NumPy's own context for floating-point exceptions, which keeps the size of its buffers too.

    Operands that are broadcast or strided go through such buffers, a few of 8192 elements for each call. Of 256 they
    stay in the first-level cache.
    """

    def __enter__(self):
        super().__enter__()
        np.setbufsize(256)


class NumPyBackend(Backend):
    """NumPy arrays in host memory."""

    target = "numpy"
    captures = True

    def __init__(self):
        super().__init__("numpy", np)

    def owns(self, array) -> bool:
        return isinstance(array, np.ndarray) and array.dtype in _SUPPORTED  # others have to be converted

    def dtype_of(self, array) -> np.dtype:
        return array.dtype

    def empty(self, shape, dtype):
        if thread.lender is None:  # said here as well, because every result of an operation comes from here
            return np.empty(shape, dtype)
        array = lent(self, shape, dtype)
        return np.empty(shape, dtype) if array is None else array

    def full(self, shape, value, dtype):
        array = self.empty(shape, dtype)
        with self.quiet():
            np.copyto(array, value, casting="unsafe")
        return array

    def zeros(self, shape, dtype):
        array = lent(self, shape, dtype)
        if array is None:
            return np.zeros(shape, dtype)
        array[...] = 0
        return array

    def from_host(self, array):
        copy = self.empty(array.shape, array.dtype.newbyteorder("="))
        copy[...] = array
        return copy

    def to_host(self, array):
        return array

    def writable(self, array):
        return array.flags.writeable

    def copy(self, array):
        if thread.lender is None:
            return array.copy(order="K")
        axes = sorted(range(array.ndim), key=lambda i: -abs(array.strides[i]))  # neighbours in memory stay neighbours
        copy = self.empty(tuple(array.shape[i] for i in axes), array.dtype)
        copy = copy.transpose([axes.index(i) for i in range(array.ndim)])
        copy[...] = array
        return copy

    def copier(self, array):
        plain = array.copy  # in C order, and in half the time that asking for an order takes
        if not array.flags.c_contiguous:
            return super().copier(array)
        return lambda: plain() if thread.lender is None else self.copy(array)

    def contiguous(self, array):
        return array if array.flags.c_contiguous else self.from_host(array)

    def address(self, array):
        return array.__array_interface__["data"][0]

    def quiet(self):
        return _Quiet(all="ignore")

    def reshape(self, array, shape):
        try:
            return array.reshape(shape, copy=False), True
        except ValueError:  # a copy is needed, or the shape does not fit
            return self.from_host(array).reshape(shape), False

    def carve(self, block, offset, shape, dtype):
        return np.ndarray(shape, dtype, block, offset)

    def block(self, nbytes):
        whole = _Block((nbytes + self.alignment,), np.uint8)
        shift = -self.address(whole) % self.alignment
        return whole[shift : shift + nbytes]

    def lend(self, block, offset, shape, dtype):
        array = np.ndarray(shape, dtype, block, offset)
        return array, array

    def owner(self, array):
        while isinstance(array.base, np.ndarray) and not isinstance(array.base, _Block):
            array = array.base
        return array

    def expressions(self, array, name):
        # in a third of the time of two calls
        owner = f"({array} if {array}.base is None else {name(self.owner)}({array}))"
        return f"{array}.flags.c_contiguous", owner
