"""Every source for CUDA compiles for every kind of GPU, and its kernels keep within their registers.

A kernel that spills is slow, and one that takes more registers than it did leaves room for fewer threads: what each may
take is held in ``MOST``, rounded up to the eight in which registers are given out. Skipped where there is no nvcc.
"""

import ctypes
import errno
import functools
import importlib
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import chain_samples
import pytest

launch = importlib.import_module("tinynet.kernels.cuda.launch")

ARCHITECTURES = (75, 80, 86, 89, 90, 100)
FILES = ("chains", *sorted(path.stem for path in launch.CODE.glob("*.cu")))
PROCESSES = min(2, os.cpu_count() or 1)

WAYS = ("deep_flat", "deep_deep", "flat_flat", "flat_deep")  # of the operands of a product

# file -> kernels -> registers and bytes of static shared memory at most, of float32 and of float64
MOST = {
    "chains": {  # of the generated ones, some: see chain_samples
        "map_line_wide": ((32, 0), (40, 0)),
        "map_rows_wide": ((40, 0), (40, 0)),
        "map_axes": ((24, 0), (32, 0)),
        "map_power_wide": ((40, 0), (48, 0)),
        "map_mask_wide": ((32, 0), (24, 0)),
        "rows_of_4": ((48, 0), (48, 0)),
        "rows_of_32": ((48, 0), (48, 0)),
        "rows_of_256": ((48, 32), (48, 64)),
        "rows_of_functions": ((64, 32), (128, 64)),
        "columns": ((40, 1024), (48, 2048)),
        "columns_of_functions": ((56, 1024), (64, 2048)),
        "columns_of_axes": ((40, 1024), (48, 2048)),
    },
    "layouts": {  # by the bytes of an element, of which 16 take most
        **{f"copy{axes}": ((most, 0),) for axes, most in ((1, 40), (2, 48), (4, 56))},
        **{f"fill{axes}": ((32, 0),) for axes in (1, 2, 4)},
        "transpose": ((56, 16896),),
        "take": ((32, 0),),
        "one_hot": ((32, 0), (32, 0)),
        "scatter_add": ((48, 0), (40, 0)),
    },
    "product_naive": {"product_naive": ((64, 0), (96, 0))},
    "product_shared": {"product_shared": ((64, 8448), (64, 16896))},
    "product_registers": {"product_registers": ((144, 8320), (168, 16640))},
    "product_vectors": {  # 128 where two blocks of 256 threads are to fit, 80 where three are
        **{f"product_vectors_128x128_{ways}": ((128, 33792),) for ways in (*WAYS, "any_any")},
        **{f"product_vectors_64x64_{ways}": ((80, 20480), (128, 36864)) for ways in WAYS},
        "product_vectors_64x64_any_any": ((152, 17408), (192, 33792)),
        "product_vectors_128x16_deep_any": ((128, 23040),),
        "product_vectors_128x16_flat_any": ((128, 18944),),
        "product_vectors_128x16_any_any": ((255, 19456),),
    },
    "product_tensor": {  # TF32: two blocks of 128 threads are to fit, of the small tile three; it has dynamic memory
        **{f"product_tensor_tf32_128x128_{ways}": ((240, 0),) for ways in WAYS},
        **{f"product_tensor_tf32_64x64_{ways}": ((112, 0),) for ways in WAYS},
        "product_tensor_tf32_64x64_any_any": ((152, 0),),
        **{f"product_tensor_bf16_128x128_{ways}": ((200, 40960),) for ways in WAYS},
        **{f"product_tensor_bf16_64x64_{ways}": ((160, 20480),) for ways in WAYS},
        "product_tensor_bf16_64x64_any_any": ((232, 18432),),
        **{f"product_tensor_of_bf16_128x128_{ways}": ((200, 40960),) for ways in WAYS},
        **{f"product_tensor_of_bf16_64x64_{ways}": ((160, 20480),) for ways in WAYS},
        "product_tensor_of_bf16_64x64_any_any": ((248, 18432),),
    },
    "product_operands": {"to_bf16": ((32, 0),), "to_bf16_wide": ((32, 0),)},
    "product_parts": {"product_parts": ((64, 0), (72, 0))},
    "product_matvec": {
        "matvec_rows": ((64, 0), (96, 0)),
        "matvec_rows_wide": ((80, 0), (128, 0)),
        "matvec_block": ((64, 32), (96, 64)),
        "matvec_block_wide": ((80, 32), (128, 64)),
        "matvec_columns": ((64, 1024), (96, 2048)),
    },
    "randomness": {
        "dropout": ((24, 0), (24, 0)),
        "dropout_wide": ((24, 0), (24, 0)),
    },
    "reductions": {  # integers too: of eight bytes
        "argmax_warp": ((24, 0), (24, 0)),
        "argmax_block": ((24, 128), (32, 128)),
        **{f"combine_rows_{operator}": ((32, 64), (32, 64)) for operator in ("sum", "max", "min")},
        **{f"combine_columns_{operator}": ((40, 2048), (40, 2048)) for operator in ("sum", "max", "min")},
    },
    "updates": {
        "gd": ((32, 0), (32, 0)),
        "gd_wide": ((32, 0), (32, 0)),
        "gd_momentum": ((40, 0), (40, 0)),
        "gd_momentum_wide": ((32, 0), (32, 0)),
        "adam": ((56, 12), (64, 24)),
        "adam_wide": ((48, 12), (56, 24)),
    },
    "rows": {
        "softmax_8x2": ((24, 0), (32, 0)),
        "softmax_32x8": ((32, 0), (48, 0)),
        "softmax_32x32": ((112, 0), (152, 0)),
        "softmax_block": ((40, 256), (56, 512)),
        "softmax_block_wide": ((64, 256), (72, 512)),
        "entropy_indices_8x2": ((24, 0), (40, 0)),
        "entropy_indices_32x8": ((48, 0), (64, 0)),
        "entropy_indices_32x32": ((120, 0), (128, 0)),
        "entropy_indices_block": ((48, 256), (56, 512)),
        "entropy_indices_block_wide": ((80, 256), (96, 512)),
        "entropy_rows_8x2": ((32, 0), (40, 0)),
        "entropy_rows_32x8": ((48, 0), (72, 0)),
        "entropy_rows_32x32": ((160, 0), (232, 0)),
        "entropy_rows_block": ((56, 512), (56, 1024)),
        "entropy_rows_block_wide": ((72, 512), (80, 1024)),
        "layer_norm_8x2": ((24, 0), (40, 0)),
        "layer_norm_32x8": ((40, 0), (56, 0)),
        "layer_norm_32x32": ((120, 0), (160, 0)),
        "layer_norm_block": ((40, 384), (48, 768)),
        "layer_norm_block_wide": ((64, 384), (72, 768)),
    },
}


