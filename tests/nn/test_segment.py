"""All parameters of a model are one contiguous segment, and stay so whatever is done to the model."""

import copy
import pickle

import numpy as np
import pytest
from layer_checks import shared

import tinynet as tn
from tinynet import nn
from tinynet.errors import BackendError, DTypeError


def make():
    return nn.Sequential(nn.Dense(5, 7, "relu"), nn.LayerNorm(7), nn.Dropout(0.1), nn.Sequential(nn.Dense(7, 3)))


def assert_one_segment(model):
    """The parameters are views of one array, in order, each at a multiple of 64 bytes; what lies between is zero."""
    parameters = model.parameters()
    segment = parameters[0].segment
    assert segment is model.pack() and segment.owners == [id(p) for p in parameters]
    itemsize = parameters[0].dtype.itemsize
    flat = model.parameters()[0].backend.to_host(segment.flat)
    assert flat.ndim == 1 and segment.nbytes == flat.nbytes
    covered, end = np.zeros(flat.size, bool), 0
    for p, offset, view in zip(parameters, segment.offsets, segment.views, strict=True):
        assert p.segment is segment and p.data is view
        assert offset * itemsize % 64 == p.backend.address(p.data) % 64 == 0 and offset >= end
        end = offset + p.size
        covered[offset:end] = True
        np.testing.assert_array_equal(flat[offset:end].reshape(p.shape), p.numpy())
        if p.backend.name != "cupy":
            assert np.shares_memory(shared(p), shared(segment.flat))
    assert end <= flat.size < end + 64 // itemsize
    assert not flat[~covered].any()


@pytest.mark.parametrize("sizes", [(3, 2), (40, 50), (300, 200), (700, 600)])
def test_memory_begins_at_a_line_of_the_cache_wherever_numpy_finds_it(sizes):
    kept = []
    for i in range(8):
        kept.append((np.empty(1000 + 24 * i, "uint8"), nn.Dense(*sizes)))
        optimizer = tn.optim.Adam(kept[-1][1].parameters())
        assert_one_segment(kept[-1][1])
        for moments in optimizer.moments.values():
            assert all(moments.flat.ctypes.data % 64 == view.ctypes.data % 64 == 0 for view in moments.views)


def train(model, steps=3):
    optimizer = tn.optim.Adam(model.parameters(), lr=0.1)
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(str(model.parameters()[0].dtype))
    for _ in range(steps):
        optimizer.zero_grad()
        (model(x) ** 2).sum().backward()
        optimizer.step()


def values(model):
    return {name: array.tolist() for name, array in model.state_dict().items()}


def test_a_new_model_is_one_segment(backend):
    assert_one_segment(make())


def test_training_writes_in_place(backend):
    model = make()
    memory, before = [p.data for p in model.parameters()], values(model)
    train(model)
    assert all(p.data is array for p, array in zip(model.parameters(), memory))
    assert values(model) != before
    assert_one_segment(model)


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"]
)
def test_a_copy_is_one_segment_of_its_own(backend, again):
    model = make()
    train(model)
    twin = again(model)
    assert_one_segment(twin)
    assert values(twin) == values(model)
    assert all(p.requires_grad and p.grad is None for p in twin.parameters())
    before = values(model)
    train(twin)
    assert values(model) == before and values(twin) != before


def test_a_shallow_copy_shares_the_segment(backend):
    model = make()
    assert copy.copy(model).parameters()[0].segment is model.parameters()[0].segment
    assert_one_segment(model)


def test_another_dtype_is_one_segment(backend):
    model = make().astype("float64")
    assert_one_segment(model)
    train(model)
    assert_one_segment(model)
    assert_one_segment(model.astype("float32"))


def test_another_backend_is_one_segment(backend, other_backend):
    model = make()
    before = values(model)
    assert model.to(other_backend) is model
    assert all(p.backend is other_backend for p in model.parameters())
    assert_one_segment(model)
    train(model)
    assert model.to(backend).parameters()[0].backend is backend
    assert_one_segment(model)
    assert values(model) != before


def test_gradients_are_forgotten_when_a_model_is_converted_or_moved(other_backend):
    for change in (lambda m: m.astype("float64"), lambda m: m.to(other_backend)):
        model = make()
        model(np.ones((2, 5), "float32")).sum().backward()
        assert all(p.grad is None for p in change(model).parameters())


def test_loading_a_state_writes_in_place(backend):
    model, other = make(), make()
    memory = [p.data for p in model.parameters()]
    model.load_state_dict(other.state_dict())
    assert all(p.data is array for p, array in zip(model.parameters(), memory))
    assert values(model) == values(other)
    assert_one_segment(model)


def test_a_layer_that_is_replaced_is_packed_when_asked():
    model = make()
    segment = model.pack()
    model.layers[3] = nn.Dense(7, 3)
    segment.owners = [id(p) for p in model.parameters()]  # a new parameter can get the identity of one that is gone
    model.pack()
    assert_one_segment(model)


def test_a_tied_parameter_has_one_place(backend):
    first = nn.Dense(4, 4)
    second = nn.Dense(4, 4)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    assert len(model.parameters()) == 3
    assert_one_segment(model)
    twin = copy.deepcopy(model)
    assert twin[0].weight is twin[1].weight
    assert_one_segment(twin)


def test_a_model_without_parameters_has_no_segment():
    assert nn.Sequential(nn.ReLU()).pack() is None


def test_two_dtypes_or_backends_in_one_model_are_refused(other_backend):
    with pytest.raises(DTypeError, match="float32 and float64"):
        nn.Sequential(nn.Dense(2, 2), nn.Dense(2, 2).astype("float64"))
    with pytest.raises(BackendError, match="numpy and other"):
        nn.Sequential(nn.Dense(2, 2), nn.Dense(2, 2).to(other_backend))
