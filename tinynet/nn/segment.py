"""One contiguous piece of memory for all parameters of a model.

An optimizer's moments have the same layout in segments of their own, so that parameter, gradient and moments are found
at the same offset. Each array begins at a multiple of 64 bytes (a cache line, and the widest vector register); what
lies between is zero and stays zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinynet.backend import Backend
from tinynet.errors import BackendError, DTypeError
from tinynet.ops.door import Value

from .abstract import is_abstract

ALIGNMENT = 64


class Segment:
    """A flat array with room for arrays of the given shapes.

    Args:
        shapes: in their order in memory.
        dtype: one element type for all.
        backend: where the memory is.

    Attributes:
        flat: the backend's one-dimensional array; None in an abstract segment, whose views have no memory.
        offsets: where each array begins, in elements.
        views: the arrays, as views of ``flat``.
        nbytes: the size of ``flat``.
        owners: the identities of the parameters that live in it.
    """

    settled = True  # for ``program.guards``: a step depends on no attribute of it, but on the arrays

    def __init__(self, shapes: Sequence[tuple[int, ...]], dtype, backend: Backend):
        unit = ALIGNMENT // dtype.itemsize
        self.offsets, end = [], 0
        for shape in shapes:
            self.offsets.append(end)
            end += -(-math.prod(shape) // unit) * unit
        self.nbytes = end * dtype.itemsize
        self.owners: list[int] = []
        if is_abstract():
            self.flat = None
            self.views = [backend.xp.broadcast_to(backend.zeros((), dtype), shape) for shape in shapes]
            return
        self.flat = _zeros(end, dtype, backend)
        self.views = [
            backend.reshape(self.flat[start : start + math.prod(shape)], shape)[0]
            for start, shape in zip(self.offsets, shapes)
        ]


def _zeros(count: int, dtype, backend: Backend):
    """A line of zeros that begins at a multiple of ``ALIGNMENT``: NumPy promises 16 bytes.

    784-512-512-10 at batch 1 takes 24 us on two cores, and 31 where each row of a weight straddles lines. There is room
    to move from the start: to ask again where the first is not aligned would take the memory of two for one.
    """
    flat = backend.zeros((count + ALIGNMENT // dtype.itemsize,), dtype)
    shift = -backend.address(flat) % ALIGNMENT // dtype.itemsize
    return flat[shift : shift + count]


def pack(parameters: Sequence[Value]) -> Segment | None:
    """Moves parameters into one segment, in their order; their ``data`` become views of it.

    Parameters that already are one segment in this order stay where they are.

    Raises:
        DTypeError, BackendError: they do not agree in element type or backend. Nothing is moved then.
    """
    if not parameters:
        return None
    first, owners = parameters[0], [id(p) for p in parameters]
    segment = first.segment
    if segment is not None and segment.owners == owners and all(p.segment is segment for p in parameters):
        return segment
    for p in parameters:
        if p.dtype != first.dtype:
            raise DTypeError(
                "parameters", expected="one dtype in a model", got=f"{first.dtype} and {p.dtype}",
                mend="convert the model with .astype('float32')",
            )  # fmt: skip
        if p.backend is not first.backend:
            raise BackendError(
                "parameters", expected="one backend in a model", got=f"{first.backend.name} and {p.backend.name}",
                mend="move the model with .to(...)",
            )  # fmt: skip
    segment = Segment([p.shape for p in parameters], first.dtype, first.backend)
    segment.owners = owners
    for p, view in zip(parameters, segment.views):
        view[...] = p.array
        p.array, p.segment = view, segment
    return segment
