"""The benchmark: its workloads and checks, its processes, its report. No time decides anything here."""

import json
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import tinynet as tn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # bench is run from the checkout and is not installed

from bench import __main__ as command  # noqa: E402
from bench import environment, mnist, peers, report, timing, workloads  # noqa: E402
from bench.peers import numpy_by_hand, tinynet_program  # noqa: E402
from bench.processes import PeerError, PeerUnsupported, Process  # noqa: E402
from bench.sections import SECTIONS, Session  # noqa: E402


def small(network):
    """The same depth and loss, narrow."""
    sizes = tuple(min(size, 17) for size in network.sizes)
    return workloads.Network(sizes, min(network.batch, 19), network.loss)


PEERS = {"numpy": lambda: numpy_by_hand.Peer(1), "tinynet": lambda: tinynet_program.Peer(1, executor="numpy")}


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("network", workloads.NETWORKS, ids=str)
def test_a_peer_follows_the_losses_of_the_reference(network, name):
    network, peer = small(network), PEERS[name]()
    ring = workloads.batches(network)
    step = peer.training(peer.model(network, workloads.weights(network)))
    losses = [peer.value(step(peer.batch(*ring[i]))) for i in range(workloads.CHECKED_STEPS)]
    expected = workloads.reference_losses(network)
    assert max(expected) - min(expected) > 10 * workloads.TOLERANCE * max(expected)  # a step changes something
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


@pytest.mark.parametrize("name", PEERS)
def test_inference_gives_the_outputs_of_the_reference(name):
    network, peer = small(workloads.NETWORKS[3]), PEERS[name]()
    weights = workloads.weights(network)
    forward = peer.inference(peer.model(network, weights), 5)
    for seed in range(3):
        x = workloads.inputs(network, 5, seed)
        assert workloads.relative_error(forward(x), workloads.reference_outputs(weights, x)[-1]) < 1e-5


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("kind", ["chain", "adam"])
def test_elementwise_work_gives_what_the_reference_gives(name, kind):
    peer = PEERS[name]()
    call, result = peer.elementwise(kind, workloads.elementwise_arrays(kind, 70_001))
    call()
    assert workloads.relative_error(result(), workloads.elementwise_expected(kind, 70_001)) < 1e-5


def test_a_trained_model_is_what_inference_sees():
    network = workloads.Network((6, 5, 3), 8)
    for make in PEERS.values():
        peer = make()
        model = peer.model(network, workloads.weights(network))
        x = workloads.inputs(network, 4)
        before = np.array(peer.inference(model, 4)(x))
        peer.value(peer.training(model)(peer.batch(*workloads.batches(network, 1)[0])))
        assert not np.array_equal(before, peer.inference(model, 4)(x))


def test_a_difference_that_is_not_finite_or_of_another_shape_is_infinite():
    assert workloads.relative_error([1.0, np.nan], [1.0, 1.0]) == float("inf")
    assert workloads.relative_error([[1.0]], [1.0]) == float("inf")
    assert workloads.relative_error([1.0, 2.002], [1.0, 2.0]) == pytest.approx(1e-3)


def test_the_environment_of_a_peer_is_cleaned():
    before = {
        "PATH": "/bin", "OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_L2_SIZE": "1", "OMP_PROC_BIND": "true",
        "MKL_DEBUG_CPU_TYPE": "5", "XLA_FLAGS": "--x", "OPENBLAS_NUM_THREADS": "7", "NUMBA_CACHE_DIR": "/cache",
    }  # fmt: skip
    after = environment.clean(before, 2, {"MORE": "1"})
    assert {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OMP_PROC_BIND", "MKL_DEBUG_CPU_TYPE", "XLA_FLAGS"}.isdisjoint(
        after
    )
    assert (after["PATH"], after["NUMBA_CACHE_DIR"], after["MORE"]) == ("/bin", "/cache", "1")
    assert {after[name] for name in environment.THREADS} == {"2"}
    assert before["OPENBLAS_CORETYPE"] == "Haswell"


def test_the_machine_is_described_in_what_json_can_hold():
    machine = json.loads(json.dumps(environment.machine()))
    assert machine["processor"] and machine["cores"] >= 1
    assert environment.last_level_cache() > 0


@pytest.fixture
def process():
    made = []

    def start(name, variant=""):
        made.append(Process(peers.BY_NAME[name], variant, 1, sys.executable, "numpy"))
        return made[-1]

    yield start
    for each in made:
        each.close()


needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cannot hold a process on cores")


