"""save and load: every layer comes back as it was; what is damaged or hostile is refused before memory is taken."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

import tinynet as tn
from tinynet.errors import CheckpointError
from tinynet.train import load_extra, safetensors
from tinynet.train.checkpoint import EXTRA, MODEL, describe

nn = tn.nn


def every_layer():
    tn.seed(1)
    return nn.Sequential(
        nn.Flatten(), nn.Dense(6, 5, "gelu"), nn.LayerNorm(5, eps=1e-4), nn.Dropout(0.3), nn.ReLU(), nn.Tanh(),
        nn.Sigmoid(), nn.SiLU(), nn.Softplus(), nn.LeakyReLU(0.2), nn.GELU("tanh"),
        nn.Sequential(nn.Dense(5, 4, bias=False), nn.Dense(4, 3, "leaky_relu")), nn.Softmax(),
    )  # fmt: skip


def test_every_registered_layer_comes_back_with_the_same_outputs(tmp_path):
    model, x = every_layer(), np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 2, 2).reshape(4, 3, 2)
    used = {type(module).__name__ for _, module in model.named_modules()}
    assert used == set(nn.registered_layers())
    model(x)  # dropout has made a step
    tn.save(model, tmp_path / "model.safetensors", {"classes": ["a", "b"]})
    loaded = tn.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded(x).numpy(), model(x).numpy())  # the same next dropout mask too
    np.testing.assert_array_equal(tn.predict(loaded, x), tn.predict(model, x))
    assert repr(loaded) == repr(model) and load_extra(tmp_path / "model.safetensors") == {"classes": ["a", "b"]}
    assert np.shares_memory(loaded.parameters()[0].data, loaded.pack().flat)


def test_float64_models_stay_float64(tmp_path):
    tn.save(nn.Dense(2, 3).astype("float64"), tmp_path / "m")
    assert tn.load(tmp_path / "m").weight.dtype == "float64"


def test_the_safetensors_library_reads_the_same_values_and_back(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    model = every_layer()
    tn.save(model, tmp_path / "ours")
    state = model.state_dict()
    read = library.load_file(tmp_path / "ours")
    assert read.keys() == state.keys() and all(np.array_equal(read[k], state[k]) for k in state)
    library.save_file({k: v * 2 for k, v in state.items()}, tmp_path / "theirs")
    model.load_state_dict(safetensors.read(tmp_path / "theirs")[0])
    assert all(np.array_equal(v, 2 * state[k]) for k, v in model.state_dict().items())
    with pytest.raises(CheckpointError):
        tn.load(tmp_path / "theirs")


def test_layers_that_cannot_be_described_are_refused_with_the_mend(tmp_path):
    class Private(nn.Module):
        pass

    with pytest.raises(CheckpointError, match="register_layer"):
        tn.save(nn.Sequential(Private()), tmp_path / "m")
    with pytest.raises(CheckpointError, match="Name activations"):
        tn.save(nn.Dense(2, 2, lambda x: x), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_refused_wherever_it_is_damaged(tmp_path):
    path = tmp_path / "m"
    tn.save(nn.Dense(3, 2, "relu"), path)
    whole = path.read_bytes()
    for cut in {0, 7, 8, 9, len(whole) // 2, len(whole) - 1}:
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError):
            tn.load(path)
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        with pytest.raises(CheckpointError):
            tn.load(path)


def dense(**config):
    return {
        "layer": "Dense",
        "config": {"in_features": 3, "out_features": 2, "activation": None, "bias": True} | config,
    }


def nested(depth):
    description = dense()
    for _ in range(depth):
        description = {"layer": "Sequential", "config": {"layers": [description]}}
    return description


@pytest.mark.parametrize(
    "description",
    [
        {"layer": "os.system", "config": {}},
        {"layer": "Module", "config": {}},
        {"layer": ["Dense"], "config": {}},
        {"layer": "Dense", "config": []},
        {"layer": "Dense"},
        [],
        None,
        "Dense",
        dense(in_features=10**9, out_features=10**9),
        dense(in_features=10**30),
        dense(in_features=-3),
        dense(in_features="3"),
        dense(in_features=4),
        dense(activation="system"),
        dense(activation=["relu"]),
        dense(forward="x"),
        dense(bias=False),
        {"layer": "Dropout", "config": {"p": 7}},
        {"layer": "Sequential", "config": {"layers": [dense(), 5]}},
        {"layer": "Sequential", "config": {"layers": 5}},
        {"layer": "Flatten", "config": {}},
        nested(150),
    ],
    ids=range(22),
)
def test_a_hostile_description_is_refused_before_memory_is_taken(description, tmp_path):
    path = tmp_path / "m"
    tensors = {"weight": np.zeros((3, 2), np.float32), "bias": np.zeros(2, np.float32)}
    safetensors.write(path, tensors, {MODEL: json.dumps({"version": 1, "model": description}), EXTRA: "{}"})
    tracemalloc.start()
    with pytest.raises(CheckpointError):
        tn.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_a_file_without_or_with_an_unreadable_description_is_refused(tmp_path):
    for metadata in ({}, {MODEL: "no json"}, {MODEL: "[]"}, {MODEL: '{"version": 99}'}, {MODEL: "[" * 100_000}):
        safetensors.write(tmp_path / "m", {"weight": np.zeros(2, np.float32)}, {EXTRA: "{}", **metadata})
        with pytest.raises(CheckpointError):
            tn.load(tmp_path / "m")


def test_a_layer_of_ones_own_is_saved_once_it_is_registered(tmp_path):
    @nn.register_layer
    class Scale(nn.Layer):
        """factor * x."""

        def __init__(self, factor: float):
            self.factor = factor

        def forward(self, x):
            return tn.as_tensor(x) * self.factor

    try:
        model = nn.Sequential(Scale(3.0))
        assert describe(model)["config"]["layers"] == [{"layer": "Scale", "config": {"factor": 3.0}}]
        tn.save(model, tmp_path / "m")
        assert tn.load(tmp_path / "m")(tn.ones(2)).tolist() == [3, 3]
    finally:
        from tinynet.nn import layers

        del layers._registry["Scale"]
