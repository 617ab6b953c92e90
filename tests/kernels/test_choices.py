"""One of several ways, by measurement: kept for later processes, and measured anew where a file is damaged."""

import json
import math
import threading

import pytest

from tinynet.kernels.choices import Choice, Choices, read

BOTH = {"own": 1.0, "other": 5.0}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "products.json"


def never():
    pytest.fail("measured")


def choose(name, seconds, path, choices=None):
    """By a process that knows nothing, unless it is handed over."""
    return (choices or Choices(1.05)).choose(name, tuple(seconds), lambda: dict(seconds), lambda: path)


def test_the_fastest_way_is_taken_and_says_by_how_much():
    seconds = {"own": 3e-3, "other": 2.5e-3, "third": 2e-3, "broken": math.inf}
    found = choose("a", seconds, None)
    assert found == Choice("third", seconds)
    assert str(found).startswith("third 2,000 µs, other 2,500 µs, own 3,000 µs")


def test_a_tie_goes_to_the_first_way():
    assert choose("a", {"own": 1.04, "other": 1.0}, None).way == "own"
    assert choose("a", {"own": 1.06, "other": 1.0}, None).way == "other"


def test_what_was_measured_is_kept_for_this_process_and_for_later_ones(path):
    first = Choices(1.05)
    choose("a", BOTH, path, first)
    assert json.loads(path.read_text()) == {"a": BOTH}
    for choices in (first, Choices(1.05)):
        assert choices.choose("a", tuple(BOTH), never, lambda: path) == ("own", BOTH)
    choose("b", BOTH, path)
    assert json.loads(path.read_text()) == {"a": BOTH, "b": BOTH}
    path.unlink()
    assert first.choose("a", tuple(BOTH), never, never) == ("own", BOTH), "the file is asked once"


def test_ways_are_compared_with_what_was_measured_beside_them(path):
    choices, third = Choices(1.05), BOTH | {"third": 0.5}
    choose("a", BOTH, path, choices)
    assert choose("a", third, path, choices).way == "third", "which was not measured before"
    assert choices.choose("a", tuple(BOTH), never, lambda: path) == ("own", BOTH)
    assert read(path) == {"a": third}


def test_what_must_not_be_measured_now_is_measured_later(path):
    choices = Choices(1.05)
    assert choices.choose("a", tuple(BOTH), None, lambda: path) is None
    assert choose("a", BOTH, path, choices).way == "own"


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2]", '{"a": 3}', '{"a": [1.0, 2.0]}', '{"a": {"own": "x"}}', '{"a": {"own": 1', '{"a": {}}']
)
def test_a_damaged_file_is_measured_anew(path, text):
    path.write_text(text)
    assert choose("a", BOTH, path) == ("own", BOTH)
    assert json.loads(path.read_text()) == {"a": BOTH}


@pytest.mark.parametrize("there", [False, True])
def test_where_nothing_can_be_kept_it_is_measured_by_each_process_or_not_decided(path, there):
    """The second where the next process must not choose otherwise."""
    where = path.parent / "missing" / "products.json" if there else None
    assert choose("a", BOTH, where).way == "own"
    strict, measured = Choices(1.05, kept=True), []
    for _ in range(2):
        assert strict.choose("a", tuple(BOTH), lambda: measured.append(1) or BOTH, lambda: where) is None
    assert len(measured) == there


def test_what_another_process_measured_meanwhile_stays(path):
    """Where there are no locks, or they are not kept."""

    def measure():
        path.write_text(json.dumps({"a": BOTH}))
        return {"own": 2.0, "other": 1.0}

    assert Choices(1.05).choose("a", tuple(BOTH), measure, lambda: path) == ("own", BOTH)


def test_what_processes_choose_side_by_side_is_kept_of_all_of_them(path):
    """Two that begin with the same file, and measure other names and the same one."""
    pytest.importorskip("fcntl")
    measured, started, found = [], threading.Event(), {}

    def process(worker, *names):
        choices = Choices(1.05, kept=True)
        for name in names:

            def measure(name=name):
                measured.append(name)
                started.wait(1)  # so that the other one is past its first look at the file
                return {"own": float(len(measured)), "other": 1.0}

            found[worker, name] = choices.choose(name, ("own", "other"), measure, lambda: path).seconds

    workers = [threading.Thread(target=process, args=each) for each in (("a", "x", "y"), ("b", "x", "z"))]
    for each in workers:
        each.start()
    started.set()
    for each in workers:
        each.join()
    assert found["a", "x"] == found["b", "x"]
    assert sorted(measured) == ["x", "y", "z"]
    assert read(path) == {name: seconds for (_, name), seconds in found.items()}
