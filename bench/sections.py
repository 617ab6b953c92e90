"""The sections of the benchmark: each takes a ``Session`` and gives rows, one workload on some cores each.

A row is {"section", "workload", "cores", "unit", "cells"}; a cell is what ``bench.timing.cells`` makes. Less is better
in every row, so that every ratio reads peer / tinynet.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from dataclasses import dataclass, field

from . import environment, mnist, peers, products, workloads
from .processes import PeerError, PeerUnsupported, Process
from .timing import BASE, DISTURBED, Pace, Runner, Watch, cells, geometric_mean, interleave, quartiles

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
    for cores in session.cores[-1:] if session.quick else session.cores:
        made = session.processes("training", cores)
        for network in networks:
            request, check = {"op": "training", "network": str(network)}, _follows(network)
            runners = [Runner(entry.name, process, request, check) for entry, process in made]
            interleave(runners, pace)
            yield session.row("training", f"{network}, batch {network.batch}", cores, _found(runners))


def _follows(network: workloads.Network):
    """What is wrong with first losses, or None."""
    reference = workloads.reference_losses(network)

    def check(answer: dict) -> str | None:
        errors = [abs(a - b) / abs(b) for a, b in zip(answer["losses"], reference)]
        right = all(error <= workloads.TOLERANCE for error in errors)
        return None if right else f"losses differ by {max(errors):.1e}"

    return check


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
    """Growth of the resident set over training steps; and what a budget costs of time."""
    network = workloads.NETWORKS[3] if session.quick else workloads.NETWORKS[4]
    session.close()
    cores, first, steady, plans = session.cores[-1], [], [], {}
    asked = list(session.variants("memory"))
    own = next((entry for entry in session.entries if entry.name == BASE), None)
    budgets = list(workloads.BUDGETS)[: 1 if session.quick else None] if own else []
    asked += [(own, budget) for budget in budgets]
    costs = _costs(session, own, network, cores) if len(budgets) > 1 else {}  # its products' kernels are chosen then
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
        notes = {
            f"{BASE} {variant}": f"{samples[0] / 1e6:.1f} MB; {costs[variant]}"
            for name, variant, samples, _ in rows if name == BASE and samples and variant in costs
        }  # fmt: skip
        yield session.row("memory", f"{title}, {kind}", cores, rows, "bytes") | {"plans": plans, "notes": notes}


def _costs(session: Session, own, network, cores: int) -> dict[str, str]:
    """variant of tinynet -> how long a training step takes within its budget, beside one without."""
    request = {"op": "training", "network": str(network)}
    runners = [
        Runner(variant, session.process(own, variant, cores), request, _follows(network))
        for variant in ("", *workloads.BUDGETS)
    ]
    try:
        interleave(runners, Pace(1.0, 15, 60), together=False)
    finally:
        for runner in runners:
            runner.process.close()
    found = {}
    for runner in runners[1:]:
        shared = [seconds / runners[0].samples[i] for i, seconds in runner.samples.items() if i in runners[0].samples]
        share = f"within {workloads.BUDGETS[runner.name]:.2f} of the planned workspace"
        took = f"takes {statistics.median(shared):.2f} of the time" if shared else f"is {runner.state}"
        found[runner.name] = f"{share} a step {took}"
    return found


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
    """The product that programs run beside the own kernel and NumPy's BLAS: a row for each number of cores, which is
    the geometric mean over the table in ``bench.products`` and holds the products themselves."""
    session.close()
    found: dict[int, list[dict]] = {cores: [] for cores in session.cores}
    entry = next((each for each in session.entries if each.name == BASE), None)
    state = None if entry else f"no part: {BASE} is not among the peers"
    processes = {cores: session.process(entry, "", cores) for cores in session.cores} if entry else {}
    try:
        for cores, process in processes.items():
            session.introduce(entry, cores, process)
        if processes:
            found |= _products(session, processes)
    except PeerUnsupported as error:
        state = f"no part: {error}"
    except PeerError as error:  # of the introduction: a product that fails is a line of the table
        state = f"failed: {error}"
    finally:
        for process in processes.values():
            process.close()
    for cores in session.cores:
        yield _products_row(cores, found[cores], state)
        session.log("matmul", f"cores {cores}", state or products.summary(found[cores]))


def _products(session: Session, processes: dict[int, Process]) -> dict[int, list[dict]]:
    """cores -> the products. The whole table is passed through several times, lest one disturbance meets all attempts
    on a product; then once more what is doubtful, until that takes too long. The numbers of cores have their turns
    close together, since their times are compared."""
    least, most, seconds, limit = (1, 2, 0.05, 15) if session.quick else (2, 5, 0.2, 360)
    shapes = products.short_table() if session.quick else products.table()
    tries: dict[products.Shape, dict[int, list]] = {shape: {cores: [] for cores in processes} for shape in shapes}
    failed: dict[products.Shape, dict[int, str]] = {shape: {} for shape in shapes}
    made: dict[products.Shape, dict[int, dict]] = {}
    begun = time.monotonic()
    for i in range(most):
        for shape in shapes:
            late = time.monotonic() - begun > limit
            if i >= least and (late or not any(map(products.is_doubtful, made[shape].values()))):
                continue
            for cores in processes.keys() - failed[shape].keys():
                try:
                    watch = Watch(processes[cores])
                    answer = processes[cores].ask("matmul", shape=list(shape), seconds=seconds)
                    tries[shape][cores].append(answer | {"disturbed": watch.disturbed() > DISTURBED})
                    processes[cores].quiet()
                except PeerUnsupported:
                    raise
                except PeerError as error:
                    failed[shape][cores] = f"failed: {error}"
            made[shape] = products.described(shape, tries[shape], failed[shape])
            for each in made[shape].values():
                session.log("matmul", products.line(each))
    return {cores: [made[shape][cores] for shape in shapes] for cores in processes}


def _products_row(cores: int, found: list[dict], state: str | None) -> dict:
    there = [each for each in found if "seconds" in each]
    row = {"section": "matmul", "workload": f"{len(there)} products", "cores": cores, "unit": "s", "cells": {}}
    if not there:
        return row | {"cells": {BASE: {"state": state or "failed: no product could be measured"}}, "products": found}
    row["workload"] += f" ({there[0]['name']} to {max(there, key=lambda each: each['flops'])['name']}), geometric mean"
    ratios = [each["seconds"][products.BLAS] / each["seconds"][products.DISPATCHED] for each in there]
    for name, version in ((BASE, products.DISPATCHED), ("numpy", products.BLAS)):
        row["cells"][name] = {
            "variant": "", "median": geometric_mean(each["seconds"][version] for each in there),
            "share": geometric_mean(each["share"][version] for each in there),
        }  # fmt: skip
    row["cells"]["numpy"]["ratio"] = quartiles(ratios) | {"median": geometric_mean(ratios)}
    return row | {"products": found}


def run_mnist(session: Session):
    """MNIST to 98 % of the test images (95 % in a quick run), from the same first weights, in the same batches.

    Before that, but for a quick run, each peer is checked over the first losses of the same network, in a process of
    its own: which also fills what is compiled once per machine and kept."""
    session.close()
    target = 0.95 if session.quick else 0.98
    workload = f"{mnist.NETWORK} to {target:.0%}"
    if session.data is None:
        skipped = "skipped: the four files of MNIST are not here; --mnist FOLDER says where"
        session.log("mnist:", skipped)
        yield {"section": "mnist", "workload": f"{workload} ({skipped})", "cores": 0, "unit": "s", "cells": {}}
        return
    how = {"path": session.data, "target": target, "epochs": 30, "limit": 60 if session.quick else 300}
    check = _follows(mnist.NETWORK)
    for cores in session.cores[-1:] if session.quick else session.cores:
        asked = list(session.variants("mnist"))
        samples, states, notes, disturbed = [{} for _ in asked], [None for _ in asked], {}, [0 for _ in asked]
        for i in range(0 if session.quick else -1, 1 if session.quick else 3):  # -1 is the check
            for at, (entry, variant) in enumerate(asked):
                if states[at]:
                    continue
                process = session.process(entry, variant, cores)
                try:
                    session.introduce(entry, cores, process)
                    if i < 0:
                        wrong = check(process.ask("training", network=str(mnist.NETWORK)))
                        states[at] = wrong and f"wrong: {wrong}"
                        continue
                    for _ in range(1 if session.quick else 2):
                        watch = Watch(process)
                        answer = process.ask("mnist", **how)
                        if watch.disturbed() <= DISTURBED:
                            break
                    else:
                        disturbed[at] += 1
                    samples[at][i] = answer["seconds"]
                    notes[entry.name, variant], states[at] = mnist.told(answer)
                    session.log("mnist", f"cores {cores}", entry.name, variant, notes[entry.name, variant])
                except PeerUnsupported as error:
                    states[at] = f"no part: {error}"
                except PeerError as error:
                    states[at] = f"failed: {error}"
                finally:
                    process.close()
        found = [(e.name, v, samples[at], states[at], disturbed[at]) for at, (e, v) in enumerate(asked)]
        row = session.row("mnist", workload, cores, found)
        better = [(name, cell["variant"]) for name, cell in row["cells"].items() if "variant" in cell]
        yield row | {"notes": {name: notes[name, variant] for name, variant in better}}


SECTIONS = {
    "training": training, "inference": inference, "matmul": matmul, "bandwidth": bandwidth, "memory": memory,
    "startup": startup, "mnist": run_mnist,
}  # fmt: skip
