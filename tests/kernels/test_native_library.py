"""Where compiled code is kept, what it is made from, and what there is where it can be neither kept nor compiled."""

import ast
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import native_checks
import numpy as np
import pytest

from tinynet import kernels

native = native_checks.native  # the fixture

# numba is installed, and does not fit what else there is
UNFIT = """if 1:
    import importlib.abc, importlib.machinery, importlib.util, sys
    class Unfit(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        def find_spec(self, name, path=None, target=None):
            return importlib.machinery.ModuleSpec(name, self) if name == "numba" else None
        def exec_module(self, module):
            raise ImportError("Numba needs NumPy 2.2 or less.")
    sys.meta_path.insert(0, Unfit())
    assert importlib.util.find_spec("numba") is not None
    import numpy as np, tinynet as tn
    """
REASON = "numba cannot be imported: Numba needs NumPy 2.2 or less."


@pytest.fixture
def machine(native):
    from tinynet.kernels.cpu.native import machine

    return machine


@pytest.fixture
def library(native):
    from tinynet.kernels.cpu.native import library

    return library


def python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=os.environ | environment,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.splitlines()


# ---- the folder ----


def test_a_user_without_a_home_has_no_folder_unless_one_is_named(machine, monkeypatch, tmp_path):
    def home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("TINYNET_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine.Path, "home", home)
    assert machine.cache_root() is machine.cache_folder() is None
    assert machine.cache_refusal() == "there is no home directory"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert machine.cache_folder().parent == tmp_path / "tinynet"
    monkeypatch.setenv("TINYNET_CACHE", "~no-such-user/kernels")
    assert machine.cache_folder() is None


def test_a_tilde_is_the_home_directory(machine, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TINYNET_CACHE", "~/kernels")
    assert machine.cache_folder().parent == tmp_path / "kernels" and machine.cache_refusal() is None


def test_a_folder_is_refused_with_the_reason(machine, monkeypatch, tmp_path):
    def refusal(root):
        monkeypatch.setenv("TINYNET_CACHE", str(root))
        assert machine.cache_folder() is None
        return machine.cache_refusal()

    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file") == f"{tmp_path / 'file'} is no folder"
    inside = tmp_path / "file" / "inside"
    assert refusal(inside) == f"{inside} cannot be made: Not a directory"
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert refusal(tmp_path / "open") == f"others may write to {tmp_path / 'open'}"
    monkeypatch.setenv("TINYNET_CACHE", str(tmp_path / "read"))
    folder = machine.cache_folder()
    folder.chmod(0o750)
    machine._refusal.cache_clear()
    assert refusal(tmp_path / "read") == f"others may open {folder}"
    folder.rmdir()
    folder.symlink_to(tmp_path / "open")
    machine._refusal.cache_clear()
    assert refusal(tmp_path / "read") == f"{folder} is no folder"


# ---- what is compiled ----


def test_the_fingerprint_is_of_all_that_the_operations_import(machine):
    """As Python reads their imports, which the module finds by their text."""
    root, found = Path(kernels.__file__).parent, {path.resolve() for path in machine.sources()}
    waiting = [path.resolve() for path in (root / "cpu" / "native" / "code").glob("*.py")]
    seen = set(waiting)
    for path in waiting:
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for each in (base.with_suffix(".py"), *(base / f"{alias.name}.py" for alias in node.names)):
                if each.is_file() and each not in seen:
                    waiting.append(each)
                    seen.add(each)
    assert seen <= found
    native = Path(machine.__file__).resolve().parent
    assert {path for path in found if not path.is_relative_to(native)} == seen - set(native.rglob("*.py"))
    assert root.resolve() / "reference" / "random.py" in found


def test_another_constant_is_another_fingerprint(machine, monkeypatch):
    before = machine.fingerprint()
    text = {path: path.read_text() for path in machine.sources()}
    (constants,) = (path for path in text if path.name == "random.py")
    text[constants] = text[constants].replace("0xD2511F53", "0xD2511F55")
    monkeypatch.setattr(machine, "sources", lambda: text)
    assert machine.fingerprint.__wrapped__() != before


def test_a_compilation_says_how_long_it_takes_and_where_it_is_kept_or_why_not(library, monkeypatch, tmp_path, capsys):
    from tinynet.kernels.cpu.native.code import compiling

    monkeypatch.setattr(compiling, "object_code", lambda functions: b"")
    monkeypatch.setenv("TINYNET_CACHE", str(tmp_path / "cache"))
    library._compile(4, 128)
    said = capsys.readouterr().err
    assert "about 20 s for each element type, once" in said and f"kept in {tmp_path / 'cache'}" in said
    (tmp_path / "file").touch()
    monkeypatch.setenv("TINYNET_CACHE", str(tmp_path / "file"))
    library._compile(4, 128)
    assert f"not kept, because {tmp_path / 'file'} is no folder" in capsys.readouterr().err


# ---- one process at a time ----


@pytest.mark.parametrize("broken", ["no locks", "no folder", "no fcntl"])
def test_where_nothing_can_be_locked_work_goes_on(library, tmp_path, monkeypatch, broken):
    def flock(*_):
        raise OSError(95, "Operation not supported")

    fcntl, path = pytest.importorskip("fcntl"), tmp_path / "lock"
    if broken == "no locks":
        monkeypatch.setattr(fcntl, "flock", flock)
    elif broken == "no fcntl":
        monkeypatch.setitem(sys.modules, "fcntl", None)
    else:
        path = tmp_path / "missing" / "lock"
    done = []
    with library.only_one(path):
        done.append(1)
    assert done
    with pytest.raises(OSError, match="of the work"), library.only_one(path):  # not taken for one of the lock
        raise OSError("of the work")


def test_a_lock_is_held_by_one(library, tmp_path):
    pytest.importorskip("fcntl")
    inside, most = [], []

    def work():
        with library.only_one(tmp_path / "lock"):
            inside.append(1)
            time.sleep(0.01)
            most.append(len(inside))
            inside.pop()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    assert most == [1] * 4


# ---- numba that is there and does not work ----


def test_with_kernels_that_are_kept_numba_is_not_needed(library):
    library.load(4)
    code = """
    x, step = np.ones(3, "float32"), tn.capture(lambda x: (x * 2).sum())
    assert all(step(x).item() == 6 for _ in range(3))
    print(step.program(x).target, tn.kernels.available("native"), tn.kernels.obstacle("native", "float32"))
    """
    assert python(UNFIT + code) == ["native True None"]


def test_where_kernels_have_to_be_compiled_and_numba_does_not_work_programs_run_on_numpy(native, tmp_path):
    code = """
    x = np.ones(3, "float32")
    for _ in range(2):
        step = tn.capture(lambda x: (x * 2).sum())
        assert all(step(x).item() == 6 for _ in range(3))
        assert step.program(x).target == "numpy"
    try:
        tn.capture(lambda x: x * 2, executor="native")(x)
    except tn.errors.MissingExtraError as error:
        print(error)
    from tinynet.resources import software
    print(software.executor()["name"], software.executor()["obstacle"])
    """
    refused, reason = python(UNFIT + code, TINYNET_CACHE=str(tmp_path))
    assert REASON in refused and "tinynet[cpu]" in refused
    assert reason == f"numpy {REASON}"


def test_kernels_of_one_element_type_are_no_kernels_of_another(library, machine, tmp_path):
    library.load(4)
    folder = tmp_path / machine.cache_folder().name
    folder.mkdir(mode=0o700)
    tmp_path.chmod(0o700)
    (kept,) = machine.cache_folder().glob(f"library-32-{machine.widths()[0]}.o")
    (folder / kept.name).write_bytes(kept.read_bytes())
    code = """
    for dtype in ("float32", "float64"):
        x, step = np.ones(3, dtype), tn.capture(lambda x: (x * 2).sum())
        assert all(step(x).item() == 6 for _ in range(3))
        print(dtype, step.program(x).target)
    """
    assert python(UNFIT + code, TINYNET_CACHE=str(tmp_path)) == ["float32 native", "float64 numpy"]


def test_llvmlite_that_does_not_work_is_an_obstacle_too(tmp_path):
    code = UNFIT.replace('"numba"', '"llvmlite"').replace("Numba needs NumPy 2.2 or less.", "no such file")
    found = python(code + 'print(tn.kernels.obstacle("native"), tn.kernels.available("native"))')
    assert found == ["llvmlite cannot be imported: no such file False"]


def test_targets_that_do_not_exist_are_not_there():
    assert not kernels.available("abacus") and "abacus" in kernels.obstacle("abacus")
    assert kernels.obstacle("numpy") is kernels.obstacle("reference") is None


def test_a_number_of_numpy_is_a_number(native):
    from tinynet.kernels.cpu.native.instructions import _bits

    half = int(np.float64(0.5).view(np.int64))
    assert [_bits(each) for each in (0.5, np.float64(0.5), np.float32(0.5))] == [half] * 3
    assert [_bits(each) for each in (3, np.int32(3), True)] == [3, 3, 1]
