"""``Parameter`` and ``Module``: what every layer and model is made of.

A module's parameters are the ``Parameter`` objects among its attributes and those of the modules among its attributes
(in lists, tuples and dicts too), named by their path: "0.weight", "encoder.blocks.1.bias". They live in one segment of
memory, packed when the outermost module has been constructed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tinynet.autograd import no_grad
from tinynet.backend import Backend, HostArray, as_dtype, get_backend, is_floating
from tinynet.errors import CheckpointError, DTypeError, ShapeError
from tinynet.tensor import Tensor, as_tensor, tensor

from .abstract import is_abstract
from .segment import Segment, pack


class Parameter(Tensor):
    """A tensor that a model learns: ``requires_grad`` is True, and a module finds it among its attributes.

    Attributes:
        segment: the memory it is a part of, once its module is constructed.
    """

    __slots__ = ("segment",)

    def __init__(self, data, dtype=None, backend: str | Backend | None = None, requires_grad: bool = True):
        made = as_tensor(data, "numpy") if is_abstract() else tensor(data, dtype, backend=backend)
        super().__init__(made.array, made.backend, made.spec)
        self.segment: Segment | None = None
        if requires_grad:
            self.requires_grad_()

    def __reduce__(self):
        return Parameter, (self.numpy().copy(), None, self.backend, self.requires_grad)


class LoadResult(NamedTuple):
    """What ``load_state_dict(strict=False)`` passed over."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


class _Packing(type):
    """Packs a module's parameters into one segment when its construction is complete."""

    def __call__(cls, *args, **kwargs):
        module = super().__call__(*args, **kwargs)
        module.pack()
        return module


