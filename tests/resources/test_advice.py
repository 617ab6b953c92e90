"""Every warning speaks on facts that call for it, says how to mend them, and is silent on all others."""

from __future__ import annotations

import copy

import pytest

from tinynet.resources import advice as module
from tinynet.resources.advice import CHECKS, advice

GIB = 2**30


def pool(library, threads, kind="blas", layer="pthreads"):
    return {"library": library, "threads": threads, "kind": kind, "layer": layer}


# A machine on which there is nothing to say.
GOOD = {
    "processor": {
        "counts": {"processors": 4},
        "affinity": [0, 1, 2, 3],
        "quota": {"processors": None},
        "caches": [{"name": "L1d", "bytes": 48 * 1024}, {"name": "L2", "bytes": 2048 * 1024}],
        "vectors": {"available_bits": [512, 256, 128], "used_bits": 512},
        "governor": {"governors": ["performance"], "drivers": ["acpi-cpufreq"], "preferences": []},
        "load": 0.3,
        "peak": {"float32_gflop_per_s": 200.0},
    },
    "memory": {"sizes": {"total_bytes": 16 * GIB, "available_bytes": 8 * GIB, "swap_used_bytes": 0}},
    "blas": {
        "in_use": {"library": "openblas", "architecture": "SkylakeX", "threads": 4},
        "pools": [pool("openblas", 4)],
        "matrix_product": {"one_thread_gflop_per_s": 180.0},
    },
    "programs": {
        "executor": {"name": "native", "obstacle": None},
        "threads": {"count": 4},
        "kernel_cache": {"private": True},
    },
    "software": {"variables": {}},
    "unknown": {},
}


def but(**changes):
    """The good facts with some changed: ``section__name__part=value``."""
    facts = copy.deepcopy(GOOD)
    for path, value in changes.items():
        *outer, last = path.split("__")
        at = facts
        for name in outer:
            at = at[name]
        at[last] = value
    return facts


def variable(name, value, **changes):
    return but(software__variables={name: value}, **changes)


NO_THREADPOOLCTL = {
    "blas__in_use": {"library": "openblas", "architecture": None, "threads": None}, "blas__pools": None,
    "blas__matrix_product": {"one_thread_gflop_per_s": None, "all_threads_gflop_per_s": 360.0},
}  # fmt: skip
HASWELL = {"blas__in_use__architecture": "Haswell", "blas__matrix_product__one_thread_gflop_per_s": 90.0}

