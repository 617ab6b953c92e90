"""state_dict gives copies; load_state_dict takes what fits, and changes nothing when something does not."""

import numpy as np
import pytest

import tinynet as tn
from tinynet import nn
from tinynet.errors import CheckpointError, DTypeError, ShapeError


def make():
    return nn.Sequential(nn.Dense(3, 4, "relu"), nn.Dense(4, 2))


def same(state, other):
    return state.keys() == other.keys() and all((state[name] == other[name]).all() for name in state)


def test_a_state_is_a_copy_on_the_host(backend):
    model = make()
    state = model.state_dict()
    assert all(isinstance(value, np.ndarray) and value.flags.writeable for value in state.values())
    before = {name: value.copy() for name, value in state.items()}
    optimizer = tn.optim.GD(model.parameters(), lr=0.1)
    model(np.ones((2, 3), "float32")).sum().backward()
    optimizer.step()
    assert same(state, before) and not same(model.state_dict(), before)
    state["0.weight"][:] = 9
    assert not (model.state_dict()["0.weight"] == 9).any()


def test_a_round_trip_restores_every_bit(backend):
    model, other = make(), make()
    result = other.load_state_dict(model.state_dict())
    assert result == ((), ()) and same(model.state_dict(), other.state_dict())


def test_tensors_arrays_lists_and_other_floating_types_are_taken(backend, other_backend):
    model = make()
    state = model.state_dict()
    taken = {
        "0.weight": tn.tensor(state["0.weight"] + 1, backend=other_backend),
        "0.bias": (state["0.bias"] + 1).tolist(),
        "1.weight": state["1.weight"].astype("float64") + 1,
        "1.bias": tn.tensor(state["1.bias"] + 1, requires_grad=True),
    }
    model.load_state_dict(taken)
    assert all((model.state_dict()[name] == state[name] + 1).all() for name in state)
    assert all(p.dtype == "float32" and p.backend is backend and p.requires_grad for p in model.parameters())


WRONG = {
    "a name is missing": (lambda s: s.pop("1.bias"), CheckpointError, "missing: 1.bias"),
    "a name is unknown": (lambda s: s.update({"2.bias": s["1.bias"]}), CheckpointError, "unknown: 2.bias"),
    "a name is of another model": (
        lambda s: s.update({"first.weight": s.pop("0.weight")}),
        CheckpointError,
        "missing: 0.weight; unknown: first.weight",
    ),
    "a shape differs": (lambda s: s.update({"1.bias": np.zeros(3, "f4")}), ShapeError, r"'1.bias'.*\(2,\).*\(3,\)"),
    "a shape would broadcast": (lambda s: s.update({"1.bias": np.zeros((), "f4")}), ShapeError, "'1.bias'"),
    "a shape is transposed": (lambda s: s.update({"1.weight": np.zeros((2, 4), "f4")}), ShapeError, "'1.weight'"),
    "integers": (lambda s: s.update({"1.bias": np.zeros(2, "i8")}), DTypeError, "'1.bias'.*float32.*int64"),
    "text": (lambda s: s.update({"1.bias": np.array(["a", "b"])}), DTypeError, "expected"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_named_and_changes_nothing(backend, what):
    spoil, error, says = WRONG[what]
    model = make()
    before = model.state_dict()
    state = {name: value + 1 for name, value in before.items()}
    spoil(state)
    with pytest.raises(error, match=says):
        model.load_state_dict(state)
    assert same(model.state_dict(), before)


def test_without_strict_what_fits_is_loaded_and_the_rest_named(backend):
    model = make()
    before = model.state_dict()
    result = model.load_state_dict({"1.bias": [1.0, 2.0], "2.bias": [3.0]}, strict=False)
    assert result.missing == ("0.weight", "0.bias", "1.weight") and result.unexpected == ("2.bias",)
    assert model.state_dict()["1.bias"].tolist() == [1, 2]
    assert (model.state_dict()["0.weight"] == before["0.weight"]).all()


def test_without_strict_a_wrong_shape_is_an_error_all_the_same():
    model = make()
    before = model.state_dict()
    with pytest.raises(ShapeError):
        model.load_state_dict({"0.bias": np.ones(4, "f4"), "1.bias": [1.0]}, strict=False)
    assert same(model.state_dict(), before)


def test_a_state_of_float64_becomes_what_the_model_is():
    source, target = make().astype("float64"), make()
    target.load_state_dict(source.state_dict())
    assert target.parameters()[0].dtype == "float32"
    assert same(target.state_dict(), {k: v.astype("float32") for k, v in source.state_dict().items()})
