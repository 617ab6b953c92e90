"""The machine as the system describes it, read from trees of files made for the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinynet.resources import machine
from tinynet.resources.facts import Unknown

GIB = 2**30


@pytest.fixture
def tree(tmp_path):
    """Writes files below a root and returns it."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        return tmp_path

    return write


def cache(index, level, kind, size, shared="0"):
    folder = f"sys/devices/system/cpu/cpu0/cache/index{index}"
    values = {"level": level, "type": kind, "size": size, "shared_cpu_list": shared}
    return {f"{folder}/{name}": str(value) for name, value in values.items()}


# ---- the processor ----


def test_model_and_vectors_are_those_of_the_first_processor(tree):
    flags = "fpu sse2 avx2 fma avx512f avx512vl"
    root = tree(
        {"proc/cpuinfo": f"processor\t: 0\nmodel name\t: Fast 9000\nflags\t\t: {flags}\n\nmodel name\t: Slow 1"}
    )
    assert machine.model(root) == "Fast 9000"
    assert machine.vector_bits(root) == [512, 256, 128]


@pytest.mark.parametrize(
    ("features", "expected"),
    [("flags : sse2", [128]), ("flags : sse2 avx2 fma", [256, 128]), ("flags : sse2 avx2 avx512f", [128]),
     ("Features : fp asimd", [128])],
)  # fmt: skip
def test_vectors_are_counted_only_with_what_multiplying_and_adding_needs(tree, features, expected):
    assert machine.vector_bits(tree({"proc/cpuinfo": features})) == expected


def test_threads_of_one_core_are_one_core(tree):
    topology = {}
    for cpu, (package, core) in enumerate([(0, 0), (0, 0), (0, 1), (1, 0)]):
        topology[f"sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id"] = str(package)
        topology[f"sys/devices/system/cpu/cpu{cpu}/topology/core_id"] = str(core)
    assert machine.counts(tree(topology)) == {"processors": 4, "cores": 3, "sockets": 2}


def test_caches_are_named_by_level_and_kind(tree):
    root = tree(
        cache(0, 1, "Data", "48K")
        | cache(1, 1, "Instruction", "32K")
        | cache(2, 2, "Unified", "1024K", "0,64")
        | cache(3, 3, "Unified", "32M", "0-7,64-71")
    )
    found = machine.caches(root)
    assert [(each["name"], each["bytes"], each["shared_by"]) for each in found] == [
        ("L1d", 48 * 2**10, 1), ("L1i", 32 * 2**10, 1), ("L2", 2**20, 2), ("L3", 32 * 2**20, 16),
    ]  # fmt: skip
    assert machine.cache_bytes(found, "L2") == 2**20
    assert machine.cache_bytes(found, "last") == 32 * 2**20
    assert machine.cache_bytes([], "last") is None


def test_the_clock_is_described_over_all_processors(tree):
    folders = [f"sys/devices/system/cpu/cpu{cpu}/cpufreq" for cpu in range(2)]
    root = tree(
        {f"{folder}/scaling_driver": "intel_pstate" for folder in folders}
        | {f"{folders[0]}/scaling_governor": "powersave", f"{folders[1]}/scaling_governor": "performance"}
    )
    assert machine.governor(root) == {
        "governors": ["performance", "powersave"], "drivers": ["intel_pstate"], "preferences": [],
    }  # fmt: skip


# ---- limits and memory ----


@pytest.mark.parametrize(("text", "expected"), [("150000 100000", 1.5), ("max 100000", None)])
def test_quota_of_version_2(tree, text, expected):
    root = tree({"proc/self/cgroup": "0::/job/inner", "sys/fs/cgroup/job/inner/cpu.max": text})
    assert machine.quota(root) == {"processors": expected}


def test_groups_further_out_bind_too(tree):
    root = tree(
        {
            "proc/self/cgroup": "0::/job/inner",
            "sys/fs/cgroup/job/inner/cpu.max": "400000 100000",
            "sys/fs/cgroup/job/cpu.max": "200000 100000",
        }
    )
    assert machine.quota(root) == {"processors": 2.0}


