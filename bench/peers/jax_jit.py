"""jax.jit: loss, gradient and Adam in one compiled step, to which parameters and moments are donated.

Whether dispatch is asynchronous is fixed when JAX starts, so that the two variants are two processes. JAX takes no
notice of the variables that set numbers of threads: the process is held on its cores instead.
"""

from __future__ import annotations

import functools
import os
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from ..workloads import BETA1, BETA2, EPSILON, LEARNING_RATE
from .base import Peer as Base


def forward(parameters, x):
    pairs = list(zip(parameters[::2], parameters[1::2]))
    for i, (w, b) in enumerate(pairs):
        x = x @ w + b
        if i < len(pairs) - 1:
            x = jnp.maximum(x, 0)
    return x


def mse(parameters, x, y):
    return jnp.mean((forward(parameters, x) - y) ** 2)


def cross_entropy(parameters, x, y):
    rows = jax.nn.log_softmax(forward(parameters, x))
    return -jnp.mean(jnp.take_along_axis(rows, y[:, None], axis=1))


def adam(p, g, m, v, t):
    m = BETA1 * m + (1 - BETA1) * g
    v = BETA2 * v + (1 - BETA2) * g * g
    rate = LEARNING_RATE / (1 - BETA1**t)
    return p - rate * m / (jnp.sqrt(v / (1 - BETA2**t)) + EPSILON), m, v


class Model:
    def __init__(self, network, weights):
        self.network, self.parameters = network, [jnp.array(w) for w in weights]


class Peer(Base):
    def __init__(self, threads, variant="", executor=None):
        super().__init__(threads, variant, executor)
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_cpu_enable_async_dispatch", variant != "sync dispatch")
        cache = os.path.join(tempfile.gettempdir(), f"bench-jax-{os.getuid() if hasattr(os, 'getuid') else 0}")
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

    def version(self):
        return jax.__version__

    def model(self, network, weights):
        return Model(network, weights)

    def batch(self, x, y):
        return jnp.asarray(x), jnp.asarray(y.astype("int32") if y.dtype.kind == "i" else y)

    def training(self, model):
        loss_of = {"mse": mse, "cross_entropy": cross_entropy}[model.network.loss]

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def compiled(parameters, state, x, y):
            t, m, v = state
            loss, gradients = jax.value_and_grad(loss_of)(parameters, x, y)
            t = t + 1
            updated = [adam(*each, t) for each in zip(parameters, gradients, m, v)]
            parameters, m, v = (list(each) for each in zip(*updated))
            return loss, parameters, (t, m, v)

        zeros = [[jnp.zeros_like(p) for p in model.parameters] for _ in range(2)]
        state = [(jnp.float32(0), *zeros)]

        def step(batch):
            loss, model.parameters, state[0] = compiled(model.parameters, state[0], *batch)
            return loss

        return step

    def inference(self, model, batch):
        compiled = jax.jit(forward)
        return lambda x: np.asarray(compiled(model.parameters, x))

    def wait(self, result):
        jax.block_until_ready(result)

    def elementwise(self, kind, arrays):
        a, b = map(jnp.array, arrays)
        held = {}
        if kind == "adam":
            compiled = jax.jit(lambda p, g, m, v, t: (*adam(p, g, m, v, t + 1), t + 1), donate_argnums=(0, 2, 3, 4))
            held["state"] = (a, jnp.zeros_like(a), jnp.zeros_like(a), jnp.float32(0))
            del a

            def update():
                p, m, v, t = held["state"]
                held["state"] = compiled(p, b, m, v, t)
                return held["state"]

            return update, lambda: np.asarray(held["state"][0][:1000])
        compiled = jax.jit(lambda out, x, y: x * jax.nn.sigmoid(x) + y, donate_argnums=0, keep_unused=True)
        held["out"] = jnp.zeros_like(a)

        def chain():
            held["out"] = compiled(held["out"], a, b)
            return held["out"]

        return chain, lambda: np.asarray(held["out"][:1000])
