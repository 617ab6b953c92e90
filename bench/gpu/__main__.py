"""tinynet on an NVIDIA GPU: ``python -m bench gpu [--check] [--only bandwidth,...] [--name NAME]``.

With --check, every kernel and every promise of the executor is held against float64 references and eager mode before
anything is measured; a run takes 8 minutes at most. Writes bench/results/gpu-NAME.md (one table) and .json (every
number, device, driver, versions). Needs CuPy; PyTorch and JAX are measured where they are installed. Exit status: 0, 1
where a check failed, 2 without a GPU.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import functools
import json
import pathlib
import shlex
import sys
from collections.abc import Iterator

import tinynet as tn

from .. import environment
from ..processes import PeerError
from ..timing import cells
from . import bandwidth, products, training
from .checks import LEAST, Line, run_group
from .pacing import Deadline, shares
from .peers import PEERS
from .table import Target, markdown, row
from .worker import DEVICE, Process

RESULTS = pathlib.Path(__file__).parents[1] / "results"
SECONDS = 450.0  # of the 8 minutes: the last answer that is waited for may come a little late
CHECK_PROCESSES = 6  # at most, that share the checks of kernels: most of their time goes into compiling
WEIGHTS = {"check": 0.4, "bandwidth": 0.08, "products": 0.1, "training": 0.42}
LEAST_SHARE = 0.85  # of the copy bandwidth, or of the ceiling
MEASURED = tuple(name for name in WEIGHTS if name != "check")


def parsed(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="check all kernels and the executor first")
    parser.add_argument("--only", default=",".join(MEASURED), help=f"some of {', '.join(MEASURED)}; empty for none")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long it may take")
    parser.add_argument("--name", help="of the files that are written; the device's if left out")
    arguments = parser.parse_args(words)
    chosen = [each.strip() for each in arguments.only.split(",") if each.strip()]
    if unknown := [each for each in chosen if each not in MEASURED]:
        parser.error(f"--only: expected some of {', '.join(MEASURED)}, got {', '.join(unknown)}")
    arguments.only = chosen
    return arguments


def main(words: list[str] | None = None) -> int:
    """Runs the command; gives its exit status."""
    words = sys.argv[1:] if words is None else words
    arguments = parsed(words)
    try:
        tn.get_backend("cupy")
    except (tn.errors.BackendError, tn.errors.MissingExtraError) as error:
        print(f"python -m bench gpu: {error}", file=sys.stderr)
        return 2
    deadline = Deadline(arguments.seconds)
    log = functools.partial(print, file=sys.stderr, flush=True)
    try:
        about = greeted()
    except PeerError as error:
        print(f"python -m bench gpu: expected a GPU that answers, got a process that {error}", file=sys.stderr)
        return 2
    name = "gpu-" + (arguments.name or "".join(c if c.isalnum() else "-" for c in about["name"].lower()))
    result = {
        "name": name, "command": shlex.join(["python", "-m", "bench", "gpu", *words]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": environment.machine(), "device": about, "missing": missing(), "checks": [], "rows": [],
    }  # fmt: skip
    asked = (*["check"] * arguments.check, *arguments.only)
    weights = {section: weight for section, weight in WEIGHTS.items() if section in asked}
    RESULTS.mkdir(exist_ok=True)
    for section, share in shares(weights).items():
        log(f"{section}: {deadline.left():.0f} s left, of which this may take {deadline.left() * share:.0f}")
        for kind, entry in SECTIONS[section](result, deadline.part(share)):
            result[kind].append(entry)
            said = entry["name"] if kind == "checks" else f"{entry['section']} {entry['workload']}"
            if kind == "rows" or not entry["passed"]:
                log(f"{arguments.seconds - deadline.left():6.0f} s {said} {entry.get('reason', '')}")
            write(result)  # so that a run that is cut short leaves what it has
    result["seconds"] = arguments.seconds - deadline.left()
    write(result)
    print(markdown(result))
    log(f"{result['seconds']:.0f} s; {RESULTS}/{name}.md, .json")
    return int(not all(line["passed"] for line in result["checks"]))


def greeted() -> dict:
    """What a worker says of the device."""
    worker = Process(DEVICE)
    try:
        return worker.ask("hello", 60)
    finally:
        worker.close()


def missing() -> dict[str, str]:
    """Peer -> what this interpreter lacks to run it."""
    lacking = {entry.name: entry.missing() for entry in PEERS}
    return {name: f"this interpreter lacks {what}" for name, what in lacking.items() if what}


def write(result: dict) -> None:
    path = RESULTS / result["name"]
    path.with_suffix(".json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    path.with_suffix(".md").write_text(markdown(result))


# ---- sections: each gives pairs of where in the result something belongs, and it ----


def check(result: dict, deadline: Deadline) -> Iterator[tuple[str, dict]]:
    """All groups at the same time, the checks of kernels in several processes."""
    worker, names = Process(DEVICE), {}
    try:
        for group in ("executor", "kernels"):
            names[group] = worker.ask("names", deadline.left(), group=group)["names"]
    except PeerError as error:
        yield "checks", {"group": "all", **Line("names of checks", False, reason=str(error))._asdict(), "figures": {}}
        return
    finally:
        worker.close()
    count = max(1, min(CHECK_PROCESSES, environment.available() // 2))
    groups = [("executor", names["executor"]), *(("kernels", names["kernels"][i::count]) for i in range(count))]
    with concurrent.futures.ThreadPoolExecutor(len(groups)) as pool:
        start = functools.partial(Process, DEVICE)
        running = {pool.submit(lambda each=each: list(run_group(each, start, deadline))): g for g, each in groups}
        for done in concurrent.futures.as_completed(running):
            for line in done.result():
                yield "checks", {"group": running[done], **line._asdict(), "figures": dict(line.figures)}


def _asked(operation: str, requests: dict[str, dict], deadline: Deadline) -> Iterator[tuple[str, dict]]:
    """Workload -> the answer of a worker, or {"state": why there is none}."""
    worker = Process(DEVICE)
    try:
        for title, request in requests.items():
            if deadline.left() < LEAST:
                yield title, {"state": "left out: the time was used up"}
                continue
            try:
                yield title, worker.ask(operation, deadline.left(), **request)
            except PeerError as error:
                worker.close(now=True)
                yield title, {"state": f"failed: {error}"}
    finally:
        worker.close()


def _measured(answer: dict, most: float) -> dict:
    """The cells of an answer; the kernel's says so where it is wrong, and then nothing has a ratio."""
    if "state" in answer:
        return {"tinynet": {"state": answer["state"]}}
    wrong = f"wrong: error {answer['error']:.1e}, expected at most {most:.0e}" if not answer["error"] <= most else None
    return cells((name, "", dict(enumerate(each)), wrong if name == "tinynet" else None)
                 for name, each in answer["samples"].items())  # fmt: skip


