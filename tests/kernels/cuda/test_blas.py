"""cuBLAS, called through a library that is none: it takes the arguments down, checks them as cuBLAS does, and computes
what they say with NumPy, from the addresses, column by column. So an argument in the wrong place gives a wrong product.
"""

import ctypes
import importlib
import itertools
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from test_products import exact, finished, integers, placed

blas = importlib.import_module("tinynet.kernels.cuda.blas")
choice = importlib.import_module("tinynet.kernels.cuda.choice")
matrices = importlib.import_module("tinynet.kernels.cuda.matrices")
products = importlib.import_module("tinynet.kernels.cuda.products")
launch = importlib.import_module("tinynet.kernels.cuda.launch")

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


# ---- arguments ----


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_every_layout(dtype):
    handle = handle_of(Library())
    sizes = [(1, 1, 1), (5, 4, 3), (3, 4, 5), (1, 7, 4), (7, 1, 4), (4, 3, 1), (1, 1, 6), (6, 1, 1), (1, 6, 1)]
    for (m, n, k), turned in itertools.product(sizes, itertools.product((False, True), repeat=3)):
        a, b = placed(integers((m, k), dtype), turned[0]), placed(integers((k, n), dtype, 1), turned[1])
        out = placed(np.full((m, n), 77, dtype), turned[2])
        handle.multiply(blas.gemm(product_of(out, a, b), "float32"), 5)
        np.testing.assert_array_equal(out, exact(a, b), f"{m} x {k} x {n}, {turned}")


def test_arguments_of_the_four_cases():
    """Row by row, C (3 x 4) = A (3 x 5) B (5 x 4) is, column by column, C^T (4 x 3) = B^T A^T: B goes first."""
    out = np.zeros((3, 4), "float32")
    for a_turned, b_turned in itertools.product((False, True), repeat=2):
        a, b = (np.zeros((5, 3), "float32").T if a_turned else np.zeros((3, 5), "float32")), np.zeros((5, 4), "float32")
        b = np.zeros((4, 5), "float32").T if b_turned else b
        found = blas.gemm(product_of(out, a, b), "float32")
        assert (found.a, found.b, found.c) == tuple(each.ctypes.data for each in (b, a, out))
        assert (found.rows, found.columns, found.depth) == (4, 3, 5)
        assert (found.a_operation, found.a_leading) == ((1, 5) if b_turned else (0, 4))
        assert (found.b_operation, found.b_leading) == ((1, 3) if a_turned else (0, 5))
        assert found.c_leading == 4 and found.batch == 1


def test_batches():
    handle = handle_of(Library())
    for a_turned, b_turned in itertools.product((False, True), repeat=2):
        a, b = placed(integers((3, 4, 5)), a_turned), placed(integers((3, 5, 2), seed=1), b_turned)
        out = np.full((3, 4, 2), 77, "float32")
        handle.multiply(blas.gemm(product_of(out, a, b), "float32"), 5)
        np.testing.assert_array_equal(out, exact(a, b))
        handle.multiply(blas.gemm(product_of(out, a, b[1]), "float32"), 5)  # the same matrix each time
        np.testing.assert_array_equal(out, exact(a, b[1]))


def test_what_cublas_does_not_take():
    a, b, out = integers((6, 8)), integers((8, 6)), np.zeros((6, 6), "float32")
    taken = lambda *arrays: blas.gemm(product_of(*arrays), "float32") is not None
    assert taken(out, a, b)
    assert not taken(out[::2, ::2], a[::2], b[:, ::2])  # the elements of C lie apart in both directions
    assert not taken(out[:, :3], a, b[:, ::2])
    assert not taken(out, a[::-1], b) and not taken(out, a[:, ::-1], b)
    assert not taken(out, np.broadcast_to(a[0], a.shape), b)  # rows that are one and the same
    assert not taken(out, a[:, :0], b[:0])
    far = product_of(out, a, b)._replace(a=products.View(a.ctypes.data, 2**31, 1))  # more than an int holds
    assert blas.gemm(far, "float32") is None


