"""Models that between them do what networks do, with optimizers, losses and batches: what programs are held to.

A model of the zoo says what one sample looks like and what it makes of it; everything is small. ``build`` gives a model
and its training step, twice the same where it is called twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import tinynet as tn

nn = tn.nn
WORDS = 11  # of the vocabulary of "embedding"


class Residual(nn.Module):
    def __init__(self, n):
        self.inner = [nn.Dense(n, n, "gelu"), nn.Dense(n, n)]
        self.norm = nn.LayerNorm(n)

    def forward(self, x):
        return self.norm(x + self.inner[1](self.inner[0](x)))


class Branches(nn.Module):
    def __init__(self):
        self.a, self.b, self.c = nn.Dense(6, 4, "relu"), nn.Dense(6, 5, "silu"), nn.Dense(9, 3)

    def forward(self, x):
        return self.c(tn.concatenate([self.a(x), self.b(x)], axis=1))


class Tied(nn.Module):
    """The same weights twice, the second time transposed."""

    def __init__(self):
        self.encode = nn.Dense(6, 3, "tanh")

    def forward(self, x):
        return self.encode(x) @ self.encode.weight.T


class Shared(nn.Module):
    """One layer four times."""

    def __init__(self):
        self.layer, self.out = nn.Dense(6, 6, "sigmoid"), nn.Dense(6, 3)

    def forward(self, x):
        for _ in range(4):
            x = self.layer(x)
        return self.out(x)


class Columns(nn.Module):
    """Features picked apart, stacked, and joined again."""

    def __init__(self):
        self.a, self.b, self.out = nn.Dense(4, 5, "tanh"), nn.Dense(4, 5), nn.Dense(12, 3)

    def forward(self, x):
        both = tn.stack([self.a(x[:, :4]), self.b(x[:, 2:])], axis=1)
        return self.out(tn.concatenate([both.reshape(both.shape[0], 10), x[:, ::3]], axis=-1))


class Embedding(nn.Module):
    """Words to vectors, their mean, and a layer."""

    def __init__(self):
        self.table = nn.Parameter(np.random.default_rng(3).normal(size=(WORDS, 5)).astype(np.float32))
        self.out = nn.Dense(5, 3)

    def forward(self, words):
        return self.out(tn.take(self.table, words).mean(axis=1))


class Scaled(nn.Module):
    """A learned temperature, and a weighted path beside it."""

    def __init__(self):
        self.inner, self.out = nn.Dense(6, 8, "tanh"), nn.Dense(8, 3)
        self.temperature, self.share = nn.Parameter(np.float32(1.3)), nn.Parameter(np.float32(0.4))

    def forward(self, x):
        hidden = self.inner(x)
        return self.out(hidden) * self.temperature + hidden[:, :3] * self.share


class Gated(nn.Module):
    """Rows of weights from a softmax in the middle, for a mixture."""

    def __init__(self):
        self.gate, self.value, self.out = nn.Dense(6, 8), nn.Dense(6, 8, "relu"), nn.Dense(8, 3)

    def forward(self, x):
        return self.out(tn.softmax(self.gate(x)) * self.value(x))


class Model(NamedTuple):
    """How to make one; the shape of a sample, and of what becomes of it; whether samples are whole numbers."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (6,)
    out: tuple[int, ...] = (3,)
    words: bool = False


def chain(*layers, **more):
    return Model(lambda: nn.Sequential(*(layer() for layer in layers)), **more)


def dense(*args, **options):
    return lambda: nn.Dense(*args, **options)


ZOO = {
    "linear": chain(dense(6, 3)),
    "deep": chain(*(dense(6, 6, "relu"),) * 12, dense(6, 3)),
    "wide": chain(dense(6, 300, "relu"), dense(300, 3)),
    "tanh": chain(dense(6, 8, "tanh"), dense(8, 3)),
    "modern": chain(dense(6, 8, "silu"), dense(8, 8, "gelu_tanh"), dense(8, 3, "softplus")),
    "dropout": chain(dense(6, 32, "relu"), lambda: nn.Dropout(0.3), dense(32, 3)),
    "normalised": chain(lambda: nn.LayerNorm(6), dense(6, 8), lambda: nn.LayerNorm(8), nn.ReLU, dense(8, 3)),
    "residual": chain(lambda: Residual(6), lambda: Residual(6), dense(6, 3)),
    "branches": Model(Branches),
    "tied": Model(Tied, out=(6,)),
    "shared": Model(Shared),
    "leaky": chain(dense(6, 8, "leaky_relu"), nn.Flatten, dense(8, 3, bias=False)),
    "everything": chain(dense(6, 8), nn.GELU, lambda: nn.Dropout(0.1), lambda: Residual(8), dense(8, 3)),
    "columns": Model(Columns),
    "embedding": Model(Embedding, shape=(4,), words=True),
    "inner axis": chain(dense(6, 5, "relu"), lambda: nn.LayerNorm(5), dense(5, 3), shape=(3, 6), out=(3, 3)),
    "scaled": Model(Scaled),
    "gated": Model(Gated),
}
OPTIMIZERS = {
    "momentum": lambda ps: tn.optim.GD(ps, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda ps: tn.optim.Adam(ps, lr=tn.optim.cosine(1e-2, 60)),
    "decay": lambda ps: tn.optim.AdamW(ps, lr=1e-2, weight_decay=0.1),
}
LOSSES = {"mse": tn.losses.mse, "ce": tn.losses.cross_entropy}
# Every model with every loss and the first two optimizers; a few with weight decay.
CASES = [
    *((name, kind, optimizer) for name in ZOO for kind in LOSSES for optimizer in ("momentum", "adam")),
    *((name, kind, "decay") for name, kind in (("tanh", "ce"), ("shared", "mse"), ("inner axis", "ce"))),
]


def build(name, kind="mse", optimizer="momentum", clip=None, dtype="float32", outputs=False):
    """A model and its training step, which returns the loss, and with ``outputs`` the model's outputs too.

    ``kind`` names a loss, or is one.
    """
    tn.seed(4)
    model = ZOO[name].make().astype(dtype)
    opt = OPTIMIZERS[optimizer](model.parameters())
    loss = LOSSES.get(kind, kind)

    def step(x, y):
        opt.zero_grad()
        made = model(x)
        value = loss(made, y)
        value.backward()
        if clip:
            tn.optim.clip_grad_norm(opt.params, clip)
        opt.step()
        return (value, made) if outputs else value

    return model, step


def classifying(model, optimizer):
    """The training step of a model that classifies: cross-entropy, returned, of logits and labels."""

    def step(x, y):
        optimizer.zero_grad()
        loss = tn.losses.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def batch(i, name, kind="mse", dtype="float32", n=None):
    """The i-th batch of n samples for a model; by default of 16, and of 5 for every sixth."""
    model, rng = ZOO[name], np.random.default_rng(i)
    n = n or (16 if i % 6 else 5)
    x = rng.integers(0, WORDS, (n, *model.shape)) if model.words else rng.normal(size=(n, *model.shape)).astype(dtype)
    if kind == "ce":
        return x, rng.integers(0, model.out[-1], (n, *model.out[:-1]))
    return x, rng.normal(size=(n, *model.out)).astype(dtype)


def numbers(results):
    """The arrays of a step's results, in a list."""
    return [each.numpy() for each in (results if isinstance(results, tuple) else (results,))]