class Module(metaclass=_Packing):
    """Base of layers and models. A subclass defines ``forward``; parameters and modules are plain attributes.

    Example:
        >>> class Residual(tn.nn.Module):
        ...     def __init__(self, n):
        ...         self.inner = tn.nn.Dense(n, n, "relu")
        ...     def forward(self, x):
        ...         return x + self.inner(x)

    Attributes:
        training: whether layers such as Dropout act as in training; see ``train`` and ``eval``.
    """

    training = True

    def forward(self, *inputs):
        """The result for the given inputs. To be defined by the subclass."""
        raise TypeError(f"{type(self).__name__} defines no forward(self, x)")

    def __call__(self, *inputs, **options):
        return self.forward(*inputs, **options)

    # ---- structure ----

    def named_children(self) -> Iterator[tuple[str, Module | Parameter]]:
        """(name, module or parameter) for each that an attribute holds, in the order of assignment."""
        for name, value in vars(self).items():
            yield from _entries(name, value)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(path, module) for this module, whose path is "", and all within, each once."""
        stack, seen = [(prefix, self)], set()
        while stack:
            path, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield path, module
            children = [(_join(path, n), c) for n, c in module.named_children() if isinstance(c, Module)]
            stack.extend(reversed(children))

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter), each parameter once: a shared one under its first path."""
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, child in module.named_children():
                if isinstance(child, Parameter) and id(child) not in seen:
                    seen.add(id(child))
                    yield _join(path, name), child

    def parameters(self) -> list[Parameter]:
        """All parameters, each once, in the order of ``state_dict``."""
        return [p for _, p in self.named_parameters()]

    def pack(self) -> Segment | None:
        """Makes the parameters one contiguous segment and returns it; None if there are none.

        Called at the end of construction. To be called again after parameters were added to a finished module.
        """
        return None if is_abstract() else pack(self.parameters())

    # ---- state ----

    def train(self, mode: bool = True) -> Module:
        """Sets training mode for this module and all within; returns it."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Sets evaluation mode: ``train(False)``."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forgets the gradients of all parameters."""
        for p in self.parameters():
            p.grad = None

    def state_dict(self) -> dict[str, HostArray]:
        """path -> a copy of the parameter on the host. Later training does not change it."""
        return {name: p.numpy().copy() for name, p in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, object], strict: bool = True) -> LoadResult:
        """Writes values into the parameters.

        Args:
            state: path -> array or tensor. Floating types are converted to the parameter's.
            strict: whether every parameter must be there and nothing else.

        Returns:
            The names that were missing and unexpected; both empty if ``strict``.

        Raises:
            CheckpointError: missing or unknown names. ShapeError, DTypeError: a value does not fit its parameter.
            In every case no parameter has been changed.
        """
        parameters = dict(self.named_parameters())
        missing = tuple(name for name in parameters if name not in state)
        unexpected = tuple(name for name in state if name not in parameters)
        if strict and (missing or unexpected):
            parts = [f"missing: {', '.join(missing)}"] * bool(missing)
            parts += [f"unknown: {', '.join(map(str, unexpected))}"] * bool(unexpected)
            raise CheckpointError(
                f"load_state_dict of {type(self).__name__}", expected=f"the names {', '.join(parameters) or '(none)'}",
                got="; ".join(parts), mend="build the same model first, or pass strict=False to load what fits",
            )  # fmt: skip
        values = {}
        for name, p in parameters.items():
            if name not in missing:
                values[name] = _fitting(name, state[name], p)
        for name, value in values.items():
            parameters[name].data = value
        return LoadResult(missing, unexpected)

    def to(self, backend: str | Backend) -> Module:
        """Moves all parameters to a backend, in place; returns the module. Gradients are forgotten."""
        backend = get_backend(backend)
        moved = [(p, p.detach().to(backend)) for p in self.parameters()]
        self._replace(moved)
        for _, module in self.named_modules():
            module._move(backend)
        return self

    def _move(self, backend: Backend) -> None:
        """Moves to a backend what a layer has besides parameters and other layers."""

    def astype(self, dtype) -> Module:
        """Converts all parameters to a floating type, in place; returns the module. Gradients are forgotten.

        Raises:
            DTypeError: the type is not floating.
        """
        if not is_floating(as_dtype(dtype)):
            raise DTypeError("Module.astype", expected="a floating dtype", got=str(dtype))
        with no_grad():
            converted = [(p, p.detach().astype(dtype)) for p in self.parameters()]
        return self._replace(converted)

    def _replace(self, pairs) -> Module:
        before = [(p, p.array, p.backend, p.dtype, p.segment) for p, _ in pairs]
        for p, value in pairs:
            p.array, p.backend, p.dtype, p.segment = value.array, value.backend, value.dtype, None
        try:
            self.pack()
        except BaseException:  # there was no room for a segment
            for p, *kept in before:
                p.array, p.backend, p.dtype, p.segment = kept
            raise
        for p, _ in pairs:
            p.grad = None
        return self

    def __setstate__(self, state) -> None:  # copies and unpickled modules have memory of their own
        self.__dict__.update(state)
        self.pack()

    # ---- to be seen ----

    def extra(self) -> str:
        """What ``repr`` shows in parentheses."""
        return ""

    def __repr__(self) -> str:
        children = [(n, c) for n, c in self.named_children() if isinstance(c, Module)]
        if not children:
            return f"{type(self).__name__}({self.extra()})"
        inner = "".join(f"\n  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in children)
        return f"{type(self).__name__}({self.extra()}{inner}\n)"

    def summary(self) -> str:
        """A table of the layers: name, kind, parameter shapes, number of parameters; and the totals."""
        rows = [("name", "layer", "parameter shapes", "parameters")]
        for path, module in self.named_modules():
            own = [c for _, c in module.named_children() if isinstance(c, Parameter)]
            inner = any(isinstance(c, Module) for _, c in module.named_children())
            if own or not inner:
                shapes = " ".join(str(p.shape).replace(" ", "") for p in own)
                label = f"{type(module).__name__}({module.extra()})"
                rows.append((path or "(model)", label, shapes, f"{sum(p.size for p in own):,}"))
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row[:3], widths)) + "  " + row[3].rjust(widths[3])
            for row in rows
        ]
        parameters = self.parameters()
        total, size = sum(p.size for p in parameters), sum(p.nbytes for p in parameters)
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:], rule, f"{total:,} parameters, {size / 1e6:,.3f} MB"])


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _entries(name: str, value) -> Iterator[tuple[str, Module | Parameter]]:
    if isinstance(value, (Parameter, Module)):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for i, each in enumerate(value):
            yield from _entries(f"{name}.{i}", each)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _entries(f"{name}.{key}", each)


def _fitting(name: str, value, p: Parameter) -> Tensor:
    """``value`` as a tensor that can be written over ``p``."""
    value = value.detach() if isinstance(value, Tensor) else tensor(value, backend=p.backend)
    if value.shape != p.shape:
        raise ShapeError(f"load_state_dict, {name!r}", expected=f"shape {p.shape}", got=str(value.shape))
    if not is_floating(value.dtype):
        raise DTypeError(f"load_state_dict, {name!r}", expected=f"{p.dtype}", got=str(value.dtype))
    with no_grad():
        return value.to(p.backend).astype(p.dtype)
