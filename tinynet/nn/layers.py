"""The layers: Dense, activations, Dropout, LayerNorm, Flatten, and Sequential that chains them.

Each layer can say how it was made (``config``), which is what a saved model's description holds; ``build`` makes a
model from such a description, by looking names up in the registry of layers and nowhere else.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

from tinynet import ops
from tinynet.autograd import no_grad
from tinynet.backend import INTEGERS, new_stream, process_seed
from tinynet.errors import ArgumentError, ShapeError, TinynetError
from tinynet.ops.linalg import ACTIVATIONS
from tinynet.tensor import Tensor, as_tensor, full

from .abstract import is_abstract
from .initializers import initial
from .module import Module, Parameter

_ACTIVATIONS: dict[str, Callable] = {
    name: ops.table()[name]
    for name in [
        "relu",
        "leaky_relu",
        "tanh",
        "sigmoid",
        "gelu",
        "gelu_tanh",
        "silu",
        "softplus",
        "softmax",
        "log_softmax",
    ]
}
_RECTIFIERS = ("relu", "leaky_relu", "gelu", "gelu_tanh", "silu", "softplus")
_registry: dict[str, type[Module]] = {}


def register_layer(cls: type[Module]) -> type[Module]:
    """Class decorator: models with this layer can be saved and loaded.

    The layer is described by the arguments of its constructor: for each, an attribute of the same name must hold its
    value, which must be a number, a string, None, or a list of those or of layers (or define ``config`` itself).

    Raises:
        ArgumentError: another class has the name already.
    """
    if _registry.setdefault(cls.__name__, cls) is not cls:
        raise ArgumentError("register_layer", expected="a new name", got=f"{cls.__name__}, which is registered already")
    return cls


def registered_layers() -> dict[str, type[Module]]:
    """name -> class of every layer that can be saved and loaded."""
    return dict(_registry)


class Layer(Module):
    """A module that can describe itself."""

    def config(self) -> dict:
        """The constructor's arguments, as JSON can hold them."""
        return {name: getattr(self, name) for name in self._arguments()}

    def extra(self) -> str:
        shown = []
        for name, parameter in self._arguments().items():
            value = getattr(self, name, parameter.default)
            if value is inspect.Parameter.empty:
                shown.append("?")  # a layer that does not keep its argument can still be shown
            elif parameter.default is inspect.Parameter.empty:
                shown.append(repr(value))
            elif value != parameter.default:
                shown.append(f"{name}={getattr(value, '__name__', value)!r}")
        return ", ".join(shown)

    def _arguments(self) -> dict[str, inspect.Parameter]:
        signature = inspect.signature(type(self).__init__)
        return {name: value for name, value in signature.parameters.items() if name not in ("self", "init")}


@register_layer
class Dense(Layer):
    """activation(x W + b).

    Args:
        in_features, out_features: sizes of the last axis of input and output.
        activation: a name ("relu", "leaky_relu", "tanh", "sigmoid", "gelu", "gelu_tanh", "silu", "softplus", "softmax",
            "log_softmax"), a function of a tensor, or None.
        bias: whether there is a b.
        init: name of the initial weights (see ``tinynet.nn.initializers``), or a function of (generator, shape). By
            default He's normal before rectifiers and Glorot's uniform elsewhere. The bias begins at zero.

    Shapes: (..., in_features) -> (..., out_features). ``weight`` is (in_features, out_features), ``bias`` is
    (out_features,).

    Raises:
        ArgumentError: sizes below 1, an unknown name.
        ShapeError, DTypeError, BackendError: at the call, an input that does not fit the weight.
    """

    def __init__(self, in_features: int, out_features: int, activation=None, bias: bool = True, init=None):
        for name, n in (("in_features", in_features), ("out_features", out_features)):
            if not isinstance(n, int) or isinstance(n, bool) or n < 1:
                raise ArgumentError("Dense", expected=f"{name} to be an integer of at least 1", got=repr(n))
        self.in_features, self.out_features = in_features, out_features
        self.activation = activation
        self._apply = activation_function(activation)
        init = init or ("he_normal" if activation in _RECTIFIERS else "glorot_uniform")
        self.weight = Parameter(initial(init, (in_features, out_features)))
        self.bias = Parameter(initial("zeros", (out_features,))) if bias else None

    def forward(self, x) -> Tensor:
        if self.activation in ACTIVATIONS:
            return ops.linear(x, self.weight, self.bias, activation=self.activation)
        return self._apply(ops.linear(x, self.weight, self.bias))

    def config(self) -> dict:
        return {**super().config(), "bias": self.bias is not None}

    def extra(self) -> str:
        shown = f"{self.in_features}, {self.out_features}"
        if self.activation is not None:
            shown += f", {getattr(self.activation, '__name__', self.activation)!r}"
        return shown + ("" if self.bias is not None else ", bias=False")


