"""Initial weights, by name. Fans are those of a (in_features, out_features) matrix; sums follow the cited papers."""

from __future__ import annotations

import math
from collections.abc import Callable

from tinynet.backend import generator, get_backend, host_array, new_stream
from tinynet.errors import ArgumentError

from .abstract import is_abstract


def _uniform(limit: float):
    return lambda rng, shape: rng.uniform(-limit, limit, shape)


def _normal(deviation: float):
    return lambda rng, shape: rng.normal(0.0, deviation, shape)


# name -> (fan_in, fan_out) -> (generator, shape) -> values.
# Glorot and Bengio, AISTATS 2010; He et al., ICCV 2015; LeCun et al., "Efficient BackProp", 1998.
_INITIALIZERS: dict[str, Callable[[int, int], Callable]] = {
    "zeros": lambda i, o: lambda rng, shape: rng.uniform(0, 0, shape),
    "ones": lambda i, o: lambda rng, shape: rng.uniform(1, 1, shape),
    "glorot_uniform": lambda i, o: _uniform(math.sqrt(6 / (i + o))),
    "glorot_normal": lambda i, o: _normal(math.sqrt(2 / (i + o))),
    "he_uniform": lambda i, o: _uniform(math.sqrt(6 / i)),
    "he_normal": lambda i, o: _normal(math.sqrt(2 / i)),
    "lecun_uniform": lambda i, o: _uniform(math.sqrt(3 / i)),
    "lecun_normal": lambda i, o: _normal(math.sqrt(1 / i)),
}


def names() -> tuple[str, ...]:
    return tuple(_INITIALIZERS)


def initial(name: str | Callable, shape: tuple[int, ...], dtype="float32"):
    """A host array of initial values.

    Args:
        name: one of ``names()``, or a function of (generator, shape).
        shape: the first axis counts as inputs, the last as outputs.

    Every call takes a random stream of its own from the process's seed (``tn.seed``).

    Raises:
        ArgumentError: an unknown name.
    """
    if callable(name):
        fill = name
    elif name in _INITIALIZERS:
        fill = _INITIALIZERS[name](max(shape[0], 1), max(shape[-1], 1))
    else:
        raise ArgumentError("init", expected=f"one of {', '.join(_INITIALIZERS)}, or a function", got=repr(name))
    if is_abstract():
        return get_backend("numpy").xp.broadcast_to(host_array(0.0, dtype), shape)
    return host_array(fill(generator(new_stream()), shape), dtype)
