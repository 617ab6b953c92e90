"""Joules with their provenance: counters that go round, are closed, vanish or cover a part; models where none are."""

import gc
import sys
import threading
import time

import pytest
from counters import NVML, Clock, Powercap, close

from tinynet.errors import ArgumentError
from tinynet.meters.energy import Energy, Meter
from tinynet.meters.models import ProcessorModel, WorkModel

SPAN = 262_143_328_850


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def tree(tmp_path):
    return Powercap(tmp_path / "powercap")


@pytest.fixture
def meter(tree, clock):
    made = Meter(tree.root, clock=clock)
    yield made
    made.stop()


def numbers(energy):
    return {part.source: part.joules for part in energy.parts}


# ---- the processor's counters ----


def test_packages_and_memory_are_summed_and_their_parts_are_not(tree, meter, clock):
    tree["intel-rapl:0"] = 5_000_000  # what was counted before does not count
    meter.start()
    for zone, joules in {
        "intel-rapl:0": 15, "intel-rapl:0:0": 7, "intel-rapl:0:1": 3,
        "intel-rapl:1": 20, "intel-rapl:1:0": 9, "intel-rapl:1:1": 4,
        "intel-rapl:2": 60, "intel-rapl-mmio:0": 10,
    }.items():  # fmt: skip
        tree[zone] = joules * 1_000_000
    clock.now = 2.0
    used = meter.read()
    assert used.joules == 10 + 3 + 20 + 4 and used.provenance == "measured" and used.why is None
    assert numbers(used) == {"package-0": 10, "package-0 dram": 3, "package-1": 20, "package-1 dram": 4}
    assert used.uncertainty == pytest.approx(37 / 2 * 1e-3) and used.watts == 18.5
    assert str(used) == (
        "37 J ± 18.5 mJ in 2 s, measured (package-0 10 J, package-0 dram 3 J, package-1 20 J, package-1 dram 4 J)"
    )


def test_a_package_that_only_the_other_interface_shows_is_counted(tmp_path, clock):
    tree = Powercap(tmp_path, {"intel-rapl-mmio:0": "package-0", "intel-rapl-mmio:0:0": "dram"})
    meter = Meter(tree.root, clock=clock).start()
    tree["intel-rapl-mmio:0"], tree["intel-rapl-mmio:0:0"], clock.now = 2_000_000, 500_000, 1.0
    assert meter.read().joules == 2.5
    meter.stop()


def test_a_counter_that_goes_round_goes_on(tree, meter, clock):
    tree["intel-rapl:0"] = SPAN - 1_000_000
    meter.start()
    tree["intel-rapl:0"], clock.now = 2_000_000, 1.0
    assert numbers(meter.read())["package-0"] == pytest.approx(3.0)
    for count in (100_000_000_000, 200_000_000_000, 500_000):
        tree["intel-rapl:0"], clock.now = count, clock.now + 65
        used = meter.read()
    assert numbers(used)["package-0"] == pytest.approx(1 + SPAN / 1e6 + 0.5, abs=1e-3)


def test_a_counter_nobody_looked_at_for_too_long_gives_no_number(tree, meter, clock):
    meter.start()
    tree["intel-rapl:0"], clock.now = 1_000_000, SPAN / 1e6 / 2000 + 1  # it may have gone round twice at 2 kW
    used = meter.read()
    assert used.joules is None and used.provenance == "unavailable" and "not looked at for 132 s" in used.why
    clock.now += 1
    assert meter.read().joules is None  # what was missed stays missed


def test_a_thread_looks_in_time(tmp_path):
    """A counter of so small a range that it has to be looked at every 2.5 ms; the clock is the real one."""
    tree = Powercap(tmp_path, {"intel-rapl:0": "package-0"}, span=10_000_000)
    looks, meter = threading.Event(), Meter(tree.root)
    read, wanted = meter.read, iter(range(3))

    def counted():
        if next(wanted, None) is None:
            looks.set()
        return read()

    meter.read = counted
    meter.start()
    assert looks.wait(30)
    meter.stop()


