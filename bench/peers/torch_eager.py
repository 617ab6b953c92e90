"""PyTorch in eager mode, with the fused Adam, and inference under ``inference_mode``."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from ..workloads import LEARNING_RATE
from .base import Peer as Base


def losses(name):
    return {"mse": torch.nn.functional.mse_loss, "cross_entropy": torch.nn.functional.cross_entropy}[name]


class Peer(Base):
    def __init__(self, threads, variant="", executor=None):
        super().__init__(threads, variant, executor)
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)

    def version(self):
        return torch.__version__

    def model(self, network, weights):
        layers: list[torch.nn.Module] = []
        for i, (n, m) in enumerate(itertools.pairwise(network.sizes)):
            layers += [torch.nn.Linear(n, m, device="meta"), torch.nn.ReLU()]
            w, b = (torch.from_numpy(np.array(each.T, order="C")) for each in weights[2 * i : 2 * i + 2])
            layers[-2].weight, layers[-2].bias = torch.nn.Parameter(w), torch.nn.Parameter(b)
        model = torch.nn.Sequential(*layers[:-1])
        model.network = network
        return model

    def batch(self, x, y):
        return torch.from_numpy(x), torch.from_numpy(y)

    def training(self, model):
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
        loss_of = losses(model.network.loss)

        def step(batch):
            x, y = batch
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return step

    def value(self, loss):
        return loss.item()

    def inference(self, model, batch):
        model.eval()

        def forward(x):
            with torch.inference_mode():
                return model(torch.from_numpy(x)).numpy()

        return forward

    def elementwise(self, kind, arrays):
        if kind == "adam":
            p = torch.nn.Parameter(torch.from_numpy(arrays[0]))
            p.grad = torch.from_numpy(arrays[1])
            optimizer = torch.optim.Adam([p], lr=LEARNING_RATE, fused=True)
            return optimizer.step, lambda: p.detach().numpy()[:1000]
        x, y = map(torch.from_numpy, arrays)
        out = torch.empty_like(x)

        def chain():
            with torch.inference_mode():
                torch.sigmoid(x, out=out)
                out.mul_(x).add_(y)

        return chain, lambda: out.numpy()[:1000]
