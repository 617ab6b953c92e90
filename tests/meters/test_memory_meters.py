"""Memory of the process and of its control groups, read from trees of files made for the test; processor seconds."""

import mmap
import os

import pytest

from tinynet.meters import groups, memory, processor

MEMINFO = "MemTotal:  8388608 kB\nMemFree: 12 kB\nMemAvailable:  4194304 kB\nHugePages_Total:       0"
GIB = 2**30


@pytest.fixture
def tree(tmp_path):
    """Writes files below a root and returns it."""

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        return tmp_path

    return write


def test_resident_and_peak_are_those_of_the_process(tree):
    status = "Name:\tx\nVmHWM:\t    5120 kB\nThreads:\t1"
    root = tree({"proc/self/statm": "765 404 376 5 0 123 0", "proc/self/status": status})
    assert memory.resident(root) == 404 * os.sysconf("SC_PAGE_SIZE")
    assert memory.peak(root) == 5120 * 1024


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc here")
def test_memory_that_is_written_to_is_resident():
    before = memory.resident()
    held = mmap.mmap(-1, 32 << 20)  # what malloc gives may have been resident before
    held.write(b"\1" * (32 << 20))
    grown = memory.resident() - before
    assert grown > 24 << 20 and memory.peak() >= before + grown - (1 << 20)
    assert len(held) == 32 << 20


def test_the_peak_is_known_without_proc_too(monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(memory, "read", lambda path: None)
    assert memory.peak() >= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in units of at least a byte


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ({"proc/self/cgroup": "0::/job", "sys/fs/cgroup/job/memory.max": GIB}, GIB),
        ({"proc/self/cgroup": "0::/job", "sys/fs/cgroup/job/memory.max": "max"}, None),
        (
            {"proc/self/cgroup": "0::/job/a", "sys/fs/cgroup/job/a/memory.max": 2 * GIB,
             "sys/fs/cgroup/job/memory.max": GIB}, GIB,
        ),
        ({"proc/self/cgroup": "4:memory:/", "sys/fs/cgroup/memory/memory.limit_in_bytes": GIB}, GIB),
        ({"proc/self/cgroup": "4:memory:/", "sys/fs/cgroup/memory/memory.limit_in_bytes": 2**63 - 4096}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_the_limit_is_that_of_the_tightest_group(tree, group, expected):
    assert memory.limit(tree(group | {"proc/meminfo": MEMINFO})) == expected


def version_2(**files):
    return {"proc/self/cgroup": "0::/job", "proc/meminfo": MEMINFO} | {
        f"sys/fs/cgroup/job/memory.{name}": text for name, text in files.items()
    }


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"current": GIB, "max": "max", "high": "max"}, 4 * GIB),
        ({"current": GIB, "max": 3 * GIB, "high": "max"}, 2 * GIB),
        ({"current": GIB, "max": 3 * GIB, "high": 2 * GIB}, GIB),
        ({"current": GIB, "max": 3 * GIB, "stat": f"anon 1\ninactive_file {GIB // 2}\nfile 7"}, 5 * GIB // 2),
        ({"current": 3 * GIB, "high": 2 * GIB}, 0),
        ({"current": GIB, "max": 64 * GIB}, 4 * GIB),
    ],
)
def test_available_is_the_least_of_system_and_groups(tree, files, expected):
    assert memory.available(tree(version_2(**files))) == expected


def test_available_in_groups_of_version_1(tree):
    folder = "sys/fs/cgroup/memory/job"
    files = {
        "proc/self/cgroup": "4:memory:/job", "proc/meminfo": MEMINFO, f"{folder}/memory.limit_in_bytes": GIB,
        f"{folder}/memory.usage_in_bytes": GIB // 2, f"{folder}/memory.stat": f"total_inactive_file {GIB // 4}",
    }  # fmt: skip
    assert memory.available(tree(files)) == 3 * GIB // 4


PSI = "some avg10={} avg60=2.00 avg300=0.00 total=431\nfull avg10=0.50 avg60=0.25 avg300=0.00 total=12"


def test_pressure_is_the_groups_and_else_the_systems(tree):
    root = tree({"proc/self/cgroup": "0::/job", "proc/pressure/memory": PSI.format("1.00")})
    assert memory.pressure(root) == (1.0, 2.0, 0.5, 0.25)
    tree({"sys/fs/cgroup/job/memory.pressure": PSI.format("33.30")})
    assert memory.pressure(root).some_avg10 == 33.3


def test_what_the_system_does_not_say_is_none(tmp_path):
    assert memory.resident(tmp_path) is memory.peak(tmp_path) is memory.limit(tmp_path) is None
    assert memory.available(tmp_path) is memory.pressure(tmp_path) is None
    assert memory.system(tmp_path) == {} and not groups.known(tmp_path)


def test_processor_seconds_grow_with_work():
    before = processor.seconds()
    while processor.seconds() < before + 0.01:
        sum(range(1000))
    assert processor.seconds() >= before + 0.01
