"""``round_operands``: operands of products are made in bf16 once, and multiplied so."""

import importlib

import numpy as np
import pytest
from graphs import after, names, traced, unchanged

import tinynet as tn
from tinynet.kernels import of_bf16, using_precision
from tinynet.program.passes import remove_dead, round_operands

operands = importlib.import_module("tinynet.kernels.cuda.operands")
RNG = np.random.default_rng(8)


@pytest.fixture(autouse=True)
def small_products_too(monkeypatch):
    monkeypatch.setattr(operands, "LEAST", 1)
    with using_precision("bf16"):
        yield


def round_(graph):
    round_operands(graph, "cuda")
    remove_dead(graph)  # views of what is not read any more


def integers(*shape):
    """Numbers that are none other in bf16, nor their products in float32."""
    return RNG.integers(-3, 4, shape).astype("float32")


def test_an_operand_of_two_products_is_rounded_once_before_the_first():
    a, b, c = integers(16, 24), integers(24, 8), integers(24, 32)
    _, now, graph = after(round_, lambda a, b, c: (a @ b, a @ c), a, b, c)
    assert now == ["to_bf16", "to_bf16", "matmul_of_bf16", "to_bf16", "matmul_of_bf16"]
    first, second = (each for each in graph if each.op.name == "matmul_of_bf16")
    assert first.inputs[0] == second.inputs[0]


def test_a_transpose_is_one_of_the_copy():
    """The three products of a layer read three operands: its input, its weight, and the gradient of its output."""
    x, g = integers(16, 24), integers(16, 8)
    weight = tn.tensor(integers(24, 8))
    step = lambda x, g: (x @ weight, g @ weight.T, x.T @ g)
    _, now, graph = after(round_, step, x, g)
    assert now.count("to_bf16") == 3 and now.count("matmul_of_bf16") == 3 and now.count("transpose") == 2
    for each in graph:
        if each.view:
            assert str(graph.spec(each.inputs[0]).dtype) == "uint16"


@pytest.mark.parametrize("activation", [None, "relu"])
def test_training_of_a_layer(activation):
    weight, bias = tn.tensor(integers(24, 8), requires_grad=True), tn.tensor(integers(8), requires_grad=True)

    def step(x, y):
        loss = tn.losses.mse(tn.ops.linear(x, weight, bias, activation=activation), y)
        weight.grad = bias.grad = None
        loss.backward()
        return loss, weight.grad

    before = traced(step, integers(16, 24), integers(16, 8))
    graph = before.simplified()
    round_(graph)
    found = names(graph)
    assert {name for name in found if name.endswith("_of_bf16")} == {of_bf16("linear"), of_bf16("matmul")}
    assert found.count("to_bf16") == 3  # the input, once; the weight; the gradient of the output
    for a, b in zip(before.run(graph), before.run(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-2, atol=2e-2)


def test_what_is_written_to_is_rounded_again():
    state = tn.tensor(integers(24, 8))

    def step(a):
        first = a @ state
        tn.ops.assign(state, state * 2.0)
        return first, a @ state

    _, now, _ = after(round_, step, integers(16, 24))
    assert now.count("to_bf16") == 3 and now.count("matmul_of_bf16") == 2


def test_a_view_of_what_is_written_to_is_rounded_again():
    state = tn.tensor(integers(24, 8))

    def step(a):
        first = a @ state.T
        tn.ops.assign(state, state * 2.0)
        return first, a @ state.T

    _, now, _ = after(round_, step, integers(16, 8))
    assert now.count("to_bf16") == 3


@pytest.mark.parametrize("shapes", [((16, 12), (12, 8)), ((15, 16), (16, 8)), ((16, 8), (8, 9)), ((2, 16, 8), (8, 8)),
                                    ((8,), (8, 8))], ids=str)  # fmt: skip
def test_other_products_stay(shapes):
    unchanged(round_, lambda a, b: a @ b, *(integers(*shape) for shape in shapes))


def test_doubles_and_integers_stay():
    a = integers(16, 16)
    unchanged(round_, lambda a: a @ a, a.astype("float64"))
    unchanged(round_, lambda a: a @ a, a.astype("int64"))


def test_other_precisions_and_targets_stay():
    a = integers(16, 16)
    for target in (None, "numpy", "native", "cupy"):
        unchanged(lambda graph, target=target: round_operands(graph, target), lambda a: a @ a, a)
    for precision in ("float32", "tf32"):
        with using_precision(precision):
            unchanged(round_, lambda a: a @ a, a)


def test_what_does_not_pay_stays(monkeypatch):
    monkeypatch.setattr(operands, "LEAST", 256)
    unchanged(round_, lambda a: a @ a, integers(16, 16))


def test_numbers_are_those_of_rounded_operands():
    a, b = RNG.normal(size=(16, 24)).astype("float32"), RNG.normal(size=(24, 8)).astype("float32")
    before = traced(lambda a, b: a @ b, a, b)
    graph = before.simplified()
    round_(graph)

    def rounded(x):
        fraction, exponent = np.frexp(x.astype("float64"))
        return np.ldexp(np.rint(np.ldexp(fraction, 8)), exponent - 8)

    np.testing.assert_allclose(before.run(graph)[0], rounded(a) @ rounded(b), rtol=1e-6)
