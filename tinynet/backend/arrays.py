"""What the engine may ask of an array library: one class per kind of backend.

``Backend`` wraps any module that follows the array-API standard, on one device of it; NumPy and CuPy override what
they can do better. One thing is asked beyond the standard: basic indexing and reshaping of contiguous arrays give
views that share memory, because the parameters of a model are views of one segment.

Element types are ``numpy.dtype`` objects everywhere above this module, whatever the library calls its own.
"""

from __future__ import annotations

import numpy as np

from tinynet.errors import BackendError, DTypeError, import_extra

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
    """

    target = "reference"

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
        raise BackendError(
            f"backend {self.name!r}",
            expected="arrays within a block of bytes, as NumPy and CuPy have them",
            got="a library without them",
            mend="capture steps on the backend 'numpy'",
        )

    def synchronize(self) -> None:
        """Returns when all work issued so far is done."""

    def quiet(self):
        """A context in which floating-point exceptions make infinities and NaN, without a warning."""
        return np.errstate(all="ignore")


class NumPyBackend(Backend):
    """NumPy arrays in host memory."""

    target = "numpy"

    def __init__(self):
        super().__init__("numpy", np)

    def owns(self, array) -> bool:
        return isinstance(array, np.ndarray) and array.dtype in _SUPPORTED  # others have to be converted

    def dtype_of(self, array) -> np.dtype:
        return array.dtype

    def empty(self, shape, dtype):
        return np.empty(shape, dtype)

    def full(self, shape, value, dtype):
        with self.quiet():
            return np.full(shape, value, dtype)

    def zeros(self, shape, dtype):
        return np.zeros(shape, dtype)

    def from_host(self, array):
        return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")

    def to_host(self, array):
        return array

    def writable(self, array):
        return array.flags.writeable

    def carve(self, block, offset, shape, dtype):
        return np.ndarray(shape, dtype, block, offset)

    def contiguous(self, array):
        return array if array.flags.c_contiguous else array.copy(order="C")

    def address(self, array):
        return array.ctypes.data

    def reshape(self, array, shape):
        result = array.reshape(shape)
        return result, np.may_share_memory(array, result) or result.size == 0


class CuPyBackend(Backend):
    """CuPy arrays on the current CUDA device.

    Raises:
        MissingExtraError: CuPy is not installed.
        BackendError: CuPy is installed, but there is no usable NVIDIA GPU.
    """

    target = "cupy"

    def __init__(self):
        cupy = import_extra("cupy", "backend 'cupy'", "cuda12 or cuda13")
        try:
            count = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            count, reason = 0, str(error)
        else:
            reason = "0 devices"
        if not count:
            raise BackendError(
                "backend 'cupy'",
                expected="an NVIDIA GPU that CUDA can use",
                got=reason,
                mend="run nvidia-smi to see whether driver and device are there, or use the backend 'numpy'",
            )
        super().__init__("cupy", cupy)

    def empty(self, shape, dtype):
        return self.xp.empty(shape, dtype)

    def full(self, shape, value, dtype):
        return self.xp.full(shape, value, dtype)

    def zeros(self, shape, dtype):
        return self.xp.zeros(shape, dtype)

    def from_host(self, array):
        return self.xp.array(np.ascontiguousarray(array).reshape(array.shape))

    def to_host(self, array):
        return self.xp.asnumpy(array)

    def copy(self, array):
        return self.xp.array(array)

    def carve(self, block, offset, shape, dtype):
        return self.xp.ndarray(shape, dtype, memptr=block.data + offset)

    def contiguous(self, array):
        return array if array.flags.c_contiguous else array.copy(order="C")

    def address(self, array):
        return array.data.ptr

    def reshape(self, array, shape):
        result = array.reshape(shape)
        return result, result.size == 0 or result.data.ptr == array.data.ptr

    def writable(self, array):
        # CuPy has no flag for it: elements of a broadcast array share memory
        return all(stride or n < 2 for n, stride in zip(array.shape, array.strides))

    def synchronize(self):
        self.xp.cuda.get_current_stream().synchronize()


def host_array(data, dtype=None) -> np.ndarray:
    """Nested lists, numbers or anything array-like as a host array with a canonical element type.

    Arrays keep their element type; Python numbers become float32, Python booleans stay booleans.

    Raises:
        DTypeError: the elements are not numbers, or not numbers that the integer type asked for can say.
        ValueError: nested sequences of unequal lengths (NumPy's message).
    """
    is_array = isinstance(data, (np.ndarray, np.generic)) or hasattr(data, "__array_interface__")
    array = np.asarray(data)
    if dtype is not None:
        return _converted(array, as_dtype(dtype))
    if not is_array and array.dtype.kind != "b" and not _holds_arrays(data):
        if array.dtype.kind not in "iuf":
            as_dtype(array.dtype)  # raises: strings, objects, complex numbers
        return _converted(array, np.dtype("float32"))
    return array.astype(as_dtype(array.dtype), copy=False)


def host_indices(data) -> np.ndarray:
    """Nested lists of integers as a host array. What else they hold keeps its type, for the caller to refuse.

    Raises:
        ValueError: nested sequences of unequal lengths (NumPy's message).
    """
    array = np.asarray(data)
    return array if array.size else array.astype(np.int64)


def _converted(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The array in another type: too large for a float is an infinity, and for an integer an error."""
    if is_integer(dtype) and array.size and array.dtype.kind in "iu" and not np.can_cast(array.dtype, dtype):
        (low, high), least, most = integer_range(dtype), int(array.min()), int(array.max())
        if least < low or most > high:
            raise DTypeError(
                "dtype", expected=f"numbers that {dtype} can hold", got=str(least if least < low else most)
            )
    try:
        with np.errstate(over="ignore", under="ignore", invalid="raise"):
            return array.astype(dtype, copy=False)
    except FloatingPointError:
        raise DTypeError(
            "dtype", expected=f"numbers that {dtype} can hold", got="infinities, not-a-numbers or larger ones"
        ) from None


def _holds_arrays(data) -> bool:
    """Whether a (nested) list holds NumPy arrays, whose element type is then kept."""
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return isinstance(data, (np.ndarray, np.generic))
