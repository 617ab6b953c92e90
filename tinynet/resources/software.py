"""What is installed and chosen: BLAS, executor, threads, compiled kernels, GPU, extras, versions, variables.

What is not installed is not needed: these functions say what would tell more. The one thing that any of them writes is
the folder of compiled kernels, which is made if it is not there, as the first program would make it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import platform
import re
import shutil
from pathlib import Path

from tinynet.backend import get_backend
from tinynet.errors import TinynetError
from tinynet.kernels import available, obstacle

from . import machine
from .facts import Unknown

_STEERING = ("OPENBLAS_", "GOTO_", "OMP_", "MKL_", "BLIS_", "VECLIB_", "NUMBA_", "TINYNET_", "NPY_DISABLE")


# ---- BLAS ----


def thread_pools() -> list[dict]:
    """The BLAS and OpenMP libraries in this process, each of which has a pool of threads of its own."""
    try:
        threadpoolctl = importlib.import_module("threadpoolctl")
    except ImportError:
        raise Unknown("threadpoolctl would tell: install tinynet[cpu]") from None
    return [
        {
            "kind": pool["user_api"],
            "library": pool["internal_api"],
            "version": pool["version"],
            "architecture": pool.get("architecture"),
            "threads": pool["num_threads"],
            "layer": pool.get("threading_layer"),
            "path": pool["filepath"],
        }
        for pool in threadpoolctl.threadpool_info()
    ]


def blas() -> dict:
    """The BLAS that NumPy uses. Without threadpoolctl, what NumPy was built with: no kernels and no threads then."""
    with contextlib.suppress(Unknown):
        pools = [pool for pool in thread_pools() if pool["kind"] == "blas"]
        own = [pool for pool in pools if "numpy" in pool["path"].replace(".", os.sep).split(os.sep)]
        if own or pools:
            return {name: (own or pools)[0][name] for name in ("library", "version", "architecture", "threads")}
    built = get_backend("numpy").xp.show_config(mode="dicts")["Build Dependencies"]["blas"]
    library = "openblas" if "openblas" in built["name"] else built["name"]
    return {"library": library, "version": built.get("version"), "architecture": None, "threads": None}


# ---- the executor and what it has compiled ----


def executor() -> dict:
    """What runs captured programs on this processor, and why that is not compiled kernels."""
    why = obstacle("native")
    return {"name": "native" if why is None else "numpy", "obstacle": why}


def vectors() -> dict:
    """Bits of the vectors that this processor can execute, and of those that compiled kernels use."""
    if not available("native"):
        return {"available_bits": machine.vector_bits(), "used_bits": None}
    from tinynet.kernels.cpu.native import widths

    return {"available_bits": list(widths()), "used_bits": widths()[0]}


def threads() -> dict:
    """How many threads programs run on, and who says so."""
    from tinynet.kernels.cpu.native import pool

    if not available("native"):
        return {"count": 1, "source": "the numpy executor"}
    count, asked = pool.threads(), os.environ.get("TINYNET_NUM_THREADS", "")
    if asked == str(count):
        return {"count": count, "source": "TINYNET_NUM_THREADS"}
    return {"count": count, "source": "affinity" if count == pool.affinity() else "set_threads"}


def kernel_cache() -> dict:
    """The folder of compiled kernels: for which elements, how large, and what older versions have left beside it."""
    if not available("native"):
        raise Unknown(f"needs numba, in tinynet[cpu]; {obstacle('native')}")
    from tinynet.kernels.cpu.native.machine import cache_folder, cache_refusal, cache_root

    folder, root = cache_folder(), cache_root()
    older = [path for path in sorted(root.glob("native-*")) if path != folder and path.is_dir()] if folder else []
    libraries = folder.glob("library-*-*.o") if folder else ()
    return {
        "path": str(folder or root or "none"),
        "private": folder is not None,
        "refused": cache_refusal(),
        "bytes": bytes_in(folder) if folder else 0,
        "compiled_float_bits": sorted({int(path.name.split("-")[1]) for path in libraries}),
        "older_folders": [path.name for path in older],
        "older_bytes": sum(map(bytes_in, older)),
    }


def bytes_in(folder: Path) -> int:
    """Bytes of all files below a folder; what cannot be looked at counts as nothing."""
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(base, name)).st_size
    return total


# ---- the GPU ----


def gpus(root: Path = machine.ROOT) -> dict:
    """The GPUs of NVIDIA that CuPy can use, or that the driver lists; and why CuPy cannot use them."""
    try:
        runtime = get_backend("cupy").xp.cuda.runtime
        found = [runtime.getDeviceProperties(index) for index in range(runtime.getDeviceCount())]
        names = [each["name"].decode() for each in found]
        return {"names": names, "memory_bytes": [each["totalGlobalMem"] for each in found], "unusable": None}
    except TinynetError as error:
        why = str(error)
    if not available("cupy"):
        why = "CuPy is not installed: install tinynet[cuda13] or tinynet[cuda12], as the driver's CUDA is"
    names = machine.nvidia_models(root)
    if not names and shutil.which("nvidia-smi"):
        raise Unknown(f"nvidia-smi is there, but no list of GPUs; {why}")
    return {"names": names, "memory_bytes": None, "unusable": why}


# ---- versions ----


def versions() -> dict:
    """Python, the system, NumPy and tinynet."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.platform(),
        "numpy": get_backend("numpy").xp.__version__,
        "tinynet": _version("tinynet"),
    }


def extras(distribution: str = "tinynet") -> dict[str, dict[str, str | None]]:
    """extra -> requirement -> the version that is installed, or None."""
    try:
        metadata = importlib.metadata.metadata(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise Unknown("tinynet runs from a folder and is not installed, so it has no metadata") from None
    found: dict = {extra: {} for extra in metadata.get_all("Provides-Extra") or ()}
    for line in metadata.get_all("Requires-Dist") or ():
        name, extra = re.match(r"[\w.-]+", line), re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", line)
        if name and extra and extra[1] in found:
            found[extra[1]][name[0]] = _version(name[0])
    return found


def variables() -> dict[str, str]:
    """The environment variables that steer BLAS, numba and tinynet."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(_STEERING)}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