@pytest.mark.parametrize("name", PEERS)
def test_a_process_prepares_checks_and_times(name, process, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    peer = process(name)
    assert peer.ask("hello")["version"]
    network = workloads.NETWORKS[1]
    losses = peer.ask("training", network=str(network))["losses"]
    np.testing.assert_allclose(losses, workloads.reference_losses(network), rtol=1e-4)
    answer = peer.ask("round", seconds=0.01)
    assert answer["seconds"] > 0 and answer["count"] >= 1
    assert peer.ask("inference", network=str(network), batch=3)["error"] < 1e-5
    assert peer.ask("drop") == {}


@needs_affinity
def test_a_process_is_held_on_its_cores(process):
    assert process("numpy").ask("hello")["affinity"] == environment.cores(1)


def test_an_error_of_a_peer_is_told_and_the_process_goes_on(process):
    peer = process("numpy")
    with pytest.raises(PeerError, match="KeyError"):
        peer.ask("training", network="none such")
    assert peer.ask("hello")["version"]


def test_a_process_that_dies_is_an_error_with_its_last_words_and_is_started_anew(process):
    peer = process("numpy")
    peer.ask("hello")
    peer.process.kill()
    peer.process.wait()
    assert peer.ask("hello")["version"]
    peer.send("round", seconds=0.0)  # before anything is prepared
    with pytest.raises(PeerError):
        peer.receive(60)


class Scripted:
    """Stands for a process: answers from a list."""

    variant, cores = "", 1

    def __init__(self, prepared, seconds):
        self.prepared, self.seconds, self.process, self.asked = prepared, seconds, self, []

    def send(self, op, **request):
        self.asked.append(op)

    def receive(self, timeout):
        if isinstance(self.prepared, Exception):
            raise self.prepared
        return self.prepared

    def ask(self, op, timeout, **request):
        self.asked.append(op)
        return {"seconds": self.seconds, "count": 1}

    def quiet(self):
        pass

    def scheduled(self):
        return None


def test_who_is_wrong_or_fails_is_not_timed_and_is_told():
    check = lambda answer: None if answer["error"] < 1 else "outputs differ"
    right, wrong, failed, absent = (
        Scripted({"error": 0}, 1.0), Scripted({"error": 2}, 1.0), Scripted(PeerError("no memory"), 1.0),
        Scripted(PeerUnsupported("only inference"), 1.0),
    )  # fmt: skip
    runners = [timing.Runner(str(i), p, {"op": "x"}, check) for i, p in enumerate((right, wrong, failed, absent))]
    timing.interleave(runners, timing.Pace(0.1, 3, 10))
    assert [r.state for r in runners] == [None, "wrong: outputs differ", "failed: no memory", "no part: only inference"]
    assert runners[0].samples == {0: 1.0, 1: 1.0, 2: 1.0} and not any(r.samples for r in runners[1:])
    assert "round" not in wrong.asked + failed.asked + absent.asked


def test_the_better_variant_counts_and_ratios_are_of_one_round():
    found = [
        ("tinynet", "", {0: 1.0, 1: 2.0, 2: 4.0}, None),
        ("jax", "async dispatch", {0: 30.0, 1: 60.0, 2: 120.0}, None),
        ("jax", "sync dispatch", {0: 3.0, 1: 6.0}, None),
        ("torch", "", {}, "wrong: losses differ by 1.0e+00"),
    ]
    cells = timing.cells(found)
    assert cells["jax"]["variant"] == "sync dispatch" and cells["jax"]["ratio"]["median"] == 3.0
    assert cells["tinynet"]["ratio"]["median"] == 1.0 and cells["torch"] == {"state": found[3][3]}
    assert timing.geometric_mean([2.0, 8.0]) == pytest.approx(4.0) and timing.geometric_mean([]) is None


def fixed_result():
    rows = [
        {"section": "training", "workload": "64-32-10, batch 32", "cores": 1, "unit": "s", "cells": timing.cells([
            ("tinynet", "", {0: 10e-6, 1: 12e-6, 2: 11e-6}, None), ("numpy", "", {0: 50e-6, 1: 60e-6, 2: 55e-6}, None),
            ("jax", "sync dispatch", {0: 20e-6, 1: 24e-6, 2: 22e-6}, None), ("sklearn", "", {}, "wrong: losses differ"),
        ])},
        {"section": "training", "workload": "784-128-10, batch 64", "cores": 1, "unit": "s", "cells": timing.cells([
            ("tinynet", "", {0: 1e-3}, None), ("numpy", "", {0: 5e-3}, None),
            ("jax", "async dispatch", {0: 8e-3}, None),
        ])},
        {"section": "memory", "workload": "784-128-10, first steps", "cores": 1, "unit": "bytes",
         "plans": {"tinynet workspace": 2_000_000}, "cells": timing.cells([("tinynet", "", {0: 2e6}, None)])},
    ]  # fmt: skip
    about = {entry.name: {"version": "1.2"} for entry in peers.PEERS}
    about["torch"] = {"missing": "torch"}
    machine = {"processor": "P", "cores": 2, "caches": {"L1d": 49152, "L3": 2**25}, "governor": None, "system": "S",
               "load_before": 0.1}  # fmt: skip
    return {"name": "fixed", "command": "python -m bench", "date": "2026-01-01", "machine": machine, "peers": about,
            "rows": rows}  # fmt: skip


def test_the_report_is_one_table_with_ratios_means_and_the_missing():
    text = report.markdown(fixed_result())
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 3 + 1 and len({line.count("|") for line in lines}) == 1
    assert "| training | 64-32-10, batch 32 | 1 | 11.0 µs ±5% | 55.0 µs ±5% (5.00x) |" in text
    assert lines[2].endswith("| **2.00x** |") and "| wrong |" in lines[2]
    mean = lines[4]
    assert "*geometric mean*" in mean and "5.00x of 2" in mean and "4.00x of 2" in mean and "**3.16x**" in mean
    assert "PyTorch eager (missing)" in lines[0]
    assert "**PyTorch eager is missing**: this interpreter lacks torch." in text
    assert "sklearn: wrong: losses differ (training 64-32-10, batch 32, cores 1)" in text
    assert "sync dispatch 1 times, async dispatch 1 times" in text
    assert "tinynet workspace 2.00 MB" in text and "L1d 48 KiB, L3 32 MiB" in text


def test_one_core_is_no_plural_and_the_load_has_one_decimal():
    machine = fixed_result()["machine"]
    assert ", 2 cores, " in report.machine_line(machine) and "load before 0.1" in report.machine_line(machine)
    line = report.machine_line(machine | {"cores": 1, "load_before": 2.73974609375})
    assert ", 1 core, " in line and line.endswith("load before 2.7")
    assert report.machine_line(machine | {"load_before": None}).endswith("load before unknown")


@pytest.mark.parametrize("chart", [True, False])
def test_the_last_line_names_the_files_that_were_written(chart, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr(command, "SECTIONS", {"none": lambda session: []})
    monkeypatch.setattr(command.processes, "missing", lambda *_: {})
    drawn = types.SimpleNamespace(draw=lambda result, path: Path(path).touch())
    monkeypatch.setitem(sys.modules, "bench.chart", drawn if chart else None)
    monkeypatch.delattr(sys.modules["bench"], "chart", raising=False)
    command.main(["--only", "none", "--name", "x", "--peers", "numpy"])
    said = capsys.readouterr().err.splitlines()[-1]
    found = {path.suffix for path in tmp_path.iterdir()}
    assert found == {".md", ".json"} | ({".svg"} if chart else set())
    assert all(suffix in said for suffix in found) and (".svg" in said) == chart


def test_a_chart_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    from bench import chart

    chart.draw(fixed_result(), str(tmp_path / "chart.svg"))
    text = (tmp_path / "chart.svg").read_text()
    assert "784-128-10, batch 64" in text and "jax.jit" in text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(1.5, "s", "1.50 s"), (0.123, "s", "123 ms"), (99.96e-6, "s", "100 µs"), (2e-8, "s", "20.0 ns"),
     (0, "s", "0.00 ns"), (61e6, "bytes", "61.0 MB")],
)  # fmt: skip
def test_quantities_have_three_digits(value, unit, text):
    assert report.quantity(value, unit) == text


