"""tinynet: the step, the forward pass and the elementwise chain as captured programs, through the public interface."""

from __future__ import annotations

import itertools

import numpy as np

import tinynet as tn

from ..workloads import BUDGETS, LEARNING_RATE
from .base import Peer as Base

LEAST_BUDGET = 2**20  # the small network that is trained first has to run on the same kernels


class Peer(Base):
    """Variants (memory section) capture within a budget, and so never run eagerly: within the plan's own workspace, or
    a part of it."""

    def version(self):
        return tn.__version__

    def _capture(self, function, memory=None):
        return tn.capture(function, executor=self.executor, memory=memory)

    def model(self, network, weights):
        pairs = list(itertools.pairwise(network.sizes))
        layers = [tn.nn.Dense(n, m, "relu" if i < len(pairs) - 1 else None) for i, (n, m) in enumerate(pairs)]
        model = tn.nn.Sequential(*layers)
        names = [f"{i}.{kind}" for i in range(len(pairs)) for kind in ("weight", "bias")]
        model.load_state_dict(dict(zip(names, weights)))
        self.network = network  # not an attribute of the model, whose state a captured step looks through at each call
        return model

    def batch(self, x, y):
        return tn.tensor(x), tn.tensor(y)

    def training(self, model):
        network = self.network
        optimizer = tn.optim.Adam(model.parameters(), lr=LEARNING_RATE)
        loss_of = getattr(tn.losses, network.loss)

        def step(x, y):
            optimizer.zero_grad()
            loss = loss_of(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        share = BUDGETS.get(self.variant)
        captured = self._capture(step, share and max(LEAST_BUDGET, int(share * self._plan(model).workspace_bytes)))
        return lambda batch: captured(*batch)

    def value(self, loss):
        return loss.item()

    def inference(self, model, batch):
        model.eval()

        def forward(x):
            with tn.no_grad():
                return model(x)

        captured = self._capture(forward)
        x = np.zeros((batch, self.network.sizes[0]), "float32")
        for _ in range(3):  # traced, proven, run
            captured(x)
        return captured.program(x)  # frozen, as the sessions of others are

    def elementwise(self, kind, arrays):
        if kind == "adam":
            p, g = tn.tensor(arrays[0], requires_grad=True), tn.tensor(arrays[1])
            optimizer = tn.optim.Adam([p], lr=LEARNING_RATE)

            def update(g):
                p.grad = g
                optimizer.step()
                p.grad = None

            captured = self._capture(update)
            return lambda: captured(g), lambda: p.numpy()[:1000]
        x, y, out = tn.tensor(arrays[0]), tn.tensor(arrays[1]), tn.tensor(arrays[0])
        # tensors that the step reaches by itself: arguments would be copied into the program's memory first
        captured = self._capture(lambda: tn.ops.assign(out, x * tn.ops.sigmoid(x) + y))
        return captured, lambda: out.numpy()[:1000]

    def _plan(self, model):
        return tn.plan(model, self.network.loss, "adam", self.network.batch)

    def plan(self, network):
        with tn.nn.abstract():
            pairs = list(itertools.pairwise(network.sizes))
            layers = [tn.nn.Dense(n, m, "relu" if i < len(pairs) - 1 else None) for i, (n, m) in enumerate(pairs)]
            model = tn.nn.Sequential(*layers)
        plan = tn.plan(model, network.loss, "adam", network.batch)
        return {"moments": plan.moment_bytes, "workspace": plan.workspace_bytes}
