"""A peer's own process: ``python -m bench.worker PEER``, which answers requests, one JSON object a line.

It is started in a clean environment and on its cores, imports one peer, and does one thing at a time: prepares a
workload, checks it, runs a round of it and says how long that took. Between requests it blocks on its standard input.
What libraries print goes to the standard error stream, so that the answers stay alone on the standard output.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import sys
import time

from . import peers, workloads
from .peers.base import Unsupported


class Worker:
    """The operations that the parent can ask for; each takes and gives what JSON can hold."""

    def __init__(self, name: str, threads: int, variant: str, executor: str | None):
        self.name = name
        self.peer = importlib.import_module(f".peers.{peers.BY_NAME[name].module}", __package__).Peer(
            threads, variant, executor
        )
        self.run = self.finish = None
        self.count = 1

    def hello(self):
        import numpy

        try:
            from threadpoolctl import threadpool_info

            # the name of a library says which it is; where it lies is nobody's business
            pools = [each | {"filepath": each["filepath"].rpartition("/")[2]} for each in threadpool_info()]
        except ImportError:
            pools = None
        affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        return {
            "version": self.peer.version(), "numpy": numpy.__version__, "python": sys.version.split()[0],
            "threadpools": pools, "affinity": affinity,
        }  # fmt: skip

    def training(self, network: str):
        """Prepares; gives the first losses."""
        chosen, peer = workloads.BY_NAME[network], self.peer
        ring = [peer.batch(*each) for each in workloads.batches(chosen)]
        step = peer.training(peer.model(chosen, workloads.weights(chosen)))
        losses = [peer.value(step(ring[i % len(ring)])) for i in range(workloads.CHECKED_STEPS)]
        self._timed(lambda i: step(ring[i % len(ring)]), peer.value)
        return {"losses": losses}

    def inference(self, network: str, batch: int):
        """Prepares; gives how far the outputs are from the reference."""
        chosen, peer = workloads.BY_NAME[network], self.peer
        weights = workloads.weights(chosen)
        forward = peer.inference(peer.model(chosen, weights), batch)
        xs = [workloads.inputs(chosen, batch, seed) for seed in range(4)]
        errors = []
        for x in xs:
            expected = peer.expected(workloads.reference_outputs(weights, x)[-1], chosen)
            errors.append(workloads.relative_error(forward(x), expected))
        self._timed(lambda i: forward(xs[i % 4]), lambda result: None)
        return {"error": max(errors)}

    def bandwidth(self, kind: str, count: int):
        """Prepares; gives how far the result is from the reference."""
        call, result = self.peer.elementwise(kind, workloads.elementwise_arrays(kind, count))
        self.peer.wait(call())
        error = 0.0
        if kind in ("chain", "adam"):
            error = workloads.relative_error(result(), workloads.elementwise_expected(kind, count))
        self.peer.wait(call())  # what is compiled at a second call is compiled
        self.peer.wait(call())
        self._timed(lambda i: call(), self.peer.wait)
        return {"error": error}

    def _timed(self, run, finish):
        self.run, self.finish, self.count = run, finish, None
        gc.collect()
        gc.freeze()  # a collection among the timed calls does not look through what was imported

    def round(self, seconds: float):
        """Calls for about so long; seconds for one."""
        if self.count is None:  # the first round is a warm-up: it finds how many calls make a round
            self._calls(1)
            count = 1
            while (took := self._calls(count)) < seconds / 4 and count < 10**6:
                count *= max(2, min(10, int(seconds / 4 / max(took, 1e-7))))
            self.count = max(1, round(seconds * count / took))
        return {"seconds": self._calls(self.count) / self.count, "count": self.count}

    def _calls(self, count: int) -> float:
        run, result = self.run, None
        start = time.perf_counter()
        for i in range(count):
            result = run(i)
        self.finish(result)
        return time.perf_counter() - start

    def drop(self):
        self.run = self.finish = None
        gc.unfreeze()
        gc.collect()
        return {}

    def memory(self, network: str):
        from . import memory

        return memory.growth(self.peer, workloads.BY_NAME[network])

    def mnist(self, **how):
        from . import mnist

        return mnist.run(self.peer, **how)

    def matmul(self, shape: list, seconds: float):
        """One product of the table, on as many threads as there are cores."""
        from . import products

        return products.measured(products.Shape(*shape), self.peer.threads, seconds)


def first_step(name: str, threads: int, variant: str, executor: str | None, network: str) -> dict:
    """From an interpreter that has just begun to one trained step; says when the imports were done."""
    worker = Worker(name, threads, variant, executor)
    imported = time.monotonic()
    chosen, peer = workloads.BY_NAME[network], worker.peer
    x, y = workloads.batches(chosen, 1)[0]
    loss = peer.value(peer.training(peer.model(chosen, workloads.weights(chosen)))(peer.batch(x, y)))
    return {"imported": imported, "done": time.monotonic(), "loss": loss}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.worker", description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=peers.BY_NAME)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--variant", default="")
    parser.add_argument("--executor")
    parser.add_argument("--first-step", metavar="NETWORK", help="train one step of this network and leave")
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    chosen = (arguments.peer, arguments.threads, arguments.variant, arguments.executor)
    if arguments.first_step:
        print(json.dumps(first_step(*chosen, arguments.first_step)), file=answers)
        return
    worker = Worker(*chosen)
    for line in sys.stdin:
        request = json.loads(line)
        operation = request.pop("op")
        try:
            answer = {"ok": getattr(worker, operation)(**request)}
        except Unsupported as error:
            answer = {"unsupported": str(error)}
        except Exception as error:  # whatever a peer raises is a line of the report, and the next workload may do
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
