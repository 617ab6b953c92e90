"""What the tests of layers share: host values, central differences, and a table of every layer with its input."""

import numpy as np

import tinynet as tn
from tinynet import nn

EPS, ATOL, RTOL = 1e-6, 1e-5, 1e-3

ACTIVATIONS = (
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
)

# name -> (makes the layer, shape of its input): every registered layer, and their compositions
LAYERS = {
    **{f"Dense {name}": (lambda name=name: nn.Dense(4, 3, name), (5, 4)) for name in (None, *ACTIVATIONS)},
    "Dense without bias": (lambda: nn.Dense(4, 3, "tanh", bias=False), (5, 4)),
    "Dense of three axes": (lambda: nn.Dense(4, 3), (2, 5, 4)),
    "Dense callable": (lambda: nn.Dense(4, 3, lambda y: tn.exp(y) * 0.5), (5, 4)),
    "ReLU": (nn.ReLU, (5, 4)),
    "LeakyReLU": (lambda: nn.LeakyReLU(0.2), (5, 4)),
    "Tanh": (nn.Tanh, (5, 4)),
    "Sigmoid": (nn.Sigmoid, (5, 4)),
    "SiLU": (nn.SiLU, (5, 4)),
    "Softplus": (nn.Softplus, (5, 4)),
    "GELU": (nn.GELU, (5, 4)),
    "GELU tanh": (lambda: nn.GELU("tanh"), (5, 4)),
    "Softmax": (nn.Softmax, (5, 4)),
    "Softmax along 0": (lambda: nn.Softmax(0), (5, 4)),
    "LayerNorm": (lambda: nn.LayerNorm(4), (5, 4)),
    "Flatten": (nn.Flatten, (5, 2, 3)),
    "Dropout": (lambda: nn.Dropout(0.4), (5, 4)),
    "Sequential": (lambda: nn.Sequential(nn.Dense(4, 6, "gelu"), nn.LayerNorm(6), nn.Dense(6, 2)), (5, 4)),
}


def values(shape, seed=0, clear_of=0.05):
    """float64 numbers in (-2, 2), none of them near zero, where rectifiers have their kink."""
    x = np.random.default_rng(seed).uniform(-2, 2, shape)
    return np.where(np.abs(x) < clear_of, clear_of * 2, x)


def differences(f, x):
    """The gradient of a scalar function of a host array, by central differences."""
    gradient = np.empty_like(x)
    for i in np.ndindex(x.shape):
        ends = []
        for step in (EPS, -EPS):
            moved = x.copy()
            moved[i] += step
            ends.append(f(moved))
        gradient[i] = (ends[0] - ends[1]) / (2 * EPS)
    return gradient


def shared(tensor):
    """The memory a tensor lives in, as NumPy sees it: to ask whether two share it."""
    array = tensor if not isinstance(tensor, tn.Tensor) else tensor.data
    return array if isinstance(array, np.ndarray) else getattr(array, "_array", array)
