"""Modules: what they are made of, what they are called, how they are shown, and models without memory."""

import tracemalloc

import numpy as np
import pytest

import tinynet as tn
from tinynet import nn
from tinynet.errors import ArgumentError, DTypeError


class Residual(nn.Module):
    """x + inner(x) * scale."""

    def __init__(self, n):
        self.inner = nn.Dense(n, n, "tanh")
        self.scale = nn.Parameter(np.full((n,), 0.5, "float32"))

    def forward(self, x):
        return x + self.inner(x) * self.scale


class Branches(nn.Module):
    """Modules and parameters in lists, tuples and dicts."""

    def __init__(self):
        self.blocks = [Residual(2), (nn.Dense(2, 2, bias=False),)]
        self.heads = {"a": nn.Dense(2, 1), "b": {"deep": nn.Parameter([1.0])}}
        self.note = "neither module nor parameter"

    def forward(self, x):
        for block in (self.blocks[0], *self.blocks[1]):
            x = block(x)
        return self.heads["a"](x) + self.heads["b"]["deep"]


BRANCHES = [
    "blocks.0.scale", "blocks.0.inner.weight", "blocks.0.inner.bias", "blocks.1.0.weight", "heads.b.deep",
    "heads.a.weight", "heads.a.bias",
]  # fmt: skip


def test_a_module_of_ones_own_finds_its_parameters_and_trains(backend):
    model = Residual(3)
    assert [name for name, _ in model.named_parameters()] == ["scale", "inner.weight", "inner.bias"]
    x = np.ones((2, 3), "float32")
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    w, b = model.inner.weight.numpy(), model.inner.bias.numpy()
    np.testing.assert_allclose(model(x).numpy(), x + np.tanh(x @ w + b) * 0.5, rtol=1e-6)


def test_modules_in_lists_tuples_and_dicts_are_found(backend):
    model = Branches()
    assert sorted(model.state_dict()) == sorted(BRANCHES)
    model(np.ones((2, 2), "float32")).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert not model.eval().blocks[1][0].training and model.train().heads["a"].training


def test_a_tied_parameter_counts_once_under_its_first_name(backend):
    first, second = nn.Dense(3, 3), nn.Dense(3, 3)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    assert list(model.state_dict()) == ["0.weight", "0.bias", "1.bias"]
    model(np.ones((1, 3), "float32")).sum().backward()
    optimizer = tn.optim.GD(model.parameters(), lr=0.1)
    optimizer.step()
    assert first.weight is second.weight
    assert "21 parameters" not in model.summary() and "15 parameters" in model.summary()


def test_a_layer_used_twice_counts_once():
    layer = nn.Dense(3, 3)
    assert len(nn.Sequential(layer, nn.ReLU(), layer).parameters()) == 2


def test_a_cycle_of_modules_is_walked_once():
    child = Residual(2)
    parent = nn.Sequential(child)
    child.parent = parent
    assert len(parent.parameters()) == 3


def test_a_subclass_of_sequential_may_have_more_parameters():
    class Scaled(nn.Sequential):
        def __init__(self, *layers):
            super().__init__(*layers)
            self.scale = nn.Parameter([2.0])

        def forward(self, x):
            return super().forward(x) * self.scale

    model = Scaled(nn.Dense(2, 2))
    assert list(model.state_dict()) == ["scale", "0.weight", "0.bias"]


def test_sequential_counts_iterates_indexes_and_slices():
    layers = [nn.Dense(2, 3), nn.ReLU(), nn.Dense(3, 1)]
    model = nn.Sequential(layers)
    assert len(model) == 3 and list(model) == layers and model[0] is layers[0] and model[-1] is layers[2]
    part = model[:2]
    assert isinstance(part, nn.Sequential) and list(part) == layers[:2]
    assert part[0].weight.segment is model[2].weight.segment
    assert nn.Sequential(*layers[:2])(np.ones((1, 2), "float32")).shape == (1, 3)


def test_sequential_takes_functions_and_refuses_what_cannot_be_called():
    model = nn.Sequential(nn.Dense(2, 2), tn.relu, lambda x: x * 2)
    assert (model(np.ones((1, 2), "float32")).numpy() >= 0).all()
    assert list(model.state_dict()) == ["0.weight", "0.bias"]
    with pytest.raises(ArgumentError, match="'relu'"):
        nn.Sequential(nn.Dense(2, 2), "relu")


