"""Model files that do not agree with themselves, and models that cannot be described, are refused with a mend."""

import json
import tracemalloc

import numpy as np
import pytest

import tinynet as tn
from tinynet import nn
from tinynet.errors import CheckpointError
from tinynet.train import safetensors


@pytest.fixture
def path(tmp_path):
    tn.seed(1)
    tn.save(nn.Sequential(nn.Dense(3, 4, "relu"), nn.Dropout(0.1), nn.Dense(4, 2)), tmp_path / "m", {"a": [1, None]})
    return tmp_path / "m"


def resealed(path, tensors=None, **metadata):
    """The file, changed and sealed again, as one who means harm would do it."""
    found, about = safetensors.read(path)
    if tensors is not None:
        tensors(found)
    about |= {f"tinynet.{key}": value for key, value in metadata.items()}
    safetensors.write(path, found, {key: value for key, value in about.items() if value is not None})


TENSORS = {
    "one is missing": lambda t: t.pop("2.bias"),
    "one is missing of the first layer": lambda t: t.pop("0.weight"),
    "one too many": lambda t: t.update({"3.bias": np.zeros(2, "f4")}),
    "another shape": lambda t: t.update({"2.bias": np.zeros(3, "f4")}),
    "a transposed shape": lambda t: t.update({"0.weight": t["0.weight"].T.copy()}),
    "integers": lambda t: t.update({"2.bias": np.zeros(2, "i4")}),
    "half precision": lambda t: t.update({"2.bias": np.zeros(2, "f2")}),
    "two precisions": lambda t: t.update({"2.bias": np.zeros(2, "f8")}),
    "another name": lambda t: t.update({"2.shift": t.pop("2.bias")}),
    "none": dict.clear,
}


@pytest.mark.parametrize("what", TENSORS)
def test_tensors_that_do_not_fit_the_description_are_refused(path, what):
    resealed(path, TENSORS[what])
    with pytest.raises(CheckpointError) as caught:
        tn.load(path)
    assert str(path) in str(caught.value) and caught.value.expected and caught.value.got


METADATA = {
    "no description": {"model": None},
    "no extra": {"extra": None},
    "an extra that is a list": {"extra": "[1]"},
    "an extra that is no JSON": {"extra": "{"},
    "another version": {"model": json.dumps({"version": 2, "model": {}})},
    "no version": {"model": json.dumps({"model": {}})},
    "no model": {"model": json.dumps({"version": 1})},
}


@pytest.mark.parametrize("what", METADATA)
def test_metadata_that_is_not_what_it_should_be_is_refused(path, what):
    resealed(path, **METADATA[what])
    with pytest.raises(CheckpointError, match=str(path)):
        tn.load(path)


def description(*layers):
    return json.dumps({"version": 1, "model": {"layer": "Sequential", "config": {"layers": list(layers)}}})


def layer(name, **config):
    return {"layer": name, "config": config}


LAYERS = {
    "a module's path": layer("os.system", command="true"),
    "a path within": layer("tinynet.nn.Dense", in_features=3, out_features=2),
    "a dunder": layer("__class__"),
    "a base class": layer("Layer"),
    "a name that is a number": {"layer": 1, "config": {}},
    "one key too many": {**layer("ReLU"), "module": "os"},
    "an argument that is not there": layer("ReLU", inplace=True),
    "self as an argument": layer("Dense", self=1, in_features=3, out_features=2),
    "an absurd size": layer("Dense", in_features=10**9, out_features=10**9),
    "a size beyond NumPy": layer("Dense", in_features=10**18, out_features=10**18),
    "a size beyond C": layer("Dense", in_features=10**40, out_features=1),
    "an absurd norm": layer("LayerNorm", features=10**12),
    "a size that is true": layer("Dense", in_features=True, out_features=2),
    "an activation that is a list": layer("Dense", in_features=3, out_features=2, activation=[]),
    "an initializer of nobody": layer("Dense", in_features=3, out_features=2, init="evil"),
    "a probability of text": layer("Dropout", p="0.5"),
    "a seed of text": layer("Dropout", p=0.5, seed="x"),
    "an absurd seed": layer("Dropout", p=0.5, seed=10**50),
    "a negative step": layer("Dropout", p=0.5, step=-1),
    "a slope of text": layer("LeakyReLU", slope="x"),
    "an axis of text": layer("Softmax", axis="x"),
    "an approximation of nobody": layer("GELU", approximate="x"),
    "an eps of text": layer("LayerNorm", features=4, eps="x"),
    "a layer that is text": "Dense",
    "a list of layers": [layer("ReLU")],
}


@pytest.mark.parametrize("what", LAYERS)
def test_a_layer_that_cannot_be_is_refused_before_more_than_the_file_is_allocated(path, what):
    resealed(path, model=description(LAYERS[what]))
    size = path.stat().st_size
    with pytest.raises(CheckpointError):
        tn.load(path)  # once, to fill the interpreter's caches
    tracemalloc.start()
    with pytest.raises(CheckpointError) as caught:
        tn.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size + 200_000
    assert len(str(caught.value)) < 1000