@pytest.mark.parametrize(("dtype", "precision", "compute", "math"), [
    ("float32", "float32", 68, 0), ("float32", "tf32", 77, 3), ("float32", "bf16", 75, 0),
    ("float64", "float32", 70, 0), ("float64", "tf32", 70, 0),
])  # fmt: skip
def test_precisions(dtype, precision, compute, math):
    library, a = Library(), integers((3, 3), dtype)
    out = np.zeros((3, 3), dtype)
    handle_of(library).multiply(blas.gemm(product_of(out, a, a.T), precision), 5)
    assert library.compute == compute
    ((_, mode),) = [arguments for name, arguments in library.calls if name == "cublasSetMathMode"]
    assert mode.value == math


# ---- the order of calls ----


def test_the_workspace_is_set_after_every_new_stream_and_before_any_product():
    library, a, out = Library(), integers((3, 3)), np.zeros((3, 3), "float32")
    handle = handle_of(library)
    assert library.names == ["Create", "SetStream", "SetWorkspace"]  # all that allocates, before any capture
    product = product_of(out, a, a.T)
    first, second = blas.gemm(product, "float32"), blas.gemm(product, "tf32")
    library.calls.clear()
    for arguments in (first, first, second):
        handle.multiply(arguments, 5)
    assert library.names == ["SetMathMode", "GemmEx", "GemmEx", "SetMathMode", "GemmEx"]
    library.calls.clear()
    handle.multiply(second, 6)
    handle.multiply(second, 6)
    handle.multiply(second, 5)
    assert library.names == ["SetStream", "SetWorkspace", "GemmEx", "GemmEx", "SetStream", "SetWorkspace", "GemmEx"]
    streams = [arguments[1].value for name, arguments in library.calls if name == "cublasSetStream_v2"]
    assert streams == [6, 5]
    handle.close()
    handle.close()
    assert library.names[-1] == "Destroy" and library.names.count("Destroy") == 1


def test_failures_are_named():
    with pytest.raises(blas.BlasError, match="cublasCreate_v2: CUBLAS_STATUS_NOT_INITIALIZED"):
        blas.Handle(Library(cublasCreate_v2=1), 1024)
    library, a, out = Library(cublasGemmEx=13), integers((3, 3)), np.zeros((3, 3), "float32")
    arguments = blas.gemm(product_of(out, a, a.T), "float32")
    handle = handle_of(library)
    with pytest.raises(blas.BlasError, match="cublasGemmEx: CUBLAS_STATUS_EXECUTION_FAILED"):
        handle.multiply(arguments, 5)
    library.fails = {"cublasSetWorkspace_v2": 99}
    with pytest.raises(blas.BlasError, match="cublasSetWorkspace_v2: CUBLAS_STATUS_99"):
        handle.multiply(arguments, 6)
    library.fails = {}
    library.calls.clear()
    handle.multiply(arguments, 6)
    assert library.names[:2] == ["SetStream", "SetWorkspace"], "the workspace is missing still"
    np.testing.assert_array_equal(out, exact(a, a.T))


def test_where_the_library_is_found(tmp_path):
    def load(*there):
        def one(name):
            asked.append(name)
            if name not in there:
                raise OSError(name)
            return name

        return one

    wheel = tmp_path / "cu13" / "lib"
    wheel.mkdir(parents=True)
    for name in ("libcublas.so.12", "libcublas.so.13", "libcublasLt.so.13"):
        (wheel / name).touch()
    asked = []
    assert blas.find(13, load(str(wheel / "libcublas.so.13")), [wheel]) == str(wheel / "libcublas.so.13")
    assert asked == [str(wheel / "libcublas.so.13")]
    assert blas.find(12, load("libcublas.so.12"), [wheel]) == "libcublas.so.12"
    assert blas.find(12, load("libcublas.so"), []) == "libcublas.so"
    assert blas.find(12, load(), [wheel, Path("/nowhere")]) is None


# ---- the choice ----

BOTH = {"own": "own", "blas": "blas"}


@pytest.fixture
def fresh(monkeypatch):
    """The module, knowing nothing."""
    monkeypatch.setattr(choice, "_chosen", {})
    return choice


