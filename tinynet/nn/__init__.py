"""Layers and models, written with tensors and operations only.

module         Parameter, Module: attributes, state, train/eval, summary
layers         Dense, activations, Dropout, LayerNorm, Flatten, Sequential; the registry of layers
initializers   initial weights by name
abstract       models without memory, to ask for sizes
segment        one contiguous memory for all parameters of a model
"""

from . import initializers
from .abstract import abstract
from .layers import (
    GELU,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LayerNorm,
    LeakyReLU,
    ReLU,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    register_layer,
    registered_layers,
)
from .module import Module, Parameter
from .segment import Segment

__all__ = [
    "GELU",
    "Dense",
    "Dropout",
    "Flatten",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Module",
    "Parameter",
    "ReLU",
    "Segment",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "abstract",
    "initializers",
    "register_layer",
    "registered_layers",
]