def activation_function(activation) -> Callable | None:
    """The function for a name; functions and None pass.

    Raises:
        ArgumentError: an unknown name.
    """
    if activation is None or callable(activation):
        return activation
    if activation not in _ACTIVATIONS:
        raise ArgumentError(
            "activation", expected=f"a function, None, or one of {', '.join(_ACTIVATIONS)}", got=repr(activation)
        )
    return _ACTIVATIONS[activation]


def _require_number(where: str, name: str, value) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ArgumentError(where, expected=f"{name} to be a number of at least 0", got=repr(value))


class _Elementwise(Layer):
    """A layer that applies one operation and has no parameters."""

    def forward(self, x) -> Tensor:
        return self.operation(x)


def _activation_layer(name: str, operation, doc: str) -> type[Layer]:
    space = {"operation": staticmethod(operation), "__doc__": doc, "__module__": __name__}
    return register_layer(type(_Elementwise)(name, (_Elementwise,), {**space, "__init__": _no_arguments}))


def _no_arguments(self):
    pass


ReLU = _activation_layer("ReLU", ops.relu, "max(x, 0), as a layer.")
Tanh = _activation_layer("Tanh", ops.tanh, "The hyperbolic tangent, as a layer.")
Sigmoid = _activation_layer("Sigmoid", ops.sigmoid, "The logistic function, as a layer.")
SiLU = _activation_layer("SiLU", ops.silu, "x sigmoid(x), as a layer.")
Softplus = _activation_layer("Softplus", ops.softplus, "log(1 + e^x), as a layer.")


@register_layer
class LeakyReLU(Layer):
    """x where positive, slope * x elsewhere, as a layer."""

    def __init__(self, slope: float = 0.01):
        _require_number("LeakyReLU", "slope", slope)
        self.slope = slope

    def forward(self, x) -> Tensor:
        return ops.leaky_relu(x, slope=self.slope)


@register_layer
class GELU(Layer):
    """x Phi(x), as a layer. approximate: "none" for the error function, "tanh" for its approximation."""

    def __init__(self, approximate: str = "none"):
        if approximate not in ("none", "tanh"):
            raise ArgumentError("GELU", expected="approximate to be 'none' or 'tanh'", got=repr(approximate))
        self.approximate = approximate

    def forward(self, x) -> Tensor:
        return ops.gelu(x) if self.approximate == "none" else ops.gelu_tanh(x)


@register_layer
class Softmax(Layer):
    """Rows of probabilities along ``axis``. Losses want logits: leave it out before ``cross_entropy``."""

    def __init__(self, axis: int = -1):
        if isinstance(axis, bool) or not isinstance(axis, INTEGERS):
            raise ArgumentError("Softmax", expected="axis to be an integer", got=repr(axis))
        self.axis = axis

    def forward(self, x) -> Tensor:
        return ops.softmax(x, axis=self.axis)


@register_layer
class Flatten(Layer):
    """(n, ...) -> (n, product of the rest)."""

    def __init__(self):
        pass

    def forward(self, x) -> Tensor:
        x = as_tensor(x)
        if x.ndim < 1:
            raise ShapeError("Flatten", expected="a batch of shape (n, ...)", got="a scalar")
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))


