"""A process that uses the GPU: ``python -m bench.gpu.worker NAME``, which answers requests, one JSON object a line.

NAME is a peer's, or "device" for what is done with tinynet's kernels alone: checks, bandwidth, products. ``Process`` is
how the command starts and asks one.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile

from .. import environment, workloads
from ..peers import Entry
from ..peers.base import Unsupported
from ..processes import ROOT
from ..processes import Process as OnCores
from ..worker import Worker as OnProcessor
from . import peers

DEVICE = Entry("device", "the device", "", ("tinynet", "cupy"), (), "tinynet's kernels", {"": {}})
PACKAGES = ("tinynet", "numpy", "numba", "torch", "jax")


class Process(OnCores):
    """A worker, seen from the command. It may run on all cores: it is the GPU that is measured."""

    def __init__(self, entry: Entry, python: str = sys.executable):
        super().__init__(entry, next(iter(entry.variants)), environment.available(), python)

    def start(self, *more: str) -> None:
        command = [self.python, "-m", "bench.gpu.worker", self.entry.name, "--variant", self.variant, *more]
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as the process
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env=environment.clean(dict(os.environ), self.cores, self.entry.variants[self.variant]),
        )  # fmt: skip

    def scheduled(self) -> None:
        """Not looked at: threads that wait for the GPU are no disturbance."""
        return


class Worker(OnProcessor):
    """What can be asked for; rounds are those of ``bench.worker``."""

    def __init__(self, name: str, variant: str):
        self.name, self.variant = name, variant
        self.run = self.finish = self.peer = None
        self.count = 1
        self._checks: dict = {}

    def hello(self):
        """What the device is, and which versions are here."""
        import cupy

        runtime = cupy.cuda.runtime
        about = runtime.getDeviceProperties(runtime.getDevice())
        versions: dict[str, str | None] = {"python": sys.version.split()[0], "cupy": cupy.__version__}
        for package in PACKAGES:
            try:
                versions[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                versions[package] = None
        return {
            "name": about["name"].decode(), "capability": f"{about['major']}.{about['minor']}",
            "memory_bytes": about["totalGlobalMem"], "multiprocessors": about["multiProcessorCount"],
            "l2_bytes": about["l2CacheSize"], "driver": _version(runtime.driverGetVersion()),
            "versions": versions | {"CUDA runtime": _version(runtime.runtimeGetVersion())},
        }  # fmt: skip

    # ---- what needs the kernels alone ----

    def names(self, group: str):
        """The names of the checks of a group."""
        return {"names": list(self._group(group))}

    def check(self, name: str):
        """The line of one check, of whichever group."""
        from .checks import attempt

        checks = self._group("kernels") | self._group("executor")
        line = attempt(name, checks[name], self._gpu.alive)
        return line._asdict() | {"figures": dict(line.figures)}

    def _group(self, group: str) -> dict:
        from . import executor, kernels

        if not self._checks:
            self._gpu = kernels.Gpu()
            self._checks = {"kernels": kernels.checks(self._gpu), "executor": executor.checks()}
        return self._checks[group]

    def bandwidth(self, kind: str):
        from . import bandwidth, kernels

        return self._emptied(lambda: bandwidth.measure(kernels.Gpu(), kind))

    def product(self, shape: str):
        from . import kernels, products

        return self._emptied(lambda: products.measure(kernels.Gpu(), products.BY_NAME[shape]))

    def reference(self, network: str, steps: int):
        """The losses of the first steps in float64, by CuPy."""
        import cupy

        from . import training

        chosen = training.BY_NAME[network]
        return self._emptied(lambda: {"losses": training.reference_losses(cupy, chosen, steps)})

    def _emptied(self, measure):
        """What ``measure()`` gives; the memory that it has taken goes back to the device."""
        import cupy

        try:
            return measure()
        finally:
            gc.collect()
            cupy.get_default_memory_pool().free_all_blocks()

    # ---- what peers do ----

    def ready(self):
        """Imports the peer."""
        module = importlib.import_module(f".peers.{peers.BY_NAME[self.name].module}", __package__)
        self.peer = module.Peer(environment.available(), self.variant)
        return {}

    def training(self, network: str, precision: str):
        """Prepares; gives the first losses, and the device bytes that steps need beyond the batches."""
        from . import training

        if self.peer is None:  # it has failed before, or was never asked for
            self.ready()
        chosen, peer = training.BY_NAME[network], self.peer
        peer.precision = precision
        host = training.ring_of(chosen)
        model = peer.model(chosen, workloads.weights(chosen))
        ring = [peer.batch(*each) for each in host]
        step = peer.training(model)
        losses = [peer.value(step(ring[i % len(ring)])) for i in range(training.steps_of(chosen))]
        peer.value(step(ring[0]))
        gc.collect()
        memory = peer.memory() - sum(x.nbytes + y.nbytes for x, y in host)
        answer = {"losses": losses, "memory": memory}
        if hasattr(peer, "captured"):
            answer["planned"] = peer.captured.program(*ring[0]).plan.peak_bytes
        self._timed(lambda i: step(ring[i % len(ring)]), peer.value)
        return answer


def _version(number: int) -> str:
    """CUDA's way to write 13.0: 13000."""
    return f"{number // 1000}.{number % 1000 // 10}"


def serve(worker: Worker, requests, answers) -> None:
    """Answers each line of requests by a line, until there are no more."""
    for line in requests:
        request = json.loads(line)
        operation = request.pop("op")
        try:
            answer = {"ok": getattr(worker, operation)(**request)}
        except Unsupported as error:
            answer = {"unsupported": str(error)}
        except Exception as error:  # whatever a peer raises is a line of the report
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(answer), file=answers, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.worker", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=["device", *peers.BY_NAME])
    parser.add_argument("--variant", default="")
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print stays out of the answers
    serve(Worker(arguments.name, arguments.variant), sys.stdin, answers)


if __name__ == "__main__":
    main()
