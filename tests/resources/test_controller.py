"""Controller: memory that becomes scarce and comes back, as files that the test writes; and a clock that it turns."""

import itertools
import json

import numpy as np
import pytest
from counters import Clock

import tinynet as tn
from tinynet.errors import ArgumentError
from tinynet.resources import Controller
from tinynet.train import Callback

MB = 10**6
X = np.random.default_rng(0).normal(size=(256, 16)).astype("float32")
GROUP = "sys/fs/cgroup/job"


class Machine(Callback):
    """A control group of 100 MB, of which 50 MB are used. ``plan[step]`` is done after a step; each takes a second."""

    def __init__(self, root, plan=()):
        self.root, self.plan, self.clock = root, dict(plan), Clock()
        self.write("proc/self/cgroup", "0::/job")
        self.write(f"{GROUP}/memory.current", 50 * MB)
        self.limit(100 * MB)

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    def limit(self, nbytes):
        self.write(f"{GROUP}/memory.max", nbytes)

    def stalls(self, percent):
        lines = [f"{kind} avg10={percent} avg60=0.00 avg300=0.00 total=0" for kind in ("some", "full")]
        self.write(f"{GROUP}/memory.pressure", "\n".join(lines))

    def on_step(self, run):
        self.clock.now += 1
        self.plan.get(run.step, lambda: None)()


class Seen(Callback):
    """Workspace and samples of each step."""

    def on_begin(self, run):
        self.rows = []

    def on_step(self, run):
        workspace = None if run.captured is None else run.program.plan.workspace_bytes
        self.rows.append((workspace, len(run.batch[0])))


def train(machine, *, steps=60, options=None, **settings):
    """Steps of 64 samples; the controller, what was seen, and the model."""
    tn.seed(0)
    model = tn.nn.Sequential(tn.nn.Dense(16, 64, "relu"), tn.nn.Dense(64, 4))
    settings = {"reserve": 10 * MB, "calm": 5, "every": 1, "root": machine.root, "clock": machine.clock} | settings
    controller, seen = Controller(**settings), Seen()
    # before the machine: what that does after a step is looked at after the next one
    tn.fit(
        model, (X, X[:, :4].argmax(axis=1)), loss="cross_entropy", optimizer="gd", epochs=steps // 4, batch_size=64,
        callbacks=[seen, controller, machine], **(options or {}),
    )  # fmt: skip
    return controller, seen.rows, model


def changes(controller):
    return [(each["step"], each["what"], each["from"] is None, each["to"] is None) for each in controller.decisions]


def test_nothing_is_done_where_there_is_enough(tmp_path):
    controller, seen, _ = train(Machine(tmp_path))
    assert controller.decisions == [] and len(set(seen)) == 1


def test_a_budget_comes_with_scarcity_and_goes_when_it_is_over(tmp_path):
    machine = Machine(tmp_path / "root")
    machine.plan = {4: lambda: machine.limit(60 * MB - 20_000), 20: lambda: machine.limit(100 * MB)}
    path = tmp_path / "decisions.jsonl"
    controller, seen, model = train(machine, path=path, floor=16_000)
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert written == controller.decisions
    down, up = controller.decisions[0], controller.decisions[-1]
    whole = seen[0][0]
    assert down["step"] == 5 and down["what"] == "memory" and down["from"] is None and down["to"] == whole // 2
    assert "9.98 MB available, 10 MB to be kept free" in down["reason"]
    assert f"{seen[5][0]:,} bytes of workspace instead of {whole:,}" in down["reason"]
    assert up["to"] is None and "available for" in up["reason"] and 20 < up["step"] <= 35
    assert max(taken for taken, _ in seen[5:20]) <= whole // 2 and seen[-1][0] == whole
    assert {size for _, size in seen} == {64}  # the batch is what it was
    _, _, undisturbed = train(Machine(tmp_path / "quiet"))
    for name, array in undisturbed.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[name], array, rtol=1e-4, atol=1e-5)


def test_waiting_for_memory_counts_as_scarcity(tmp_path):
    machine = Machine(tmp_path)
    machine.plan = {4: lambda: machine.stalls(25.0)}
    controller, _, _ = train(machine, steps=8)
    assert controller.decisions[0]["step"] == 5
    assert "all threads waited for memory in 25 % of 10 s" in controller.decisions[0]["reason"]


