"""tinynet beside its peers: ``python -m bench [--quick] [--only training,...] [--cores 1,2] [--python PATH]``.

Writes bench/results/NAME.md (one table, and what is behind its rows of the matrix product), NAME.svg (one chart) and
NAME.json (every number, the machine, versions). The parent imports no peer: each runs in a process of its own, in a
clean environment, on the same cores. ``python -m bench gpu`` is the command for a machine with an NVIDIA GPU: see
``bench.gpu``.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import pathlib
import shlex
import sys
import time

from . import environment, peers, processes, report
from .sections import SECTIONS, Session

RESULTS = pathlib.Path(__file__).parent / "results"
MNIST = ("train-images", "train-labels", "t10k-images", "t10k-labels")  # how the four files begin
QUICK = 90.0  # seconds, after which a quick run begins no further section


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    names = ", ".join(SECTIONS)
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a bit of everything, within two minutes")
    parser.add_argument("--only", default=",".join(SECTIONS), metavar="SECTIONS", help=f"some of {names}")
    parser.add_argument("--peers", default=",".join(peers.BY_NAME), help=f"some of {', '.join(peers.BY_NAME)}")
    parser.add_argument("--cores", default="1,2", help="numbers of cores, as 1,2")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has the peers")
    parser.add_argument("--executor", help="tinynet's, instead of the one it chooses")
    parser.add_argument("--mnist", "--data", metavar="FOLDER", help="where MNIST's four files are, plain or .gz")
    parser.add_argument("--name", help="of the files that are written")
    arguments = parser.parse_args(words)
    for option, known in (("only", SECTIONS), ("peers", peers.BY_NAME)):
        chosen = [each.strip() for each in getattr(arguments, option).split(",") if each.strip()]
        if unknown := [each for each in chosen if each not in known]:
            parser.error(f"--{option}: expected some of {', '.join(known)}, got {', '.join(unknown)}")
        setattr(arguments, option, chosen)
    try:
        arguments.cores = sorted({int(each) for each in arguments.cores.split(",")})
    except ValueError:
        parser.error(f"--cores: expected numbers with commas between them, got {arguments.cores!r}")
    if arguments.cores[0] < 1:
        parser.error("--cores: expected at least 1")
    if arguments.mnist and mnist_folder(arguments.mnist) is None:
        parser.error(f"--mnist: expected a folder with the IDX files {', '.join(MNIST)}, got {arguments.mnist}")
    return arguments


def mnist_folder(given: str | None) -> str | None:
    """The folder given, or where a checkout has its data beside it, if the files are there."""
    for folder in (
        [given] if given else [processes.ROOT / "data" / "mnist", processes.ROOT.parent / "shared/data/mnist"]
    ):
        if all(any(pathlib.Path(folder).glob(f"{name}[-.]idx*-ubyte*")) for name in MNIST):
            return str(pathlib.Path(folder).resolve())
    return None


def main(words: list[str] | None = None) -> None:
    words = sys.argv[1:] if words is None else words
    if words[:1] == ["gpu"]:
        from .gpu.__main__ import main as on_gpu

        sys.exit(on_gpu(words[1:]))
    arguments = parsed(words)
    begun, machine = time.monotonic(), environment.machine()
    log = functools.partial(print, file=sys.stderr, flush=True)
    cores = [each for each in arguments.cores if each <= environment.available()]
    for each in set(arguments.cores) - set(cores):
        log(f"cores {each}: skipped, this process may use {environment.available()}")
    if not cores:
        sys.exit("no number of cores is left to measure")
    lacking = processes.missing(peers.PEERS, arguments.python)
    about: dict[str, dict] = {}
    for entry in peers.PEERS:
        if entry.name not in arguments.peers:
            about[entry.name] = {"left out": True}
        elif entry.name in lacking:
            about[entry.name] = {"missing": lacking[entry.name]}
            log(f"{entry.title} is missing: {lacking[entry.name]}")
    session = Session(
        arguments.python, cores, arguments.quick, arguments.executor,
        [entry for entry in peers.PEERS if entry.name not in about], mnist_folder(arguments.mnist),
        lambda *text: log(f"{time.monotonic() - begun:6.0f} s", *text),
    )  # fmt: skip
    name = arguments.name or ("quick" if arguments.quick else "full")
    result = {
        "name": name,
        "command": shlex.join(["python", "-m", "bench", *words]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine, "quick": arguments.quick, "peers": about, "rows": [],
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    try:
        for section in (each for each in SECTIONS if each in arguments.only):
            late = arguments.quick and time.monotonic() - begun > QUICK
            if late:
                session.log(f"{section}: skipped, no time was left")
            for row in [skipped(section)] if late else SECTIONS[section](session):
                result["rows"].append(row)
                write(result, session, name)  # so that a run that is cut short leaves what it has
    finally:
        session.close()
    result["seconds"] = time.monotonic() - begun
    write(result, session, name)
    written = ".md, .json"
    try:
        from . import chart

        chart.draw(result, str(RESULTS / f"{name}.svg"))
        written += ", .svg"
    except ImportError as error:
        log(f"no chart: {error}")
    print(report.markdown(result))
    log(f"{result['seconds']:.0f} s; {RESULTS}/{name}{written}")


def skipped(section: str) -> dict:
    """The row of a section for which a quick run has no time left, which happens where much had to be compiled."""
    workload = "(skipped: no time was left; what was compiled in this run is kept for the next one)"
    return {"section": section, "workload": workload, "cores": 0, "unit": "s", "cells": {}}


def write(result: dict, session: Session, name: str) -> None:
    for entry in session.entries:
        said = session.about.get(entry.name, {})
        version = next((each["version"] for each in said.values()), None)
        result["peers"][entry.name] = {"version": version, "settings": entry.settings, "processes": said}
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    (RESULTS / f"{name}.md").write_text(report.markdown(result))


if __name__ == "__main__":
    main()
