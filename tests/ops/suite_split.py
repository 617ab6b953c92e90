"""The part of the shared suite that holds split rules to the numbers: parts, put together by the rule, are the whole.

Every way to choose axes of the inputs is tried, and several ways to cut n rows into parts. A rule may refuse any of
them; where it does not, it has to be right.
"""

import itertools
import math

import numpy as np
from suite_inputs import cases, normal_attributes, predicted, specs_of
from suite_runs import assert_same, run_kernel

import tinynet as tn
from tinynet.ops import Spec
from tinynet.ops.splitting import JOIN, MEAN, SUM, Split, part_of

SIZES = (4, 6, 7)
MOST = 40  # combinations of axes of one sample
# Inputs on which a rule shows what the samples of its record do not: a border that leaves the rows alone.
MORE = {"pad": [([np.arange(12.0).reshape(6, 2)], {"widths": ((0, 0), (1, 2)), "value": 0.5})]}


def partitions(n):
    """Ways to cut n rows: one and the rest, the rest and one, halves, threes, singles."""
    ways = [[0, 1, n], [0, n - 1, n], [0, n // 2, n], [*range(0, n, 3), n], list(range(n + 1))]
    return sorted({tuple(way) for way in ways if len(way) > 2 and len(set(way)) == len(way)})


def combinations(specs):
    """(n, axes): an axis or None for each input, and a number of rows of which all those axes have a multiple."""
    options = [(None, *range(spec.ndim)) for spec in specs]
    chosen = [axes for axes in itertools.product(*options) if any(axis is not None for axis in axes)]
    for axes in chosen[:: max(1, len(chosen) // MOST)]:
        lengths = [spec.shape[axis] for spec, axis in zip(specs, axes) if axis is not None]
        common = math.gcd(*lengths)
        for n in sorted({common, *(common // k for k in (2, 3) if common % k == 0)}):
            if n > 1:
                yield n, axes


def splits(op):
    """(arrays, attributes, n, axes, split) for every combination that the rule takes."""
    for arrays, attributes in (*cases(op, SIZES), *MORE.get(op.name, ())):
        specs = specs_of(arrays)
        given = normal_attributes(op, specs, attributes)
        for n, axes in combinations(specs) if op.split is not None else ():
            found = op.split(n, axes, *specs, **given)
            if found is not None:
                yield arrays, given, n, axes, found


def cut(array, axis, n, start, stop):
    if axis is None:
        return array
    unit = array.shape[axis] // n
    return array[(slice(None),) * axis + (slice(unit * start, unit * stop),)]


def combined(split, n, bounds, results):
    """The results of the parts made one."""
    if split.combine == JOIN:
        return np.concatenate(results, axis=split.axis)
    assert split.combine in (SUM, MEAN)
    weights = [(stop - start) / n if split.combine == MEAN else 1 for start, stop in bounds]
    return np.sum([each * weight for each, weight in zip(results, weights)], axis=0)


def check_split(op):
    """Returns how many combinations the rule has taken."""
    backend, taken = tn.get_backend("numpy"), 0
    for arrays, given, n, axes, split in splits(op):
        taken += 1
        note = f"{op.name} {[a.shape for a in arrays]} {given}, {n} rows along {axes}: {split}"
        assert isinstance(split, Split) and len(split.cuts) == len(arrays), note
        assert all(axis is None or axis == cut for axis, cut in zip(axes, split.cuts)), note
        for target in ("numpy", "reference"):
            whole = run_kernel(op, target, backend, [np.array(a) for a in arrays], given)
            for way in partitions(n):
                bounds = list(itertools.pairwise(way))
                parts = [_part(op, target, arrays, given, n, split, *each) for each in bounds]
                for i, expected in enumerate(whole):
                    got = combined(split, n, bounds, [part[i] for part in parts])
                    if split.combine == JOIN and (op.expression is not None or op.view is not None):
                        np.testing.assert_array_equal(got, expected, note)
                    else:
                        assert_same(got.astype(expected.dtype), expected, note=note)
    return taken


def _part(op, target, arrays, given, n, split, start, stop):
    """The results of one part; their shapes are those that the rule and ``part_of`` foretell."""
    operands = [np.array(cut(a, axis, n, start, stop)) for a, axis in zip(arrays, split.cuts)]
    attributes = given | (split.attributes(start, stop) if split.attributes else {})
    whole = predicted(op, arrays, given)
    results = run_kernel(op, target, tn.get_backend("numpy"), operands, attributes)
    for spec, result in zip(whole, results):
        assert part_of(spec, split.axis, n, start, stop) == Spec(result.shape, result.dtype)
    return results
