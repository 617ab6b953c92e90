"""Operations that move elements, for NumPy: copies between views.

Most are views where memory allows, and get here only where they have to copy.
"""

from __future__ import annotations

import numpy as np

from .cutting import call, kernel


def _same(out, x, **attributes):
    yield call(np.copyto, (x,), out)


for _operation in ("alias", "bounded", "broadcast_to"):
    kernel(_operation)(_same)


@kernel("cast")
def cast(out, x, dtype):
    yield np.copyto, (out, x, "unsafe")


def _fill_flat(out, x) -> None:
    out.flat = x


def _reshaped(out, x, **attributes):
    """The elements in C order: a view of one side in the shape of the other, where one of them can be viewed so."""
    if x.flags.c_contiguous:
        yield call(np.copyto, (x.reshape(out.shape),), out)
    elif out.flags.c_contiguous:
        yield call(np.copyto, (x,), out.reshape(x.shape))
    else:
        yield _fill_flat, (out, x)


for _operation in ("reshape", "expand_dims", "squeeze"):
    kernel(_operation)(_reshaped)


@kernel("transpose")
def transpose(out, x, axes):
    yield call(np.copyto, (x.transpose(axes),), out)


@kernel("concatenate")
def concatenate(out, *parts, axis):
    at = 0
    for part in parts:
        yield call(np.copyto, (part,), out[(slice(None),) * axis + (slice(at, at + part.shape[axis]), ...)])
        at += part.shape[axis]


@kernel("stack")
def stack(out, *parts, axis):
    for i, part in enumerate(parts):
        yield call(np.copyto, (part,), out[(slice(None),) * axis + (i, ...)])


@kernel("pad")
def pad(out, x, widths, value):
    yield call(np.copyto, (np.asarray(value, out.dtype),), out)
    yield call(np.copyto, (x,), out[(*(slice(before, before + n) for (before, _), n in zip(widths, x.shape)), ...)])
