"""The peers on a GPU, by name: each a class ``Peer`` as in ``bench.peers.base``, in a process of its own.

It also has an attribute ``precision``, of matrix products ("float32", "tf32" or "bf16"), and a method ``memory``: the
peak of device bytes that its steps need, parameters and moments among them.
"""

from __future__ import annotations

from ...peers import Entry

# JAX would take three quarters of the memory at once; what it needs is to be seen, and others are there too.
JAX = {"JAX_PLATFORMS": "cuda", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
BF16 = "bf16: autocast"

PEERS = (
    Entry(
        "tinynet", "tinynet", "tinynet_graph", ("tinynet", "cupy"), ("training",),
        'tn.capture(step, executor="cuda"), one CUDA graph a step',
    ),
    Entry(
        "torch", "PyTorch eager", "torch_cuda", ("torch",), ("training",), f"Adam(fused=True); {BF16}",
        {"eager": {}},
    ),
    Entry(
        "torch graph", "PyTorch CUDA graph", "torch_cuda", ("torch",), ("training",),
        f"forward, backward and Adam(fused=True, capturable=True) in one CUDA graph; {BF16}", {"graph": {}},
    ),
    Entry(
        "torch.compile graph", "torch.compile CUDA graph", "torch_cuda", ("torch",), ("training",),
        f"forward and loss compiled, and the whole step in one CUDA graph; {BF16}", {"compiled graph": {}},
    ),
    Entry(
        "jax", "jax.jit", "jax_gpu", ("jax",), ("training",),
        "one jitted step, parameters and moments donated; products at the same precision", {"": JAX},
    ),
)  # fmt: skip
BY_NAME = {entry.name: entry for entry in PEERS}