def test_a_peer_that_is_not_installed_is_missing_by_name(monkeypatch):
    entry = peers.Entry(
        "x", "X", "x", ("numpy", "no_such_package", "no_such.package"), (), "", programs=("no-such-tool",)
    )
    assert entry.missing() == "no_such_package, no_such.package, no-such-tool"
    assert peers.BY_NAME["numpy"].missing() is None


def test_every_peer_says_where_it_takes_part_and_has_a_module():
    for entry in peers.PEERS:
        assert set(entry.sections) <= set(SECTIONS) and set(entry.slow) <= set(entry.sections)
        assert (ROOT / "bench" / "peers" / f"{entry.module}.py").exists()


def test_a_section_without_its_data_says_so():
    said = []
    session = Session(sys.executable, [1], True, entries=list(peers.PEERS), log=lambda *text: said.append(text))
    (row,) = SECTIONS["mnist"](session)
    assert "skipped: the four files of MNIST are not here" in row["workload"] and "--mnist" in said[0][1]
    assert "(skipped: the four files of MNIST are not here; --mnist FOLDER says where) | - |" in report.table([row], {})


def test_the_folder_of_mnist_has_all_four_files(tmp_path, capsys):
    names = ("train-images-idx3-ubyte.gz", "train-labels.idx1-ubyte", "t10k-images-idx3-ubyte")
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(SystemExit):
        command.parsed(["--mnist", str(tmp_path)])
    assert f"t10k-labels, got {tmp_path}" in capsys.readouterr().err
    (tmp_path / "t10k-labels-idx1-ubyte.gz").touch()
    assert command.mnist_folder(command.parsed(["--mnist", str(tmp_path)]).mnist) == str(tmp_path)


