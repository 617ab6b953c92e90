"""From Python functions to one object file: what needs numba, and runs once per machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba import int64, void

from .. import interpreter
from ..library import target_machine

_SIGNATURE = void(int64, int64, int64)


def object_code(functions: Mapping[str, Callable]) -> bytes:
    """Compiles ``functions`` and links them with the interpreter; each is found by its name.

    A function keeps numba's convention: two pointers, for a result and for an exception, come before the arguments.
    """
    target = target_machine()
    module = ir.Module("interpreter")
    module.triple, module.data_layout = llvm.get_default_triple(), str(target.target_data)
    interpreter.write(module)
    whole = llvm.parse_assembly(str(module))
    _optimise(whole, target)
    for name, function in functions.items():
        compiled = numba.njit(
            _SIGNATURE, nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
        )(function)
        (result,) = compiled.overloads.values()
        module = llvm.parse_assembly(result.library.get_llvm_str())
        found = module.get_function(result.fndesc.mangled_name)
        for each in module.functions:
            if not each.is_declaration and each.name != found.name:
                each.linkage = "internal"
        for each in module.global_variables:
            if not each.is_declaration:
                each.linkage = "internal"
        found.name = name
        whole.link_in(module)
    return target.emit_object(whole)


def _optimise(module, target) -> None:
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    builder = llvm.create_pass_builder(target, options)
    builder.getModulePassManager().run(module, builder)