def test_an_empty_sequential_returns_its_input():
    x = tn.ones((2, 2))
    assert nn.Sequential()(x) is x


def test_a_module_without_forward_says_so():
    class Nothing(nn.Module):
        pass

    with pytest.raises(TypeError, match="Nothing defines no forward"):
        Nothing()(1)


def test_zero_grad_forgets():
    model = Residual(2)
    model(np.ones((1, 2), "float32")).sum().backward()
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_a_parameter_must_be_floating():
    with pytest.raises(DTypeError, match="floating"):
        nn.Parameter(np.arange(3))
    assert not nn.Parameter([1.0], requires_grad=False).requires_grad


def test_astype_refuses_integers_and_changes_nothing():
    model = Residual(2)
    with pytest.raises(DTypeError, match="floating"):
        model.astype("int64")
    assert model.scale.dtype == "float32"


MODEL = """\
Sequential(
  (0): Dense(4, 3, 'relu')
  (1): Dropout(p=0.25)
  (2): Sequential(
    (0): LayerNorm(3, eps=0.1)
    (1): Dense(3, 2, bias=False)
  )
  (3): GELU(approximate='tanh')
)"""

SUMMARY = """\
name  layer                    parameter shapes  parameters
-----------------------------------------------------------
0     Dense(4, 3, 'relu')      (4,3) (3,)                15
1     Dropout(p=0.25)                                     0
2.0   LayerNorm(3, eps=0.1)    (3,) (3,)                  6
2.1   Dense(3, 2, bias=False)  (3,2)                      6
3     GELU(approximate='tanh')                            0
-----------------------------------------------------------
27 parameters, 0.000 MB"""


def shown():
    inner = nn.Sequential(nn.LayerNorm(3, eps=0.1), nn.Dense(3, 2, bias=False))
    return nn.Sequential(nn.Dense(4, 3, "relu"), nn.Dropout(0.25), inner, nn.GELU("tanh"))


def test_repr_shows_the_layers_and_what_is_not_by_default():
    assert repr(shown()) == MODEL
    assert [repr(layer) for layer in (nn.ReLU(), nn.LeakyReLU(), nn.LeakyReLU(0.5), nn.Softmax(0), nn.GELU())] == [
        "ReLU()", "LeakyReLU()", "LeakyReLU(slope=0.5)", "Softmax(axis=0)", "GELU()",
    ]  # fmt: skip
    assert repr(nn.Dense(2, 1, tn.tanh)) == "Dense(2, 1, 'tanh')"


def test_summary_is_a_table_with_totals():
    lines = [line.rstrip() for line in shown().summary().splitlines()]
    widths = {len(line) for line in lines[:-1]}
    assert [" ".join(line.split()) for line in lines if not line.startswith("-")] == [
        " ".join(line.split()) for line in SUMMARY.splitlines() if not line.startswith("-")
    ]
    assert len(widths) == 1, "the columns are flush"


def test_a_layer_that_does_not_keep_its_arguments_can_still_be_shown():
    class Forgetful(nn.Layer):
        def __init__(self, n, m=2):
            self.other = n

    assert repr(Forgetful(3)) == "Forgetful(?)"


def test_an_abstract_model_has_shapes_and_no_memory():
    tracemalloc.start()
    with nn.abstract():
        model = nn.Sequential(nn.Dense(10**6, 10**6, "relu"), nn.LayerNorm(10**6), nn.Dense(10**6, 10))
    text = model.summary()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
    assert [p.shape for p in model.parameters()][:2] == [(10**6, 10**6), (10**6,)]
    assert "1,000,013,000,010 parameters" in text
    assert all(p.requires_grad and str(p.dtype) == "float32" for p in model.parameters())


def test_abstract_models_take_no_random_streams_and_the_mode_ends_with_its_block():
    tn.seed(1)
    expected = nn.Dense(3, 3).weight.numpy()
    tn.seed(1)
    with pytest.raises(ArgumentError), nn.abstract():
        nn.Dense(3, 3)
        nn.Dense(0, 3)
    assert (nn.Dense(3, 3).weight.numpy() == expected).all()
