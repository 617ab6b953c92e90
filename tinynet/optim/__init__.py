"""Optimizers, schedules of the learning rate, and gradient clipping."""

from .optimizers import GD, Adam, AdamW, Optimizer, clip_grad_norm
from .schedules import (
    chain,
    constant,
    cosine,
    cosine_restarts,
    cyclic,
    exponential,
    inverse_sqrt,
    linear,
    multistep,
    one_cycle,
    polynomial,
    sequential,
    step,
    warmup,
)

__all__ = [
    "GD",
    "Adam",
    "AdamW",
    "Optimizer",
    "chain",
    "clip_grad_norm",
    "constant",
    "cosine",
    "cosine_restarts",
    "cyclic",
    "exponential",
    "inverse_sqrt",
    "linear",
    "multistep",
    "one_cycle",
    "polynomial",
    "sequential",
    "step",
    "warmup",
]
