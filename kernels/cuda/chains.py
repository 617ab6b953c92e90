"""Writes the kernels of expressions: a struct that knows where arrays are and what is computed of them, and one entry.

A source is made for an expression, the element types, the number of axes and the way over them; sizes, strides and
addresses are arguments. What the struct has to offer, and what goes over it, is in ``code/chains.cuh``.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from ..expression import Expression
from .encoding import Launch, integer, pointer
from .launch import keep_source
from .translation import Declined, Translation, argument, c_type, parameter
from .walks import Walk

THREADS = 256  # of a block: CHAIN_THREADS


class Way(NamedTuple):
    """A call of ``code/chains.cuh``: its name and its template's arguments, and the types of what follows the chain."""

    call: str
    parameters: tuple[str, ...]


class Chain:
    """An expression over arrays, of which kernels are made as they are needed."""

    def __init__(self, expression: Expression):
        self.expression = expression
        self._translations: dict[tuple, Translation | None] = {}
        self._kernels: dict[tuple, tuple[str, str]] = {}

    def translation(self, dtypes, attributes: dict, result=None) -> Translation:
        """The statements for these element types.

        Raises:
            Declined: there are none.
        """
        key = tuple(dtypes), tuple(type(each) for each in attributes.values()), result
        if key not in self._translations:
            try:
                self._translations[key] = Translation(self.expression, dtypes, attributes, result)
            except Declined:
                self._translations[key] = None
        found = self._translations[key]
        if found is None:
            raise Declined
        return found

    def launch(
        self, translation: Translation, attributes: dict, walk: Walk, arrays: tuple, way: Way, grid, block, more: tuple,
        keep: tuple = (),
    ) -> Launch:  # fmt: skip
        """A kernel on these arrays.

        Args:
            arrays: the result and the inputs; ``walk`` has their strides.
            more: arguments of the way.
            keep: arrays that are among these.
        """
        dtypes = tuple(each.dtype for each in arrays)
        key = id(translation), dtypes, walk.reduced, way
        if key not in self._kernels:
            self._kernels[key] = _kept(_source(translation, arrays, walk.reduced, way))
        file, function = self._kernels[key]
        kept, reduced = _axes(walk.reduced)
        arguments = [pointer(each) for each in arrays]
        arguments += [integer(walk.sizes[i]) for axes in (kept, reduced) for i in axes[1:]]
        for strides, axes in zip(walk.strides, (kept, *[kept + reduced] * (len(arrays) - 1))):
            arguments += [integer(strides[i]) for i in axes]
        arguments += [argument(tree, dtype, attributes) for tree, dtype in translation.numbers]
        return Launch(file, function, grid, block, (*arguments, *more), keep=(*arrays, *keep))


def _kept(text: str) -> tuple[str, str]:
    """A source and the name of its kernel, which no other one has: that of the text without names."""
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    return keep_source(text.replace("@", name)), f"chain_{name}"


def _axes(reduced) -> tuple[list[int], list[int]]:
    return [i for i, flag in enumerate(reduced) if not flag], [i for i, flag in enumerate(reduced) if flag]


def _source(translation: Translation, arrays, reduced, way: Way) -> str:
    """The text, with @ in place of what makes names different."""
    kept, over = (len(axes) for axes in _axes(reduced))
    names = ["y", *(f"x{i}" for i in range(len(arrays) - 1))]
    types = [c_type(each.dtype) for each in arrays]
    members = [f"{'const ' * (name != 'y')}{kind}* {name}" for name, kind in zip(names, types)]
    members += [f"int64 k{i}_size" for i in range(1, kept)] + [f"int64 r{i}_size" for i in range(1, over)]
    for name in names:
        members += [f"int64 {name}_k{i}" for i in range(kept)]
        members += [f"int64 {name}_r{i}" for i in range(over)] if name != "y" else []
    members += [f"{parameter(dtype)} c{i}" for i, (_, dtype) in enumerate(translation.numbers)]
    result = c_type(translation.dtype)
    last = f"r{over - 1}" if over else f"k{kept - 1}"
    at = [f"{name}_k{i} * k{i}" for name in names for i in range(kept)]
    places = [" + ".join(at[i * kept : (i + 1) * kept]) or "0" for i in range(len(names))]
    inputs = names[1:]
    loads = []
    for name in inputs:
        offset = " + ".join([f"place.{name}", *(f"{name}_r{i} * r{i}" for i in range(over))])
        loads.append(f"const auto a_{name} = load_along<K>({name} + {offset}, {name}_{last}, left);")
    signature = [f"{kind} {name}" for name, kind in zip(inputs, types[1:])]
    given = [f"a_{name}.at[k]" for name in inputs]
    for i, (_, dtype) in enumerate(translation.numbers):  # integers and booleans came as int64
        signature.append(f"{c_type(dtype)} c{i}")
        given.append(f"static_cast<{c_type(dtype)}>(c{i})")
    following = [f"{kind} more{i}" for i, kind in enumerate(way.parameters)]
    passed = [member.split()[-1] for member in members]
    lines = [
        '#include "tinynet.cuh"',
        '#include "chains.cuh"',
        "struct Chain_@ {",
        f"    using Result = {result};",
        *(f"    {member};" for member in members),
        f"    struct Place {{ int64 {', '.join(names)}; }};",
        "    __device__ __forceinline__ Place at(int64 i) const {",
        *_coordinates("k", kept),
        f"        return {{{', '.join(places)}}};",
        "    }",
        f"    static __device__ __forceinline__ Result of({', '.join(signature)}) {{",
        *(f"        {line}" for line in translation.statements),
        f"        return {translation.root};",
        "    }",
        "    template <int K>",
        "    __device__ __forceinline__ Chunk<Result, K> values(const Place& place, int64 i, int64 left) const {",
        *_coordinates("r", over),
        *(f"        {load}" for load in loads),
        "        Chunk<Result, K> results;",
        "#pragma unroll",
        f"        for (int k = 0; k < K; ++k) results.at[k] = of({', '.join(given)});",
        "        return results;",
        "    }",
        "};",
        f"extern \"C\" __global__ void __launch_bounds__({THREADS}) chain_@({', '.join([*members, *following])}) {{",
        f"    const Chain_@ chain = {{{', '.join(passed)}}};",
        f"    {way.call}(chain, {', '.join(f'more{i}' for i in range(len(following)))});",
        "}",
        "TINYNET_KERNEL(chain_@)",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _coordinates(prefix: str, count: int) -> list[str]:
    """Statements that make coordinates along ``count`` axes of an index ``i``."""
    if count == 0:
        return []
    lines, rest = [], "i"
    for axis in range(count - 1, 0, -1):
        lines.append(f"const int64 q{axis} = quotient({rest}, {prefix}{axis}_size);")
        lines.append(f"const int64 {prefix}{axis} = {rest} - q{axis} * {prefix}{axis}_size;")
        rest = f"q{axis}"
    return [f"        {line}" for line in (*lines, f"const int64 {prefix}0 = {rest};")]
