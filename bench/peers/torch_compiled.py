"""torch.compile: forward pass and loss compiled together, which gives a compiled backward pass; for one shape.

The variant "fused Adam" steps with PyTorch's own fused kernel, "compiled Adam" with ``torch.compile`` of the optimizer.
"""

from __future__ import annotations

import torch
import torch._inductor.config

from ..workloads import LEARNING_RATE
from .base import Unsupported
from .torch_eager import Peer as Eager
from .torch_eager import losses


class Peer(Eager):
    def __init__(self, threads, variant="", executor=None):
        super().__init__(threads, variant, executor)
        torch._inductor.config.compile_threads = 1  # worker processes would stay and wait beside what is timed
        torch._dynamo.config.cache_size_limit = 64  # one function is compiled for every network

    def training(self, model):
        loss_of = losses(model.network.loss)
        compiled = torch.compile(lambda x, y: loss_of(model(x), y), dynamic=False)
        fused = self.variant != "compiled Adam"
        how = {"fused": True} if fused else {"foreach": True}
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, **how)
        update = optimizer.step if fused else torch.compile(lambda: optimizer.step(), dynamic=False)

        def step(batch):
            optimizer.zero_grad(set_to_none=True)
            loss = compiled(*batch)
            loss.backward()
            update()
            return loss

        return step

    def inference(self, model, batch):
        if self.variant == "compiled Adam":
            raise Unsupported("the other variant does the same")
        model.eval()
        with torch._inductor.config.patch(freezing=True), torch.no_grad():
            compiled = torch.compile(model, dynamic=False)
            compiled(torch.zeros(batch, model.network.sizes[0]))

        def forward(x):
            with torch.no_grad():
                return compiled(torch.from_numpy(x)).numpy()

        return forward

    def elementwise(self, kind, arrays):
        if kind == "adam":
            if self.variant != "compiled Adam":
                return super().elementwise(kind, arrays)
            p = torch.nn.Parameter(torch.from_numpy(arrays[0]))
            p.grad = torch.from_numpy(arrays[1])
            optimizer = torch.optim.Adam([p], lr=LEARNING_RATE, foreach=True)
            return torch.compile(lambda: optimizer.step(), dynamic=False), lambda: p.detach().numpy()[:1000]
        if self.variant == "compiled Adam":
            raise Unsupported("the other variant does the same")
        x, y = map(torch.from_numpy, arrays)
        out = torch.empty_like(x)
        compiled = torch.compile(lambda x, y, out: out.copy_(x * torch.sigmoid(x) + y), dynamic=False)

        def chain():
            with torch.no_grad():
                compiled(x, y, out)

        return chain, lambda: out.numpy()[:1000]
