"""Programs on compiled kernels: one call, the same bits on any number of threads, and a way to do without."""

import subprocess
import sys
import threading

import numpy as np
import pytest

import tinynet as tn
from tinynet import kernels

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
    optimizer = tn.optim.Adam(model.parameters(), lr=1e-3)

    def step(x, y):
        optimizer.zero_grad()
        loss = tn.losses.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

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


def test_without_numba_programs_run_on_numpy_and_native_is_refused_with_the_mend():
    code = """if 1:
        import importlib.util, sys
        found = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name == "numba" else found(name, *rest)
        sys.modules["numba"] = None
        import numpy as np, tinynet as tn
        step = tn.capture(lambda x: (x * 2).sum())
        for _ in range(3):
            assert step(np.ones(3, "float32")).item() == 6
        assert step.program(np.ones(3, "float32")).target == "numpy"
        try:
            tn.capture(lambda x: x * 2, executor="native")(np.ones(3, "float32"))
        except tn.errors.ArgumentError as error:
            print(error)
        """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "tinynet[cpu]" in done.stdout and not done.stderr, done.stderr


def test_an_executor_that_does_not_exist_is_refused():
    with pytest.raises(tn.errors.ArgumentError, match="'numpy' or 'native'"):
        tn.capture(lambda x: x, executor="fast")