def test_the_floor_holds_and_that_nothing_can_be_done_is_said_once(tmp_path):
    machine = Machine(tmp_path)
    machine.limit(51 * MB)
    controller, seen, _ = train(machine, floor="1GB")
    assert len({taken for taken, _ in seen}) == 1
    (only,) = controller.decisions
    assert only["from"] is None and only["to"] is None and "no smaller step is possible" in only["reason"]


@pytest.mark.parametrize("capture", [True, False], ids=["captured", "eager"])
def test_the_batch_becomes_smaller_only_where_that_is_allowed(tmp_path, capture):
    machine = Machine(tmp_path)
    machine.plan = {4: lambda: machine.limit(51 * MB), 20: lambda: machine.limit(100 * MB)}
    controller, seen, _ = train(machine, floor="1GB", least_batch=16, calm=3, steps=120, options={"capture": capture})
    sizes = [size for _, size in seen]
    assert min(sizes) == 16 and sizes[0] == 64
    assert controller.decisions[0]["what"] == "batch_size" and controller.decisions[0]["from"] == 64
    back = [each["to"] for each in controller.decisions if each["step"] > 20]
    assert back[-1] == 64 and back == sorted(back)


def test_changes_become_rarer_where_memory_comes_and_goes(tmp_path):
    """Memory that is scarce exactly as long as a step takes all of it: a thermostat without hysteresis would swing."""
    machine = Machine(tmp_path)

    class Swings(Callback):
        def on_step(self, run):
            machine.limit(51 * MB if run.memory is None else 100 * MB)

    controller = Controller(
        reserve=10 * MB, calm=5, every=1, root=tmp_path, clock=machine.clock, floor=16_000
    )  # fmt: skip
    tn.seed(0)
    model = tn.nn.Sequential(tn.nn.Dense(16, 64, "relu"), tn.nn.Dense(64, 4))
    tn.fit(
        model, (X, X[:, :4].argmax(axis=1)), loss="cross_entropy", optimizer="gd", epochs=80, batch_size=64,
        callbacks=[Swings(), controller, machine],
    )  # fmt: skip
    ups = [each["step"] for each in controller.decisions if each["to"] is None and each["from"] is not None]
    gaps = [after - before for before, after in itertools.pairwise(ups)]
    assert 3 <= len(ups) <= 8
    assert all(after >= 1.5 * before for before, after in itertools.pairwise(gaps))


def test_a_plan_is_asked_and_no_step_fails(tmp_path):
    """run.workspace says before a change what the step takes after it."""
    foretold = []

    class Ask(Callback):
        def on_step(self, run):
            if run.step == 3:
                foretold.append(run.workspace(30_000))
                foretold.append(run.workspace(None, 32))
                with pytest.raises(tn.errors.PlanError, match="at least"):
                    run.workspace(10)
                run.memory = 30_000
            if run.step in (1, 4):
                foretold.append(run.program.plan.workspace_bytes)

    tn.seed(0)
    model = tn.nn.Sequential(tn.nn.Dense(16, 64, "relu"), tn.nn.Dense(64, 4))
    data = X, X[:, :4].argmax(axis=1)
    tn.fit(model, data, loss="cross_entropy", optimizer="gd", epochs=1, batch_size=64, callbacks=[Ask()])
    whole, within, half, taken = foretold
    assert taken == within <= 30_000 < whole and half < whole


def test_eager_steps_have_no_budget(tmp_path):
    class Ask(Callback):
        def on_step(self, run):
            assert run.memory is None
            with pytest.raises(ArgumentError, match=r"run.memory: expected steps that are programs, got eager ones"):
                run.memory = 1000

    tn.fit(
        tn.nn.Sequential(tn.nn.Dense(16, 4)), (X, X[:, :4].argmax(axis=1)), loss="cross_entropy", optimizer="gd",
        epochs=1, capture=False, callbacks=[Ask()],
    )  # fmt: skip


@pytest.mark.parametrize("options", [{"every": 0}, {"calm": -1}, {"least_batch": 0}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ArgumentError, match="Controller: expected every and calm above 0"):
        Controller(**options)