def source_of(file: str) -> str:
    return chain_samples.source() if file == "chains" else launch.source(file)


class Report(NamedTuple):
    """What ptxas says of a kernel."""

    registers: int
    shared: int
    stack: int
    spills: int


def reports_in(text: str) -> dict[str, Report]:
    found = {}
    for part in text.split("Compiling entry function '")[1:]:
        number = lambda pattern, part=part: int((re.search(rf"(\d+) {pattern}", part) or [0, 0])[1])
        spills = number("bytes spill stores") + number("bytes spill loads")
        found[part.split("'")[0]] = Report(
            number("registers"), number("bytes smem"), number("bytes stack frame"), spills
        )
    return found


def run(command) -> subprocess.CompletedProcess:
    """Runs a command; once more where a kernel fails to start it with EFAULT, as one under a hypervisor did."""
    start = functools.partial(subprocess.run, command, capture_output=True, text=True)
    try:
        return start()
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise
    return start()


def compile_source(text: str, folder, name: str, architecture: int) -> dict[str, Report]:
    """What the compiler says of every kernel of a source.

    Raises:
        AssertionError: it refuses, or warns.
    """
    source = folder / f"{name}.sm_{architecture}.cu"
    source.write_text(text)
    options = (f"-arch=sm_{architecture}", *launch.OPTIONS, "-Xptxas", "-v", "-Werror", "all-warnings")
    command = ["nvcc", "-cubin", *options, source, "-o", source.with_suffix(".cubin")]
    done = run(command)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "warning" not in said, f"{name}.cu for sm_{architecture}:\n{said[:8000]}"
    return reports_in(said)


