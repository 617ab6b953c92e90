"""Kernels that move memory, beside a copy of as many bytes on the same device, in the same rounds.

Each runs as a program would bind it, on arrays that no cache holds. What it computes is looked at before it is timed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import tinynet as tn
from tinynet import kernels

from ..workloads import LEARNING_RATE
from .checks import TOLERANCES, error_of
from .kernels import UNWRITTEN, normal, reference

COPY = "device copy"
ELEMENTS, ROW = 2**26, 1024
LOOKED_AT = 4096  # elements, from the beginning
ROUNDS = 15
KINDS = ("x sigmoid(x) + y", "softmax of rows", "Adam update", "layer norm of rows", "sum of all", "sum of columns")
HELD_TO = KINDS[:3]


class Case(NamedTuple):
    """A kernel on arrays.

    Attributes:
        calls: what ``bind`` gave.
        nbytes: read and written, each array once.
        error: over the tolerance, of what a first run has left.
    """

    calls: list
    nbytes: int
    error: Callable[[], float]


def _numbers(count: int, seed: int) -> np.ndarray:
    tile = np.random.default_rng([9, seed]).standard_normal(2**20 + 7, dtype="float32")
    return np.resize(tile, count)


def case(device, kind: str, count: int) -> Case:
    """A kernel of ``KINDS`` on arrays of about so many elements."""
    xp, rows = device.xp, max(1, count // ROW)
    shape = (rows, ROW)
    looked = max(1, LOOKED_AT // ROW)
    x = _numbers(rows * ROW, 0).reshape(shape)
    if kind == "x sigmoid(x) + y":
        y = _numbers(rows * ROW, 1).reshape(shape)
        kernel = kernels.derive(kernels.Expression("x / (1 + exp(-x)) + y", ("x", "y")), "cuda")
        wide = x[:looked].astype("float64")
        expected = wide / (1 + np.exp(-wide)) + y[:looked]
        return _case(device, kernel, [xp.full(shape, UNWRITTEN["f"], "float32")], [x, y], {}, [expected])
    name, given, attributes, shapes = {
        "softmax of rows": ("softmax", [x], {"axis": -1}, [shape]),
        "Adam update": ("adam", [], {}, [shape] * 3),
        "layer norm of rows": ("layer_norm", [x, _numbers(ROW, 2), _numbers(ROW, 3)], {}, [shape]),
        "sum of all": ("sum", [x], {"axis": None}, [()]),
        "sum of columns": ("sum", [x], {"axis": 0}, [(ROW,)]),
    }[kind]
    if name == "adam":
        given = [x, *(_numbers(rows * ROW, i).reshape(shape) for i in (4, 5)), np.abs(_numbers(rows * ROW, 6)) + 0.1]
        given[3] = given[3].reshape(shape)
        given += [np.asarray(LEARNING_RATE, "float32"), np.asarray(3, "int64")]
    op = tn.ops.table()[name]
    attributes = normal(op, given, attributes)
    part = [each[:looked] if each.shape == shape and name != "sum" else each for each in given]
    expected = reference(op, part, attributes)
    inputs = [xp.array(each) for each in given]
    outputs = [xp.full(each, UNWRITTEN["f"], "float32") for each in shapes]
    for output, i in op.updates.items():
        outputs[output] = inputs[i]
    return _case(device, kernels.find(name, "cuda", "float32"), outputs, inputs, attributes, expected)


def _case(device, kernel, outputs: list, inputs: list, attributes: dict, expected: list) -> Case:
    xp = device.xp
    inputs = [xp.array(each) if isinstance(each, np.ndarray) else each for each in inputs]
    results = outputs[0] if len(outputs) == 1 else tuple(outputs)
    nbytes = kernel.scratch_bytes(results, *inputs, **attributes)
    scratch = xp.full(nbytes, 255, "uint8") if nbytes else None
    calls = kernel.bind(results, *inputs, scratch=scratch, **attributes)

    def error() -> float:
        found = [device.host(out[: len(right)] if right.ndim == 2 else out) for out, right in zip(outputs, expected)]
        # a sum of many numbers is as wrong as its largest parts are rounded: by the root of their count
        many = max(1.0, math.sqrt(inputs[0].size / outputs[0].size) / 16)
        return max(error_of(mine, right, many * TOLERANCES["float32"]) for mine, right in zip(found, expected))

    return Case(calls, sum(each.nbytes for each in (*inputs, *outputs)), error)


def measure(device, kind: str, count: int = ELEMENTS, rounds: int = ROUNDS) -> dict:
    """Seconds of each round, of the kernel and of a copy of as many bytes; and how wrong the kernel was.

    The arrays take a quarter of the free memory at most.
    """
    count = min(count, device.free_bytes() // 4 // (9 * 4))
    found = case(device, kind, count)
    device.run(found.calls)
    error = found.error()
    source = device.xp.array(_numbers(count, 7))
    to = device.xp.empty_like(source)
    scale = found.nbytes / (2 * source.nbytes)

    samples: dict[str, list[float]] = {"tinynet": [], COPY: []}
    for i in range(-2, rounds):  # the first two are warm-up
        one, other = device.seconds(found.calls), scale * device.seconds(device.copying(to, source))
        if i >= 0:
            samples["tinynet"].append(one)
            samples[COPY].append(other)
    return {"samples": samples, "bytes": found.nbytes, "error": error, "elements": count}