def test_many_absurd_layers_allocate_no_more_than_their_text_asks_for(path):
    resealed(path, model=description(*[layer("Dense", in_features=10**9, out_features=10**9)] * 1000))
    tracemalloc.start()
    with pytest.raises(CheckpointError):
        tn.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize("depth", [200, 2000])
def test_deep_nesting_is_an_error_and_no_crash(path, depth):
    text = '{"layer":"Sequential","config":{"layers":[' * depth + "]}}" * depth
    resealed(path, model=f'{{"version":1,"model":{text}}}')
    with pytest.raises(CheckpointError):
        tn.load(path)


def test_damage_anywhere_shows_when_a_model_is_loaded(path):
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(whole), 60):
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ (1 << int(at) % 8)]) + whole[at + 1 :]):
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError, match=str(path)):
                tn.load(path)


def test_neither_loading_nor_its_refusal_takes_random_streams(path):
    tn.seed(5)
    expected = nn.Dense(3, 3).state_dict()["weight"]
    tn.seed(5)
    tn.load(path)
    resealed(path, lambda t: t.pop("2.bias"))
    with pytest.raises(CheckpointError):
        tn.load(path)
    assert (nn.Dense(3, 3).state_dict()["weight"] == expected).all()


def test_a_file_loads_on_every_backend(path, backend):
    model = tn.load(path)
    assert all(p.backend is backend for p in model.parameters())
    assert model.pack() is model.parameters()[0].segment
    expected = tn.load(path, backend="numpy").state_dict()
    assert all((model.state_dict()[name] == value).all() for name, value in expected.items())
    tn.save(model, path)
    assert all((tn.load(path).state_dict()[name] == value).all() for name, value in expected.items())


# ---- what cannot be saved ----


class Plain(nn.Module):
    """Registered below, but cannot say how it was made."""

    def forward(self, x):
        return x


class Forgetful(nn.Layer):
    """Registered below, but does not keep its argument."""

    def __init__(self, n):
        self.m = n


class Holder(nn.Layer):
    """Registered below; keeps whatever it is given."""

    def __init__(self, value):
        self.value = value

    def forward(self, x):
        return x


@pytest.fixture
def registered():
    from tinynet.nn import layers

    before = dict(layers._registry)
    for cls in (Plain, Forgetful, Holder):
        nn.register_layer(cls)
    yield
    layers._registry.clear()
    layers._registry.update(before)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("make, says", [
    (Plain, "derive.*tn.nn.Layer|Layer"), (lambda: Forgetful(3), "keep the arguments"),
    (lambda: Holder(np.ones(3)), "numbers, strings, lists or layers"), (lambda: Holder({"a": 1}), "numbers, strings"),
    (lambda: Holder(1j), "numbers, strings"), (lambda: nn.Sequential(tn.relu), "numbers, strings, lists or layers"),
    (lambda: nn.Sequential(nn.Dense(2, 2, tn.relu)), r"layers\[0\].activation.*[Nn]ame activations"),
])  # fmt: skip
def test_a_layer_that_cannot_be_described_is_named_and_nothing_is_written(tmp_path, make, says):
    with pytest.raises(CheckpointError, match=says):
        tn.save(make(), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("value", [3, -0.5, "text", "grün", None, True, [1, [2, "three"]], []])
def test_arguments_of_a_layer_of_ones_own_come_back(tmp_path, value):
    tn.save(nn.Sequential(Holder(value)), tmp_path / "m")
    assert tn.load(tmp_path / "m")[0].value == value


@pytest.mark.usefixtures("registered")
def test_layers_as_arguments_come_back_with_their_parameters(tmp_path):
    inner = nn.Dense(2, 3)
    tn.save(Holder([inner, nn.ReLU()]), tmp_path / "m")
    loaded = tn.load(tmp_path / "m")
    assert (loaded.value[0].weight.numpy() == inner.weight.numpy()).all() and isinstance(loaded.value[1], nn.ReLU)


def test_a_class_that_only_shares_a_registered_name_is_refused(tmp_path):
    class Dense(nn.Layer):
        pass

    with pytest.raises(CheckpointError, match="registered"):
        tn.save(Dense(), tmp_path / "m")


def test_a_layer_that_is_not_registered_where_it_is_loaded_is_named(tmp_path, registered):
    from tinynet.nn import layers

    tn.save(Holder(1), tmp_path / "m")
    del layers._registry["Holder"]
    with pytest.raises(CheckpointError, match=r"'Holder'.*[Ii]mport the module"):
        tn.load(tmp_path / "m")


@pytest.mark.parametrize("extra", [{"a": np.ones(2)}, {"a": {1, 2}}, {(1, 2): 3}, {"a": b"bytes"}])
def test_an_extra_that_json_cannot_hold_is_refused_and_the_old_file_stays(path, extra):
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="JSON"):
        tn.save(nn.Dense(2, 2), path, extra)
    assert path.read_bytes() == before


def test_extra_comes_back_as_it_was(path):
    assert tn.train.load_extra(path) == {"a": [1, None]}
    tn.save(nn.Dense(2, 2), path)
    assert tn.train.load_extra(path) == {}


def test_a_model_that_cannot_be_read_is_an_error_of_the_file_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        tn.load(tmp_path / "none")
    with pytest.raises(OSError):  # which one depends on the system
        tn.load(tmp_path)