def test_mnist_ends_at_the_accuracy_that_was_asked_for(monkeypatch):
    network = workloads.Network((64, 32, 10), 32)
    monkeypatch.setattr(mnist, "NETWORK", network)
    monkeypatch.setattr(mnist, "CHUNK", 359)
    monkeypatch.setattr(tn.data, "mnist", lambda path: tn.data.digits())
    for make in PEERS.values():
        answer = mnist.run(make(), "", 0.8, 20, 60)
        assert (
            answer["reached"]
            and len(answer["accuracy"]) > 1
            and answer["accuracy"][-1] >= 0.8 > max([0, *answer["accuracy"][:-1]])
        )
        answer = mnist.run(make(), "", 0.999, 2, 60)
        assert not answer["reached"] and len(answer["accuracy"]) == 2


class Trained:
    """Stands for a process that runs MNIST: its first losses are off by a factor, then it answers as it is told to."""

    def __init__(self, factor, answer):
        self.factor, self.answer, self.cores, self.process, self.asked = factor, answer, 1, None, []

    def ask(self, op, timeout=600, **request):
        self.asked.append(op)
        if op == "mnist" and isinstance(self.answer, Exception):
            raise self.answer
        losses = [self.factor * loss for loss in workloads.reference_losses(mnist.NETWORK)]
        return {"hello": {"version": "1"}, "training": {"losses": losses}, "mnist": self.answer}[op]

    def scheduled(self):
        return None

    def close(self):
        pass


def test_mnist_tells_epochs_and_who_did_not_get_there_and_does_not_time_who_is_wrong(monkeypatch):
    answer = {"seconds": 6.0, "accuracy": [0.95, 0.97, 0.981], "reached": True}
    monkeypatch.setattr(mnist, "NETWORK", workloads.NETWORKS[1])
    made = {
        "tinynet": Trained(1.0, answer), "numpy": Trained(1.01, answer),
        "torch": Trained(1.0, {"seconds": 300.0, "accuracy": [0.9], "reached": False}),
        "jax": Trained(1.0, PeerError("no memory")),
    }  # fmt: skip
    monkeypatch.setattr(Session, "process", lambda self, entry, variant, cores: made[entry.name])
    entries = [entry for entry in peers.PEERS if entry.name in made]
    session = Session(sys.executable, [1], entries=entries, data="here", log=lambda *text: None)
    (row,) = SECTIONS["mnist"](session)
    assert row["cells"]["tinynet"]["samples"] == [6.0] * 3 and made["tinynet"].asked.count("training") == 1
    assert row["notes"] == {"tinynet": "3 epochs of 2.00 s, 98.10%"}
    assert row["cells"]["numpy"]["state"].startswith("wrong: losses differ") and "mnist" not in made["numpy"].asked
    assert row["cells"]["torch"] == {"state": "not reached: 1 epoch of 300.00 s, 90.00%"}
    assert row["cells"]["jax"] == {"state": "failed: no memory"}


def test_a_quick_run_names_the_sections_it_has_no_time_left_for(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr(command, "QUICK", -1.0)
    monkeypatch.setattr(command.processes, "missing", lambda *_: {})
    monkeypatch.setitem(sys.modules, "bench.chart", None)
    monkeypatch.delattr(sys.modules["bench"], "chart", raising=False)
    command.main(["--quick", "--only", "training,mnist", "--peers", "numpy"])
    rows = json.loads((tmp_path / "quick.json").read_text())["rows"]
    assert [row["section"] for row in rows] == ["training", "mnist"]
    assert all("skipped: no time was left" in row["workload"] for row in rows)
    assert "| mnist | (skipped: no time was left" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["--only", "training,none"], ["--peers", "caffe"], ["--cores", "one"], ["--cores", "0"]]
)
def test_a_mistake_on_the_command_line_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        command.parsed(words)
    assert "expected" in capsys.readouterr().err


def test_the_command_writes_its_three_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr("bench.workloads.NETWORKS", workloads.NETWORKS[:3])
    command.main(["--quick", "--only", "training", "--peers", "tinynet,numpy", "--cores", "1", "--executor", "numpy"])
    result = json.loads((tmp_path / "quick.json").read_text())
    assert [row["workload"] for row in result["rows"]] == ["64-32-10, batch 32", "784-128-10, batch 64"]
    assert all("ratio" in row["cells"]["numpy"] for row in result["rows"])
    assert result["peers"]["jax"] == {"left out": True} and "version" in result["peers"]["numpy"]
    assert "left out" in (tmp_path / "quick.md").read_text() and "| training |" in capsys.readouterr().out
