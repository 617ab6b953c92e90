"""Ctrl-C: training stops between two steps, can be gone on from, and gives the program its own handler back."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import tinynet as tn
from tinynet.train import Callback, Checkpoint, EarlyStopping

X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
DATA = X, X.sum(axis=1, keepdims=True)


class Press(Callback):
    """Presses Ctrl-C after a step, so many times."""

    def __init__(self, step, times=1):
        self.step, self.times, self.ended = step, times, False

    def on_step(self, run):
        if run.step == self.step:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)

    def on_end(self, run):
        self.ended = True


def fit(callbacks, resume=None, loss="mse", seed=1, **options):
    tn.seed(seed)
    model = tn.nn.Sequential(tn.nn.Dense(3, 6, "tanh"), tn.nn.Dropout(0.2), tn.nn.Dense(6, 1))
    optimizer = tn.optim.Adam(model.parameters(), lr=0.01)
    history = tn.fit(
        model, DATA, loss=loss, optimizer=optimizer, epochs=5, batch_size=16, callbacks=callbacks, resume=resume,
        **options,
    )
    return model, history


def bits(model):
    return {name: value.tobytes() for name, value in model.state_dict().items()}


@pytest.fixture
def handler():
    """A handler of the test's own, which fit has to give back."""
    calls = []
    own = lambda *_: calls.append(None)
    before = signal.signal(signal.SIGINT, own)
    yield own, calls
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("step", [1, 3, 7, 15])
def test_what_was_interrupted_goes_on_to_the_same_bits(tmp_path, handler, step):
    own, calls = handler
    whole, _ = fit([])
    press = Press(step)
    _, history = fit([press, Checkpoint(tmp_path / "run")])
    assert history.stopped == "interrupted" and len(history) == step // 3 and press.ended
    assert signal.getsignal(signal.SIGINT) is own and not calls
    model, history = fit([], tmp_path / "run", seed=9)
    assert bits(model) == bits(whole) and len(history) == 5 and history.stopped is None


@pytest.mark.parametrize("order", [1, -1])
def test_early_stopping_leaves_an_interrupted_model_as_it_is(tmp_path, order):
    class Worse(Callback):
        def on_epoch(self, run):
            run.history[-1]["score"] = run.epoch

    whole, _ = fit([])
    callbacks = [EarlyStopping("score", patience=9), Checkpoint(tmp_path / "run", every=9)][::order]
    fit([Worse(), *callbacks, Press(8)])
    assert bits(fit([], tmp_path / "run", seed=9)[0]) == bits(whole)


def test_a_second_ctrl_c_interrupts_at_once(tmp_path, handler):
    own, _ = handler
    press = Press(4, times=2)
    with pytest.raises(KeyboardInterrupt):
        fit([press, Checkpoint(tmp_path / "run", every=9)])
    assert press.ended and signal.getsignal(signal.SIGINT) is own
    whole, _ = fit([])
    assert bits(fit([], tmp_path / "run", seed=9)[0]) == bits(whole), "it came between two steps"


def test_a_second_ctrl_c_within_a_step_writes_no_checkpoint(tmp_path):
    calls = []

    def loss(pred, target):
        calls.append(None)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return tn.losses.mse(pred, target)

    with pytest.raises(KeyboardInterrupt):
        fit([Checkpoint(tmp_path / "run", every=9)], loss=loss, capture=False)
    assert not (tmp_path / "run").exists()


def test_the_handler_returns_after_an_error_and_after_a_whole_run_too(handler):
    own, calls = handler

    class Fail(Callback):
        def on_epoch(self, run):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        fit([Fail()])
    assert signal.getsignal(signal.SIGINT) is own
    fit([])
    assert signal.getsignal(signal.SIGINT) is own and not calls


SCRIPT = """
    import json, sys
    import numpy as np
    import tinynet as tn

    class Tell(tn.train.Callback):
        def on_step(self, run):
            if run.step == 5:
                print("ready", flush=True)
        def on_end(self, run):
            self.step = run.step

    x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    tn.seed(1)
    model = tn.nn.Sequential(tn.nn.Dense(3, 8, "tanh"), tn.nn.Dropout(0.1), tn.nn.Dense(8, 1))
    optimizer, tell = tn.optim.Adam(model.parameters()), Tell()
    history = tn.fit(model, (x, x[:, :1]), loss="mse", optimizer=optimizer, epochs=10**6, batch_size=16,
                     callbacks=[tell, tn.train.Checkpoint("run", every=10**6)])
    print(json.dumps([type(history).__name__, history.stopped, len(history), tell.step, optimizer.steps]))
    tn.save(model, "model")
"""


@pytest.mark.skipif(os.name != "posix", reason="sends a signal to a process")
def test_a_process_that_gets_the_signal_returns_its_history_and_a_checkpoint(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(SCRIPT)], cwd=tmp_path, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0 and err == ""
    kind, stopped, epochs, step, steps = json.loads(out)
    assert (kind, stopped) == ("History", "interrupted") and step == steps >= 5 and epochs == step // 4
    checkpoint, model = tn.load(tmp_path / "run"), tn.load(tmp_path / "model")
    assert bits(checkpoint) == bits(model) and checkpoint[1].step == step
