"""NumPy, written by hand as one would who knows it well: no array is made in a step, and Adam goes block by block.

Also what measures the machine's copy bandwidth, with as many threads as there are cores.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..workloads import BETA1, BETA2, EPSILON, LEARNING_RATE
from .base import Peer as Base

BLOCK = 1 << 15  # elements; five blocks of float32 stay within a second-level cache


class Model:
    """Parameters as views of one flat array."""

    def __init__(self, network, weights):
        self.network = network
        self.flat = np.concatenate([w.ravel() for w in weights])
        self.parameters = _views(self.flat, weights)


def _views(flat, like):
    ends = list(itertools.accumulate(w.size for w in like))
    return [flat[end - w.size : end].reshape(w.shape) for w, end in zip(like, ends)]


class Adam:
    """Over a flat array, in blocks that stay in the cache."""

    def __init__(self, p, g):
        self.p, self.g, self.t = p, g, 0
        self.m, self.v = np.zeros_like(p), np.zeros_like(p)
        self.a, self.b = (np.empty(min(BLOCK, p.size), p.dtype) for _ in range(2))

    def step(self):
        self.t += 1
        rate = LEARNING_RATE / (1 - BETA1**self.t)
        root = (1 - BETA2**self.t) ** 0.5
        for start in range(0, self.p.size, BLOCK):
            p, g, m, v = (each[start : start + BLOCK] for each in (self.p, self.g, self.m, self.v))
            a, b = self.a[: p.size], self.b[: p.size]
            np.multiply(g, 1 - BETA1, out=a)
            m *= BETA1
            m += a
            np.multiply(g, g, out=b)
            b *= 1 - BETA2
            v *= BETA2
            v += b
            np.sqrt(v, out=a)
            a += EPSILON * root  # (m rate) / (sqrt(v) / root + eps) = (m rate root) / (sqrt(v) + eps root)
            np.divide(m, a, out=a)
            a *= rate * root
            p -= a


class Peer(Base):
    def version(self):
        return np.__version__

    def model(self, network, weights):
        return Model(network, weights)

    def batch(self, x, y):
        return x, y

    def training(self, model):
        n, sizes = model.network.batch, model.network.sizes
        gradient = np.empty_like(model.flat)
        gradients, p = _views(gradient, model.parameters), model.parameters
        optimizer = Adam(model.flat, gradient)
        values = [np.empty((n, size), "float32") for size in sizes]
        slopes = [np.empty((n, size), "float32") for size in sizes]
        masks = [np.empty((n, size), bool) for size in sizes]
        rows, last, mse = np.arange(n), len(sizes) - 1, model.network.loss == "mse"

        def step(batch):
            values[0], y = batch
            for i in range(last):
                z = np.matmul(values[i], p[2 * i], out=values[i + 1])
                z += p[2 * i + 1]
                if i < last - 1:
                    np.maximum(z, 0, out=z)
            out, g = values[last], slopes[last]
            if mse:
                np.subtract(out, y, out=g)
                flat = g.ravel()
                loss = flat @ flat / g.size
                g *= 2 / g.size
            else:
                np.subtract(out, out.max(axis=1, keepdims=True), out=g)
                np.exp(g, out=g)
                g /= g.sum(axis=1, keepdims=True)
                loss = -np.log(g[rows, y]).mean()
                g[rows, y] -= 1
                g *= 1 / n
            for i in reversed(range(last)):
                np.matmul(values[i].T, slopes[i + 1], out=gradients[2 * i])
                np.sum(slopes[i + 1], axis=0, out=gradients[2 * i + 1])
                if i:
                    np.matmul(slopes[i + 1], p[2 * i].T, out=slopes[i])
                    slopes[i] *= np.greater(values[i], 0, out=masks[i])
            optimizer.step()
            return loss

        return step

    def inference(self, model, batch):
        p, last = model.parameters, len(model.network.sizes) - 1
        values = [np.empty((batch, size), "float32") for size in model.network.sizes[1:-1]]

        def forward(x):
            for i in range(last):
                z = np.matmul(x, p[2 * i], out=values[i]) if i < last - 1 else np.matmul(x, p[2 * i])
                z += p[2 * i + 1]
                x = np.maximum(z, 0, out=z) if i < last - 1 else z
            return x

        return forward

    def elementwise(self, kind, arrays):
        if kind in ("copy", "in place"):
            return self._copy(*arrays)
        if kind == "adam":
            optimizer = Adam(arrays[0].copy(), arrays[1])
            return optimizer.step, lambda: optimizer.p[:1000]
        x, y = arrays
        out, room = np.empty_like(x), np.empty(BLOCK, x.dtype)

        def chain():
            for start in range(0, x.size, BLOCK):
                each = slice(start, start + BLOCK)
                a = np.negative(x[each], out=room[: x[each].size])
                np.exp(a, out=a)
                a += 1
                np.divide(x[each], a, out=a)
                np.add(a, y[each], out=out[each])

        return chain, lambda: out[:1000]

    def _copy(self, x, out=None):
        """One array to another; or an array over itself, whose lines need not be fetched before they are written."""
        move = np.copyto
        if out is None:
            out, move = x, lambda out, x: np.negative(x, out=out)
        if self.threads == 1:
            return lambda: move(out, x), lambda: out[:1000]
        outs, xs = (np.array_split(each, self.threads) for each in (out, x))
        pool = ThreadPoolExecutor(self.threads)
        return lambda: list(pool.map(move, outs, xs)), lambda: out[:1000]
