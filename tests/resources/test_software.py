"""What is installed and chosen, and what is said where something is not."""

from __future__ import annotations

import importlib.util
import os
import sys

import numpy as np
import pytest

from tinynet.resources import machine, measure, software
from tinynet.resources.facts import Unknown

needs_threadpoolctl = pytest.mark.skipif(
    importlib.util.find_spec("threadpoolctl") is None, reason="threadpoolctl is not installed"
)


def test_without_threadpoolctl_numpy_says_what_it_was_built_with(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with pytest.raises(Unknown, match=r"tinynet\[cpu\]"):
        software.thread_pools()
    found = software.blas()
    assert found["library"] and found["architecture"] is found["threads"] is None


def test_the_blas_of_numpy_is_told_from_others(monkeypatch):
    def of(path, version):
        return {"kind": "blas", "library": "openblas", "version": version, "architecture": "Zen", "threads": 2,
                "path": path}  # fmt: skip

    both = [of("/lib/scipy.libs/libopenblas.so", "1"), of("/lib/numpy.libs/libopenblas.so", "2")]
    monkeypatch.setattr(software, "thread_pools", lambda: both)
    assert software.blas() == {"library": "openblas", "version": "2", "architecture": "Zen", "threads": 2}


def test_threads_and_who_says_so(monkeypatch):
    monkeypatch.setattr(software, "available", lambda target: True)
    many = machine.usable() + 3
    monkeypatch.setenv("TINYNET_NUM_THREADS", str(many))
    assert software.threads() == {"count": many, "source": "TINYNET_NUM_THREADS"}
    monkeypatch.setenv("TINYNET_NUM_THREADS", "several")
    assert software.threads() == {"count": machine.usable(), "source": "affinity"}
    monkeypatch.setattr(software, "available", lambda target: False)
    assert software.threads() == {"count": 1, "source": "the numpy executor"}


@pytest.fixture
def kernels_in(tmp_path, monkeypatch):
    """A cache of compiled kernels of the test's own."""
    if not software.available("native"):
        pytest.skip("numba is not installed")
    monkeypatch.setenv("TINYNET_CACHE", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


def test_the_folder_of_kernels_is_described(kernels_in):
    older = kernels_in / "native-0123"
    older.mkdir(parents=True, mode=0o700)
    (older / "library-32-512.o").write_bytes(bytes(1000))
    kernels_in.chmod(0o700)
    found = software.kernel_cache()
    assert found["private"] and found["refused"] is None and found["bytes"] == 0
    assert found["compiled_float_bits"] == []
    assert (found["older_folders"], found["older_bytes"]) == (["native-0123"], 1000)
    for name in ("library-32-512.o", "library-64-512.o"):
        with open(os.path.join(found["path"], name), "wb") as file:
            file.write(bytes(10))
    found = software.kernel_cache()
    assert found["compiled_float_bits"] == [32, 64] and found["bytes"] == 20


def test_a_folder_that_others_may_write_to_is_refused_with_the_reason(kernels_in):
    kernels_in.mkdir()
    kernels_in.chmod(0o777)
    found = software.kernel_cache()
    assert not found["private"] and found["refused"] == f"others may write to {kernels_in}"


def test_without_a_home_directory_there_is_no_folder_of_kernels(kernels_in, monkeypatch):
    monkeypatch.setenv("TINYNET_CACHE", "~no-such-user")
    found = software.kernel_cache()
    assert (found["path"], found["private"], found["refused"]) == ("none", False, "there is no home directory")


def test_the_executor_says_why_it_is_not_native(monkeypatch):
    monkeypatch.setattr(software, "obstacle", lambda target: None)
    assert software.executor() == {"name": "native", "obstacle": None}
    monkeypatch.setattr(software, "obstacle", lambda target: "numba does not fit")
    assert software.executor() == {"name": "numpy", "obstacle": "numba does not fit"}


def test_without_numba_there_are_no_kernels_to_describe(monkeypatch):
    monkeypatch.setattr(software, "available", lambda target: False)
    with pytest.raises(Unknown, match="numba"):
        software.kernel_cache()


def test_a_gpu_that_cupy_cannot_use_is_named_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(software, "available", lambda target: False)
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(software.shutil, "which", lambda name: None)
    assert software.gpus(tmp_path)["names"] == []
    card = tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0"
    card.mkdir(parents=True)
    (card / "information").write_text("Model: NVIDIA Fast 1\n")
    found = software.gpus(tmp_path)
    assert found["names"] == ["NVIDIA Fast 1"] and "install tinynet[cuda1" in found["unusable"]


def test_extras_come_from_the_metadata(tmp_path, monkeypatch):
    folder = tmp_path / "madeup-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: madeup\nVersion: 1.0\nProvides-Extra: one\nProvides-Extra: two\n"
        "Requires-Dist: numpy>=2.1\n"
        "Requires-Dist: NumPy>=2; extra == 'one'\n"
        'Requires-Dist: no-such_package[x]!=0.8,>=0.5; (python_version > "3") and extra == "two"\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert software.extras("madeup") == {"one": {"NumPy": np.__version__}, "two": {"no-such_package": None}}
    with pytest.raises(Unknown):
        software.extras("no-such-distribution")


def test_variables_that_steer_are_listed_and_no_others(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("SECRET", "x")
    found = software.variables()
    assert found["OPENBLAS_CORETYPE"] == "Haswell" and "SECRET" not in found


# ---- measurements: that they measure what they say, not how fast it is ----


def test_arrays_to_copy_are_beyond_the_caches_and_within_the_memory(monkeypatch):
    def sizes(last, available):
        monkeypatch.setattr(machine, "caches", lambda: [{"name": "L3", "bytes": last}])
        memory = {"total_bytes": 2**40, "available_bytes": available, "limit_bytes": None}
        monkeypatch.setattr(machine, "memory", lambda: memory)
        return measure.copy_bytes(quick=False)

    assert sizes(100 * 2**20, 2**40) == 150 * 2**20
    assert sizes(2**30, 2**40) == 512 * 2**20
    assert sizes(2**20, 2**40) == 64 * 2**20
    assert sizes(100 * 2**20, 2**30) == 64 * 2**20


def test_copying_copies_all_of_it(monkeypatch):
    copied = []
    monkeypatch.setattr(np, "copyto", lambda target, source: copied.append(len(source)))
    found = measure.copy_bandwidth(seconds=0, threads=3, nbytes=1000)
    assert sorted(copied) == [333, 333, 333, 333, 334, 334, 1000, 1000]
    assert found["array_bytes"] == 1000 and found["threads"] == 3


@needs_threadpoolctl
def test_one_thread_is_one_thread(monkeypatch):
    seen = []
    monkeypatch.setattr(measure, "fastest", lambda call, seconds: seen.append(software.blas()["threads"]) or 1.0)
    before = software.blas()["threads"]
    measure.matrix_product(seconds=0)
    assert seen == [1, before]
