"""What users pass, as host arrays with a canonical element type: nested lists, numbers, anything array-like.

Here Python numbers become float32, and numbers that a type cannot hold are refused. How a host array gets to a backend
is said in ``arrays``.
"""

from __future__ import annotations

import numpy as np

from tinynet.errors import DTypeError

from .arrays import as_dtype, integer_range, is_integer


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
