"""``Tensor``: an array that knows its backend and its place on the tape; and the functions that make one.

Operators and methods here only name operations of the op table. What they compute is there; how gradients are found is
in ``autograd``.
"""

from __future__ import annotations

from tinynet import autograd, ops
from tinynet.backend import INTEGERS, Backend, HostArray, HostScalar, as_dtype, get_backend, host_array, is_floating
from tinynet.errors import ArgumentError, BackendError, DTypeError, GradientError, ShapeError

from .ops import door
from .ops.brackets import index_with
from .ops.door import Value
from .ops.spec import Spec, as_shape


class Tensor(Value):
    """An n-dimensional array on a backend, with reverse-mode differentiation.

    Made by ``tn.tensor``, ``tn.zeros`` and the like, and by every operation. Arithmetic broadcasts as NumPy's does.
    Operands must have one dtype and one backend; Python numbers take those of the tensor.

    Attributes:
        shape, dtype, ndim, size, nbytes, T: as NumPy's.
        backend: the backend that holds it.
        data: the backend's own array. Writing into it is not seen by backward; assigning to it writes in place.
        requires_grad: whether ``backward`` reaches it.
        grad: what backward has accumulated, a Tensor, or None. Set it to None to start afresh.
    """

    __slots__ = ()
    __array_priority__ = 1000  # NumPy leaves mixed expressions to us

    # ---- what it is ----

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return self.spec.size

    @property
    def nbytes(self) -> int:
        return self.spec.nbytes

    @property
    def T(self) -> Tensor:
        """The axes in reverse order."""
        return ops.transpose(self)

    @property
    def data(self):
        if door.state.tracer is not None:
            door.state.tracer.value_read(self)
        return self.array

    @data.setter
    def data(self, value) -> None:
        with autograd.no_grad():
            ops.assign(self, value)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a scalar tensor: it has no axes")
        return self.shape[0]

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        text = repr(door.host(self)).removeprefix("array(").rsplit(", dtype=", 1)[0].removesuffix(")")
        text = text.replace("\n      ", "\n       ")
        more = "" if self.dtype == "float32" else f", dtype={self.dtype}"
        more += "" if self.backend.name == "numpy" else f", backend='{self.backend.name}'"
        more += ", requires_grad=True" if self.requires_grad and self.node is None else ""
        more += f", made_by={self.node.op.name}" if self.node is not None else ""
        return f"tensor({text}{more})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else repr(self)

    # ---- out of the engine ----

    def numpy(self):
        """The values as a NumPy array that cannot be written to; a view where the backend's memory is the host's."""
        host = door.host(self).view()
        host.flags.writeable = False
        return host

    def __array__(self, dtype=None, copy=None):
        host = self.numpy()
        return host.astype(dtype) if copy or (dtype is not None and dtype != host.dtype) else host

    def item(self) -> float | int | bool:
        """The only element as a Python number.

        Raises:
            ShapeError: there is not exactly one.
        """
        if self.size != 1:
            raise ShapeError(
                "item", expected="a tensor with one element", got=f"shape {self.shape}", mend="use .numpy()"
            )
        return door.host(self).item()

    def tolist(self) -> list:
        """The values as nested Python lists."""
        return door.host(self).tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise TypeError(f"a tensor of {self.dtype} is no index: expected an integer dtype")
        return int(self.item())

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ShapeError(
                "truth value",
                expected="one element",
                got=f"shape {self.shape}",
                mend="reduce it first: (x > 0).numpy().all()",
            )
        return bool(self.item())

    # ---- the tape ----

    def requires_grad_(self, on: bool = True) -> Tensor:
        """Whether backward shall reach this leaf; returns the tensor.

        Raises:
            DTypeError: the tensor is not floating.
            GradientError: it is the result of an operation.
        """
        if on and not is_floating(self.dtype):
            raise DTypeError(
                "requires_grad",
                expected="a floating dtype",
                got=str(self.dtype),
                mend="convert with .astype('float32')",
            )
        if not on and self.node is not None:
            raise GradientError("requires_grad", expected="a leaf", got=repr(self.node), mend="use .detach()")
        self.requires_grad = on
        return self

    def detach(self) -> Tensor:
        """The same memory, outside of the tape."""
        return Tensor(self.array, self.backend, self.spec, self.versions)

    def backward(self, grad=None, retain_graph: bool = False, create_graph: bool = False) -> None:
        """Adds this tensor's gradient to ``grad`` of every leaf it came from. See ``tinynet.autograd.backward``."""
        autograd.backward(self, grad, retain_graph, create_graph)

    # ---- to another type, backend, shape ----

    def astype(self, dtype) -> Tensor:
        """The values in another type (itself if it has that type). Gradients flow between floating types."""
        dtype = as_dtype(dtype)
        return self if dtype == self.dtype else ops.cast(self, dtype=dtype)

    def to(self, backend: str | Backend) -> Tensor:
        """A copy on another backend (itself if it is there). The copy is a leaf: gradients do not cross backends.

        Raises:
            GradientError: this is the result of a recorded operation.
            BackendError, MissingExtraError: the backend cannot be used here.
        """
        backend = get_backend(backend)
        if backend is self.backend:
            return self
        if self.node is not None and autograd.is_recording():
            raise GradientError(
                "to", expected="a leaf or a detached tensor", got=repr(self), mend="call .detach().to(...)"
            )
        copy = Tensor(backend.from_host(door.host(self)), backend, self.spec)
        copy.requires_grad = self.requires_grad
        return copy

    def copy(self) -> Tensor:
        """The same values in memory of their own, outside of the tape."""
        with autograd.no_grad():
            result = Tensor(self.backend.empty(self.shape, self.dtype), self.backend, self.spec)
            return ops.assign(result, self)

    def reshape(self, *shape) -> Tensor:
        return ops.reshape(self, shape=shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes) -> Tensor:
        axes = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        return ops.transpose(self, axes=axes or None)

    # ---- brackets ----

    def __getitem__(self, index) -> Tensor:
        return index_with(self, index)

    def __setitem__(self, index, value) -> None:
        """Writes in place. GradientError for a tensor that is on the tape or whose gradient is wanted."""
        if self.requires_grad and autograd.is_recording():
            autograd._refuse_update(ops.assign, (self,))
        ops.assign(ops.getitem(self, index=index), value)


