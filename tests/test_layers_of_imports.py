"""The floor plan: arrows between the rooms point down, and importing tinynet brings in nothing that is not needed."""

import ast
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tinynet

ROOT = Path(tinynet.__file__).resolve().parent
KERNELS = Path(tinynet.kernels.__file__).resolve().parent

# From the ground up. Rooms of one storey do not import each other.
STOREYS = (
    ("errors",), ("kernels", "meters"), ("backend",), ("ops",), ("autograd",), ("tensor",), ("memory",), ("program",),
    ("nn", "losses", "optim"), ("data",), ("train",), ("resources",), ("compress", "distributed", "interop"), ("cli",),
    ("__main__",),
)  # fmt: skip
LEVEL = {room: level for level, rooms in enumerate(STOREYS) for room in rooms}
# room -> all that it may import of tinynet, where that is less than everything below it
ONLY = {
    "errors": set(),
    "kernels": {"kernels"},
    "meters": {"errors"},
    "backend": {"errors"},
    "ops": {"errors", "backend", "kernels"},
    "nn": {"errors", "backend", "ops", "autograd", "tensor"},
    "losses": {"errors", "backend", "ops", "autograd", "tensor"},
    "optim": {"errors", "backend", "ops", "autograd", "tensor"},
    "data": {"errors", "backend", "tensor"},
}
# The one arrow along a storey: an optimizer's moments lie in a segment, as the parameters do.
ALONG = {("optim", "tinynet.nn.segment")}
# Who may name the array libraries: the backend, the kernels, and what reads and writes files.
NUMPY = {"backend", "kernels", "data", "train", "cli"}
GPU_AND_COMPILER = {"backend", "kernels"}
HEAVY = ("numba", "cupy", "matplotlib", "scipy", "torch", "tqdm", "sklearn", "safetensors", "pandas", "PIL", "jax")
# Parts of the standard library that a computation does not need, and that cost milliseconds to load.
SLOW_STDLIB = (
    "argparse", "asyncio", "concurrent.futures", "csv", "ctypes", "decimal", "email", "gzip", "hashlib", "http", "json",
    "logging", "multiprocessing", "sqlite3", "ssl", "statistics", "subprocess", "tarfile", "tempfile", "unittest",
    "urllib.request", "uuid", "xml", "zipfile",
)  # fmt: skip


def modules():
    """(room, dotted name, path) of every module of the engine and the kernels."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] != "kernels" and parts != ("__init__",):
            yield parts[0], ".".join(("tinynet", *(p for p in parts if p != "__init__"))), path
    for path in sorted(KERNELS.rglob("*.py")):
        parts = path.relative_to(KERNELS).with_suffix("").parts
        yield "kernels", ".".join(("tinynet", "kernels", *(p for p in parts if p != "__init__"))), path


MODULES = list(modules())


def imports(name, path):
    """Every absolute dotted name that a module imports, at its top or in a function; not those for type checkers."""
    tree = ast.parse(path.read_text())
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped.update(id(inner) for statement in node.body for inner in ast.walk(statement))
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def rooms_of(name, path):
    """The rooms of tinynet that a module imports. The whole package, public names and all, is for the top floor."""
    room = name.split(".")[1]
    for target in imports(name, path):
        parts = target.split(".")
        if parts[0] != "tinynet" or (room, ".".join(parts[:3])) in ALONG:
            continue
        if len(parts) == 1:
            assert room in ("cli", "__main__"), f"{name} imports the whole package"
            continue
        yield parts[1]


@pytest.mark.parametrize(("room", "name", "path"), MODULES, ids=[name for _, name, _ in MODULES])
def test_arrows_point_down(room, name, path):
    assert room in LEVEL, f"{room} has no place in the floor plan"
    for target in set(rooms_of(name, path)) - {room}:
        assert target in LEVEL, f"{name} imports tinynet.{target}, which is no room"
        assert LEVEL[target] < LEVEL[room], f"{name} imports {target}, which is not below {room}"
        assert target in ONLY.get(room, LEVEL), f"{name} imports {target}; {room} may import {sorted(ONLY[room])}"


@pytest.mark.parametrize(("room", "name", "path"), MODULES, ids=[name for _, name, _ in MODULES])
def test_array_libraries_are_named_only_where_they_belong(room, name, path):
    found = {target.split(".")[0] for target in imports(name, path)}
    assert "numpy" not in found or room in NUMPY
    assert not found & {"cupy", "numba"} or room in GPU_AND_COMPILER
    assert "kernels" not in found, "the kernels are tinynet.kernels; another package owns the bare name"


def test_the_test_sees_arrows_that_point_up(tmp_path):
    path = tmp_path / "spec.py"
    path.write_text("from ..nn import Dense\nfrom tinynet import train\ndef f():\n    from ..tensor import Tensor\n")
    assert set(rooms_of("tinynet.ops.spec", path)) == {"nn", "train", "tensor"}


# ---- what importing costs ----


def run(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def newly_loaded():
    """Modules that importing tinynet loads beyond those that importing NumPy loads."""
    code = """
import sys, numpy
before = set(sys.modules)
import tinynet
new = sorted(set(sys.modules) - before)
import json
print(json.dumps(new))
"""
    return set(json.loads(run(code)))


def test_importing_loads_no_heavy_package():
    loaded = json.loads(run("import sys, tinynet; loaded = list(sys.modules); import json; print(json.dumps(loaded))"))
    assert not {name.split(".")[0] for name in loaded} & set(HEAVY)


def test_importing_loads_no_slow_part_of_the_standard_library(newly_loaded):
    slow = {name for name in newly_loaded if any(name == each or name.startswith(each + ".") for each in SLOW_STDLIB)}
    assert not slow


def test_importing_loads_no_part_of_numpy_that_numpy_leaves_out(newly_loaded):
    """numpy.random alone would cost a tenth of importing NumPy."""
    assert not {name for name in newly_loaded if name.split(".")[0] == "numpy"}


def test_importing_leaves_data_training_and_the_command_line_alone(newly_loaded):
    late = ("tinynet.data", "tinynet.train", "tinynet.cli", "tinynet.resources", "tinynet.kernels.cuda")
    assert not {name for name in newly_loaded if name.startswith(late)}


def test_import_time_is_reported_beside_numpys():
    """Interleaved, the least of each; printed and never judged, because a busy machine decides nothing."""

    def seconds(statement):
        code = f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
        return float(run(code))

    start, ours, theirs = time.monotonic(), [], []
    while len(ours) < 2 or (len(ours) < 5 and time.monotonic() - start < 4):
        theirs.append(seconds("import numpy"))
        ours.append(seconds("import tinynet"))
    ratio = min(ours) / min(theirs)
    print(f"import tinynet: {min(ours) * 1e3:.0f} ms, import numpy: {min(theirs) * 1e3:.0f} ms, ratio {ratio:.2f}")
    assert ratio > 0
