"""Optimizers: what they take and refuse, their state, and that a step that fails changes nothing."""

import math

import numpy as np
import pytest

import tinynet as tn
from tinynet import nn
from tinynet.errors import ArgumentError, BackendError, CheckpointError, DTypeError, GradientError, ShapeError
from tinynet.optim import GD, Adam, AdamW, clip_grad_norm

MAKERS = {
    "gd": lambda p, lr=0.1: GD(p, lr),
    "momentum": lambda p, lr=0.1: GD(p, lr, momentum=0.9),
    "adam": lambda p, lr=0.1: Adam(p, lr),
    "adamw": lambda p, lr=0.1: AdamW(p, lr),
}


def pair():
    return [tn.tensor(np.arange(3.0), requires_grad=True), tn.tensor(np.ones((2, 2)), requires_grad=True)]


def steps(optimizer, n):
    for _ in range(n):
        for p in optimizer.params:
            p.grad = tn.tensor(np.cos(p.numpy() + optimizer.steps), backend=p.backend)
        optimizer.step()


def everything(optimizer):
    state = optimizer.state_dict() | {f"p.{i}": p.numpy().copy() for i, p in enumerate(optimizer.params)}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in state.items()}


@pytest.mark.parametrize("name", MAKERS)
def test_a_parameter_without_a_gradient_stays_with_its_moments(backend, name):
    first, second = pair()
    optimizer = MAKERS[name]([first, second])
    first.grad = tn.tensor(np.ones(3))
    optimizer.step()
    assert second.numpy().tolist() == [[1, 1], [1, 1]]
    assert (first.numpy() != np.arange(3)).all()
    state = optimizer.state_dict()
    assert all((state[key] == 0).all() for key in state if key.endswith(".1"))


def test_zero_grad_forgets():
    first, second = pair()
    optimizer = GD([first, second], 0.1)
    first.grad = tn.tensor(np.ones(3))
    optimizer.zero_grad()
    assert first.grad is None and second.grad is None


@pytest.mark.parametrize("name", MAKERS)
def test_moments_are_segments_laid_out_as_the_parameters_are(backend, name):
    model = nn.Sequential(nn.Dense(3, 5), nn.Dense(5, 2))
    optimizer = MAKERS[name](model.parameters())
    for segment in optimizer.moments.values():
        assert segment.offsets == model.pack().offsets and segment.nbytes == model.pack().nbytes


def test_lr_can_be_read_and_set(backend):
    optimizer = GD(pair(), 0.25)
    assert optimizer.lr == 0.25
    optimizer.lr = 0.5
    assert optimizer.lr == 0.5
    before = optimizer.params[1].numpy().copy()
    optimizer.params[1].grad = tn.tensor(np.ones((2, 2)))
    optimizer.step()
    assert (before - optimizer.params[1].numpy() == 0.5).all()
    optimizer.lr = lambda t: 1.0 / (1 + t)
    assert optimizer.lr == 0.5
    optimizer.lr = 2
    assert optimizer.lr == 2.0
    for wrong in (-1, math.nan, lambda t: -1.0):
        with pytest.raises(ArgumentError, match="learning rate"):
            optimizer.lr = wrong


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("lr", [0.1, tn.optim.cosine(0.2, 8)], ids=["constant", "schedule"])
def test_a_state_taken_over_goes_on_to_the_same_bits(backend, name, lr):
    straight = MAKERS[name](pair(), lr)
    steps(straight, 6)
    first = MAKERS[name](pair(), lr)
    steps(first, 3)
    state, parameters = first.state_dict(), [p.numpy().copy() for p in first.params]
    steps(first, 2)  # the state is a copy
    second = MAKERS[name]([tn.tensor(p, requires_grad=True) for p in parameters], lr)
    second.load_state_dict(state)
    assert second.steps == 3
    steps(second, 3)
    assert everything(second) == everything(straight)


def test_a_state_holds_the_rate_and_plain_values():
    optimizer = Adam(pair(), 0.1)
    steps(optimizer, 2)
    state = optimizer.state_dict()
    assert list(state) == ["step", "lr", "m.0", "m.1", "v.0", "v.1"]
    assert (type(state["step"]), state["step"], type(state["lr"])) == (int, 2, float)
    other = Adam(pair(), 0.7)
    other.load_state_dict(state)
    assert other.lr == 0.1


