"""The peers, by name: what each needs, at which settings it runs, and in which sections it takes part.

One module holds one peer, as a class ``Peer`` with the methods of ``bench.peers.base.Peer``; it is imported in the
peer's own process only. A peer with several variants runs each in a process of its own, and the better one counts, for
every workload anew.
"""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass, field

TIMED = ("training", "inference")


@dataclass(frozen=True, eq=False)
class Entry:
    """A peer of the table.

    name: on the command line and in the JSON. title: in the table. module: under bench.peers.
    packages: what must be importable. programs: what must be on the PATH. variants: name -> environment.
    settings: how it runs. differs: where it does not do exactly what the others do. slow: sections that a quick run
    leaves out, because they would spend it on compiling.
    """

    name: str
    title: str
    module: str
    packages: tuple[str, ...]
    sections: tuple[str, ...]
    settings: str
    variants: dict[str, dict[str, str]] = field(default_factory=lambda: {"": {}})
    programs: tuple[str, ...] = ()
    differs: str = ""
    slow: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """What this interpreter lacks to run the peer, or None."""
        lacking = [name for name in self.packages if not _importable(name)]
        lacking += [name for name in self.programs if shutil.which(name) is None]
        return ", ".join(lacking) or None


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of what a dotted name lies in
        return False


PEERS = (
    Entry(
        "tinynet", "tinynet", "tinynet_program", ("tinynet", "tinynet.kernels"),
        (*TIMED, "bandwidth", "memory", "startup", "mnist", "matmul"),
        "tn.capture of the step and of the forward pass",
    ),
    Entry(
        "numpy", "NumPy by hand", "numpy_by_hand", ("numpy",), (*TIMED, "bandwidth", "memory", "startup", "mnist"),
        "all results into arrays made before; parameters in one array, updated block by block",
    ),
    Entry(
        "torch", "PyTorch eager", "torch_eager", ("torch",), (*TIMED, "bandwidth", "memory", "startup", "mnist"),
        "Adam(fused=True), set_num_threads(cores), inference_mode",
    ),
    Entry(
        "torch.compile", "torch.compile", "torch_compiled", ("torch",), (*TIMED, "bandwidth", "memory", "startup"),
        "forward and loss compiled for one shape, with the better of fused and compiled Adam; frozen for inference",
        {"fused Adam": {}, "compiled Adam": {}}, ("g++",), slow=("bandwidth", "memory", "startup"),
    ),
    Entry(
        "jax", "jax.jit", "jax_jit", ("jax",), (*TIMED, "bandwidth", "memory", "startup", "mnist"),
        "one jitted step, parameters and moments donated; the better of async dispatch on and off; compilation cache",
        {"async dispatch": {}, "sync dispatch": {}},
    ),
    Entry(
        "tinygrad", "tinygrad JIT", "tinygrad_jit", ("tinygrad",), (*TIMED, "bandwidth", "startup"),
        "TinyJit of the whole step, device CPU, NUM_CPU_THREADS=cores",
        programs=("clang",), slow=("startup",),
    ),
    Entry(
        "sklearn", "scikit-learn", "sklearn_mlp", ("sklearn",), (*TIMED, "startup"),
        "partial_fit of one batch, alpha=0, assume_finite=True",
        differs="it cuts probabilities off at the epsilon of float32, which shows where a loss is large; "
        "its loss for regression is half the mean square (doubled for the check), it looks its labels up at "
        "every step, and at inference gives probabilities instead of logits",
    ),
    Entry(
        "onnxruntime", "onnxruntime", "onnx_runtime", ("onnx", "onnxruntime"), ("inference",),
        "intra_op_num_threads=cores, sequential, all graph optimisations",
        differs="inference only",
    ),
)  # fmt: skip
BY_NAME = {entry.name: entry for entry in PEERS}
