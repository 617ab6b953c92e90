"""tinygrad on its CPU device: the whole step within one ``TinyJit``."""

from __future__ import annotations

import importlib.metadata

import numpy as np
from tinygrad import Tensor, TinyJit, dtypes
from tinygrad.helpers import Context
from tinygrad.nn.optim import Adam

from ..workloads import LEARNING_RATE
from .base import Peer as Base


def forward(parameters, x):
    for i in range(0, len(parameters), 2):
        x = x @ parameters[i] + parameters[i + 1]
        x = x.relu() if i < len(parameters) - 2 else x
    return x


class Model:
    def __init__(self, network, weights):
        self.network, self.parameters = network, [Tensor(w.copy()).realize() for w in weights]


class Peer(Base):
    def version(self):
        return importlib.metadata.version("tinygrad")

    def model(self, network, weights):
        return Model(network, weights)

    def batch(self, x, y):
        return Tensor(x).realize(), Tensor(y.astype("int32") if y.dtype.kind == "i" else y).realize()

    def training(self, model):
        optimizer, mse = Adam(model.parameters, lr=LEARNING_RATE), model.network.loss == "mse"

        @TinyJit
        def compiled(x, y):
            with Context(TRAINING=1):
                optimizer.zero_grad()
                out = forward(model.parameters, x)
                loss = (out - y).square().mean() if mse else out.sparse_categorical_crossentropy(y)
                loss.backward()
                return loss.realize(*optimizer.schedule_step())

        return lambda batch: compiled(*batch)

    def value(self, loss):
        return loss.item()

    def inference(self, model, batch):
        compiled = TinyJit(lambda x: forward(model.parameters, x).realize())

        def run(x):  # an input in the memory where it lies: a tensor made from an array costs several times the network
            here = Tensor.from_blob(x.ctypes.data, x.shape, dtype=dtypes.float32, device="CPU").realize()
            return np.frombuffer(compiled(here).data(), "float32").reshape(len(x), -1)

        return run

    def elementwise(self, kind, arrays):
        a, b = (Tensor(each.copy()).realize() for each in arrays)
        if kind == "adam":
            optimizer = Adam([a], lr=LEARNING_RATE)

            @TinyJit
            def update(g):
                with Context(TRAINING=1):
                    a.grad = g
                    Tensor.realize(*optimizer.schedule_step())

            return lambda: update(b), lambda: a[:1000].numpy()
        out = Tensor(np.zeros_like(arrays[0])).realize()
        chain = TinyJit(lambda x, y: out.assign(x * x.sigmoid() + y).realize())
        return lambda: chain(a, b), lambda: out[:1000].numpy()
