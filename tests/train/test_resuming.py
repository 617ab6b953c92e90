"""A run taken up again ends as if it had never stopped; one that does not belong is refused and changes nothing."""

import json

import numpy as np
import pytest

import tinynet as tn
from tinynet.errors import CheckpointError
from tinynet.train import Callback, Checkpoint, EarlyStopping, safetensors

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 3)).astype("float32")
DATA = X, (X @ np.array([[1.0], [-2.0], [0.5]]) + RNG.normal(size=(50, 1)) / 10).astype("float32")
STEPS = 4  # in an epoch, of batches of 16: the last has 2 samples


def network(dropout=0.3):
    return tn.nn.Sequential(tn.nn.Dense(3, 8, "tanh"), tn.nn.Dropout(dropout), tn.nn.Dense(8, 1))


def one_cycle(model):
    return tn.optim.Adam(model.parameters(), lr=tn.optim.one_cycle(0.05, steps=6 * STEPS))


def momentum(model):
    return tn.optim.GD(model.parameters(), lr=0.05, momentum=0.9)


class Stop(Callback):
    """Stops after a step."""

    def __init__(self, step):
        self.step = step

    def on_step(self, run):
        if run.step == self.step:
            run.stop("enough")


def train(optimizer=one_cycle, seed=3, callbacks=(), dtype="float32", **options):
    tn.seed(seed)
    model = network().astype(dtype)
    options = {"epochs": 6, "batch_size": 16, "valid": DATA} | options
    return model, tn.fit(model, DATA, loss="mse", optimizer=optimizer(model), callbacks=callbacks, **options)


def bits(model):
    return {name: value.tobytes() for name, value in model.state_dict().items()}


def numbers(history):
    """The history without the clock."""
    return [{k: v for k, v in row.items() if k not in ("seconds", "samples_per_second")} for row in history]


@pytest.mark.parametrize("optimizer", [one_cycle, momentum])
@pytest.mark.parametrize("stops", [(1,), (STEPS,), (STEPS + 1,), (2 * STEPS - 1,), (2 * STEPS,), (2, 9, 10, 17)])
def test_weights_and_history_are_those_of_the_uninterrupted_run(tmp_path, optimizer, stops):
    whole, expected = train(optimizer)
    path = tmp_path / "run"
    resume = None
    for i, step in enumerate(stops):
        seed, callbacks = 50 + i if resume else 3, [Stop(step), Checkpoint(path)]
        _, history = train(optimizer, seed, callbacks, resume=resume)
        assert history.stopped == "enough"
        resume = path
    model, history = train(optimizer, seed=99, resume=path)  # what the model began with does not count
    assert bits(model) == bits(whole)
    assert history.stopped is None
    for row, other in zip(numbers(history), numbers(expected), strict=True):
        assert row.keys() == other.keys()
        assert row == {k: pytest.approx(v, rel=1e-12) for k, v in other.items()}


def test_more_epochs_can_be_had_of_a_finished_run(tmp_path):
    whole, _ = train(momentum, epochs=5)
    train(momentum, epochs=3, callbacks=[Checkpoint(tmp_path / "run")])
    model, history = train(momentum, epochs=5, resume=tmp_path / "run")
    assert len(history) == 5 and bits(model) == bits(whole)


def test_a_finished_run_resumed_has_nothing_left_to_do(tmp_path):
    whole, expected = train(epochs=3, callbacks=[Checkpoint(tmp_path / "run")])
    model, history = train(seed=4, epochs=3, resume=tmp_path / "run")
    assert bits(model) == bits(whole) and list(history) == list(expected)


def test_a_model_saved_within_an_epoch_by_a_callback_can_be_gone_on_from(tmp_path):
    class Save(Callback):
        def on_step(self, run):
            if run.step == 6:
                run.save(tmp_path / "run")

    whole, expected = train(callbacks=[Save()])
    model, history = train(seed=4, resume=tmp_path / "run")
    assert bits(model) == bits(whole)
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-12)


def test_early_stopping_and_the_best_checkpoint_know_the_epochs_before(tmp_path):
    class Script(Callback):
        def on_epoch(self, run):
            run.history[-1]["score"] = [1, 2, 3, 4, 5, 6][run.epoch - 1]

    train(epochs=2, callbacks=[Script(), Checkpoint(tmp_path / "run")])
    best = tmp_path / "best"
    callbacks = [Script(), EarlyStopping("score", patience=3), Checkpoint(best, monitor="score")]
    _, history = train(callbacks=callbacks, resume=tmp_path / "run")
    assert len(history) == 4 and not best.exists()


def test_a_loader_that_begins_within_an_epoch_ends_it():
    loader = tn.data.Loader(DATA, 16)
    for batch in (2, STEPS):
        position = {"epoch": 0, "batch": batch, "turn": batch, "row": min(16 * batch, len(X))}
        loader.load_state_dict(loader.state_dict() | position)
        model = network()
        history = tn.fit(model, loader, loss="mse", optimizer="adam", epochs=2)
        assert history["epoch"] == [1, 2]


# ---- what does not belong ----


def same_names():
    return tn.nn.Sequential(tn.nn.Dense(3, 8, "relu"), tn.nn.Dropout(0.3), tn.nn.Dense(8, 1))


