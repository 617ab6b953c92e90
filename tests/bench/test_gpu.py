"""The benchmark on a GPU, as far as it can be tried without one: deadline, workers, table, command. No time decides.

Its checks are tried in ``test_gpu_checks``.
"""

import functools
import importlib
import io
import json
import sys
import types

import numpy as np
import pytest
from gpu_runs import ROOT, Plain, Processor, Scripted, needs_harness

import tinynet as tn
from bench import __main__ as bench_command
from bench import environment, timing, workloads
from bench.gpu import __main__ as command
from bench.gpu import bandwidth, checks, executor, kernels, pacing, peers, products, table, training, worker
from bench.gpu.peers import tinynet_graph
from bench.report import quantity

# ---- time ----


def test_what_is_timed_is_on_the_stream_before_its_turn_comes(monkeypatch):
    made = []

    class Event:
        def __init__(self):
            self.at = None

        def record(self):
            self.at = len(made)

        def synchronize(self):
            made.append("waited")

    cuda = types.SimpleNamespace(Event=Event, get_elapsed_time=lambda start, end: 1e3 * (end.at - start.at))
    cupy = types.ModuleType("cupy")
    cupy.cuda = cuda
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert kernels.Gpu().seconds([(made.append, ("a",)), (made.append, ("b",))]) == 2.0
    assert made == ["a", "b", "a", "b", "waited"]


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_sections_share_what_is_left():
    clock = Clock()
    deadline = pacing.Deadline(100, clock)
    shares = pacing.shares({"a": 1, "b": 1, "c": 2})
    part = deadline.part(shares["a"])
    assert part.left() == 25
    clock.now += 10  # sooner done than it might have been
    assert part.left() == 15 and deadline.part(shares["b"]).left() == 30
    clock.now += 30
    assert deadline.part(shares["c"]).left() == 60
    clock.now += 100
    assert deadline.left() == 0 and part.left() == 0


def test_what_does_not_fit_is_named():
    clock, started = Clock(), []
    deadline = pacing.Deadline(20, clock)

    class Slow(Scripted):
        def ask(self, op, timeout, name):
            clock.now += 8
            return super().ask(op, timeout, name)

    lines = list(checks.run_group("abcd", lambda: Slow({name: {} for name in "abcd"}, started), deadline))
    assert [line.passed for line in lines] == [True, True, False, False] and "left out" in lines[2].reason
    made = list(training.rows(lambda entry: pytest.fail("it was started"), {}, pacing.Deadline(1, clock)))
    assert len(made) == len(training.WORKLOADS)
    assert all("left out" in each["cells"]["tinynet"]["state"] for each in made)


# ---- measurements ----


@needs_harness
@pytest.mark.parametrize("kind", ["Adam update", "sum of columns"])
def test_bandwidth_is_of_right_kernels(kind):
    found = bandwidth.measure(Processor(), kind, 3 * bandwidth.ROW, rounds=2)
    assert found["error"] <= 1 and found["samples"]["tinynet"] == [1.0, 1.0]
    n = found["elements"]
    assert n == 3 * bandwidth.ROW
    moved = 28 * n + 4 + 8 if kind == "Adam update" else 4 * n + 4 * bandwidth.ROW
    assert found["bytes"] == moved and found["samples"][bandwidth.COPY] == pytest.approx([moved / (8 * n)] * 2)


@pytest.mark.parametrize("kind", bandwidth.KINDS)
def test_a_kernel_that_writes_nothing_is_not_right(kind):
    assert not bandwidth.measure(Plain(), kind, 2 * bandwidth.ROW, rounds=1)["error"] <= 1


def test_the_losses_of_the_large_network_are_those_of_the_reference(monkeypatch):
    network = workloads.Network((40, 33, 20, 10), 24)
    found = training.reference_losses(np, network, 4)
    np.testing.assert_allclose(found, workloads.reference_losses(network, 4), rtol=1e-12)
    assert training.check({"losses": found}, found, "float32") is None
    assert "2.0e-03" in training.check({"losses": [each * 1.002 for each in found]}, found, "float32")
    assert training.check({"losses": [float("nan")] * 4}, found, "bf16") == "losses differ by inf"


