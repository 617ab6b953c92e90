"""``batch_size``: what it finds fits, what it counts is what is taken, and its curve is read by a stated rule."""

import copy
import itertools
import json
import math
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import tinynet as tn
from tinynet.errors import ArgumentError, MissingExtraError, PlanError
from tinynet.resources import batch_size
from tinynet.resources.batches import sizing
from tinynet.resources.batches.throughput import Curve, Rate, climb

RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(9000, 64)).astype("float32"), RNG.normal(size=(9000, 8)).astype("float32")


def network(*widths, dtype="float32"):
    tn.seed(1)
    layers = [tn.nn.Dense(a, b, "tanh") for a, b in itertools.pairwise(widths)]
    return tn.nn.Sequential(*layers).astype(dtype)


def adam(model):
    return tn.optim.Adam(model.parameters())


def needed(plan, copies=3):
    return plan.parameter_bytes + plan.moment_bytes + plan.workspace_bytes + copies * plan.input_bytes


# ---- what fits ----


def test_the_size_fits_and_the_next_does_not():
    model = network(64, 128, 8)
    plan = tn.plan(model, "mse", "adam", 1)
    for budget in (300_000, 1_000_000, 7_654_321):
        found = batch_size(model, loss="mse", optimizer="adam", memory=budget, drop_last=True)
        assert needed(plan.resized(found.largest)) <= budget < needed(plan.resized(found.largest + 1))
        assert found.fit.bytes <= budget and found.budget == budget


def test_with_the_number_of_samples_it_is_the_largest_of_all_that_fit():
    """Beside every size, tried one by one: a last batch has an arena of its own, of whatever size is left over."""
    samples, model = 60, network(16, 32, 16)
    one = tn.plan(model, "mse", "adam", 1)
    plans = {n: one.resized(n) for n in range(1, samples + 1)}

    def takes(n):
        last = samples % n if n < samples else 0
        if not last:
            return needed(plans[n])
        memory = max(plans[n].workspace_bytes, plans[last].workspace_bytes)
        return needed(plans[n]) + tn.plan(model, "mse", "adam", last, memory=memory).peak_bytes

    taken = {n: takes(n) for n in plans}
    low, high = needed(plans[1]), max(taken.values())
    for budget in np.linspace(low, high, 5).astype(int):
        found = batch_size(model, loss="mse", optimizer="adam", memory=int(budget), samples=samples)
        assert found.fit.bytes <= budget
        assert found.largest == max(n for n in taken if taken[n] <= budget)


