"""cuBLAS through ctypes, with a handle of our own: CuPy's refuses to work while a graph is captured.

What a capture needs is done before it: the handle is made, and has a workspace of its own, so that no call allocates.
cuBLAS takes matrices column by column. Ours lie row by row, which is the transpose, and C^T = B^T A^T: so B goes first,
and an operand that is a transposed view is transposed again.

A handle serves one thread and one stream at a time; two graphs that were captured with it must not run side by side,
for they share its workspace.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .products import Product, View

WORKSPACE = 32 * 2**20  # bytes; what NVIDIA recommends from Hopper on
LARGEST = 2**31 - 1
NAMES = ("libcublas.so.{0}", "libcublas.so", "cublas64_{0}.dll")

STATUS = {
    1: "NOT_INITIALIZED", 3: "ALLOC_FAILED", 7: "INVALID_VALUE", 8: "ARCH_MISMATCH", 11: "MAPPING_ERROR",
    13: "EXECUTION_FAILED", 14: "INTERNAL_ERROR", 15: "NOT_SUPPORTED", 16: "LICENSE_ERROR",
}  # fmt: skip
PLAIN, TRANSPOSED = 0, 1  # cublasOperation_t
TYPES = {"float32": 0, "float64": 1, "bfloat16": 14}  # cudaDataType
# precision -> cublasComputeType_t, cublasMath_t
COMPUTE = {"float32": (68, 0), "tf32": (77, 3), "bf16": (75, 0), "float64": (70, 0)}
DEFAULT_ALGORITHM = -1


class BlasError(RuntimeError):
    """A call of cuBLAS failed."""


class Gemm(NamedTuple):
    """The arguments of a product as cuBLAS takes them, column by column: C (rows x columns) = op(A) op(B).

    ``dtype`` is the type of C, ``operands`` that of A and B.
    """

    a_operation: int
    b_operation: int
    rows: int
    columns: int
    depth: int
    a: int
    a_leading: int
    a_batch: int
    b: int
    b_leading: int
    b_batch: int
    c: int
    c_leading: int
    c_batch: int
    batch: int
    dtype: str
    operands: str
    compute: int
    math: int


def gemm(product: Product, precision: str) -> Gemm | None:
    """The bare product for cuBLAS; None where the layout of an operand, or of C, is none that it takes.

    Operands in bf16 need no rounding, whatever the precision: products are exact, and are added up in float32.
    """
    if product.c.column != 1 and product.n > 1:
        product = product.turned()
    if (product.c.column != 1 and product.n > 1) or product.k == 0:
        return None
    m, n, k = product.m, product.n, product.k
    dtype = str(product.dtype)
    a, b = _operand(product.a, m, k), _operand(product.b, k, n)
    c = _operand(product.c, m, n)
    if None in (a, b, c) or c[0] != PLAIN:
        return None
    operands = "bfloat16" if product.of_bf16 else dtype
    compute, math = COMPUTE[precision if operands == "float32" else dtype]
    found = Gemm(
        b[0], a[0], n, m, k, product.b.address, b[1], product.b.batch, product.a.address, a[1], product.a.batch,
        product.c.address, c[1], product.c.batch, product.batch, dtype, operands, compute, math,
    )  # fmt: skip
    sizes = (n, m, k, product.batch, a[1], b[1], c[1])
    return found if max(sizes) <= LARGEST else None


def _operand(view: View, rows: int, columns: int) -> tuple[int, int] | None:
    """Whether it has to be transposed, as a matrix that lies row by row, and from where to where its rows lie apart."""
    for operation, each, tall, wide in ((PLAIN, view, rows, columns), (TRANSPOSED, view.turned(), columns, rows)):
        leading = each.row if tall > 1 else wide
        if (each.column == 1 or wide == 1) and leading >= max(1, wide):
            return operation, leading
    return None


class Handle:
    """A handle of cuBLAS.

    Args:
        library: cuBLAS, as ctypes loads it.
        workspace: the address of ``nbytes`` on the device.
    """

    def __init__(self, library, workspace: int, nbytes: int = WORKSPACE):
        self._library, self._workspace, self._nbytes = library, workspace, nbytes
        self._handle = ctypes.c_void_p()
        self._stream = self._math = None
        self._call("cublasCreate_v2", ctypes.byref(self._handle))

    def _call(self, name: str, *arguments) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise BlasError(f"{name}: CUBLAS_STATUS_{STATUS.get(status, status)}")

    def use(self, stream: int) -> None:
        """Calls go to this stream from now on. The workspace is set after it: a new stream takes it away."""
        if stream == self._stream:
            return
        self._stream = None  # if this fails half way, it is done anew
        self._call("cublasSetStream_v2", self._handle, ctypes.c_void_p(stream))
        size = ctypes.c_size_t(self._nbytes)
        self._call("cublasSetWorkspace_v2", self._handle, ctypes.c_void_p(self._workspace), size)
        self._stream = stream

    def multiply(self, g: Gemm, stream: int) -> None:
        """The product, on a stream."""
        self.use(stream)
        if g.math != self._math:
            self._call("cublasSetMathMode", self._handle, ctypes.c_int(g.math))
            self._math = g.math
        number = ctypes.c_float if g.dtype == "float32" else ctypes.c_double
        one, zero = number(1), number(0)
        integer, pointer, far = ctypes.c_int, ctypes.c_void_p, ctypes.c_longlong

        def matrix(address: int, kind: str, leading: int, batch: int) -> tuple:
            found = pointer(address), integer(TYPES[kind]), integer(leading)
            return found if g.batch == 1 else (*found, far(batch))

        self._call(
            "cublasGemmEx" if g.batch == 1 else "cublasGemmStridedBatchedEx",
            self._handle, integer(g.a_operation), integer(g.b_operation),
            integer(g.rows), integer(g.columns), integer(g.depth), ctypes.byref(one),
            *matrix(g.a, g.operands, g.a_leading, g.a_batch), *matrix(g.b, g.operands, g.b_leading, g.b_batch),
            ctypes.byref(zero), *matrix(g.c, g.dtype, g.c_leading, g.c_batch),
            *(() if g.batch == 1 else (integer(g.batch),)), integer(g.compute), integer(DEFAULT_ALGORITHM),
        )  # fmt: skip

    def close(self) -> None:
        if self._handle:
            self._call("cublasDestroy_v2", self._handle)
            self._handle = ctypes.c_void_p()


class Call:
    """A product by cuBLAS, to be called like a launch: on the current device, in its current stream.

    Attributes:
        arguments: of the product, numbers and words alone.
        note: why it is cuBLAS's, where that was measured.
    """

    def __init__(self, arguments: Gemm, keep: tuple = ()):
        self.arguments, self._keep, self.note = arguments, keep, ""

    def __call__(self) -> None:
        import cupy

        handle().multiply(self.arguments, cupy.cuda.get_current_stream().ptr)


# ---- where the library is, and the handles of this process ----


def find(major: int, load: Callable = ctypes.CDLL, folders: list[Path] | None = None):
    """cuBLAS of a version of CUDA: of NVIDIA's wheels, or of the system; None where there is none."""
    for folder in _wheels() if folders is None else folders:
        for path in sorted(folder.glob(f"libcublas.so.{major}*")):
            try:
                return load(str(path))
            except OSError:
                continue
    for name in NAMES:
        try:
            return load(name.format(major))
        except OSError:
            continue
    return None


