"""Optimizers, schedules of the learning rate, and gradient clipping."""

from .optimizers import GD, Adam, AdamW, Optimizer, clip_grad_norm
from .schedules import constant, cosine, one_cycle, step, warmup

__all__ = [
    "GD",
    "Adam",
    "AdamW",
    "Optimizer",
    "clip_grad_norm",
    "constant",
    "cosine",
    "one_cycle",
    "step",
    "warmup",
]
