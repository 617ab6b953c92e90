"""Programs on compiled kernels: one call, the same bits on any number of threads, and a way to do without."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from zoo import classifying

import tinynet as tn
from tinynet import kernels
from tinynet.errors import CaptureError

native = pytest.mark.skipif(not kernels.available("native"), reason="numba is not installed")
RNG = np.random.default_rng(5)
X, LABELS = RNG.normal(size=(96, 300)).astype("float32"), RNG.integers(0, 10, 96)


@pytest.fixture(autouse=True)
def own_kernels(monkeypatch):
    """No product is left to BLAS, whose threads are its own affair; and the pool is as it was."""
    if kernels.available("native"):
        from tinynet.kernels.cpu.native import choice

        monkeypatch.setattr(choice, "LEAST_FLOPS", float("inf"))
    yield
    tn.set_num_threads(None)


def trainer(seed, executor="native"):
    tn.seed(seed)
    model = tn.nn.Sequential(
        tn.nn.Dense(300, 400, "relu"), tn.nn.LayerNorm(400), tn.nn.Dropout(0.1), tn.nn.Dense(400, 300, "tanh"),
        tn.nn.Dense(300, 10),
    )  # fmt: skip
    step = classifying(model, tn.optim.Adam(model.parameters(), lr=1e-3))
    return model, step if executor is None else tn.capture(step, executor=executor)


def trained(seed, steps=12):
    """Losses and parameters as bytes."""
    model, step = trainer(seed)
    losses = [step(X, LABELS).item() for _ in range(steps)]
    return losses, b"".join(value.tobytes() for value in model.state_dict().values())


@native
def test_a_step_is_one_call():
    _, step = trainer(0)
    for _ in range(3):
        step(X, LABELS)
    program = step.program(X, LABELS)
    assert program.target == "native" and len(program._linked) == 1
    listing = program.listing()
    assert " native " in listing and " numpy " not in listing and " reference " not in listing


@native
def test_losses_are_those_of_eager_mode():
    _, step = trainer(0)
    _, eager = trainer(0, None)
    for _ in range(12):
        np.testing.assert_allclose(step(X, LABELS).item(), eager(tn.tensor(X), tn.tensor(LABELS)).item(), rtol=1e-4)


@native
def test_the_bits_do_not_depend_on_the_number_of_threads():
    found = []
    for threads in (1, 2, 3):
        tn.set_num_threads(threads)
        assert tn.get_num_threads() == threads
        found.append(trained(1))
    assert found[0] == found[1] == found[2]


@native
def test_two_models_trained_in_two_threads_end_at_the_bits_of_one_after_the_other():
    tn.set_num_threads(2)
    expected = [trained(seed) for seed in (2, 3)]
    models = [trainer(seed) for seed in (2, 3)]
    found = [None, None]

    def work(i):
        model, step = models[i]
        losses = [step(X, LABELS).item() for _ in range(12)]
        found[i] = losses, b"".join(value.tobytes() for value in model.state_dict().values())

    workers = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    assert found == expected


@native
def test_an_operation_without_a_native_kernel_runs_between_two_tables():
    captured = tn.capture(lambda x: tn.exp(tn.softmax(tn.exp(x * 0.1), axis=0)))  # a softmax along columns
    for _ in range(3):
        captured(X)
    program = captured.program(X)
    assert len(program._linked) > 1 and "on numpy kernels" in program.explain()


@native
def test_unknown_numbers_of_threads_are_refused_and_change_nothing():
    tn.set_num_threads(2)
    for wrong in (0, -1, 2.0, "2"):
        with pytest.raises(tn.errors.ArgumentError, match="from 1 on"):
            tn.set_num_threads(wrong)
    assert tn.get_num_threads() == 2


def test_without_numba_programs_run_on_numpy_and_native_is_refused_with_the_mend(tmp_path):
    code = """if 1:
        import sys
        sys.modules["numba"] = None
        import numpy as np, tinynet as tn
        step = tn.capture(lambda x: (x * 2).sum())
        for _ in range(3):
            assert step(np.ones(3, "float32")).item() == 6
        assert step.program(np.ones(3, "float32")).target == "numpy"
        try:
            tn.capture(lambda x: x * 2, executor="native")(np.ones(3, "float32"))
        except tn.errors.MissingExtraError as error:
            print(error)
        """
    environment = os.environ | {"TINYNET_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert "tinynet[cpu]" in done.stdout and not done.stderr, done.stderr


def test_an_executor_that_does_not_exist_is_refused():
    with pytest.raises(tn.errors.ArgumentError, match="one of None, 'numpy', 'native', 'cuda', got 'fast'"):
        tn.capture(lambda x: x, executor="fast")


@pytest.mark.parametrize("executor", [pytest.param("native", marks=native), "numpy"])
def test_a_program_that_two_threads_call_computes_for_each_what_it_gave(executor):
    model = tn.nn.Sequential(tn.nn.Dense(64, 128, "relu"), tn.nn.Dense(128, 10))
    forward = tn.capture(lambda x: model(x), executor=executor)
    inputs = [RNG.normal(size=(64, 64)).astype("float32") for _ in range(2)]
    expected = [[forward(x).numpy() for _ in range(3)][-1] for x in inputs]
    program, wrong = forward.program(inputs[0]), []

    def work(i, call):
        for _ in range(300):
            wrong.extend([i] * (not np.array_equal(call(inputs[i]), expected[i])))

    for call in (program, lambda x: forward(x).numpy()):
        threads = [threading.Thread(target=work, args=(i, call)) for i in range(2)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert not wrong


@native
@pytest.mark.parametrize("optimizer", [
    lambda p: tn.optim.GD(p, lr=0.1), lambda p: tn.optim.GD(p, lr=0.1, momentum=0.9), tn.optim.Adam,
], ids=["gd", "momentum", "adam"])  # fmt: skip
def test_a_kernel_that_does_not_write_what_the_step_writes_is_an_error(optimizer, monkeypatch):
    from tinynet.kernels.cpu.native import updates

    whole = updates._update
    monkeypatch.setattr(updates, "_update", lambda *args, **more: [
        each._replace(words=(0, *each.words[1:])) for each in whole(*args, **more)  # of no element
    ])  # fmt: skip
    w = tn.tensor(np.ones((3, 1), "float32"), requires_grad=True)
    made = optimizer([w])

    @tn.capture(executor="native")
    def step(x):
        made.zero_grad()
        (x @ w).sum().backward()
        made.step()

    step(np.eye(3, dtype="float32"))
    with pytest.raises(CaptureError, match=r"expected tensor .* of the program to equal that of the eager run"):
        step(np.eye(3, dtype="float32"))


@native
def test_a_gradient_of_rounding_errors_alone_is_no_difference():
    """Adam divides it by its size, so that fused and eager steps of it have different signs."""
    rng = np.random.default_rng(0)
    w = tn.tensor(rng.normal(size=(40, 30)).astype("float32"), requires_grad=True)
    optimizer = tn.optim.Adam([w])
    x = rng.normal(size=(64, 40)).astype("float32")

    @tn.capture(executor="native")
    def step(x):
        optimizer.zero_grad()
        y = x @ w
        loss = ((y - y.mean(axis=0)).sum(axis=0) * 1.0).sum()  # 0 whatever w is
        loss.backward()
        optimizer.step()

    for _ in range(4):
        step(x)


@native
def test_numbers_that_a_program_takes_for_zero_are_no_difference():
    half = tn.capture(lambda x: x * 0.5, executor="native")
    x = np.full(10, 1e-38, "float32")
    for _ in range(3):
        assert (abs(half(x).numpy()) < 1e-37).all()


@native
def test_a_program_that_is_bound_again_uses_no_more_threads_than_its_scratch_is_for():
    tn.set_num_threads(1)
    w, v = tn.tensor(np.ones((1400, 600), "float32"), requires_grad=True), tn.tensor(np.ones((100, 600), "float32"))
    product = tn.capture(lambda: w.grad @ v.T, executor="native")
    for threads in (1, 1, 1, 2, 2):
        tn.set_num_threads(threads)
        w.grad = None  # the next one has memory of its own
        (w * 2.0).sum().backward()
        assert (product().numpy() == 1200).all()
