"""``tinynet doctor``: all sections are there whatever is installed, and nothing makes it fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tinynet.cli import doctor, main
from tinynet.resources.facts import Unknown

MISSING = "import sys; sys.modules.update(dict.fromkeys(['numba', 'llvmlite', 'threadpoolctl', 'cupy'])); "
RUN = "import sys; from tinynet.cli import main; sys.exit(main(sys.argv[1:]))"


def run_apart(*args, before="", **variables):
    """The command in a process of its own; what it prints."""
    command = [sys.executable, "-c", before + RUN, "doctor", "--quick", *args]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | variables)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(autouse=True)
def private_kernels(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYNET_CACHE", str(tmp_path / "kernels"))


def sections(text):
    return [line.split(":")[0] for line in text.splitlines() if line and not line.startswith(" ")]


def test_all_lines_are_printed_and_fit(capsys):
    assert main(["doctor", "--quick"]) == 0
    printed = capsys.readouterr().out
    assert sections(printed) == [*doctor.SECTIONS, "warnings"]
    starts = [line[: doctor._BEFORE].strip() for line in printed.splitlines() if line.startswith("  ")]
    labels = [line.label for lines in doctor.SECTIONS.values() for line in lines.values()]
    assert [start for start in starts if start in labels] == labels
    assert all(len(line) <= doctor.WIDTH for line in printed.splitlines() if " " in line[doctor._BEFORE :])


def test_json_says_the_same(capsys):
    assert main(["doctor", "--quick", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert list(facts) == [*doctor.SECTIONS, "unknown", "warnings"]
    assert {section: list(facts[section]) for section in doctor.SECTIONS} == {
        section: list(lines) for section, lines in doctor.SECTIONS.items()
    }
    assert facts["memory"]["copy"]["one_thread_gb_per_s"] > 0
    assert facts["blas"]["matrix_product"]["all_threads_gflop_per_s"] > 0


def test_without_numba_and_threadpoolctl_it_says_what_they_would_tell():
    printed = run_apart(before=MISSING)
    assert sections(printed) == [*doctor.SECTIONS, "warnings"]
    assert "unknown: needs numba" in printed and "threadpoolctl would tell" in printed
    assert "pip install 'tinynet[cpu]'" in printed.split("warnings")[1]


def test_a_warning_does_not_fail_the_command():
    facts = json.loads(run_apart("--json", OPENBLAS_L2_SIZE="77", TINYNET_NUM_THREADS="many"))
    problems = " ".join(each["problem"] for each in facts["warnings"])
    assert "OPENBLAS_L2_SIZE=77" in problems and "TINYNET_NUM_THREADS='many'" in problems
    assert all(each["mend"] for each in facts["warnings"])


def fails(quick):
    raise OSError("the disk is gone")


def test_no_probe_that_fails_stops_the_others(monkeypatch, capsys):
    broken = {
        section: {name: line._replace(probe=fails) for name, line in lines.items()}
        for section, lines in doctor.SECTIONS.items()
    }
    monkeypatch.setattr(doctor, "SECTIONS", broken)
    assert main(["doctor", "--quick"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("unknown: OSError: the disk is gone") == sum(map(len, broken.values()))
    assert "warnings: none" in printed


# ---- the words of what this machine may not have ----


@pytest.mark.parametrize(
    ("section", "name", "value", "words"),
    [
        ("processor", "affinity", [0, 1, 2, 3, 8], "5 of them: 0-3,8"),
        ("processor", "counts", {"processors": 4, "cores": None, "sockets": None}, "4"),
        ("processor", "quota", {"processors": 1.5}, "1.5 processors' worth"),
        ("processor", "governor", {"governors": ["powersave"], "drivers": ["intel_pstate"], "preferences": ["power"]},
         "powersave (intel_pstate, preference power)"),
        ("processor", "load", 1.25, "1.2 threads"),
        ("memory", "sizes", {"total_bytes": 2**34, "available_bytes": None, "limit_bytes": 2**33, "swap_used_bytes": 0},
         "16.0 GiB, available: unknown, limit of the control group 8.0 GiB, no swap in use"),
        ("programs", "executor", {"name": "native", "obstacle": None}, "native: compiled kernels"),
        ("programs", "executor", {"name": "numpy", "obstacle": "numba does not fit"}, "not native: numba does not fit"),
        ("programs", "kernel_cache", {"path": "/x", "private": False, "refused": "others may write to /x", "bytes": 0,
                                      "compiled_float_bits": [], "older_folders": [], "older_bytes": 0},
         "/x\nrefused: others may write to /x"),
        ("programs", "kernel_cache", {"path": "/x", "private": True, "refused": None, "bytes": 5 * 10**6,
                                      "compiled_float_bits": [32, 64], "older_folders": ["native-1"], "older_bytes": 7},
         "private, 5 MB, compiled for float32 and float64"),
        ("devices", "gpus", {"names": ["Fast 1"], "memory_bytes": [2**36], "unusable": None}, "Fast 1 (64.0 GiB)"),
        ("devices", "gpus", {"names": ["Fast 1"], "memory_bytes": None, "unusable": "CuPy is not installed"},
         "Fast 1\nnot usable: CuPy is not installed"),
        ("devices", "energy_counters", [{"name": "package-0", "readable": True}], "package-0: readable"),
        ("devices", "energy_counters", [{"name": "package-0", "readable": False}], "sudo chmod a+r"),
        ("software", "variables", {"OMP_NUM_THREADS": "2"}, "OMP_NUM_THREADS=2"),
    ],
)  # fmt: skip
def test_words(section, name, value, words):
    assert words in doctor.SECTIONS[section][name].show(value, {"unknown": {}})


def test_what_is_unknown_says_why(monkeypatch):
    def unknown(quick):
        raise Unknown("the system names no model")

    line = doctor.SECTIONS["processor"]["model"]._replace(probe=unknown)
    monkeypatch.setattr(doctor, "SECTIONS", {"processor": {"model": line}})
    assert "  model             unknown: the system names no model" in doctor.report(doctor.examine(quick=True), [])