def test_a_product_is_measured_once_and_remembered(fresh, tmp_path):
    path, asked = tmp_path / "products.json", []
    times = {"own kernel": 3e-3, "cuBLAS": 2.5e-3, "cuBLAS on bf16 copies": 2e-3}
    ways, said = {way: way for way in times}, "cuBLAS on bf16 copies 2,000 µs, cuBLAS 2,500 µs, own kernel 3,000 µs"
    seconds = lambda which: asked.append(which) or times[which]
    for _ in range(2):
        found = fresh.choose("a", ways, seconds, path)
        assert found.way == "cuBLAS on bf16 copies" and str(found) == said
    assert asked == list(ways) and json.loads(path.read_text()) == {"a": times}
    fresh._chosen.clear()  # another process
    assert fresh.choose("a", ways, None, path) == ("cuBLAS on bf16 copies", times)
    two = {way: way for way in list(ways)[:2]}
    expected = "cuBLAS", {way: times[way] for way in two}
    assert fresh.choose("a", two, None, path) == expected, "there is no room for copies"
    assert fresh.choose("b", two, None, path) is None, "nothing may be measured now"
    fresh.choose("b", two, seconds, path)
    assert set(json.loads(path.read_text())) == {"a", "b"} and asked == [*ways, *two]
    assert fresh.choose("b", ways, None, path) is None
    times["cuBLAS on bf16 copies"] = 1.0
    assert fresh.choose("b", ways, seconds, path).way == "cuBLAS" and asked == [*ways, *two, *ways]
    assert [each.name for each in tmp_path.iterdir()] == ["products.json"]


def test_what_another_process_measured_meanwhile_stays(fresh, tmp_path):
    path = tmp_path / "products.json"

    def seconds(which):
        path.write_text(json.dumps({"a": {"own": 1.0, "blas": 5.0}}))
        return 2.0

    assert fresh.choose("a", BOTH, seconds, path) == ("own", {"own": 1.0, "blas": 5.0})


def test_damaged_and_missing_files(fresh, tmp_path):
    path = tmp_path / "products.json"
    for text in ("", "[1]", '{"a": 3}', '{"a": [1.0, 2.0]}', '{"a": {"own": "x"}}', '{"a": {"own": 1', '{"a": {}}'):
        path.write_text(text)
        fresh._chosen.clear()
        times = {"own": 1.0, "blas": 1.04}
        assert fresh.choose("a", BOTH, times.get, path) == ("own", times)
        assert json.loads(path.read_text()) == {"a": times}
    for nowhere in (None, tmp_path / "no" / "folder.json"):
        fresh._chosen.clear()
        assert fresh.choose("a", BOTH, {"own": 1.04, "blas": 1.0}.get, nowhere).way == "own", "a tie"


def test_what_a_measurement_holds_for():
    a, b, out = integers((4, 5)), integers((5, 6)), np.zeros((4, 6), "float32")
    keys = [
        choice.key(product, precision)
        for product in (
            product_of(out, a, b), product_of(out, integers((5, 4)).T, b), product_of(out, a, b, activation="relu"),
            product_of(out, a, b, bias=b[0]), product_of(out, a, b, mask=out), product_of(out.astype("float64"), a, b),
        )
        for precision in ("float32", "tf32")
    ]  # fmt: skip
    assert keys[0] == "1x4x5x6 NNN float32 float32 -" and keys[2].startswith("1x4x5x6 TNN")
    assert len(set(keys)) == 11  # float64 has no other precision


class Event:
    clock = 0.0

    def record(self):
        self.at = Event.clock

    def synchronize(self):
        pass


@pytest.fixture
def device(monkeypatch, fresh, tmp_path):
    """A CuPy that is none: what this module asks of it, for a device in the host's memory."""
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
    monkeypatch.setattr(choice, "LEAST_FLOPS", 0)
    monkeypatch.setattr(choice, "run", lambda one: None)
    monkeypatch.setenv("TINYNET_CACHE", str(tmp_path))
    return types.SimpleNamespace(stream=stream, library=library, folder=tmp_path / "cuda", array=object())


