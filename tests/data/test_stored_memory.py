"""What training from disk holds in memory: a window and a few batches, however large the data set is."""

import os
import subprocess
import sys

import pytest

import tinynet.data
from tinynet.meters import memory

MIB = 1 << 20

CODE = """
import sys
import numpy as np
from tinynet.data import Loader, store, stored
from tinynet.meters import memory

def chunks():
    x = np.zeros((8192, 256), np.float32)
    for number in range(8):  # 8 MiB each
        x[:] = number
        yield x, np.full(len(x), number)

path = sys.argv[1] + "/set"
before = memory.resident()
most = lambda *batch: (peaks.append(memory.resident()), batch)[1]
peaks = []
store(path, (most(*chunk) for chunk in chunks()))
stored_with = max(peaks) - before
data, sums = stored(path), []
next(iter(Loader(data, 100)))
before, peaks = memory.resident(), []
mixed = {"shuffle": "blocks", "window_rows": 2048}
in_order = {"shuffle": False}
ahead = {"prefetch": 2}
for options in (mixed, mixed | ahead, in_order, in_order | ahead, {"shuffle": "rows"}):
    loader = Loader(data, 512, transform=most, **options)
    sums.append(sum(int(x[:, 0].sum()) for x, _ in loader))
print(stored_with, max(peaks) - before, *sums)
"""


@pytest.mark.skipif(memory.resident() is None, reason="this system does not say how much of a process is in memory")
def test_memory_is_bounded_while_storing_and_while_reading(tmp_path):
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", CODE, tmp_path], capture_output=True, text=True, env=here, timeout=120)
    assert done.returncode == 0, done.stderr
    storing, reading, *sums = map(int, done.stdout.split())
    assert sums == [8192 * sum(range(8))] * 5
    whole = tinynet.data.stored(tmp_path / "set").x.nbytes
    assert whole == 64 * MIB
    # A chunk and its copy; a window of 2 MiB, and four batches of half a MiB.
    assert storing < 24 * MIB and reading < 16 * MIB
