"""The sections of the benchmark: each takes a ``Session`` and gives rows, one workload on some cores each.

A row is {"section", "workload", "cores", "unit", "cells"}; a cell is what ``bench.timing.cells`` makes. Less is better
in every row, so that every ratio reads peer / tinynet.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from dataclasses import dataclass, field

from . import environment, mnist, peers, workloads
from .processes import PeerError, PeerUnsupported, Process
from .timing import DISTURBED, REPEATS, Pace, Runner, Watch, cells, interleave

LARGEST_MEMORY = 5e9  # of all peers together, in the bandwidth section
YARDSTICKS = ("copy", "in place")  # the faster one is the machine's copy bandwidth


@dataclass
class Session:
    """What was asked for on the command line, and what is known so far."""

    python: str
    cores: list[int]
    quick: bool = False
    executor: str | None = None
    entries: list[peers.Entry] = field(default_factory=list)  # those that are there
    data: str | None = None  # the folder of MNIST
    log: object = print
    about: dict[str, dict] = field(default_factory=dict)  # peer -> versions and thread pools
    pool: dict[tuple, Process] = field(default_factory=dict)  # (entry, variant, cores) -> its process

    def variants(self, section: str):
        """(entry, variant) of the peers that take part; in a quick run without what takes long to compile, and the
        first variant alone."""
        for entry in self.entries:
            if section in entry.sections and not (self.quick and section in entry.slow):
                for variant in list(entry.variants)[: 1 if self.quick else None]:
                    yield entry, variant

    def process(self, entry: peers.Entry, variant: str, cores: int) -> Process:
        return Process(entry, variant, cores, self.python, self.executor)

    def processes(self, section: str, cores: int) -> list[tuple[peers.Entry, Process]]:
        """The peers of a section, each in its process, which stays for later sections on as many cores."""
        asked = list(self.variants(section))
        for entry, variant, held in list(self.pool):
            if held != cores or (entry, variant) not in asked:
                self.pool.pop((entry, variant, held)).close()
        fresh = [each for each in asked if (*each, cores) not in self.pool]
        for each in fresh:
            process = self.pool[(*each, cores)] = self.process(*each, cores)
            process.send("hello")
        for entry, variant in fresh:
            process = self.pool[(entry, variant, cores)]
            with contextlib.suppress(PeerError):  # it will fail again at its first workload, and say so there
                self.about.setdefault(entry.name, {})[f"cores {cores}"] = process.receive(300)
            process.quiet()
        return [(entry, self.pool[(entry, variant, cores)]) for entry, variant in asked]

    def introduce(self, entry: peers.Entry, cores: int, process: Process) -> None:
        """Keeps what a process says of itself: versions, and its pools of threads."""
        self.about.setdefault(entry.name, {}).setdefault(f"cores {cores}", process.ask("hello"))

    def close(self) -> None:
        """Ends all processes."""
        while self.pool:
            self.pool.popitem()[1].close()

    def row(self, section: str, workload: str, cores: int, found, unit: str = "s") -> dict:
        made = {"section": section, "workload": workload, "cores": cores, "unit": unit, "cells": cells(found)}
        for entry in self.entries:
            if section in entry.sections and entry.name not in made["cells"]:
                made["cells"][entry.name] = {"state": "full run only"}
        self.log(section, workload, f"cores {cores}", *(
            f"{name} {cell['ratio']['median']:.2f}" if "ratio" in cell else f"{name} ({cell.get('state', 'alone')})"
            for name, cell in made["cells"].items()
        ))  # fmt: skip
        return made


def _found(runners):
    return [(r.name, r.process.variant, r.samples, r.state, r.disturbed) for r in runners]


def training(session: Session):
    """Forward, backward, Adam."""
    networks = workloads.NETWORKS[1:3] if session.quick else workloads.NETWORKS
    pace = Pace(0.05, 5, 3, repeats=2) if session.quick else Pace(0.2, 15, 60)
    for cores in session.cores:
        made = session.processes("training", cores)
        # the quick run looks at one network on each number of cores
        for network in networks[:1] if session.quick and cores != session.cores[-1] else networks:
            reference = workloads.reference_losses(network)

            def check(answer, reference=reference):
                errors = [abs(a - b) / abs(b) for a, b in zip(answer["losses"], reference)]
                right = all(error <= workloads.TOLERANCE for error in errors)
                return None if right else f"losses differ by {max(errors):.1e}"

            request = {"op": "training", "network": str(network)}
            runners = [Runner(entry.name, process, request, check) for entry, process in made]
            interleave(runners, pace)
            yield session.row("training", f"{network}, batch {network.batch}", cores, _found(runners))


def _accurate(answer: dict) -> str | None:
    error = answer["error"]
    return None if error <= workloads.TOLERANCE else f"outputs differ by {error:.1e}"


def inference(session: Session):
    """From an array on the host to an array on the host."""
    networks = workloads.NETWORKS[2:3] if session.quick else workloads.NETWORKS
    sizes = workloads.INFERENCE_BATCHES[:2] if session.quick else workloads.INFERENCE_BATCHES
    pace = Pace(0.03, 5, 3, repeats=2) if session.quick else Pace(0.1, 11, 30)
    # downwards: the processes of the section before are still there
    for cores in session.cores[-1:] if session.quick else session.cores[::-1]:
        made = session.processes("inference", cores)
        for network in networks:
            for batch in sizes:
                request = {"op": "inference", "network": str(network), "batch": batch}
                runners = [Runner(entry.name, process, request, _accurate) for entry, process in made]
                interleave(runners, pace)
                yield session.row("inference", f"{network}, batch {batch}", cores, _found(runners))


def bandwidth(session: Session):
    """Elementwise work over arrays of twice the last cache together; also as a share of the measured copy bandwidth."""
    pace = Pace(0.1, 3, 5, repeats=2) if session.quick else Pace(0.5, 9, 30)
    for cores in session.cores[-1:] if session.quick else session.cores:
        for kind in ("chain",) if session.quick else ("chain", "adam"):
            session.close()  # with what their allocators keep
            made = session.processes("bandwidth", cores)
            copying = [Runner(kind, session.process(peers.BY_NAME["numpy"], "", cores), {}) for kind in YARDSTICKS]
            try:
                total = min(2 * environment.last_level_cache(), LARGEST_MEMORY / (len(made) + len(copying)))
                counts = {name: int(total / 4 / held) for name, held in workloads.ELEMENTWISE_ARRAYS.items()}
                request = {"op": "bandwidth", "kind": kind, "count": counts[kind]}
                runners = [Runner(entry.name, process, request, _accurate) for entry, process in made]
                for each in copying:
                    each.request = {"op": "bandwidth", "kind": each.name, "count": counts[each.name]}
                interleave([*runners, *copying], pace, together=False)
            finally:
                for each in copying:
                    each.process.close()
            moved = {name: counts[name] * size for name, size in workloads.ELEMENTWISE_BYTES.items()}
            title = f"{workloads.ELEMENTWISE_TITLES[kind]}, {counts[kind] * 4 / 2**20:.0f} MiB arrays"
            row = session.row("bandwidth", title, cores, _found(runners))
            speeds = {
                each.name: moved[each.name] / statistics.median(each.samples.values())
                for each in copying
                if each.samples
            }
            row["bytes_per_second"] = speeds
            for cell in row["cells"].values():
                if "median" in cell and speeds:
                    cell["share"] = moved[kind] / cell["median"] / max(speeds.values())
            yield row


def memory(session: Session):
    """Growth of the resident set over training steps."""
    network = workloads.NETWORKS[3] if session.quick else workloads.NETWORKS[4]
    session.close()
    cores, first, steady, plans = session.cores[-1], [], [], {}
    asked = list(session.variants("memory"))
    asked += [(entry, "budget") for entry in session.entries if entry.name == "tinynet"]
    for entry, variant in asked:
        process, state, answer = session.process(entry, variant, cores), None, {}
        try:
            session.introduce(entry, cores, process)
            answer = process.ask("memory", network=str(network))
            plans |= {f"{entry.name} {name}": size for name, size in answer["plan"].items()}
        except PeerUnsupported as error:
            state = f"no part: {error}"
        except PeerError as error:
            state = f"failed: {error}"
        finally:
            process.close()
        for kind, rows in (("first", first), ("steady", steady)):
            samples = {0: max(answer[kind], 4096)} if answer else {}
            rows.append((entry.name, variant, samples, state))
    title = f"{network}, batch {network.batch}"
    for kind, rows in (("with the first steps", first), ("later steps", steady)):
        yield session.row("memory", f"{title}, {kind}", cores, rows, "bytes") | {"plans": plans}


def startup(session: Session):
    """From the start of a process to the first trained step; and from the end of its imports."""
    session.close()
    network, cores = workloads.NETWORKS[2], session.cores[-1]
    asked = list(session.variants("startup"))
    samples = {each: {"whole": {}, "imported": {}} for each in range(len(asked))}
    states: dict[int, str] = {}
    for i in range(0 if session.quick else -1, 1 if session.quick else 7):  # the first fills the caches
        for at, (entry, variant) in enumerate(asked):
            if at in states:
                continue
            process = session.process(entry, variant, cores)
            start = time.monotonic()
            process.start("--first-step", str(network))
            try:
                answer = process.result(300)
                if i >= 0:
                    samples[at]["whole"][i] = answer["done"] - start
                    samples[at]["imported"][i] = answer["done"] - answer["imported"]
            except PeerError as error:
                states[at] = f"failed: {error}"
            finally:
                process.close()
    for kind, title in (("whole", "process start to first step"), ("imported", "end of imports to first step")):
        found = [(e.name, v, samples[at][kind], states.get(at)) for at, (e, v) in enumerate(asked)]
        yield session.row("startup", f"{network}, {title}", cores, found)


def matmul(session: Session):
    """The matrix product beside NumPy's BLAS, on one core; ``python -m bench.matmul`` says more."""
    entries = [entry for entry in session.entries if entry.name == "tinynet"]
    for entry in entries:
        process = session.process(entry, "", 1)
        try:
            session.introduce(entry, 1, process)
            limits = {"seconds": 0.1, "largest": 6e7} if session.quick else {"seconds": 1.5, "largest": 1e10}
            rows = process.ask("matmul", **limits)["rows"]
        except PeerError as error:
            yield session.row("matmul", "own product", 1, [("tinynet", "", {}, f"failed: {error}")])
            continue
        finally:
            process.close()
        for each in rows:
            found = [
                ("tinynet", "", {0: each["product"]["seconds"]}, None),
                ("numpy", "", {0: each["BLAS"]["seconds"]}, None),
            ]
            row = session.row("matmul", each["name"], 1, found)
            row["peak_gflops"] = each["peak_gflops"]
            for name, version in (("tinynet", "product"), ("numpy", "BLAS")):  # shares are of a neighbour in time
                ratio = each["product"]["share"] / each[version]["share"]
                row["cells"][name] |= {
                    "share": each[version]["share"],
                    "ratio": dict.fromkeys(("median", "q1", "q3"), ratio),
                }
            yield row


