"""tinynet: dense networks, small enough to read in a weekend.

    import tinynet as tn

    tn.tensor, tn.grad ...      arrays that can be differentiated          (tensor, autograd)
    tn.exp, tn.matmul ...       the operations, one record each            (ops)
    tn.nn, tn.losses, tn.optim  layers, losses, optimizers and schedules
    tn.capture                  a training step as a program               (program, memory)
    tn.Arena                    an allocator of its own for eager tensors  (memory)
    tn.data                     data sets, their readers, batches
    tn.fit, tn.save ...         training and its files                     (train)
    tn.resources, tn.serve      what manages a running job                 (resources)
    tn.use_backend, tn.seed     where arrays live, and randomness          (backend)
    tn.set_num_threads          how many processors programs run on        (program)

Importing costs little more than importing NumPy: what is above tensors is loaded when it is first used.
"""

from __future__ import annotations

import importlib

try:
    from tinynet import errors, kernels
except ImportError as error:
    if "kernels" not in str(error):
        raise
    raise ImportError("tinynet.kernels is missing: this checkout is not installed; pip install -e .") from None

from tinynet import ops
from tinynet.autograd import grad, no_grad, value_and_grad
from tinynet.backend import available_backends, get_backend, register_backend, seed, use_backend
from tinynet.tensor import Tensor, arange, as_tensor, full, ones, tensor, zeros

__version__ = "0.1.0"

# Every operation that is public is a function of the package: tn.exp, tn.sum, tn.where ...
_operations = {name: op for name, op in ops.table().items() if op.public}
globals().update(_operations)

# name -> the room that has it; loaded at first use
_LAZY = {
    **{room: room for room in ("data", "losses", "memory", "nn", "optim", "program", "resources", "train")},
    "Arena": "memory",
    **dict.fromkeys(("capture", "get_num_threads", "set_num_threads"), "program"),
    **dict.fromkeys(("History", "evaluate", "fit", "load", "plan", "predict", "save"), "train"),
    "serve": "resources",
}

__all__ = [
    "Arena",
    "History",
    "Tensor",
    "arange",
    "as_tensor",
    "available_backends",
    "capture",
    "data",
    "errors",
    "evaluate",
    "fit",
    "full",
    "get_backend",
    "get_num_threads",
    "grad",
    "kernels",
    "load",
    "losses",
    "memory",
    "nn",
    "no_grad",
    "ones",
    "ops",
    "optim",
    "plan",
    "predict",
    "program",
    "register_backend",
    "resources",
    "save",
    "seed",
    "serve",
    "set_num_threads",
    "tensor",
    "train",
    "use_backend",
    "value_and_grad",
    "zeros",
    *_operations,
]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'tinynet' has no attribute {name!r}")
    room = importlib.import_module(f"tinynet.{_LAZY[name]}")
    value = room if name == _LAZY[name] else getattr(room, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
