"""The checks that the benchmark makes on a GPU, of kernels and of the executor: tried without one, and made to fail."""

import functools

import numpy as np
import pytest
from gpu_runs import Processor, Scripted, fake, needs_harness

import tinynet as tn
from bench.gpu import checks, executor, kernels, pacing
from bench.processes import PeerError

# ---- checks of kernels ----


@needs_harness
@pytest.mark.parametrize("name", ["adam float32", "softmax float64", "masked_matmul float32"])
def test_a_check_of_a_kernel_passes_on_the_processor(name, monkeypatch):
    monkeypatch.setattr(kernels, "SIZES", (0, 1, 7))
    device = Processor()
    line = checks.attempt(name, kernels.checks(device)[name], device.alive)
    assert line.passed, line.reason
    assert device.own and line.figures["cases"] > 5 and 0 < line.figures["error"] < 1e-4


def test_every_operation_of_the_table_has_a_check_and_every_check_passes_on_the_reference(monkeypatch):
    """What the checks say of kernels that are right: of other ones, those for NumPy."""
    find = tn.kernels.find
    monkeypatch.setattr(kernels.kernels, "find", lambda op, target, dtype=None: find(op, "numpy", dtype))
    monkeypatch.setattr(kernels, "SIZES", (0, 1, 7, 257))
    found = kernels.checks(Processor())
    for op in tn.ops.table().values():
        assert op.view is not None or {f"{op.name} float32", f"{op.name} float64"} <= found.keys()
    for name, check in found.items():
        if not name.startswith("product "):
            line = checks.attempt(name, check)
            assert line.passed, line


@needs_harness
@pytest.mark.parametrize("what", ["a wrong number", "a part that is not written"])
def test_a_check_fails_on_a_kernel_that_is_wrong(what, monkeypatch):
    monkeypatch.setattr(kernels, "SIZES", (257,))
    monkeypatch.setattr(kernels, "LAID_OUT", (7,))

    def changed(one):
        if what == "a wrong number":  # the decay, last but one of the arguments
            return one._replace(arguments=(*one.arguments[:-2], np.float64(0.5), one.arguments[-1]))
        return one._replace(arguments=(np.int64(int(one.arguments[0]) - 1), *one.arguments[1:]))

    device = Processor(changed)
    line = checks.attempt("adam", kernels.checks(device)["adam float32"])
    assert not line.passed and device.own and line.reason.startswith("error ") and "[257, 2]" in line.reason


@needs_harness
def test_the_ladder_is_checked_and_a_wrong_epilogue_is_found(monkeypatch):
    monkeypatch.setattr(kernels, "PRODUCTS", ((1, 1, 1), (9, 33, 140)))
    check = kernels.checks(Processor())["product step naive float32"]
    line = checks.attempt("naive", check)
    # of the second size, each in slices of the depth too
    assert line.passed and line.figures["cases"] == 3 * 4 * len(kernels.EPILOGUES), line
    changed = lambda one: one._replace(arguments=(*one.arguments[:-2], np.int32(0), one.arguments[-1]))
    line = checks.attempt("naive", kernels.checks(Processor(changed))["product step naive float32"])
    assert not line.passed and "relu" in line.reason


@needs_harness
def test_products_as_programs_get_them(monkeypatch):
    monkeypatch.setattr(kernels, "PRODUCTS", ((1, 1, 1), (5, 7, 3)))
    monkeypatch.setattr(kernels, "LARGE", (66, 34, 33))
    for precision in ("float64", "float32"):
        line = checks.attempt(precision, kernels.checks(Processor())[f"product as programs get it {precision}"])
        assert line.passed, line


def test_layouts_are_what_they_say():
    x = np.arange(24.0).reshape(2, 3, 4)
    found = {layout: kernels.laid_out(np, x, layout) for layout in kernels.LAYOUTS}
    assert all(np.array_equal(each, x) for each in found.values())
    assert found["contiguous"].strides == x.strides and found["strided"].strides[-1] == 16
    assert found["transposed"].strides == tuple(np.empty((4, 3, 2)).strides[::-1])
    assert found["reversed"].strides[-1] == -8 and found["misaligned"].ctypes.data % 16 == 8