def _operator(op, reflected: bool = False):
    if reflected:
        return lambda self, other: op(other, self)
    return lambda self, other: op(self, other)


def _method(op):
    def method(self, *args, **kwargs):
        return op(self, *args, **kwargs)

    method.__name__ = method.__qualname__ = op.name
    method.__doc__ = op.__doc__
    return method


for _name, _op in {
    "add": ops.add, "sub": ops.subtract, "mul": ops.multiply, "truediv": ops.divide, "matmul": ops.matmul,
}.items():  # fmt: skip
    setattr(Tensor, f"__{_name}__", _operator(_op))
    setattr(Tensor, f"__r{_name}__", _operator(_op, reflected=True))
for _name, _op in {
    "eq": ops.equal, "ne": ops.not_equal, "lt": ops.less, "le": ops.less_equal, "gt": ops.greater,
    "ge": ops.greater_equal, "and": ops.logical_and, "or": ops.logical_or,
}.items():  # fmt: skip
    setattr(Tensor, f"__{_name}__", _operator(_op))
for _name in [
    "sum",
    "mean",
    "max",
    "min",
    "var",
    "logsumexp",
    "argmax",
    "exp",
    "log",
    "sqrt",
    "tanh",
    "sigmoid",
    "relu",
    "abs",
    "clip",
    "expand_dims",
    "squeeze",
    "softmax",
    "log_softmax",
]:
    setattr(Tensor, _name, _method(ops.table()[_name]))


def _pow(self, exponent):
    return ops.square(self) if isinstance(exponent, int) and exponent == 2 else ops.power(self, exponent)


Tensor.__pow__ = _pow
Tensor.__rpow__ = _operator(ops.power, reflected=True)
Tensor.__neg__ = lambda self: ops.negative(self)
Tensor.__pos__ = lambda self: self
Tensor.__abs__ = lambda self: ops.abs(self)
Tensor.__invert__ = lambda self: ops.logical_not(self)
Tensor.__hash__ = object.__hash__  # comparison is elementwise, identity is what a tensor is found by