def run_mnist(session: Session):
    """MNIST to 98 % of the test images (95 % in a quick run)."""
    session.close()
    target = 0.95 if session.quick else 0.98
    workload = f"{mnist.NETWORK} to {target:.0%}"
    if session.data is None:
        session.log("mnist: skipped, no data; give --data")
        yield {"section": "mnist", "workload": f"{workload} (skipped: no data)", "cores": 0, "unit": "s", "cells": {}}
        return
    how = {"path": session.data, "target": target, "epochs": 30, "limit": 300}
    for cores in session.cores[-1:] if session.quick else session.cores:
        asked = list(session.variants("mnist"))
        samples, states, notes, disturbed = [{} for _ in asked], [None for _ in asked], {}, [0 for _ in asked]
        for i in range(1 if session.quick else 3):
            for at, (entry, variant) in enumerate(asked):
                if states[at]:
                    continue
                process = session.process(entry, variant, cores)
                try:
                    session.introduce(entry, cores, process)
                    for _ in range(1 if session.quick else REPEATS):
                        watch = Watch(process)
                        answer = process.ask("mnist", **how)
                        if watch.disturbed() <= DISTURBED:
                            break
                    else:
                        disturbed[at] += 1
                    samples[at][i] = answer["seconds"]
                    notes[entry.name] = f"{len(answer['accuracy'])} epochs, {answer['accuracy'][-1]:.2%}"
                    if not answer["reached"]:
                        states[at] = f"not reached: {notes[entry.name]} in {answer['seconds']:.0f} s"
                except PeerError as error:
                    states[at] = f"failed: {error}"
                finally:
                    process.close()
        found = [(e.name, v, samples[at], states[at], disturbed[at]) for at, (e, v) in enumerate(asked)]
        yield session.row("mnist", workload, cores, found) | {"notes": notes}


SECTIONS = {
    "training": training, "inference": inference, "matmul": matmul, "bandwidth": bandwidth, "memory": memory,
    "startup": startup, "mnist": run_mnist,
}  # fmt: skip