# check -> facts on which it speaks, and words of what it says
SPEAKS = {
    "blas_kernels_for_another_processor": [
        (variable("OPENBLAS_CORETYPE", "Haswell", **HASWELL), ["Haswell", "50%", "45%", "unset OPENBLAS_CORETYPE"]),
        (variable("OPENBLAS_CORETYPE", "HASWELL", **NO_THREADPOOLCTL), ["HASWELL", "unset OPENBLAS_CORETYPE"]),
        (variable("OPENBLAS_CORETYPE", "Sandybridge", processor__vectors={"available_bits": [256, 128]},
                  blas__in_use__architecture="Sandybridge", processor__peak=None), ["Sandybridge", "50%"]),
        (variable("OPENBLAS_CORETYPE", "Mystery", **NO_THREADPOOLCTL), ["Mystery", "unset OPENBLAS_CORETYPE"]),
        (but(**HASWELL), ["Haswell", "update NumPy"]),
    ],
    "blas_cuts_for_another_cache": [
        (variable("OPENBLAS_L2_SIZE", "512"), ["512 KiB", "2048 KiB", "unset OPENBLAS_L2_SIZE"]),
        (variable("OPENBLAS_L2_SIZE", "512", processor__caches=None), ["512 KiB", "unset OPENBLAS_L2_SIZE"]),
    ],
    "blas_leaves_processors_idle": [
        (variable("OPENBLAS_NUM_THREADS", "1", blas__in_use__threads=1), ["1 thread ", "4 processors", "unset OPEN"]),
        (variable("OMP_NUM_THREADS", "2", **NO_THREADPOOLCTL), ["2 threads", "4 processors", "unset OMP_NUM_THREADS"]),
        (variable("MKL_NUM_THREADS", "2", blas__in_use={"library": "mkl", "threads": 2}), ["unset MKL_NUM_THREADS"]),
    ],
    "blas_has_too_many_threads": [
        (but(blas__in_use__threads=8), ["8 threads", "4 processors", "OPENBLAS_NUM_THREADS=4"]),
        (but(blas__in_use={"library": "accelerate", "threads": 8}), ["OMP_NUM_THREADS=4"]),
    ],
    "several_pools_of_threads": [
        (but(blas__pools=[pool("openblas", 4), pool("openblas", 4)]), ["2 libraries", "threadpool_limits"]),
        (but(blas__pools=[pool("openblas", 4), pool("libgomp", 2, "openmp", None)]), ["openblas (4), libgomp (2)"]),
    ],
    "no_compiled_programs": [
        (but(programs__executor={"name": "numpy", "obstacle": "no numba"}), ["no numba", "pip install 'tinynet[cpu]'"]),
    ],
    "kernels_are_not_kept": [
        (but(programs__kernel_cache={"private": False, "refused": "others may write to /x"}), ["/x", "TINYNET_CACHE"]),
    ],
    "thread_count_is_not_a_number": [
        (variable("TINYNET_NUM_THREADS", "two"), ["'two'", "ignored"]),
        (variable("TINYNET_NUM_THREADS", "0"), ["'0'", "ignored"]),
    ],
    "more_threads_than_processors": [
        (variable("TINYNET_NUM_THREADS", "9", programs__threads__count=9), ["9 threads", "TINYNET_NUM_THREADS=4"]),
    ],
    "quota_below_the_threads": [
        (but(processor__quota__processors=1.5), ["1.5 processors", "4 threads", "TINYNET_NUM_THREADS=1"]),
        (but(processor__quota__processors=2.0, programs__threads__count=1), ["OPENBLAS_NUM_THREADS=2"]),
    ],
    "clock_is_held_low": [
        (but(processor__governor__governors=["performance", "powersave"]), ["powersave", "governor performance"]),
        (but(processor__governor={"governors": ["powersave"], "drivers": ["intel_pstate"], "preferences": ["power"]}),
         ["powersave"]),
    ],
    "machine_is_busy": [(but(processor__load=3.0), ["3.0 threads on 4 processors", "TINYNET_NUM_THREADS"])],
    "memory_is_short": [(but(memory__sizes__available_bytes=GIB), ["1.0 GiB of 16.0 GiB", "--memory"])],
    "memory_is_on_disk": [(but(memory__sizes__swap_used_bytes=3 * GIB), ["3.0 GiB", "swap"])],
}  # fmt: skip

SILENT = {
    "good": GOOD,
    "nothing known": {section: dict.fromkeys(names) for section, names in GOOD.items()},
    "no sections": {},
    "kernels that suit": variable("OPENBLAS_CORETYPE", "SkylakeX"),
    "kernels of a narrow processor": but(
        blas__in_use__architecture="Haswell", processor__vectors={"available_bits": [256, 128]}
    ),
    "narrow kernels that are as fast": but(blas__in_use__architecture="Haswell"),
    "a variable of another library": variable("OPENBLAS_CORETYPE", "Haswell", blas__in_use={"library": "mkl"}),
    "the cache as it is": variable("OPENBLAS_L2_SIZE", "2048"),
    "as many threads as processors": variable("OPENBLAS_NUM_THREADS", "4"),
    "a variable that was overruled": variable("OMP_NUM_THREADS", "1"),
    "one pool at work": but(blas__pools=[pool("openblas", 4), pool("libgomp", 1, "openmp", None)]),
    "blas on the threads of openmp": but(
        blas__pools=[pool("openblas", 4, layer="openmp"), pool("libgomp", 4, "openmp", None)]
    ),
    "mkl on the threads of openmp": but(
        blas__pools=[pool("mkl", 4, layer="intel"), pool("libiomp", 4, "openmp", None)]
    ),
    "fewer threads, as asked": variable("TINYNET_NUM_THREADS", "2", programs__threads__count=2),
    "a quota that suffices": but(processor__quota__processors=4.0),
    "a driver that adapts the clock": but(
        processor__governor={"governors": ["powersave"], "drivers": ["intel_pstate"], "preferences": ["performance"]}
    ),
    "old pages in swap": but(memory__sizes__swap_used_bytes=2**20),
}

CASES = [(name, *case) for name, cases in SPEAKS.items() for case in cases]


@pytest.mark.parametrize(("name", "facts", "words"), CASES, ids=[name for name, _, _ in CASES])
def test_it_speaks_and_says_how_to_mend(name, facts, words):
    found = getattr(module, name)(facts)
    assert found is not None and found.mend
    for word in words:
        assert word in f"{found.problem} {found.mend}"
    assert found in advice(facts)


@pytest.mark.parametrize("name", SILENT)
def test_it_is_silent(name):
    assert advice(SILENT[name]) == []


def test_every_check_has_its_case():
    assert {each.__name__ for each in CHECKS} == set(SPEAKS)