def test_a_forgotten_meter_takes_its_thread_along(tmp_path):
    tree = Powercap(tmp_path, {"intel-rapl:0": "package-0"}, span=10_000_000)
    before = set(threading.enumerate())
    meter = Meter(tree.root).start()
    (thread,) = set(threading.enumerate()) - before
    del meter
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


def test_a_counter_of_unknown_range_is_read_until_it_goes_back(tmp_path, clock):
    tree = Powercap(tmp_path, {"intel-rapl:0": "package-0"}, span=None)
    meter = Meter(tree.root, clock=clock).start()
    tree["intel-rapl:0"], clock.now = 3_000_000, 10_000.0
    assert meter.read().joules == 3
    tree["intel-rapl:0"], clock.now = 1_000_000, 10_001.0
    assert "range is not known" in meter.read().why


def test_a_counter_that_was_set_back_is_no_counter_that_went_round(tree, meter, clock):
    tree["intel-rapl:0"] = 1_000_000
    meter.start()
    tree["intel-rapl:0"], clock.now = 0, 1.0
    used = meter.read()
    assert used.joules is None and "jumped by 262142 J within 1.0 s" in used.why


def test_closed_counters_say_how_to_open_them(tree, meter, monkeypatch):
    close(monkeypatch, *(path.name for path in tree.root.iterdir()))
    used = meter.start().read()
    assert used.joules is None and used.provenance == "unavailable"
    assert "permission denied" in used.why and "sudo chmod a+r" in used.why
    assert str(used).startswith("energy unavailable: package-0, package-0 dram, package-1, package-1 dram: permission")


def test_one_closed_package_is_not_passed_off_as_none(tree, meter, clock, monkeypatch):
    close(monkeypatch, "intel-rapl:1")
    meter.start()
    tree["intel-rapl:0"], clock.now = 4_000_000, 1.0
    used = meter.read()
    assert used.joules is None and used.provenance == "incomplete"
    assert numbers(used) == {"package-0": 4, "package-0 dram": 0, "package-1": None, "package-1 dram": 0}
    assert "package-1: permission denied" in used.why and "only package-0 4 J" in used.why


def test_a_counter_that_vanishes_midway(tree, meter, clock):
    meter.start()
    tree["intel-rapl:0"], clock.now = 4_000_000, 1.0
    before = meter.read()
    tree.vanish("intel-rapl:0")
    clock.now = 2.0
    after = meter.read()
    assert before.joules == 4 and after.joules is None and after.provenance == "incomplete"
    assert "package-0: the counter is gone" in after.why
    between = after - before
    assert between.joules is None and between.provenance == "incomplete" and between.seconds == 1
    tree["intel-rapl:0"] = 9_000_000  # back again, but what it missed is not known
    assert meter.read().joules is None


def test_a_counter_that_reads_nonsense(tree, meter):
    tree["intel-rapl:0:1"] = "-17"
    assert "package-0 dram: the counter reads '-17'" in meter.start().read().why


@pytest.mark.parametrize(("make", "said"), [(False, "does not exist"), (True, "has no counter of a processor")])
def test_without_counters_there_is_a_reason_and_no_zero(tmp_path, make, said):
    root = tmp_path / "powercap"
    if make:
        root.mkdir()
    used = Meter(root).start().read()
    assert used.joules is None and used.uncertainty is None and used.provenance == "unavailable" and said in used.why


def test_two_readings_have_a_difference(tree, meter, clock):
    meter.start()
    tree["intel-rapl:0"], clock.now = 4_000_000, 1.0
    first = meter.read()
    tree["intel-rapl:0"], tree["intel-rapl:1"], clock.now = 5_000_000, 2_000_000, 3.0
    between = meter.read() - first
    assert between.joules == 3 and between.seconds == 2 and between.provenance == "measured"
    assert numbers(between) == {"package-0": 1, "package-0 dram": 0, "package-1": 2, "package-1 dram": 0}