door.values = Tensor


# ---- making tensors ----


def tensor(data, dtype=None, requires_grad: bool = False, backend: str | Backend | None = None) -> Tensor:
    """A new tensor with a copy of ``data``.

    Args:
        data: numbers, nested lists of them, a NumPy array, an array of the backend, or a tensor.
        dtype: the element type. By default an array keeps its own, Python numbers become float32, and Python booleans
            stay booleans.
        requires_grad: whether ``backward`` shall reach it.
        backend: a name or a ``Backend``; the one in use by default.

    Raises:
        DTypeError: elements that are not numbers, or ``requires_grad`` for integers.
        ShapeError: nested lists of unequal lengths.
        BackendError, MissingExtraError: a backend that cannot be used here.
    """
    if isinstance(data, Tensor):
        backend = data.backend if backend is None else backend
        data = data.data
    backend = get_backend(backend)
    if not isinstance(data, HostArray):
        source = next((b for b in (backend, get_backend()) if b.owns(data)), None)
        if source is not None:
            data = source.to_host(data)
        elif not isinstance(data, (int, float, list, tuple)) and not hasattr(data, "__array__"):
            raise ArgumentError("tensor", expected="numbers or an array", got=repr(data))
    try:
        host = host_array(data, dtype)
    except ValueError as error:
        if isinstance(error, (DTypeError, BackendError)):
            raise
        raise ShapeError("tensor", expected="nested lists of equal lengths", got=str(error)) from error
    result = Tensor(backend.from_host(host), backend, Spec(tuple(host.shape), host.dtype))
    return result.requires_grad_() if requires_grad else result


def as_tensor(data, backend: str | Backend | None = None) -> Tensor:
    """``data`` itself if it is a tensor; otherwise ``tensor(data)``, without a copy where the backend allows."""
    if isinstance(data, Tensor):
        return data
    backend = get_backend(backend)
    if backend.owns(data):
        return Tensor(data, backend, Spec(tuple(data.shape), as_dtype(backend.dtype_of(data))))
    return tensor(data, backend=backend)


def full(shape, value, dtype="float32", requires_grad: bool = False, backend=None) -> Tensor:
    """A tensor of ``shape`` (an integer or a tuple) filled with a number."""
    backend, dtype, shape = get_backend(backend), as_dtype(dtype), as_shape("full", shape)
    if not isinstance(value, (bool, int, float, HostScalar)):
        raise ArgumentError("full", expected="a number", got=repr(value))
    door.check_number("full", value.item() if isinstance(value, HostScalar) else value, dtype)
    result = Tensor(backend.full(shape, value, dtype), backend, Spec(shape, dtype))
    return result.requires_grad_() if requires_grad else result


def zeros(shape, dtype="float32", requires_grad: bool = False, backend=None) -> Tensor:
    """A tensor of ``shape`` (an integer or a tuple) filled with zeros."""
    return full(shape, 0, dtype, requires_grad, backend)


def ones(shape, dtype="float32", requires_grad: bool = False, backend=None) -> Tensor:
    """A tensor of ``shape`` (an integer or a tuple) filled with ones."""
    return full(shape, 1, dtype, requires_grad, backend)


def arange(start, stop=None, step=1, dtype=None, backend=None) -> Tensor:
    """Numbers from ``start`` (0 if only one is given) up to, not including, ``stop``; int64 if all are whole."""
    start, stop = (0, start) if stop is None else (start, stop)
    backend = get_backend(backend)
    numbers = start, stop, step
    if not all(isinstance(each, (*INTEGERS, float)) for each in numbers) or not step:
        raise ArgumentError("arange", expected="numbers, and a step that is not 0", got=repr(numbers))
    whole = all(isinstance(each, INTEGERS) for each in numbers)
    dtype = as_dtype(dtype or ("int64" if whole else "float32"))
    host = host_array([start + i * step for i in range(max(0, -int(-(stop - start) // step)))], dtype)
    return Tensor(backend.from_host(host), backend, Spec(host.shape, dtype))