@register_layer
class LayerNorm(Layer):
    """Normalises the last axis to mean 0 and variance 1, then scales and shifts (Ba et al. 2016).

    Args:
        features: size of the last axis.
        eps: added to the variance.

    ``weight`` (the gain, ones) and ``bias`` (zeros) are (features,).
    """

    def __init__(self, features: int, eps: float = 1e-5):
        if not isinstance(features, int) or features < 1:
            raise ArgumentError("LayerNorm", expected="features to be an integer of at least 1", got=repr(features))
        _require_number("LayerNorm", "eps", eps)
        self.features, self.eps = features, eps
        self.weight = Parameter(initial("ones", (features,)))
        self.bias = Parameter(initial("zeros", (features,)))

    def forward(self, x) -> Tensor:
        return ops.layer_norm(x, self.weight, self.bias, eps=self.eps)


@register_layer
class Dropout(Layer):
    """In training, zeroes each element with probability p and scales the rest by 1 / (1 - p); else does nothing.

    The mask is a function of (seed, stream, step): the seed of the process when the layer was made, a stream of the
    layer's own, and the count of its calls in training, which a saved model keeps.

    Args:
        p: the probability of a zero, from 0 to 1.
        seed, stream, step: to repeat the masks of another layer; by default new ones.
    """

    def __init__(self, p: float = 0.5, seed: int | None = None, stream: int | None = None, step: int = 0):
        if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p <= 1:
            raise ArgumentError("Dropout", expected="a probability from 0 to 1", got=repr(p))
        for name, n, bits in (("seed", seed, 64), ("stream", stream, 32), ("step", step, 63)):
            if n is not None and (isinstance(n, bool) or not isinstance(n, INTEGERS) or not 0 <= n < 2**bits):
                raise ArgumentError("Dropout", expected=f"{name} to be an integer from 0 to 2**{bits} - 1", got=repr(n))
        self.p = float(p)
        self.seed = process_seed() if seed is None else seed
        self.stream = new_stream() if stream is None else stream
        self.counter = full((), step, "int64", backend="numpy" if is_abstract() else None)  # as parameters

    @property
    def step(self) -> int:
        return self.counter.item()

    def _move(self, backend) -> None:
        self.counter = self.counter.to(backend)

    def forward(self, x) -> Tensor:
        if not self.training or self.p == 0:
            return as_tensor(x)
        x = as_tensor(x)
        if self.counter.backend is not x.backend:
            self.counter = self.counter.to(x.backend)
        with no_grad():
            step = self.counter + 1
        result = ops.dropout(x, step, p=self.p, seed=self.seed, stream=self.stream)
        with no_grad():  # last, so that a call that fails does not count
            ops.assign(self.counter, step)
        return result

    def extra(self) -> str:
        return f"p={self.p}"


@register_layer
class Sequential(Layer):
    """Layers one after the other.

    Args:
        layers: modules or functions of a tensor; or one list of them.

    ``model[i]`` is the i-th layer, ``model[a:b]`` a Sequential of some (which shares their parameters).
    """

    def __init__(self, *layers):
        if len(layers) == 1 and isinstance(layers[0], (list, tuple)):
            layers = tuple(layers[0])
        for layer in layers:
            if not callable(layer):
                raise ArgumentError("Sequential", expected="layers or functions of a tensor", got=repr(layer))
        self.layers = list(layers)

    def named_children(self):
        for i, layer in enumerate(self.layers):  # paths are "0.weight", without the attribute's name
            if isinstance(layer, Module):
                yield str(i), layer
        for name, child in super().named_children():  # a subclass may have more
            if not name.startswith("layers."):
                yield name, child

    def forward(self, x) -> Tensor:
        for i, layer in enumerate(self.layers):
            try:
                x = layer(x)
            except TinynetError as error:
                error.add_note(f"in layer {i} of Sequential: {layer!r}")
                raise
        return x

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self):
        return iter(self.layers)

    def __getitem__(self, i):
        if isinstance(i, slice):
            part = Sequential.__new__(Sequential)  # a view of this model: the parameters stay in its segment
            part.layers = self.layers[i]
            return part
        return self.layers[i]

    def config(self) -> dict:
        return {"layers": self.layers}

    def extra(self) -> str:
        return ""
