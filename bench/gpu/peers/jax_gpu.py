"""jax.jit on the GPU: loss, gradient and Adam in one compiled step."""

from __future__ import annotations

import jax

from ...peers.base import Peer as Base
from ...peers.base import Unsupported
from ...peers.jax_jit import Peer as OnProcessor

PRECISIONS = {"float32": "highest", "tf32": "TF32_TF32_F32", "bf16": "BF16_BF16_F32"}


class Peer(OnProcessor):
    precision = "float32"

    def __init__(self, threads, variant="", executor=None):
        Base.__init__(self, threads, variant, executor)  # the other one chooses the processor

    def model(self, network, weights):
        if jax.default_backend() != "gpu":
            raise Unsupported(f"JAX {jax.__version__} sees no GPU")
        jax.config.update("jax_default_matmul_precision", PRECISIONS[self.precision])
        return super().model(network, weights)

    def memory(self):
        return jax.devices()[0].memory_stats()["peak_bytes_in_use"]