WRONG = {
    "of another optimizer": lambda s: s.update(velocity=s.pop("m.0")),
    "a moment is missing": lambda s: s.pop("v.1"),
    "another shape": lambda s: s.update({"v.1": np.zeros((2, 3))}),
    "another dtype": lambda s: s.update({"v.1": np.zeros((2, 2), "float32")}),
    "a list": lambda s: s.update({"v.1": [[0, 0], [0, 0]]}),
    "no step": lambda s: s.update(step=None),
    "a step of text": lambda s: s.update(step="3"),
    "a negative step": lambda s: s.update(step=-1),
    "a step too large": lambda s: s.update(step=2**63),
    "a negative rate": lambda s: s.update(lr=-0.1),
    "a rate that is none": lambda s: s.update(lr=math.nan),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(what):
    source, target = Adam(pair(), 0.1), Adam(pair(), 0.2)
    steps(source, 3)
    steps(target, 1)
    before, state = everything(target), source.state_dict()
    WRONG[what](state)
    with pytest.raises(CheckpointError, match="load_state_dict of Adam"):
        target.load_state_dict(state)
    assert everything(target) == before


@pytest.mark.parametrize("name", MAKERS)
def test_a_gradient_that_does_not_fit_stops_the_step_before_it_changes_anything(backend, name):
    optimizer = MAKERS[name](pair())
    steps(optimizer, 2)
    before = everything(optimizer)
    for gradient, error in ((tn.zeros((2, 3), "float64"), ShapeError), (tn.zeros((2, 2), "float32"), DTypeError)):
        optimizer.params[0].grad = tn.tensor(np.ones(3))
        optimizer.params[1].grad = gradient
        with pytest.raises(error, match="gradient"):
            optimizer.step()
        assert everything(optimizer) == before


@pytest.mark.parametrize("name", MAKERS)
def test_a_model_converted_or_moved_since_stops_the_step_before_it_changes_anything(name, other_backend):
    for change, error in ((lambda m: m.astype("float64"), DTypeError), (lambda m: m.to(other_backend), BackendError)):
        model = nn.Dense(2, 2)
        optimizer = MAKERS[name](model.parameters())
        change(model)
        model(np.ones((1, 2), str(model.weight.dtype))).sum().backward()
        before = everything(optimizer)
        with pytest.raises(error, match="after the model"):
            optimizer.step()
        assert everything(optimizer) == before


def result_of_an_operation():
    return tn.tensor([1.0], requires_grad=True) * 2


REFUSED = {
    "no parameters": (lambda: GD([], 0.1), ArgumentError, "at least one"),
    "one twice": (lambda: GD(pair()[:1] * 2, 0.1), ArgumentError, "once"),
    "no leaf": (lambda: GD([result_of_an_operation()], 0.1), GradientError, "leaf"),
    "no gradient wanted": (lambda: GD([tn.tensor([1.0])], 0.1), GradientError, "requires_grad"),
    "an array": (lambda: GD([np.ones(3)], 0.1), GradientError, "leaf"),
    "two dtypes": (lambda: GD([*pair(), tn.tensor([1.0], requires_grad=True)], 0.1), DTypeError, "float64"),
    "a negative rate": (lambda: GD(pair(), -0.1), ArgumentError, "learning rate"),
    "a rate that is none": (lambda: Adam(pair(), math.nan), ArgumentError, "learning rate"),
    "a schedule of negative rates": (lambda: Adam(pair(), lambda t: -1.0), ArgumentError, "learning rate"),
    "momentum of one": (lambda: GD(pair(), 0.1, momentum=1.0), ArgumentError, "momentum"),
    "negative momentum": (lambda: GD(pair(), 0.1, momentum=-0.1), ArgumentError, "momentum"),
    "nesterov without momentum": (lambda: GD(pair(), 0.1, nesterov=True), ArgumentError, "nesterov"),
    "negative decay": (lambda: Adam(pair(), weight_decay=-1), ArgumentError, "weight_decay"),
    "a beta of one": (lambda: Adam(pair(), betas=(0.9, 1.0)), ArgumentError, "betas"),
    "one beta": (lambda: Adam(pair(), betas=(0.9,)), ArgumentError, "betas"),
    "no eps": (lambda: AdamW(pair(), eps=0), ArgumentError, "eps"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_makes_no_sense_is_refused_when_it_is_made(what):
    make, error, says = REFUSED[what]
    with pytest.raises(error, match=says):
        make()


def test_parameters_on_two_backends_are_refused(other_backend):
    there = tn.tensor(np.ones(2), requires_grad=True, backend=other_backend)
    with pytest.raises(BackendError, match="other"):
        GD([*pair(), there], 0.1)


def test_repr_shows_parameters_rate_and_steps():
    optimizer = Adam(pair(), 0.1)
    steps(optimizer, 2)
    assert repr(optimizer) == "Adam(2 parameters, lr=0.1, steps=2)"
    assert repr(GD(pair(), tn.optim.constant(0.1))) == "GD(2 parameters, lr=schedule, steps=0)"


def test_clipping_scales_all_gradients_by_one_factor(backend):
    first, second = pair()
    first.grad, second.grad = tn.tensor(np.array([3.0, 0, 0])), tn.tensor(np.array([[0.0, 4.0], [0, 0]]))
    norm = clip_grad_norm([first, second, tn.tensor([1.0], requires_grad=True)], 1.0)
    assert norm.item() == 5.0 and norm.backend is backend
    np.testing.assert_allclose(first.grad.numpy(), [0.6, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(second.grad.numpy(), [[0, 0.8], [0, 0]], rtol=1e-6)
    assert math.hypot(0, *first.grad.numpy(), *second.grad.numpy().ravel()) <= 1.0


def test_clipping_leaves_small_gradients_and_zeros_as_they_are(backend):
    for gradient in (np.array([0.3, 0.4, 0]), np.zeros(3)):
        p = pair()[0]
        p.grad = tn.tensor(gradient)
        clip_grad_norm(iter([p]), 1.0)
        assert p.grad.numpy().tolist() == gradient.tolist()


def test_clipping_refuses_what_makes_no_sense():
    for bound in (0, -1, math.nan):
        with pytest.raises(ArgumentError, match="max_norm"):
            clip_grad_norm(pair(), bound)
    with pytest.raises(ArgumentError, match="backward"):
        clip_grad_norm(pair(), 1.0)
