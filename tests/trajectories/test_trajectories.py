"""Training runs follow PyTorch's: from the same weights, on the same batches, for 200 steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tinynet as tn

from .cases import CASES, MOMENTUM, STEPS, Case, batch, weights

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}  # relative difference of the loss
RECORDED = json.loads(Path(__file__).with_name("torch.json").read_text())["losses"]


def tinynet_losses(case: Case) -> list[float]:
    """The loss before each step of tinynet's run."""
    activations = ["relu"] * (len(case.sizes) - 2) + [None]
    model = tn.nn.Sequential(*(tn.nn.Dense(n, m, a) for n, m, a in zip(case.sizes, case.sizes[1:], activations)))
    model.astype(case.dtype)
    model.load_state_dict({f"{i}.{k}": v for i, wb in enumerate(weights(case)) for k, v in zip(("weight", "bias"), wb)})
    loss_function = tn.losses.cross_entropy if case.loss == "ce" else tn.losses.mse
    if case.optimizer == "gd":
        optimizer = tn.optim.GD(model.parameters(), lr=case.lr, momentum=MOMENTUM)
    else:
        optimizer = tn.optim.Adam(model.parameters(), lr=case.lr)
    losses = []
    for step in range(STEPS):
        x, y = batch(case, step)
        optimizer.zero_grad()
        loss = loss_function(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def largest_difference(case: Case, theirs: list[float]) -> float:
    ours, theirs = np.array(tinynet_losses(case)), np.array(theirs)
    assert theirs.shape == (STEPS,)
    assert theirs[-20:].mean() < 0.8 * theirs[0], "a run that learns nothing compares nothing"
    return float(np.max(np.abs(ours - theirs) / np.abs(theirs)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_losses_follow_the_recorded_run_of_pytorch(case):
    assert largest_difference(case, RECORDED[case.name]) <= TOLERANCE[case.dtype]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_losses_follow_pytorch_itself(case):
    pytest.importorskip("torch", reason="the bench extra brings PyTorch")
    from .record import torch_losses

    assert largest_difference(case, torch_losses(case)) <= TOLERANCE[case.dtype]