# ---- what a check is ----


def test_errors_are_of_values_shapes_and_what_is_not_a_number():
    x = np.array([1.0, np.nan, np.inf])
    assert checks.error_of(x, x, 1e-5) == 0
    assert checks.error_of(x, [1.0, np.nan, -np.inf], 1e-5) == np.inf
    assert checks.error_of([1.0, 2.0, np.inf], x, 1e-5) == np.inf
    assert checks.error_of([np.nan], [1.0], 1e-5) == np.inf and checks.error_of([1.0], 1.0, 1e-5) == np.inf
    assert checks.error_of(np.array([3.03]), np.array([3.0]), 1e-2) == pytest.approx(0.75)
    assert checks.error_of(np.array([1, 2]), np.array([1, 3]), 1.0) == np.inf
    assert checks.distance([3.0, np.nan], [3.0, 4.0]) == np.inf
    assert checks.distance([3.0, 4.5], [3.0, 4.0]) == pytest.approx(0.1)


def test_a_line_says_why_a_check_has_failed_and_whether_the_device_is_gone():
    def wrong():
        checks.require(False, "this")

    def dead():
        raise RuntimeError("illegal address")

    assert checks.attempt("a", lambda: {"x": 1})[:2] == ("a", True)
    line = checks.attempt("a", wrong)
    assert (line.passed, line.reason, line.poisoned) == (False, "this", False)
    assert checks.attempt("a", dead).reason == "RuntimeError: illegal address"
    line = checks.attempt("a", dict, alive=dead)
    assert not line.passed and line.poisoned and "illegal address" in line.reason


def test_a_check_that_ends_its_process_does_not_stop_the_others():
    answers = {"a": {}, "b": PeerError("ended with status -11"), "c": {}, "d": {"poisoned": True, "passed": False},
               "e": {}}  # fmt: skip
    started: list[Scripted] = []
    lines = list(checks.run_group("abcde", lambda: Scripted(answers, started), pacing.Deadline(100)))
    assert [line.passed for line in lines] == [True, False, True, False, True]
    assert "status -11" in lines[1].reason and len(started) == 3 and all(each.closed for each in started)


# ---- the executor ----


OF_POOLS = ("device bytes are the plan", "a thousand steps allocate nothing", "without memory there is an arena error")
OF_VALUES = [name for name in executor.checks() if name not in OF_POOLS]


@pytest.mark.parametrize("name", OF_VALUES)
def test_checks_of_the_executor_hold_on_the_processor(name, monkeypatch):
    """What is one graph on a GPU is none here: that check has to say so."""
    monkeypatch.setattr(executor, "STEPS", 8)
    line = checks.attempt(name, executor.checks(executor.Setting("numpy", "numpy"))[name])
    assert line.passed == (name != "a step is one graph"), line.reason
    assert line.passed or "one CUDA graph" in line.reason


@pytest.mark.parametrize(("name", "broken"), [
    ("captured is eager to rounding: mse gd", "loss"), ("without fusion the bits are eager's: mse gd", "loss"),
    ("arrays of the host give the same", "loss"), ("rate and step count take effect", "rate"),
    ("bad labels change nothing", "labels"),
])  # fmt: skip
def test_checks_of_the_executor_find_what_is_wrong(name, broken, monkeypatch):
    real = tn.capture

    def capture(step, **options):
        captured = real(step, **options)
        calls = [0]

        def call(x, y):
            calls[0] += 1
            if broken == "labels":  # taken for others
                y = np.clip(y if isinstance(y, np.ndarray) else y.numpy(), 0, 9)
            if broken == "rate":
                step.__self__.optimizer.lr = 1e-2
            loss = captured(x, y)
            if broken == "loss" and (calls[0] > 5 and ("host" not in name or isinstance(x, np.ndarray))):
                loss = loss * 1.01
            return loss

        return call

    monkeypatch.setattr(tn, "capture", capture)
    monkeypatch.setattr(executor, "STEPS", 8)
    line = checks.attempt(name, executor.checks(executor.Setting("numpy", "numpy"))[name])
    assert not line.passed and line.reason.split(" ")[0] in ("losses", "another", "expected"), line