def test_times_are_medians_of_the_device(device):
    costs = iter([100, 100, 1, 2, 3, 4, 5, 6, 7, 8, 90])

    def function():
        Event.clock += next(costs)

    assert choice.device_seconds(function) == pytest.approx(5e-3)


@pytest.mark.parametrize("extra", [
    {}, {"activation": "relu"}, {"bias": True, "activation": "tanh"}, {"mask": True}, {"bias": True},
])  # fmt: skip
@pytest.mark.parametrize("batch", [(), (3,)])
def test_a_product_that_is_left_to_cublas(device, harness, monkeypatch, extra, batch):
    """The same product, by a call and, where there is more to do, a launch that the harness runs here."""
    a, b, out = integers((*batch, 9, 5)), integers((*batch, 5, 7), seed=1), np.full((*batch, 9, 7), 77, "float32")
    extra = extra | ({"bias": integers((7,), seed=2)} if "bias" in extra else {})
    extra |= {"mask": integers(out.shape, seed=3)} if "mask" in extra else {}
    product = product_of(out, a, b, **extra)
    own = products.launches(product, "vectors")
    seconds = lambda function: function() or (1.0 if "cublasGemm" in str(device.library.calls) else 2.0)
    monkeypatch.setattr(choice, "device_seconds", seconds)
    calls = choice.best(product, own, "float32", device.array)
    assert isinstance(calls[0][0], blas.Call) and len(calls) == 1 + bool(extra)
    assert calls[0][0].note == "cuBLAS 1,000,000 µs, own kernel 2,000,000 µs"
    assert all(type(each) in (int, str) for each in calls[0][0].arguments)
    (file,) = device.folder.iterdir()
    assert file.name == "products-NVIDIA-Some--GPU--13.json" and len(json.loads(file.read_text())) == 1
    out[...] = 77
    device.library.calls.clear()
    calls[0][0]()
    assert device.library.names == ["GemmStridedBatchedEx" if batch else "GemmEx"], "nothing else, in a capture"
    harness.run(calls[1:])
    np.testing.assert_allclose(out, finished(exact(a, b), **extra), rtol=4e-7)


def test_what_is_not_measured(device, monkeypatch):
    a, b, out = integers((9, 5)), integers((5, 7), seed=1), np.ones((9, 7), "float32")
    product, own = product_of(out, a, b), ["own"]
    monkeypatch.setattr(choice, "device_seconds", lambda function: pytest.fail("measured"))
    assert choice.best(product, own, "float32", out) == own, "an array of NumPy"
    device.stream.capturing = True
    assert choice.best(product, own, "float32", device.array) == own
    device.stream.capturing = False
    assert choice.best(product_of(out, a, b, mask=out), own, "float32", device.array) == own, "it would lose the mask"
    assert choice.best(product_of(out, a[:, ::-1], b), own, "float32", device.array) == own, "a layout that it lacks"
    monkeypatch.setattr(blas, "library", lambda: None)
    monkeypatch.setattr(blas, "_handles", {})
    assert choice.best(product, own, "float32", device.array) == own
    monkeypatch.setattr(choice, "LEAST_FLOPS", 1e9)
    monkeypatch.setattr(blas, "handle", lambda: pytest.fail("asked"))
    assert choice.best(product, own, "float32", device.array) == own


def test_the_own_kernel_stays_where_cublas_fails(device, monkeypatch):
    a, out = integers((9, 9)), np.zeros((9, 9), "float32")
    device.library.fails = {"cublasGemmEx": 15}
    monkeypatch.setattr(choice, "device_seconds", lambda function: function() or 1.0)
    assert choice.best(product_of(out, a, a.T), [], "float32", device.array) == []
    (file,) = device.folder.iterdir()
    assert choice._read(file) == {"1x9x9x9 NTN float32 float32 -": {"own kernel": 1.0, "cuBLAS": float("inf")}}


def test_the_own_kernel_stays_where_it_is_no_slower(device, monkeypatch):
    a, out = integers((9, 9)), np.zeros((9, 9), "float32")
    monkeypatch.setattr(choice, "device_seconds", lambda function: 1.0)
    assert choice.best(product_of(out, a, a.T), [], "float32", device.array) == []