def test_without_the_number_of_samples_there_is_room_for_a_last_batch_of_any_size():
    model = network(64, 128, 8)
    found = batch_size(model, loss="mse", optimizer="adam", memory="2MB")
    for last in (1, 2, found.fit.batch_size // 2, found.fit.batch_size - 1):
        rest = tn.plan(model, "mse", "adam", last, memory=found.fit.memory)
        assert needed(found.fit.plan) + rest.peak_bytes <= 2_000_000


def test_a_program_takes_what_is_counted():
    model = network(64, 128, 8)
    fit = batch_size(model, loss="mse", optimizer="adam", memory="2MB", samples=8999).fit
    assert fit.last == 8999 % fit.batch_size > 0
    step = tn.capture(tn.train.step.training_step(model, tn.losses.mse, adam(model)), memory=fit.memory)
    arenas = []
    for n in (fit.batch_size, fit.last):
        batch = [tn.tensor(part[:n]) for part in DATA]
        for _ in range(3):
            step(*batch)
        arenas.append(step.program(*batch).plan.peak_bytes)
    assert arenas[0] == fit.taken["batch in the arena"] + fit.taken["workspace of the arena"]
    assert arenas[1] == fit.taken[f"arena of a last batch of {fit.last:,}"]


@pytest.mark.parametrize(("dtype", "prefetch"), [("float32", 0), ("float64", 0), ("float32", 2)])
def test_training_keeps_to_the_memory(dtype, prefetch):
    """Everything that is allocated counts, Python's own objects too, for which a megabyte is left."""
    data = tuple(part.astype(dtype) for part in DATA)
    data = tn.data.Loader(data, 16, prefetch=prefetch) if prefetch else data
    model = network(64, 256, 8)
    options = batch_size(model, loss="mse", optimizer="adam", memory="12MB", data=data).options

    def peak(batch_size, **options):
        if prefetch:
            data.batch_size = batch_size
        tracemalloc.start()
        model = network(64, 256, 8)
        tn.fit(model, data, loss="mse", optimizer=adam(model), epochs=2, batch_size=batch_size, **options)
        taken = tracemalloc.get_traced_memory()[1]
        # The interpreter's table of names is written anew, 2 MB of it, by whoever adds one too many. Arrays have a
        # domain of their own.
        own = tracemalloc.take_snapshot().filter_traces([tracemalloc.DomainFilter(True, 0)])
        tracemalloc.stop()
        return taken - sum(trace.size for trace in own.traces if trace.size > 2**20)

    peak(batch_size=16)  # what is imported late
    assert options["batch_size"] >= 1500
    assert peak(**options) <= 13_000_000


_LIMITED = """
import resource, sys
import numpy as np
import tinynet as tn

def network():
    return tn.nn.Sequential(tn.nn.Dense(64, 512, "relu"), tn.nn.Dense(512, 8))

def train(data, **options):
    model = network()
    tn.fit(model, data, loss="mse", optimizer="adam", epochs=1, **options)

n, budget = 40_000, 60_000_000
data = np.ones((n, 64), "float32"), np.ones((n, 8), "float32")
found = tn.resources.batch_size(network(), loss="mse", optimizer="adam", memory=budget, data=data)
train([part[:64] for part in data], batch_size=32)  # loads and starts what is needed
with open("/proc/self/statm") as statm:
    now = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + budget + 8_000_000,) * 2)
train(data, **found.options)
twice = 2 * found.fit.batch_size
assert tn.plan(network(), "mse", "adam", twice).total_bytes > budget
try:
    train(data, batch_size=twice, memory="1GB")
except tn.errors.ArenaError as error:
    print("refused:", error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
def test_training_keeps_to_a_limit_of_the_system_that_larger_batches_break():
    done = subprocess.run([sys.executable, "-c", _LIMITED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "refused: program: expected" in done.stdout


def test_what_a_loader_does_counts():
    """It makes batches ahead, of shapes of its own, and drops the last."""
    model = network(32, 64, 8)
    loader = tn.data.Loader(DATA, 5, drop_last=True, prefetch=3, transform=lambda x, y: (x[:, ::2], y))
    found = batch_size(model, loss="mse", optimizer="adam", memory="3MB", data=loader)
    one = tn.plan(model, "mse", "adam", 1)
    assert needed(one.resized(found.largest), 3 + 4) <= 3_000_000 < needed(one.resized(found.largest + 1), 3 + 4)
    assert found.fit.last == 0


def test_multiples_of_16_are_taken_where_they_cost_no_step():
    model = network(64, 128, 8)
    whole = batch_size(model, loss="mse", optimizer="adam", memory="50MB", samples=1000)
    assert whole.largest == whole.fit.batch_size == 1000 and whole.fit.last == 0
    less = batch_size(model, loss="mse", optimizer="adam", memory="1MB", samples=10_000)
    assert less.fit.batch_size % 8 == 0 and less.largest - 16 < less.fit.batch_size <= less.largest
    assert math.ceil(10_000 / less.fit.batch_size) == math.ceil(10_000 / less.largest)
    small = batch_size(model, loss="mse", optimizer="adam", memory=needed(tn.plan(model, "mse", "adam", 13)),
                       drop_last=True)  # fmt: skip
    assert 13 <= small.fit.batch_size == small.largest < 64  # where that would cost much, nothing is rounded


# ---- the batch that is wanted ----


def test_a_batch_that_does_not_fit_is_cut_and_the_step_is_the_same():
    model = network(64, 128, 8, dtype="float64")
    data = tuple(part[:3000].astype("float64") for part in DATA)
    found = batch_size(model, loss="mse", optimizer=adam(model), memory="5MB", data=data, effective=1500)
    assert found.largest < 1500 == found.fit.batch_size == sum(found.fit.parts)
    assert len(found.fit.parts) > 1 and len(set(found.fit.parts[:-1])) == 1 and found.fit.bytes <= 5_000_000
    states = []
    for options in (found.options, {"batch_size": 1500}):
        copied = copy.deepcopy(model)
        tn.fit(copied, data, loss="mse", optimizer=adam(copied), epochs=2, **options)
        states.append(copied.state_dict())
    for name, value in states[0].items():
        np.testing.assert_allclose(value, states[1][name], rtol=1e-9, atol=1e-12)


def test_the_parts_are_those_by_which_gradients_can_be_added_by_hand():
    model = network(64, 32, 8, dtype="float64")
    data = [part.astype("float64") for part in DATA]
    fit = batch_size(model, loss="mse", optimizer="gd", memory="2MB", data=data, effective=1000).fit
    assert len(fit.parts) > 1

    def gradients(bounds):
        model.zero_grad()
        for start, stop in bounds:
            x, y = (tn.tensor(part[start:stop]) for part in data)
            (tn.losses.mse(model(x), y) * ((stop - start) / 1000)).backward()
        return [p.grad.numpy() for p in model.parameters()]

    ends = np.cumsum(fit.parts).tolist()
    for ours, whole in zip(gradients(list(zip([0, *ends], ends))), gradients([(0, 1000)])):
        np.testing.assert_allclose(ours, whole, rtol=1e-10, atol=1e-15)


def test_a_wanted_batch_that_fits_stays_whole():
    model = network(64, 128, 8)
    fit = batch_size(model, loss="mse", optimizer="adam", memory="50MB", effective=100, samples=1000).fit
    assert fit.parts == (100,) and fit.batch_size == 100 and fit.last == 0


# ---- what there is ----


@pytest.fixture
def machine(monkeypatch):
    """A machine of 1 GB, of which 100 MB are available."""
    meter = sizing.memory_meter
    monkeypatch.setattr(meter, "available", lambda: 100_000_000)
    monkeypatch.setattr(meter, "limit", lambda: 1_000_000_000)


def test_by_default_it_is_what_is_available_and_what_the_model_holds(machine):
    model = network(64, 128, 8)
    plan = tn.plan(model, "mse", "adam", 1)
    with tn.nn.abstract():
        nothing = tn.nn.Sequential(tn.nn.Dense(64, 128, "tanh"), tn.nn.Dense(128, 8, "tanh"))
    held = {
        "abstract": batch_size(nothing, loss="mse", optimizer="adam", drop_last=True),
        "parameters": batch_size(model, loss="mse", optimizer="adam", drop_last=True),
        "moments too": batch_size(model, loss="mse", optimizer=adam(model), drop_last=True),
    }
    assert [found.budget - 95_000_000 for found in held.values()] == [
        0, plan.parameter_bytes, plan.parameter_bytes + plan.moment_bytes,
    ]  # fmt: skip
    assert all("available" in found.source and found.fit.bytes <= found.budget for found in held.values())


def test_a_fraction_is_of_all_memory_but_never_more_than_there_is(machine):
    model = network(64, 128, 8)
    assert batch_size(model, loss="mse", optimizer="adam", fraction=0.05).budget == 50_000_000
    much = batch_size(model, loss="mse", optimizer="adam", fraction=0.5)
    assert much.budget < 100_000_000 and "less than 50%" in much.source
    assert batch_size(model, loss="mse", optimizer="adam", memory="40MB", fraction=0.15).budget == 6_000_000


def test_the_plan_of_a_gpu_needs_no_gpu():
    model = network(64, 128, 8)
    found = batch_size(model, loss="mse", optimizer="adam", memory="20MB", executor="cuda", drop_last=True)
    plan = tn.plan(model, "mse", "adam", found.largest, executor="cuda")
    assert needed(plan.resized(found.largest), 1) <= 20_000_000 < needed(plan.resized(found.largest + 1), 1)


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"memory": "1kB"}, PlanError, r"at least .*kB to train with one sample at a time"),
    ({"memory": "500kB", "effective": 10_000}, PlanError, "more than .*MB: parameters, moments and a batch of 10,000"),
    ({"memory": "much"}, ArgumentError, "memory"),
    ({"memory": "1MB", "effective": 0}, ArgumentError, "effective to be an integer of at least 1"),
    ({"memory": "1MB", "effective": 11, "samples": 10}, ArgumentError, "at most 10"),
    ({"memory": "1MB", "samples": 2.5}, ArgumentError, "samples"),
    ({"memory": "1MB", "fraction": 0}, ArgumentError, "a fraction above 0"),
    ({"memory": "1MB", "data": 3}, ArgumentError, "pair"),
    ({"memory": "1MB", "measure": True, "time": "soon"}, ArgumentError, "time"),
])  # fmt: skip
def test_bad_input_is_one_clear_error(options, error, message):
    with pytest.raises(error, match=message):
        batch_size(network(64, 128, 8), loss="mse", optimizer="adam", **options)


def test_a_model_without_memory_can_be_planned_but_not_measured():
    with tn.nn.abstract():
        model = tn.nn.Dense(1000, 1000)
    assert batch_size(model, loss="mse", optimizer="gd", memory="100MB").largest > 1000
    with pytest.raises(ArgumentError, match="abstract"):
        batch_size(model, loss="mse", optimizer="gd", memory="100MB", measure=True)


def test_measuring_needs_room_for_copies():
    model = network(512, 512)
    with pytest.raises(PlanError, match="room to measure"):
        batch_size(model, loss="mse", optimizer="adam", memory="5MB", measure=True)


# ---- the curve ----


class Clock:
    """Time that passes only where steps take it."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def __call__(self):
        return self.now

    def runner(self, size, seconds):
        def run():
            self.now += seconds
            self.log.append(size)

        return size, run


def test_the_knee_is_the_smallest_size_within_five_percent_of_the_best():
    curve = Curve([Rate(8, 0.008), Rate(16, 0.0106), Rate(32, 0.0202), Rate(64, 0.040)], "")
    assert [round(rate.samples_per_second) for rate in curve.rates] == [1000, 1509, 1584, 1600]
    assert curve.knee == 32
    assert str(curve).count("<- knee") == 1


def test_the_climb_ends_after_two_sizes_that_are_no_faster():
    clock = Clock()
    runners = (clock.runner(2**i, max(1.0, 2**i / 8) * 1e-3) for i in range(12))
    curve = climb(runners, 100.0, clock)
    assert [rate.batch_size for rate in curve.rates] == [1, 2, 4, 8, 16, 32]
    assert curve.knee == 8 and curve.stopped == "Two larger sizes in a row were no faster."


def test_sizes_are_timed_in_turn_and_medians_ignore_a_disturbance():
    clock = Clock()

    def disturbed():
        clock.now += 5.0 if clock.log.count(16) == 30 else 0.02
        clock.log.append(16)

    curve = climb(iter([clock.runner(8, 0.02), (16, disturbed)]), 100.0, clock)
    turns = [size for size, before in zip(clock.log, [0, *clock.log]) if size != before]
    assert len(turns) > 20  # they alternate
    assert curve.rates[1].seconds == pytest.approx(0.02)


@pytest.mark.parametrize("seconds", [1.0, 7.0])
def test_the_time_is_kept_to(seconds):
    clock = Clock()
    curve = climb((clock.runner(2**i, 2**i * 1e-3 + 0.01) for i in range(20)), seconds, clock)
    assert clock.now <= seconds and "would have taken more" in curve.stopped


def test_measuring_changes_neither_model_nor_optimizer():
    model = network(64, 32, 8)
    optimizer = adam(model)
    model.eval()
    before = {k: v.copy() for k, v in model.state_dict().items()}, str(optimizer.state_dict())
    found = batch_size(model, loss="mse", optimizer=optimizer, memory="2MB", data=DATA, measure=True, time=0.5)
    assert all(np.array_equal(v, before[0][k]) for k, v in model.state_dict().items())
    assert str(optimizer.state_dict()) == before[1] and not model.training
    sizes = [rate.batch_size for rate in found.curve.rates]
    assert sizes == [min(8 << i, found.largest) for i in range(len(sizes))]
    assert found.options == {"batch_size": found.curve.knee, "memory": found.fit.memory}
    assert found.fit.bytes <= found.budget
    assert json.loads(json.dumps(found.to_dict()))["curve"]["knee"] == found.curve.knee
    assert f"batch_size={found.curve.knee}" in str(found) and "samples/s" in str(found)


def test_labels_are_made_up_where_there_are_no_data():
    model = network(16, 8, 4)
    found = batch_size(model, loss="cross_entropy", optimizer="gd", memory="200kB", measure=True, time="0.2s")
    assert found.curve.rates[0].batch_size == 8


def test_a_plot_needs_a_curve_and_matplotlib(tmp_path):
    model = network(16, 8, 4)
    with pytest.raises(ArgumentError, match="measure=True"):
        batch_size(model, loss="mse", optimizer="gd", memory="200kB").plot(tmp_path / "curve.svg")
    curve = Curve([Rate(8, 0.1), Rate(16, 0.15), Rate(32, 0.3)], "")
    try:
        curve.plot(tmp_path / "curve.svg")
    except MissingExtraError as error:
        assert "tinynet[viz]" in str(error)
    else:
        assert "knee" in (tmp_path / "curve.svg").read_text() or (tmp_path / "curve.svg").stat().st_size > 1000
