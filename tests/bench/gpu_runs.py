"""What the tests of the benchmark on a GPU share: what stands for the device, and the paths to all of it."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # bench is run from the checkout and is not installed
sys.path.insert(0, str(ROOT / "tests" / "kernels" / "cuda"))  # the harness, and a GPU that is not there

import fake  # noqa: E402, F401 - for the tests
import harness  # noqa: E402

launch = importlib.import_module("tinynet.kernels.cuda.launch")
needs_harness = pytest.mark.skipif(not harness.available(), reason="g++ is not installed")


class Processor:
    """Stands for the device: arrays are NumPy's, and launches run in the harness."""

    xp = np

    def __init__(self, change=lambda one: one):
        self.change, self.own = change, 0

    def host(self, x):
        return np.array(x)

    def run(self, calls):
        if all(function is launch.run for function, _ in calls):
            self.own += len(calls)
            harness.run([self.change(one) for _, (one,) in calls], orders=("forward",), races=False)
        else:
            for function, arguments in calls:
                function(*arguments)

    def free_bytes(self):
        return 2**19

    def copying(self, to, source):
        return [(np.copyto, (to, source))]

    def seconds(self, calls):
        self.run(calls)
        return 1.0

    def alive(self):
        pass


class Plain(Processor):
    """Runs nothing that is a launch: for what is tried without g++."""

    def run(self, calls):
        pass


class Scripted:
    """Stands for a worker: what it answers to each check, by name."""

    def __init__(self, answers, started):
        self.answers, self.closed = answers, False
        started.append(self)

    def ask(self, op, timeout, name):
        assert op == "check" and timeout > 0 and not self.closed
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        return {"name": name, "passed": True, **answer}

    def close(self, now=False):
        self.closed = True