@pytest.fixture(scope="session")
def compiled(request, tmp_path_factory):
    """compiled(file, architecture): reports of all kernels of a file.

    Two compilations of what this run asks for are under way at a time; where workers share the tests, each has one.
    """
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed")
    folder = tmp_path_factory.mktemp("cubin")
    compile_one = lambda file, architecture: compile_source(source_of(file), folder, file, architecture)
    if "PYTEST_XDIST_WORKER" in os.environ:
        yield compile_one
        return
    test = "test_compiles_without_spills_within_its_registers"
    asked = [each.callspec.params for each in request.session.items if each.name.startswith(test)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        waiting = {
            (each["file"], each["architecture"]): pool.submit(compile_one, each["file"], each["architecture"])
            for each in asked
        }
        yield lambda *one: waiting[one].result()
        pool.shutdown(cancel_futures=True)


def ceiling(file: str, kernel: str) -> tuple[int, int]:
    name, _, suffix = kernel.rpartition("_")
    return MOST[file][name][suffix == "f64"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("file", FILES)
def test_compiles_without_spills_within_its_registers(compiled, file, architecture):
    reports = compiled(file, architecture)
    wrong = []
    for kernel, report in reports.items():
        registers, shared = ceiling(file, kernel)
        if report.registers > registers or report.shared > shared or report.stack or report.spills:
            wrong.append(f"{kernel}: {report}, at most {registers} registers and {shared} bytes shared")
    assert not wrong, "\n".join(wrong)
    assert {kernel.rpartition("_")[0] for kernel in reports} == set(MOST[file]), "the table names other kernels"


@pytest.mark.parametrize("file", ["chains", "product_operands", "randomness", "rows", "updates"])
def test_wide_kernels_load_and_store_16_bytes_at_once(file, tmp_path):
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed")
    source = tmp_path / f"{file}.cu"
    source.write_text(source_of(file))
    command = ["nvcc", "-ptx", "-arch=sm_80", *launch.OPTIONS, source, "-o", source.with_suffix(".ptx")]
    assert subprocess.run(command).returncode == 0
    kernels = re.findall(r"\.entry (\w+_wide_f\d\d)\((.*?)\n}", source.with_suffix(".ptx").read_text(), re.DOTALL)
    assert kernels
    for name, text in kernels:
        for verb in ("ld", "st"):
            assert re.search(rf"{verb}\.global\.v{4 if name.endswith('f32') else 2}\.", text), f"{name}: {verb}"


@pytest.fixture(scope="module")
def nvrtc():
    """The compiler that CuPy calls, of each version that is installed (nvidia-cuda-nvrtc, nvidia-cuda-nvrtc-cu12)."""
    found = [path for folder in sys.path for path in Path(folder).glob("nvidia/*/lib/libnvrtc.so.*")]
    if not found:
        pytest.skip("nvrtc is not installed")
    for path in found:
        for other in path.parent.glob("libnvrtc-builtins.so.*"):
            ctypes.CDLL(str(other), ctypes.RTLD_GLOBAL)
    return [ctypes.CDLL(str(path)) for path in found]


@pytest.mark.parametrize("file", FILES)
def test_compiles_as_cupy_compiles_it(nvrtc, file):
    options = [each.encode() for each in (*launch.NVRTC_OPTIONS, "--gpu-architecture=sm_90")]
    for library in nvrtc:
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        source, name = source_of(file).encode(), f"{file}.cu".encode()
        assert library.nvrtcCreateProgram(ctypes.byref(program), source, name, 0, None, None) == 0
        result = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, log)
        library.nvrtcDestroyProgram(ctypes.byref(program))
        assert result == 0 and not log.value, log.value.decode()


def test_the_report_is_read_as_ptxas_writes_it():
    said = (
        "ptxas info    : Compiling entry function 'a_f32' for 'sm_90'\nptxas info    : Function properties for a_f32\n"
        "    16 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads\n"
        "ptxas info    : Used 64 registers, used 1 barriers, 512 bytes smem\n"
        "ptxas info    : Compiling entry function 'b_f32' for 'sm_90'\n"
        "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\nptxas info    : Used 8 registers\n"
    )
    assert reports_in(said) == {"a_f32": Report(64, 512, 16, 32), "b_f32": Report(8, 0, 0, 0)}