@pytest.mark.parametrize("mounted", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("spend", "expected"), [("50000", 0.5), ("-1", None)])
def test_quota_of_version_1(tree, mounted, spend, expected):
    folder = f"sys/fs/cgroup/{mounted}/job"
    root = tree(
        {
            "proc/self/cgroup": "5:memory:/other\n3:cpu,cpuacct:/job\n0::/",
            f"{folder}/cpu.cfs_quota_us": spend,
            f"{folder}/cpu.cfs_period_us": "100000",
        }
    )
    assert machine.quota(root) == {"processors": expected}


def test_inside_a_container_the_visible_groups_count(tree):
    """Its files are at the top, while the path is one of the host's."""
    root = tree({"proc/self/cgroup": "0::/docker/0123", "sys/fs/cgroup/cpu.max": "100000 100000"})
    assert machine.quota(root) == {"processors": 1.0}


def test_without_a_limit_there_is_no_quota(tree):
    assert machine.quota(tree({"proc/self/cgroup": "0::/"})) == {"processors": None}


MEMINFO = "MemTotal:  8388608 kB\nMemFree: 12 kB\nMemAvailable:  4194304 kB\nSwapTotal: 2048 kB\nSwapFree: 1024 kB"


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ({"proc/self/cgroup": "0::/job", "sys/fs/cgroup/job/memory.max": str(GIB)}, GIB),
        ({"proc/self/cgroup": "0::/job", "sys/fs/cgroup/job/memory.max": "max"}, None),
        ({"proc/self/cgroup": "4:memory:/", "sys/fs/cgroup/memory/memory.limit_in_bytes": str(GIB)}, GIB),
        ({"proc/self/cgroup": "4:memory:/", "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2**63 - 4096)}, None),
    ],
)
def test_memory_and_its_limit(tree, group, expected):
    assert machine.memory(tree(group | {"proc/meminfo": MEMINFO})) == {
        "total_bytes": 8 * GIB, "available_bytes": 4 * GIB, "limit_bytes": expected, "swap_used_bytes": 2**20,
    }  # fmt: skip


# ---- energy and graphics ----


def counters(tree):
    root = tree(
        {f"sys/class/powercap/{each}/energy_uj": "123456" for each in ("intel-rapl:0", "intel-rapl:0:0")}
        | {"sys/class/powercap/intel-rapl:0/name": "package-0", "sys/class/powercap/intel-rapl/enabled": "1"}
    )
    return machine.energy_counters(root)


def test_energy_counters_that_can_be_read(tree):
    assert counters(tree) == [
        {"name": "package-0", "readable": True}, {"name": "intel-rapl:0:0", "readable": True},
    ]  # fmt: skip


def test_energy_counters_that_are_closed(tree, monkeypatch):
    """As they are to all but root; the test may be root, so that the refusal is played."""
    read = Path.read_text

    def refused(self, *args, **kwargs):
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(self))
        return read(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refused)
    assert [(each["name"], each["readable"]) for each in counters(tree)] == [
        ("package-0", False), ("intel-rapl:0:0", False),
    ]  # fmt: skip


def test_gpus_that_the_driver_lists(tree):
    information = "Model: \t\t NVIDIA Fast 1\nIRQ:   \t\t 34\nBus Location: \t 0000:01:00.0"
    assert machine.nvidia_models(tree({"proc/driver/nvidia/gpus/0000:01:00.0/information": information})) == [
        "NVIDIA Fast 1"
    ]


# ---- what is not there ----


@pytest.mark.parametrize(
    "probe", [machine.caches, machine.vector_bits, machine.governor, machine.quota, machine.memory]
)
def test_what_the_system_does_not_show_is_unknown(tmp_path, probe):
    with pytest.raises(Unknown, match=r"\w"):
        probe(tmp_path)


def test_what_is_not_there_is_none(tmp_path):
    assert machine.energy_counters(tmp_path) == machine.nvidia_models(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "numbers"), [("", []), ("3", [3]), ("0-3,8", [0, 1, 2, 3, 8]), ("1,3,5-6", [1, 3, 5, 6])]
)
def test_lists_of_processors(text, numbers):
    assert machine.from_ranges(text) == numbers
    assert machine.ranges(numbers) == text
