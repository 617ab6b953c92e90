"""Backends for all tests: NumPy, array-api-strict on its second device, and CuPy where there is a GPU.

The strict backend knows what the array-API standard says and nothing more, and its second device takes no host array:
an engine that leaks to NumPy fails there.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

import tinynet as tn
from tinynet.backend import Backend

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / name) for name in ("kernels", "kernels/cuda", "program", "meters", "resources")]
pytest.register_assert_rewrite(
    "suite", "suite_gradients", "suite_inputs", "suite_memory", "suite_refusals", "suite_runs", "native_runs", "runs",
    "zoo", "graphs", "fake", "counters",
)  # fmt: skip

BACKENDS = ("numpy", "strict", "cupy")


def _strict():
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    return Backend("strict", strict, strict.Device("device1"))


@pytest.fixture(scope="session")
def backend_named():
    """Finds a backend by name; skips the test where it cannot be used."""
    made, missing = {}, {}

    def find(name):
        if name == "strict" and name not in made:
            made[name] = _strict()
            tn.register_backend("strict", lambda: made["strict"])
        if name not in missing:
            try:
                return tn.get_backend(name)
            except (tn.errors.BackendError, tn.errors.MissingExtraError) as error:
                missing[name] = str(error)
        pytest.skip(missing[name])

    return find


@pytest.fixture(params=BACKENDS)
def backend(request, backend_named):
    """Each backend in turn; tensors made without saying where go there."""
    found = backend_named(request.param)
    with tn.use_backend(found):
        yield found


@pytest.fixture(params=("numpy", "cupy"))
def program_backend(request, backend_named):
    """Each backend on which steps become programs, in turn; tensors made without saying where go there."""
    found = backend_named(request.param)
    with tn.use_backend(found):
        yield found


@pytest.fixture(params=("numpy", "fake gpu", "cupy"))
def any_program_backend(request):
    """As ``program_backend``, and a GPU that is not there: CUDA kernels, run by g++, which takes some time."""
    if request.param == "fake gpu":
        from fake import gpu

        request.getfixturevalue("harness")
        with gpu("now") as (_, found):
            yield found
    else:
        found = request.getfixturevalue("backend_named")(request.param)
        with tn.use_backend(found):
            yield found


@pytest.fixture(scope="session")
def harness():
    """What runs CUDA kernels on a processor; skips where there is no g++ to build with."""
    import harness

    if not harness.available():
        pytest.skip("g++ is not installed")
    return harness


@pytest.fixture
def strict(backend_named):
    """The strict backend, for tests that need a second one."""
    return backend_named("strict")


@pytest.fixture(scope="session")
def other_backend():
    """A second backend that is there whatever is installed: the array-API interface over NumPy."""
    return Backend("other", np)


@pytest.fixture
def new_ops():
    """Takes the operations that a test adds out of the table again."""
    before = set(tn.ops.table())
    yield
    for name, op in tn.ops.table().items():
        if name not in before:
            op.remove()
