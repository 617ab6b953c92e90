"""PyTorch on the GPU. The variant "eager" runs each step anew; "graph" captures forward, backward and Adam once and
replays them; "compiled graph" does that with forward pass and loss compiled."""

from __future__ import annotations

import torch

from ...peers.base import Unsupported
from ...peers.torch_eager import Peer as OnProcessor
from ...peers.torch_eager import losses
from ...workloads import LEARNING_RATE

WARM_UP = 3  # steps before a capture, which PyTorch asks for


class Peer(OnProcessor):
    precision = "float32"

    def model(self, network, weights):
        if not torch.cuda.is_available():
            raise Unsupported(f"PyTorch {torch.__version__} sees no GPU")
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        return super().model(network, weights).to("cuda")

    def batch(self, x, y):
        return tuple(each.cuda() for each in super().batch(x, y))

    def training(self, model):
        loss_of, is_graph = losses(model.network.loss), "graph" in self.variant
        is_bf16 = self.precision == "bf16"

        def forward(x, y):
            with torch.autocast("cuda", torch.bfloat16, enabled=is_bf16, cache_enabled=False):
                return loss_of(model(x), y)

        compute = torch.compile(forward, dynamic=False) if "compiled" in self.variant else forward
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True, capturable=is_graph)

        def step(batch):
            optimizer.zero_grad(set_to_none=True)
            loss = compute(*batch)
            loss.backward()
            optimizer.step()
            return loss

        torch.cuda.reset_peak_memory_stats()
        return _replayed(step, model, optimizer) if is_graph else step

    def memory(self):
        return torch.cuda.max_memory_allocated()


def _replayed(step, model, optimizer):
    """The step as a CUDA graph, which is captured at the first call; parameters and moments begin as they were."""
    held = {}

    def capture(batch):
        static = tuple(each.clone() for each in batch)
        before = [p.detach().clone() for p in model.parameters()]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step(static)
        torch.cuda.current_stream().wait_stream(side)
        with torch.no_grad():
            for p, value in zip(model.parameters(), before):
                p.copy_(value)
            for state in optimizer.state.values():
                for each in state.values():
                    each.zero_()
        optimizer.zero_grad(set_to_none=True)  # gradients come to lie in the graph's own memory
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = step(static)
        held.update(graph=graph, static=static, loss=loss)

    def replay(batch):
        if not held:
            capture(batch)
        for to, source in zip(held["static"], batch):
            to.copy_(source)
        held["graph"].replay()
        return held["loss"]

    return replay
