"""cuBLAS that is none: it takes the arguments down, checks them as cuBLAS does, and computes what they say with NumPy,
from the addresses, column by column. So an argument in the wrong place gives a wrong product. And the CuPy around it.
"""

import ctypes
import importlib
import sys
import types

import numpy as np
import pytest

from tinynet.kernels.choices import Choices

blas = importlib.import_module("tinynet.kernels.cuda.blas")
choice = importlib.import_module("tinynet.kernels.cuda.choice")
matrices = importlib.import_module("tinynet.kernels.cuda.matrices")

INVALID_VALUE = 7
BF16 = 14
NUMBERS = {0: "float32", 1: "float64", BF16: "uint16"}  # cudaDataType; bf16 is the upper half of a float32


def columns(address, rows, count, leading, dtype):
    """A matrix as cuBLAS has it: the elements of a column side by side, the columns ``leading`` elements apart."""
    size = np.dtype(dtype).itemsize
    nbytes = ((count - 1) * leading + rows) * size
    memory = (ctypes.c_char * nbytes).from_address(address)
    return np.ndarray((rows, count), dtype, memory, 0, (size, leading * size))


class Library:
    """Takes calls down. ``fails``: name of a function -> the status that it gives."""

    def __init__(self, **fails):
        self.calls, self.fails = [], fails
        self.workspace = None

    def __getattr__(self, name):
        if not name.startswith("cublas"):
            raise AttributeError(name)

        def call(*arguments):
            self.calls.append((name, arguments))
            if name in self.fails:
                return self.fails[name]
            return getattr(self, "_" + name, lambda *_: 0)(*arguments)

        return call

    @property
    def names(self):
        return [name.removeprefix("cublas").removesuffix("_v2") for name, _ in self.calls]

    def _cublasCreate_v2(self, handle):
        handle._obj.value = 4711
        return 0

    def _cublasSetStream_v2(self, handle, stream):
        assert (handle.value, type(stream)) == (4711, ctypes.c_void_p)
        self.workspace = None  # as the documentation says
        return 0

    def _cublasSetWorkspace_v2(self, handle, address, nbytes):
        assert type(nbytes) is ctypes.c_size_t and address.value % 256 == 0
        self.workspace = address.value, nbytes.value
        return 0

    def _cublasGemmEx(self, handle, *rest):
        (to_a, to_b, m, n, k, one, a, a_type, lda, b, b_type, ldb, zero, c, c_type, ldc, compute, algorithm) = rest
        each = lambda address, leading: (address, leading, ctypes.c_longlong(0))
        operands = (each(a, lda), each(b, ldb), each(c, ldc))
        kinds = (a_type, b_type, c_type)
        return self._multiply(handle, to_a, to_b, m, n, k, one, zero, *operands, kinds, 1, compute, algorithm)

    def _cublasGemmStridedBatchedEx(self, handle, *rest):
        (to_a, to_b, m, n, k, one, a, a_type, lda, far_a, b, b_type, ldb, far_b, zero, c, c_type, ldc, far_c, count,
         compute, algorithm) = rest  # fmt: skip
        operands = ((a, lda, far_a), (b, ldb, far_b), (c, ldc, far_c))
        assert type(count) is ctypes.c_int
        kinds = (a_type, b_type, c_type)
        return self._multiply(handle, to_a, to_b, m, n, k, one, zero, *operands, kinds, count.value, compute, algorithm)

    def _multiply(self, handle, to_a, to_b, m, n, k, one, zero, a, b, c, kinds, count, compute, algorithm):
        assert handle.value == 4711 and self.workspace is not None and self.workspace[1] >= 32 * 2**20
        operands, dtype = NUMBERS[kinds[0].value], NUMBERS[kinds[2].value]
        assert algorithm.value == -1 and kinds[0].value == kinds[1].value
        assert operands == dtype or (operands, dtype, compute.value) == ("uint16", "float32", 68)
        for each in (to_a, to_b, m, n, k, *kinds, compute, algorithm):
            assert type(each) is ctypes.c_int
        number = {"float32": ctypes.c_float, "float64": ctypes.c_double}[dtype]
        assert type(one._obj) is type(zero._obj) is number and (one._obj.value, zero._obj.value) == (1, 0)
        self.compute = compute.value
        m, n, k = m.value, n.value, k.value
        shapes = [(k, m) if to_a.value else (m, k), (n, k) if to_b.value else (k, n), (m, n)]
        for (rows, _), (address, leading, far) in zip(shapes, (a, b, c)):
            assert (type(address), type(leading), type(far)) == (ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong)
            if leading.value < max(1, rows):
                return INVALID_VALUE
        for i in range(count):
            first, second, result = (
                columns(address.value + i * far.value * np.dtype(kind).itemsize, *shape, leading.value, kind)
                for kind, shape, (address, leading, far) in zip((operands, operands, dtype), shapes, (a, b, c))
            )
            if operands == "uint16":
                first, second = ((each.astype("uint32") << 16).view("float32") for each in (first, second))
            first, second = (first.T if to_a.value else first), (second.T if to_b.value else second)
            result[...] = first @ second
        return 0


def handle_of(library, stream=5):
    handle = blas.Handle(library, 1024)
    handle.use(stream)
    return handle


def product_of(out, a, b, **extra):
    (found,) = matrices.products(out, a, b, **extra)
    return found


class Event:
    clock = 0.0

    def record(self):
        self.at = Event.clock

    def synchronize(self):
        pass


class OnDevice:
    """An array of the host that does not say so."""

    def __init__(self, held):
        self.held = held

    def copy(self):
        return self.held.copy()

    def __setitem__(self, at, value):
        self.held[at] = value


@pytest.fixture
def device(monkeypatch, tmp_path):
    """A CuPy that is none: what ``blas`` and ``choice`` ask of it, on the host's memory; nothing is known yet."""
    stream = types.SimpleNamespace(ptr=7, capturing=False)
    stream.is_capturing = lambda: stream.capturing
    cuda = types.SimpleNamespace(
        get_current_stream=lambda: stream, Event=Event, get_elapsed_time=lambda start, end: end.at - start.at,
        Memory=lambda nbytes: types.SimpleNamespace(ptr=4096, nbytes=nbytes),
        runtime=types.SimpleNamespace(
            getDevice=lambda: 0, runtimeGetVersion=lambda: 13010,
            getDeviceProperties=lambda device: {"name": b"NVIDIA Some (GPU)"},
        ),
    )  # fmt: skip
    library = Library()
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(blas, "library", lambda: library)
    monkeypatch.setattr(blas, "version", lambda: 13)
    monkeypatch.setattr(blas, "_handles", {})
    monkeypatch.setattr(choice, "_choices", Choices(choice.CLEARLY))
    monkeypatch.setattr(choice, "LEAST_FLOPS", 0)
    monkeypatch.setattr(choice, "run", lambda one: None)
    monkeypatch.setenv("TINYNET_CACHE", str(tmp_path))
    return types.SimpleNamespace(stream=stream, library=library, folder=tmp_path / "cuda", array=OnDevice(np.zeros(1)))
