"""How large a batch fits into memory that turned out to be too little: found from shapes alone, when it is too late.

The step is traced again for other batch sizes, without a number, and planned as it would be.
"""

from __future__ import annotations

from collections.abc import Callable

from tinynet.backend import Shadow
from tinynet.kernels import using_precision
from tinynet.ops import Spec, Value
from tinynet.tensor import Tensor

from .calls import Call, Results
from .compile import compiled, simplify
from .guards import Guards
from .plan import MemoryPlan
from .trace import Trace
from .variant import Options, targets_for


def largest_batch(step: Callable, call: Call, options: Options, nbytes: int) -> int | None:
    """The most rows of the arguments for which a step finds room in ``nbytes``; None where that is none, or unknown.

    That is room for its arena, and with ``verify`` for that of the proof beside it. The batch is the first axis of
    the first argument with axes; whatever else is as long along its first axis is cut with it.

    Args:
        call: with the batch that was too large.
        options: of the capture.
    """
    target = targets_for(options, call.backend, [leaf.dtype for leaf in call.leaves])[0]
    n = next((leaf.shape[0] for leaf in call.leaves if leaf.shape), 0)

    def fits(rows: int) -> bool:
        resized = Call(*(_resized(each, n, rows) for each in (call.args, call.kwargs)))
        with Trace(resized.leaves, Guards(step, *resized.objects), call.backend, shapes=True) as trace:
            result = step(*resized.args, **resized.kwargs)
        Results(result, trace, resized, keep_grads=False)
        simplify(trace.graph)
        with using_precision(options.precision):
            taken = MemoryPlan(compiled(trace.graph, options.fuse, target=target), target).peak_bytes
        if options.verify:
            taken += MemoryPlan(trace.graph, call.backend.target, effort=0).peak_bytes
        return taken <= nbytes

    low, high = 0, n
    try:
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
    except Exception:  # of whatever type: the step is the user's, and may be another one for another batch
        return None
    return low or None


def _resized(value, n: int, rows: int):
    """Arguments whose tensors of n rows are shadows of so many others."""
    if isinstance(value, Value) and value.shape[:1] == (n,):
        spec = Spec((rows, *value.shape[1:]), value.dtype)
        return Tensor(Shadow(*spec), value.backend, spec).requires_grad_(getattr(value, "requires_grad", False))
    if isinstance(value, (list, tuple)):
        made = [_resized(each, n, rows) for each in value]
        return type(value)(*made) if hasattr(value, "_fields") else type(value)(made)
    if isinstance(value, dict):
        return {key: _resized(each, n, rows) for key, each in value.items()}
    return value