def test_tinynet_s_step_prepares_checks_and_runs(monkeypatch):
    """In this process, on NumPy, through what the worker is asked."""
    network = workloads.NETWORKS[1]
    made = worker.Worker("tinynet", "")
    backend = tn.get_backend()
    try:
        made.peer = tinynet_graph.Peer(1, executor="numpy", backend="numpy")
        monkeypatch.setattr(made.peer, "memory", lambda: 10**9)
        answer = made.training(str(network), "float32")
        assert training.check(answer, workloads.reference_losses(network), "float32") is None
        held = sum(x.nbytes + y.nbytes for x, y in workloads.batches(network))
        assert answer["memory"] == 10**9 - held and answer["planned"] > 0
        assert made.round(0.001)["count"] >= 1
        made.drop()
    finally:
        tn.use_backend(backend)


def test_workers_answer_line_by_line(capsys):
    class Fake:
        def ready(self):
            return {"x": 1}

        def training(self, network):
            raise KeyError(network)

    requests = [json.dumps({"op": "ready"}), json.dumps({"op": "training", "network": "n"})]
    worker.serve(Fake(), requests, sys.stdout)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"ok": {"x": 1}}, {"error": "KeyError: 'n'"},
    ]  # fmt: skip


def test_peers_are_processes_of_their_own_with_their_settings(monkeypatch):
    asked = []

    class Popen:
        stdin = stdout = None

        def __init__(self, command, **options):
            asked.append((command[1:], options["env"]))

    monkeypatch.setattr(worker.subprocess, "Popen", Popen)
    monkeypatch.setenv("XLA_FLAGS", "--x")
    for entry in (*peers.PEERS, worker.DEVICE):
        process = worker.Process(entry)
        process.start()
        process.log.close()
    words = [command for command, _ in asked]
    start = ["-m", "bench.gpu.worker"]
    assert words[0] == [*start, "tinynet", "--variant", ""]
    assert words[3] == [*start, "torch.compile graph", "--variant", "compiled graph"]
    assert words[-1] == [*start, "device", "--variant", ""]
    assert all("XLA_FLAGS" not in env for _, env in asked)
    jax = asked[4][1]
    assert jax["JAX_PLATFORMS"] == "cuda" and jax["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert environment.SET["JAX_PLATFORMS"] == "cpu"  # which the peer's own setting has to replace
    for entry in peers.PEERS:
        assert (ROOT / "bench" / "gpu" / "peers" / f"{entry.module}.py").exists()


# ---- table and command ----


def recorded():
    cells = timing.cells([
        ("tinynet", "", {0: 1e-3, 1: 1e-3, 2: 1e-3}, None), ("torch", "", {0: 4e-3, 1: 4e-3, 2: 4e-3}, None),
        ("torch graph", "", {0: 0.9e-3, 1: 0.9e-3, 2: 0.9e-3}, None), ("jax", "", {}, "failed: no memory"),
    ])  # fmt: skip
    targets = (*training.TARGETS["784-512-512-10"], table.Target("torch.compile graph", 1.0))
    rows = [
        table.row("training", "784-512-512-10", "s", cells, targets=targets),
        table.row("bandwidth", "Adam update", "s", timing.cells([
            ("tinynet", "", {0: 1e-3}, None), (bandwidth.COPY, "", {0: 0.9e-3}, None),
        ]), (3e9, "B"), (table.Target(bandwidth.COPY, 0.85),)),
    ]  # fmt: skip
    lines = [
        {"group": "kernels", **checks.Line("adam float32", True, 1.0)._asdict(), "figures": {}},
        {"group": "kernels", **checks.Line("softmax float32", False, 2.0, reason="error 1")._asdict(), "figures": {}},
    ]
    device = {"name": "GPU X", "capability": "9.0", "memory_bytes": 80 * 10**9, "driver": "13.0",
              "versions": {"cupy": "14.2", "jax": None}}  # fmt: skip
    return {"name": "gpu-x", "command": "python -m bench gpu --check", "date": "2026-01-01", "device": device,
            "missing": {"jax": "this interpreter lacks jax"}, "checks": lines, "rows": rows}  # fmt: skip


def test_the_page_is_one_table_with_rates_ratios_and_targets():
    text = table.markdown(json.loads(json.dumps(recorded())))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 2 and len({line.count("|") for line in lines}) == 1
    assert "torch at least 3.00x: 4.00x, met" in text and "torch graph at least 1.00x: 0.90x, MISSED" in text
    assert "torch.compile graph at least 1.00x: not measured" in text and quantity(4e-3, "s") in lines[2]
    assert "3 TB/s" in lines[3] and "device copy at least 0.85x: 0.90x, met" in lines[3]
    assert "1 of 2 checks passed" in text and "**kernels, softmax float32**: error 1" in text
    assert "jax is missing: this interpreter lacks jax." in text and "jax: failed: no memory" in text
    assert "GPU X, compute capability 9.0" in text


def test_a_kernel_that_is_wrong_is_not_compared():
    answer = {"error": 3.0, "samples": {"tinynet": [1.0], "device copy": [1.0]}, "bytes": 1}
    cells = command._measured(answer, 1.0)
    assert cells["tinynet"]["state"].startswith("wrong: error 3.0e+00") and "ratio" not in cells["device copy"]
    assert table.judge(cells, table.Target("device copy", 0.85))["met"] is None
    assert command._measured(answer | {"error": float("nan")}, 1.0)["tinynet"]["state"].startswith("wrong")
    assert command._measured(answer | {"error": 0.5}, 1.0)["device copy"]["ratio"]["median"] == 1.0
    assert command._measured({"state": "failed: x"}, 1.0) == {"tinynet": {"state": "failed: x"}}


def test_without_a_gpu_there_is_one_error(capsys, monkeypatch):
    error = tn.errors.BackendError("backend 'cupy'", expected="a GPU", got="0 devices", mend="run nvidia-smi")

    def get_backend(name):
        raise error

    monkeypatch.setattr(command.tn, "get_backend", get_backend)
    with pytest.raises(SystemExit) as status:
        bench_command.main(["gpu", "--check"])
    said = capsys.readouterr()
    assert status.value.code == 2 and not said.out
    assert said.err == "python -m bench gpu: backend 'cupy': expected a GPU, got 0 devices. Run nvidia-smi.\n"


class InThisProcess(worker.Process):
    """A worker without a process: what goes to and fro is JSON all the same."""

    def send(self, op, **request):
        self.peer = getattr(self, "peer", None) or worker.Worker(self.entry.name, self.variant)
        answers = io.StringIO()
        worker.serve(self.peer, [json.dumps({"op": op, **request})], answers)
        self.line = answers.getvalue()

    def result(self, timeout):
        assert timeout > 0
        return json.loads(self.line)


@needs_harness
def test_all_sections_together_with_numpy_s_arrays_for_the_device_s(tmp_path, monkeypatch, capsys):
    pool = types.SimpleNamespace(free_all_blocks=lambda: None, used_bytes=lambda: 10**9)
    cupy = types.ModuleType("cupy")
    cupy.__dict__.update({name: getattr(np, name) for name in np.__all__ if not name.startswith("_")})
    cupy.__dict__.update(get_default_memory_pool=lambda: pool, __spec__=None)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    importlib.import_module("tinynet.kernels.cuda.blas")
    monkeypatch.setattr("tinynet.kernels.cuda.blas.handle", lambda: None)
    monkeypatch.setattr(kernels, "Gpu", Processor)
    monkeypatch.setattr(kernels, "SIZES", (1, 7))
    every, held = kernels.checks, executor.checks(executor.Setting("numpy", "numpy"))
    names = ("gd float32", "gd float64", "none such")
    monkeypatch.setattr(kernels, "checks", lambda device: {name: every(device).get(name) for name in names})
    monkeypatch.setattr(executor, "checks", lambda: {name: held[name] for name in ("bad labels change nothing",)})
    shape = products.Shape("TN", 5, 7, 9, "float32")
    monkeypatch.setattr(products, "BY_NAME", {str(shape): shape})
    monkeypatch.setattr(products, "LARGE", (shape,))
    large, small = workloads.Network((40, 33, 20, 10), 24), workloads.NETWORKS[1]
    monkeypatch.setattr(training, "LARGE", large)
    monkeypatch.setattr(training, "WORKLOADS", ((large, "float32"), (small, "float32")))
    monkeypatch.setattr(training, "BY_NAME", {str(large): large, str(small): small})
    on_numpy = functools.partial(tinynet_graph.Peer, executor="numpy", backend="numpy")
    monkeypatch.setattr(tinynet_graph, "Peer", on_numpy)
    monkeypatch.setattr(command.tn, "get_backend", lambda name: None)
    monkeypatch.setattr(command, "greeted", lambda: recorded()["device"])
    monkeypatch.setattr(command, "missing", lambda: {entry.name: "not here" for entry in peers.PEERS[1:]})
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr(command, "Process", InThisProcess)
    backend = tn.get_backend("numpy")
    try:
        status = command.main(["--check", "--name", "x"])
    finally:
        tn.use_backend(backend)
    result = json.loads((tmp_path / "gpu-x.json").read_text())
    assert status == 1 and {line["name"]: line["passed"] for line in result["checks"]} == {
        "gd float32": True, "gd float64": True, "none such": False, "bad labels change nothing": True,
    }  # fmt: skip
    sections = [made["section"] for made in result["rows"]]
    assert sections == ["bandwidth"] * len(bandwidth.KINDS) + ["products"] + ["training", "device memory"] * 2
    assert all("median" in made["cells"]["tinynet"] for made in result["rows"]), table.states(result["rows"])
    assert all(made["targets"][0]["met"] is not None for made in result["rows"][: len(bandwidth.HELD_TO)])
    assert "ceiling at least 0.85x: not measured" in capsys.readouterr().out


@pytest.mark.parametrize(("has_failed", "status"), [(False, 0), (True, 1)])
def test_the_command_writes_page_and_numbers(has_failed, status, tmp_path, monkeypatch, capsys):
    made = recorded()
    lines = made["checks"] if has_failed else made["checks"][:1]
    monkeypatch.setattr(command.tn, "get_backend", lambda name: None)
    monkeypatch.setattr(command, "greeted", lambda: made["device"])
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    section = lambda kind, entries: lambda result, deadline: ((kind, each) for each in entries)
    sections = {"check": section("checks", lines), "training": section("rows", made["rows"])}
    monkeypatch.setattr(command, "SECTIONS", sections)
    assert command.main(["--check", "--only", "training"]) == status
    result = json.loads((tmp_path / "gpu-gpu-x.json").read_text())
    assert result["device"]["name"] == "GPU X" and len(result["rows"]) == 2 and len(result["checks"]) == len(lines)
    assert result["command"] == "python -m bench gpu --check --only training" and result["seconds"] >= 0
    assert (tmp_path / "gpu-gpu-x.md").read_text() in capsys.readouterr().out


def test_a_mistake_on_the_command_line_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.parsed(["--only", "training,none"])
    assert "expected some of bandwidth, products, training, got none" in capsys.readouterr().err


def test_what_is_measured_is_what_is_asked_for():
    assert set(command.SECTIONS) == set(command.WEIGHTS) and sum(command.WEIGHTS.values()) == pytest.approx(1)
    assert {str(each) for each in products.LARGE} <= products.BY_NAME.keys()
    assert set(bandwidth.HELD_TO) <= set(bandwidth.KINDS)
    assert {network.sizes for network, _ in training.WORKLOADS} >= {each.sizes for each in workloads.NETWORKS}