@needs_harness
@pytest.mark.parametrize("name", [each for each in OF_VALUES if "to rounding" not in each or "dropout" in each])
def test_checks_of_the_executor_hold_on_a_gpu_that_is_not_there(name, monkeypatch):
    """The executor for CUDA as it is; each stream goes on as late as its events allow."""
    monkeypatch.setattr(executor, "STEPS", 6)
    with fake.gpu("last"):
        line = checks.attempt(name, executor.checks(executor.Setting("fake gpu", "cuda"))[name])
    assert line.passed, line


@needs_harness
def test_a_graph_that_leaves_something_out_is_found(monkeypatch):
    capture = fake.FakeDevice.capture
    monkeypatch.setattr(fake.FakeDevice, "capture", lambda self, calls: capture(self, calls[:-1]))
    with fake.gpu():
        # verifying a captured step would find it first
        monkeypatch.setattr(tn, "capture", functools.partial(tn.capture, verify=False))
        found = executor.checks(executor.Setting("fake gpu", "cuda"))
        line = checks.attempt("graph", found["graph is the plain stream"])
    assert not line.passed and "differs: expected the same bits" in line.reason, line
    monkeypatch.undo()
    with fake.gpu(graphs=False):
        found = executor.checks(executor.Setting("fake gpu", "cuda"))
        line = checks.attempt("graph", found["a step is one graph"])
    assert not line.passed and "no graph could be captured" in line.reason, line


class Pool:
    """Stands for CuPy's: what it says, in turn."""

    def __init__(self, used, total=(0,)):
        self.used, self.total, self.limit = list(used), list(total), 0

    def used_bytes(self):
        return self.used.pop(0) if len(self.used) > 1 else self.used[0]

    def total_bytes(self):
        return self.total.pop(0) if len(self.total) > 1 else self.total[0]

    def free_all_blocks(self):
        pass

    def get_limit(self):
        return self.limit

    def set_limit(self, size):
        self.limit = size


def of_pool(monkeypatch, pool, name):
    monkeypatch.setattr(executor, "_pool", lambda: pool)
    monkeypatch.setattr(executor, "REPLAYS", 3)
    with tn.use_backend("numpy"):
        _, program = executor._program(executor.Setting("numpy", "numpy"), executor.Training())
    if callable(pool.used[0]):
        pool.used = pool.used[0](-(-program.plan.peak_bytes // 512) * 512)
    return checks.attempt(name, executor.checks(executor.Setting("numpy", "numpy"))[name])


@pytest.mark.parametrize(("used", "reason"), [
    (lambda n: [100, 100 + n, 100], ""), (lambda n: [100, 612 + n, 100], "for a plan of"),
    (lambda n: [100, 100 + n, 101], "1 bytes of a program did not come back"),
])  # fmt: skip
def test_the_plan_is_held_against_what_the_pool_hands_out(used, reason, monkeypatch):
    line = of_pool(monkeypatch, Pool([used]), OF_POOLS[0])
    assert line.passed == (not reason) and reason in line.reason, line


@pytest.mark.parametrize(("used", "total", "reason"), [
    ([5], [10], ""), ([5], [10, 8000], "the pool grew by 7,990 bytes"), ([5, 6], [10], "1 bytes are kept"),
])  # fmt: skip
def test_steps_that_allocate_are_found(used, total, reason, monkeypatch):
    line = of_pool(monkeypatch, Pool(used, total), OF_POOLS[1])
    assert line.passed == (not reason) and reason in line.reason, line


@pytest.mark.parametrize(("error", "passes"), [(tn.errors.ArenaError, True), (MemoryError, False), (None, False)])
def test_what_comes_without_memory_has_to_be_an_arena_error(error, passes, monkeypatch):
    pool, again = Pool([5]), executor._again

    def limited(program):
        if pool.limit and error is not None:
            raise error("no room")
        return again(program)

    monkeypatch.setattr(executor, "_again", limited)
    line = of_pool(monkeypatch, pool, OF_POOLS[2])
    assert line.passed is passes and pool.limit == 0, line
