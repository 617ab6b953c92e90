"""Training from disk beside training from memory: speed, and the memory that each takes. ``python -m bench.data_path``

A set of 1,000,000 x 100 float32 (400 MB) trains a network 100-64-1 at batch 1,000 with ``tn.fit``, each way of feeding
it in a process of its own. The processes take turns, an epoch each, in an order that turns from round to round; what is
compared are medians of the ratios within a round: of the time by the clock, and of the time on processors, in which
what else the machine does weighs less. Memory is the largest the resident set grew beyond model and libraries,
anonymous pages and pages of files together: what the system caches of the file is not in it, what a process has mapped
is. The file is in that cache, as after it was written; ``--cold`` takes it out before each epoch, which then measures
the disk.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from . import environment, memory

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMIT, SHARE = 64 * 2**20, 0.9
WAYS = {  # of feeding: on disk or not, options of the loader
    "memory": (False, {}),
    "disk": (True, {}),
    "disk, prefetch 2": (True, {"prefetch": 2}),
    "disk, in order": (True, {"shuffle": False}),
}


def generated(rows: int, columns: int, piece: int = 50_000):
    """The set in pieces: normal inputs, and a target of some of them with noise."""
    import numpy as np

    rng = np.random.default_rng(0)
    for start in range(0, rows, piece):
        x = rng.standard_normal((min(piece, rows - start), columns), dtype=np.float32)
        noise = rng.standard_normal((len(x), 1), dtype=np.float32)
        yield x, np.tanh(x[:, :1] - x[:, 1:2]) + np.float32(0.1) * noise


def work(way: str, path: str, batch: int, epochs: int) -> None:
    """One process: an epoch for each line that it is sent, a line of what it took for each."""
    import numpy as np

    import tinynet as tn
    from tinynet.train.callbacks import Callback

    on_disk, options = WAYS[way]

    def model(columns: int):
        tn.seed(0)
        return tn.nn.Sequential(tn.nn.Dense(columns, 64, "relu"), tn.nn.Dense(64, 1))

    class Turns(Callback):
        start = time.process_time()

        def on_epoch(self, run) -> None:
            row = {"seconds": run.history[-1]["seconds"], "processors": time.process_time() - self.start}
            print(json.dumps({**row, "peak": memory.resident()["VmHWM"] - before}), flush=True)
            sys.stdin.readline()
            self.start = time.process_time()

    columns = tn.data.stored(path).x.shape[1]
    small = np.zeros((2 * batch, columns), np.float32), np.zeros((2 * batch, 1), np.float32)
    tn.fit(model(columns), small, loss="mse", optimizer="adam", epochs=1, batch_size=batch)  # libraries and kernels
    trained = model(columns)
    del small
    gc.collect()
    memory.RESET.write_text("5")  # the largest begins anew
    before = memory.resident()["VmRSS"]
    if on_disk:
        data = tn.data.stored(path)
    else:
        data = tn.data.Dataset(*(np.load(os.path.join(path, f"{name}.npy")) for name in "xy"))
    print(json.dumps({"ready": True}), flush=True)
    sys.stdin.readline()
    loader = tn.data.Loader(data, batch, **options)
    tn.fit(trained, loader, loss="mse", optimizer="adam", epochs=epochs, callbacks=[Turns()])


def forget(path: str) -> None:
    """Takes the files out of the system's cache."""
    for file in pathlib.Path(path).glob("*.npy"):
        with open(file, "rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measured(path: str, batch: int, rounds: int, cores: int, cold: bool) -> dict[str, list[dict]]:
    """For each way, an answer for each round; the first, in which steps are captured, is left out."""
    command = [sys.executable, "-m", "bench.data_path", "--path", path]
    command += ["--batch", str(batch), "--rounds", str(rounds + 1)]
    processes = {
        way: subprocess.Popen(
            [*command, "--work", way], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment.clean(dict(os.environ), cores), preexec_fn=environment.pinned(environment.cores(cores)),
        )
        for way in WAYS
    }  # fmt: skip
    answers: dict[str, list[dict]] = {way: [] for way in WAYS}
    try:
        for process in processes.values():
            if not process.stdout.readline():
                raise SystemExit(f"a process ended with status {process.wait()}")
        for turn in range(rounds + 1):
            first = turn % len(WAYS)
            for way in [*WAYS][first:] + [*WAYS][:first]:
                if cold:
                    forget(path)
                processes[way].stdin.write("\n")
                processes[way].stdin.flush()
                answers[way].append(json.loads(processes[way].stdout.readline()))
    finally:
        for process in processes.values():
            process.stdin.close()
            process.wait()
            process.stdout.close()
    return {way: found[1:] for way, found in answers.items()}


def table(answers: dict[str, list[dict]], rows: int) -> str:
    """Speed, its share of that from memory, the same by the time on processors, and the growth of the resident set."""
    heads = ("samples/s", "of memory", "quartiles", "by processors", "peak growth")
    lines = [f"{'':18} {heads[0]:>11} {heads[1]:>10} {heads[2]:>14} {heads[3]:>14} {heads[4]:>12}"]
    for way, found in answers.items():
        shares = {
            name: [there[name] / here[name] for there, here in zip(answers["memory"], found)]
            for name in ("seconds", "processors")
        }
        low, _, high = statistics.quantiles(shares["seconds"], n=4)
        speed = rows / statistics.median(each["seconds"] for each in found)
        peak = max(each["peak"] for each in found) / 2**20
        share, on_processors = (statistics.median(each) for each in shares.values())
        quartiles = f"{low:.2f} to {high:.2f}"
        lines.append(f"{way:18} {speed:>11,.0f} {share:>10.2f} {quartiles:>14} {on_processors:>14.2f} {peak:>8.1f} MiB")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.data_path", description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--batch", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--cores", type=int, default=environment.available())
    parser.add_argument("--cold", action="store_true", help="empty the system's cache of the file before each epoch")
    parser.add_argument("--path", help="folder of the set, written there unless it exists; temporary by default")
    parser.add_argument("--work", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work, given.path, given.batch, given.rounds)
        return

    import tinynet as tn

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.abspath(given.path or os.path.join(folder, "set"))
        if not os.path.exists(path):
            tn.data.store(path, generated(given.samples, given.columns))
        data = tn.data.stored(path)
        size = f"{len(data):,} rows of {data.x.shape[1]} columns, {(data.x.nbytes + data.y.nbytes) / 1e6:,.0f} MB"
        print(f"{size}; batch {given.batch:,}; {given.cores} cores{', cold' * given.cold}", flush=True)
        answers = measured(path, given.batch, given.rounds, given.cores, given.cold)
        print(table(answers, len(data)))
        print(f"wanted from disk: {SHARE:.2f} of the speed from memory, within {LIMIT / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
