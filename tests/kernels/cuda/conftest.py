"""The kernels for CUDA, run on a processor: what they share with the native kernels' tests lies one folder up."""

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "program")]
pytest.register_assert_rewrite("native_runs", "runs")


@pytest.fixture(scope="session")
def harness():
    """The harness; skips where there is no g++ to build with."""
    import harness

    if not harness.available():
        pytest.skip("g++ is not installed")
    return harness