def measure_bandwidth(result: dict, deadline: Deadline) -> Iterator[tuple[str, dict]]:
    for kind, answer in _asked("bandwidth", {kind: {"kind": kind} for kind in bandwidth.KINDS}, deadline):
        targets = (Target(bandwidth.COPY, LEAST_SHARE),) if kind in bandwidth.HELD_TO else ()
        work = (answer["bytes"], "B") if "bytes" in answer else None
        yield "rows", row("bandwidth", kind, "s", _measured(answer, 1.0), work, targets)


def measure_products(result: dict, deadline: Deadline) -> Iterator[tuple[str, dict]]:
    for title, answer in _asked("product", {name: {"shape": name} for name in products.BY_NAME}, deadline):
        shape = products.BY_NAME[title]
        targets = (Target(products.CEILING, LEAST_SHARE),) if shape in products.LARGE else ()
        found = _measured(answer, answer.get("stated", 0.0))
        yield "rows", row("products", title, "s", found, (shape.flops, "flop"), targets, answer.get("by", ""))


def measure_training(result: dict, deadline: Deadline) -> Iterator[tuple[str, dict]]:
    for made in training.rows(Process, result["missing"], deadline):
        yield "rows", made


SECTIONS = {
    "check": check, "bandwidth": measure_bandwidth, "products": measure_products, "training": measure_training,
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
