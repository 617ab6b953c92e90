"""tinynet on the GPU: the captured step, which replays as a CUDA graph, through the public interface."""

from __future__ import annotations

import tinynet as tn

from ...peers.tinynet_program import Peer as OnProcessor


class Peer(OnProcessor):
    precision = "float32"

    def __init__(self, threads, variant="", executor=None, backend="cupy"):
        super().__init__(threads, variant, executor or "cuda")
        tn.use_backend(backend)

    def _capture(self, function, memory=None):
        self.captured = tn.capture(function, executor=self.executor, memory=memory, precision=self.precision)
        return self.captured

    def memory(self):
        """What the pool hands out between steps: parameters, moments, and the program's arena, which is its peak."""
        import cupy

        return cupy.get_default_memory_pool().used_bytes()
