"""Array namespaces behind one interface, and which of them is in use.

The engine never names NumPy or CuPy: it asks a ``Backend`` for its array-API namespace, for fresh memory and for
copies to and from the host. A backend is chosen for the process (environment variable ``TINYNET_BACKEND``, or
``use_backend("cupy")``), for a block (``with use_backend("cupy"):``, which is local to its thread), or for a tensor
(``tn.tensor(..., backend="cupy")``, ``Tensor.to``). With none chosen it is NumPy.

Here live the interface, the selection, the random streams, and the hook by which an arena lends memory to all new
arrays of a block of code (``allocating``). Kernels live in ``tinynet.kernels``.
"""

from .arrays import (
    INTEGERS,
    Backend,
    DType,
    HostArray,
    HostScalar,
    NumPyBackend,
    as_dtype,
    integer_range,
    is_floating,
    is_integer,
)
from .choice import available_backends, get_backend, register_backend, use_backend
from .gpu import CuPyBackend
from .hosts import host_array, host_indices
from .lending import allocating
from .lines import caller_line
from .shadows import SHADOWS, Shadow
from .streams import generator, new_stream, process_seed, seed

__all__ = [
    "INTEGERS",
    "SHADOWS",
    "Backend",
    "CuPyBackend",
    "DType",
    "HostArray",
    "HostScalar",
    "NumPyBackend",
    "Shadow",
    "allocating",
    "as_dtype",
    "available_backends",
    "caller_line",
    "generator",
    "get_backend",
    "host_array",
    "host_indices",
    "integer_range",
    "is_floating",
    "is_integer",
    "new_stream",
    "process_seed",
    "register_backend",
    "seed",
    "use_backend",
]