def _wheels() -> list[Path]:
    """Folders of NVIDIA's wheels that may hold it: nvidia/cublas/lib, nvidia/cu13/lib."""
    spec = importlib.util.find_spec("nvidia")
    roots = [] if spec is None else [Path(each) for each in spec.submodule_search_locations or ()]
    return sorted(folder for root in roots for folder in root.glob("*/lib") if folder.is_dir())


@functools.cache
def library():
    """cuBLAS for the version of CUDA that CuPy is for; None where there is none."""
    import cupy

    return find(cupy.cuda.runtime.runtimeGetVersion() // 1000)


_handles: dict[int, tuple[Handle, object]] = {}  # device -> handle, and its workspace


def handle() -> Handle | None:
    """The handle of the current device; None without the library. Made, with its workspace, by the first call."""
    import cupy

    device = cupy.cuda.runtime.getDevice()
    if device not in _handles:
        found = library()
        if found is None:
            return None
        room = cupy.cuda.Memory(WORKSPACE)  # of its own, in no pool that could be emptied or hand it out again
        made = Handle(found, room.ptr)
        made.use(cupy.cuda.get_current_stream().ptr)
        _handles[device] = made, room
    return _handles[device][0]


def is_capturing() -> bool:
    import cupy

    return bool(cupy.cuda.get_current_stream().is_capturing())


@functools.cache
def version() -> int:
    """Of the library, 0 where it does not say."""
    found, number = library(), ctypes.c_int(0)
    if found is not None and not hasattr(found, "cublasGetProperty"):
        return 0
    total = 0
    for part in range(3):  # major, minor, patch
        if found.cublasGetProperty(ctypes.c_int(part), ctypes.byref(number)):
            return 0
        total = total * 1000 + number.value
    return total