def test_a_moment_is_too_short_for_an_uncertainty(tree, meter):
    used = meter.start().read()
    assert used.uncertainty is None and used.watts is None and "±" not in str(used)


def test_a_meter_that_was_not_started_has_nothing_to_say(meter):
    with pytest.raises(ArgumentError, match="started"):
        meter.read()


def test_a_start_begins_at_nothing_again(tree, meter, clock):
    meter.start()
    tree["intel-rapl:0"], clock.now = 4_000_000, 1.0
    meter.stop()
    meter.start()
    assert meter.read().joules == 0
    tree["intel-rapl:0"], clock.now = 5_000_000, 2.0
    assert meter.read().joules == 1


# ---- GPUs ----


def test_gpus_are_added(tree, clock, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    nvml = NVML(1_000, 70_000)
    meter = Meter(tree.root, nvml, clock=clock).start()
    nvml.millijoules[:] = [3_000, 71_500]
    tree["intel-rapl:0"], clock.now = 4_000_000, 1.0
    used = meter.read()
    meter.stop()
    assert used.joules == 4 + 2 + 1.5 and used.provenance == "measured"
    assert numbers(used)["gpu 1 (Fast 1)"] == 1.5
    assert used.uncertainty == pytest.approx(4 * 1e-3 + 3.5 * 0.1)  # they are updated ten times a second


@pytest.mark.parametrize(("visible", "counted"), [("1", ["gpu 1 (Fast 1)"]), ("GPU-0", ["gpu GPU-0 (Fast 0)"])])
def test_gpus_that_the_process_may_not_use_are_left_out(tree, clock, monkeypatch, visible, counted):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    meter = Meter(tree.root, NVML(0, 0), clock=clock).start()
    meter.stop()
    assert [source for source in numbers(meter.read()) if source.startswith("gpu")] == counted


@pytest.mark.parametrize(
    ("visible", "millijoules", "said"),
    [("0", [None], "gpu 0 (Fast 0): NVML says: Not Supported"), ("3", [0], "gpu 3: NVML says: Invalid Argument"),
     ("", [0], "gpu: no GPU is visible")],
)  # fmt: skip
def test_a_gpu_that_counts_nothing_makes_the_reading_incomplete(tree, clock, monkeypatch, visible, millijoules, said):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    meter = Meter(tree.root, NVML(*millijoules), clock=clock).start()
    used = meter.read()
    meter.stop()
    assert used.joules is None and used.provenance == "incomplete" and said in used.why


def test_a_gpu_whose_counter_breaks_or_begins_anew(tree, clock, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    nvml = NVML(5_000, 5_000)
    meter = Meter(tree.root, nvml, clock=clock).start()
    nvml.millijoules[:] = [None, 100]
    used = meter.read()
    meter.stop()
    assert "gpu 0 (Fast 0): NVML says: Not Supported" in used.why
    assert "gpu 1 (Fast 1): the counter went back" in used.why


def test_without_the_binding_the_reading_names_it(tree, clock, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    meter = Meter(tree.root, gpus=True, clock=clock).start()
    used = meter.read()
    meter.stop()
    assert used.provenance == "incomplete" and "tinynet[gpu]" in used.why


def test_gpus_alone_are_not_the_whole(tmp_path, clock, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    used = Meter(tmp_path / "none", NVML(0), clock=clock).start().read()
    assert used.joules is None and used.provenance == "incomplete" and "does not exist" in used.why


# ---- models ----


def modelled(tmp_path, model, **options):
    busy = Clock()
    return Meter(tmp_path / "none", model=model, clock=Clock(), processor_seconds=busy, **options).start(), busy


def test_processor_seconds_are_modelled_with_half_the_range_as_uncertainty(tmp_path):
    meter, busy = modelled(tmp_path, ProcessorModel((4, 10)))
    busy.now = 3.0
    used = meter.read()
    assert (used.joules, used.uncertainty, used.provenance) == (21.0, 9.0, "modelled")
    assert "processor seconds at 4 to 10 W" in used.why and "does not exist" in used.why
    busy.now = 4.0
    assert ((meter.read() - used).joules, (meter.read() - used).uncertainty) == (7.0, 3.0)


def test_counted_work_is_modelled(tmp_path):
    meter, _ = modelled(tmp_path, WorkModel(flop=(50, 150), byte=(0, 200)))
    meter.work(1e12, 1e10)
    meter.work(1e12, 1e10)
    used = meter.read()
    assert used.joules == pytest.approx(2 * (100 + 1)) and used.uncertainty == pytest.approx(2 * (50 + 1))
    assert used.provenance == "modelled" and str(used).startswith("202 J ± 102 J in 0 ms, modelled from flops at")


def test_a_model_by_work_that_is_told_of_none_says_nothing(tmp_path):
    meter, _ = modelled(tmp_path, WorkModel())
    begin = meter.read()
    assert begin.joules is None and begin.provenance == "unavailable" and "told of none" in begin.why
    meter.work(1e12, 0)
    first = meter.read()
    assert (first - begin).joules == first.joules == pytest.approx(125)
    nothing = meter.read() - first
    assert nothing.joules is None and nothing.provenance == "unavailable" and "told of none" in nothing.why


def test_counters_come_before_models(tree, clock):
    meter = Meter(tree.root, model=ProcessorModel(), clock=clock).start()
    tree["intel-rapl:0"], clock.now = 4_000_000, 1.0
    used = meter.read()
    meter.stop()
    assert (used.joules, used.provenance) == (4, "measured")


def test_measured_and_modelled_are_not_subtracted_from_each_other(tree, clock):
    busy = Clock()
    meter = Meter(tree.root, model=ProcessorModel(), clock=clock, processor_seconds=busy).start()
    clock.now, tree["intel-rapl:0"] = 1.0, 4_000_000
    before = meter.read()
    tree.vanish("intel-rapl:1")
    clock.now, busy.now = 2.0, 2.0
    after = meter.read()
    meter.stop()
    assert after.provenance == "modelled" and "package-1: the counter is gone" in after.why
    between = after - before
    assert between.joules is None and between.provenance == "incomplete"
    assert "measured at the beginning and modelled at the end" in between.why


def test_a_model_of_processors_does_not_speak_of_gpus(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    meter, _ = modelled(tmp_path, ProcessorModel(), gpus=True)
    used = meter.read()
    assert used.joules is None and used.provenance == "unavailable" and "does not cover GPUs" in used.why
    meter, _ = modelled(tmp_path, WorkModel(covers_gpus=True), gpus=True)
    meter.work(1e12, 1e10)
    assert meter.read().provenance == "modelled"


@pytest.mark.parametrize(
    "make", [lambda: ProcessorModel((5, 4)), lambda: ProcessorModel((-1, 4)), lambda: WorkModel(flop=(2, 1))]
)
def test_ranges_that_are_none_are_refused(make):
    with pytest.raises(ArgumentError, match="least"):
        make()


def test_the_machine_as_it_is():
    """Whatever is here: a number that says where it is from, or a reason."""
    meter = Meter().start()
    time.sleep(0.002)
    used = meter.read()
    meter.stop()
    assert isinstance(used, Energy)
    if used.joules is None:
        assert used.why and used.provenance in ("unavailable", "incomplete")
    else:
        assert used.provenance == "measured" and used.joules >= 0 and used.parts


def test_a_meter_in_use_is_refused_to_others_and_goes_on_counting(tmp_path):
    meter = Meter(root=tmp_path).start()
    with pytest.raises(ArgumentError, match=r"nobody else counts with.*in use"):
        meter.start()
    assert meter.read().seconds >= 0
    meter.stop()
    assert meter.start().read().seconds >= 0
