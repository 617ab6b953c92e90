"""Runs the cases in PyTorch and writes the losses to torch.json: ``python tests/trajectories/record.py``."""

from __future__ import annotations

import json
from pathlib import Path

import torch

if __package__:
    from .cases import CASES, MOMENTUM, STEPS, Case, batch, weights
else:
    from cases import CASES, MOMENTUM, STEPS, Case, batch, weights


def torch_losses(case: Case) -> list[float]:
    """The loss before each step of PyTorch's run."""
    layers = []
    for i, (w, b) in enumerate(weights(case)):
        linear = torch.nn.Linear(*w.shape, dtype=getattr(torch, case.dtype))
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(w.T.copy()))
            linear.bias.copy_(torch.from_numpy(b))
        layers += [torch.nn.ReLU(), linear] if i else [linear]
    model = torch.nn.Sequential(*layers)
    loss_function = torch.nn.functional.cross_entropy if case.loss == "ce" else torch.nn.functional.mse_loss
    if case.optimizer == "gd":
        optimizer = torch.optim.SGD(model.parameters(), lr=case.lr, momentum=MOMENTUM)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=case.lr)
    losses = []
    for step in range(STEPS):
        x, y = (torch.from_numpy(each) for each in batch(case, step))
        optimizer.zero_grad()
        loss = loss_function(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    recorded = {"torch": torch.__version__, "losses": {case.name: torch_losses(case) for case in CASES}}
    Path(__file__).with_name("torch.json").write_text(json.dumps(recorded, indent=0) + "\n")