def other_layer():
    return tn.nn.Sequential(tn.nn.Dense(3, 8, "tanh"), tn.nn.ReLU(), tn.nn.Dense(8, 1))


OTHERS = {
    "an activation": (same_names, one_cycle, {}),
    "a layer without parameters": (other_layer, one_cycle, {}),
    "a probability": (lambda: network(0.5), one_cycle, {}),
    "a width": (lambda: tn.nn.Sequential(tn.nn.Dense(3, 1)), one_cycle, {}),
    "a dtype": (lambda: network().astype("float64"), one_cycle, {}),
    "an optimizer": (network, momentum, {}),
    "a relative of the optimizer": (network, lambda m: tn.optim.AdamW(m.parameters()), {}),
    "a batch size": (network, one_cycle, {"batch_size": 8}),
    "a seed of the order": (network, one_cycle, {"seed": 1}),
    "no shuffling": (network, one_cycle, {"shuffle": False}),
    "less data": (network, one_cycle, {"train": tuple(part[:40] for part in DATA)}),
}


def everything(model, optimizer):
    dropout = [(m.seed, m.stream, m.step) for _, m in model.named_modules() if isinstance(m, tn.nn.Dropout)]
    state = {k: v.tobytes() if isinstance(v, np.ndarray) else v for k, v in optimizer.state_dict().items()}
    return bits(model), state, dropout, model.training


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run"
    train(epochs=2, callbacks=[Stop(6), Checkpoint(path)])
    return path


@pytest.mark.parametrize("what", OTHERS)
def test_another_run_is_refused_and_nothing_changes(checkpoint, what):
    make, optimizer_of, options = OTHERS[what]
    model = make()
    optimizer = optimizer_of(model)
    before = everything(model, optimizer)
    options = {"train": DATA, "batch_size": 16} | options
    with pytest.raises(CheckpointError, match="a run of this model, optimizer and data"):
        tn.fit(model, loss="mse", optimizer=optimizer, epochs=4, resume=checkpoint, **options)
    assert everything(model, optimizer) == before


def change(key, value):
    return lambda run: run.update({key: value})


HOSTILE = {
    "no kind": lambda run: run.pop("kind"),
    "no history": lambda run: run.pop("history"),
    "a history of numbers": change("history", [1, 2]),
    "a history that is an object": change("history", {}),
    "a negative epoch": change("epoch", -1),
    "an epoch of text": change("epoch", "2"),
    "a fractional step": change("step", 1.5),
    "totals that are none": change("totals", None),
    "too many totals": change("totals", [0] * 9),
    "totals of text": change("totals", ["a", 1, 1, 1]),
    "an optimizer that is a list": change("optimizer", [1]),
    "no optimizer": change("optimizer", {}),
    "a step of text": lambda run: run["optimizer"].update(step="x"),
    "an absurd step": lambda run: run["optimizer"].update(step=10**30),
    "a loader that is a list": change("loader", []),
    "a loader that is a number": change("loader", 3),
    "a batch out of the epoch": lambda run: run["loader"].update(batch=10**9),
    "an epoch of the loader of text": lambda run: run["loader"].update(epoch="x"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_description_of_a_run_is_refused_and_nothing_changes(checkpoint, tmp_path, what):
    tensors, metadata = safetensors.read(checkpoint)
    run = json.loads(metadata["tinynet.run"])
    HOSTILE[what](run)
    safetensors.write(tmp_path / "m", tensors, metadata | {"tinynet.run": json.dumps(run)})
    model = network()
    optimizer = one_cycle(model)
    before = everything(model, optimizer)
    with pytest.raises(CheckpointError):
        tn.fit(model, DATA, loss="mse", optimizer=optimizer, epochs=4, batch_size=16, resume=tmp_path / "m")
    assert everything(model, optimizer) == before


@pytest.mark.parametrize("spoil", [
    lambda t: t.pop("optimizer.m.0"),
    lambda t: t.update({"optimizer.m.9": np.zeros(2, "f4")}),
    lambda t: t.update({"optimizer.v.0": np.zeros(2, "f4")}),
    lambda t: t.update({"optimizer.v.0": t["optimizer.v.0"].astype("f8")}),
    lambda t: t.pop("0.weight"),
    lambda t: t.update({"9.weight": np.zeros(2, "f4")}),
], ids=["missing", "one more", "another shape", "another dtype", "no weight", "a weight of nobody"])  # fmt: skip
def test_tensors_that_do_not_belong_to_the_run_are_refused_and_nothing_changes(checkpoint, tmp_path, spoil):
    tensors, metadata = safetensors.read(checkpoint)
    spoil(tensors)
    safetensors.write(tmp_path / "m", tensors, metadata)
    model = network()
    optimizer = one_cycle(model)
    before = everything(model, optimizer)
    with pytest.raises(CheckpointError):
        tn.fit(model, DATA, loss="mse", optimizer=optimizer, epochs=4, batch_size=16, resume=tmp_path / "m")
    assert everything(model, optimizer) == before


def test_a_checkpoint_that_is_not_there_is_an_error_of_the_file_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        train(resume=tmp_path / "none")
