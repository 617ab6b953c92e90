"""Two kernels as one, over tiles of rows: what the first makes of a tile, the second uses up at once.

So the product of two matrices that only an optimizer's update reads never stands whole: each tile of it lives in the
cache between the two. The tiles are rows; which inputs are cut with them, the caller knows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from .registry import Kernel

# A matrix product packs its right operand anew for each tile, so that small tiles cost time. Product and Adam for a
# weight of 2048 x 2048 from 512 rows, one core, of the speed of the two one after the other: tiles of 256 KiB 0.65,
# 512 KiB 0.82, 1 MiB 0.94, 1.5 MiB 0.99, 2 MiB 0.97.
TILE_BYTES = 1536 * 1024
# Own kernels do not pack what stays in the second-level cache, so that their tiles can be small enough to stay there
# too. From 784 x 512 out of 128 rows with Adam, of the speed with large tiles: 512 KiB 1.02, 64 to 256 KiB 1.04.
SMALL_TILE_BYTES = 128 * 1024
_ALIGNMENT = 64


def tile_bytes(target: str | None, read: int) -> int:
    """How large tiles are best, on a target, of a product that reads ``read`` bytes anew for each."""
    if target == "native":
        from .cpu.native.machine import second_level_cache

        if read <= second_level_cache() // 4:
            return SMALL_TILE_BYTES
    return TILE_BYTES


class _Shape(NamedTuple):
    """What a kernel's scratch is a function of; strides where they are known."""

    shape: tuple[int, ...]
    dtype: object
    strides: tuple[int, ...] | None = None


def tiled(
    consumer: Kernel, at: int, producer: Kernel, options: dict, cuts: tuple[bool, ...], count: int, dtype,
    tile_bytes: int = TILE_BYTES,
) -> Kernel:  # fmt: skip
    """The kernel of ``consumer`` with what ``producer`` makes in the place of its input ``at``.

    Args:
        options: the producer's attributes.
        cuts: for each input of the whole, whether its first axis is that of the tiles.
        count: how many inputs the producer has; they stand from ``at`` on.
        dtype: of what the producer makes, whose shape is that of the (first) output.
        tile_bytes: of a tile of it; at least one row.
    """

    strips = None
    if producer.target == consumer.target == "native":
        from .cpu.native import strips

    def first(out):
        return out if hasattr(out, "shape") else out[0]

    def rows_of(out) -> int:
        whole = first(out).shape
        row = max(1, math.prod(whole[1:]) * dtype.itemsize)
        return min(max(1, tile_bytes // row), whole[0])

    def part(array, low, high, shadow):
        if shadow:
            return _Shape((high - low, *array.shape[1:]), array.dtype, getattr(array, "strides", None))
        return array[low:high]

    def tile(out, inputs, made, low, high, shadow=False):
        """The operands of both kernels for rows low to high."""
        operands = [part(x, low, high, shadow) if cut else x for x, cut in zip(inputs, cuts)]
        outer = (*operands[:at], made, *operands[at + count :])
        one = hasattr(out, "shape")
        outs = part(out, low, high, shadow) if one else tuple(part(x, low, high, shadow) for x in out)
        return outs, outer, operands[at : at + count]

    def made_bytes(out) -> int:
        return -(-rows_of(out) * math.prod(first(out).shape[1:]) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT

    def scratch(out, *inputs, **attributes) -> int:
        whole, beside = first(out).shape, 0
        if not math.prod(whole):
            return 0
        step = rows_of(out)
        for rows in {step, whole[0] % step or step}:
            made = _Shape((rows, *whole[1:]), dtype)
            outs, outer, inner = tile(out, inputs, made, 0, rows, shadow=True)
            beside = max(
                beside, producer.scratch_bytes(made, *inner, **options),
                consumer.scratch_bytes(outs, *outer, **attributes),
            )  # fmt: skip
        beside += made_bytes(out)
        if strips is None:
            return beside
        made = _Shape((strips.rows(whole, dtype), *whole[1:]), dtype)
        inner = tile(out, inputs, made, 0, made.shape[0], shadow=True)[2]
        return max(beside, strips.scratch_bytes(whole, dtype, producer.scratch_bytes(made, *inner, **options)))

    def in_strips(out, inputs, scratch, attributes):
        """Both as one call, where a target can do that."""
        whole = first(out).shape
        made, rows = strips.strip_in(scratch, whole, dtype), strips.rows(whole, dtype)
        outs, outer, inner = tile(out, inputs, made, 0, rows)
        beside = scratch[made_bytes(out) :]
        product = producer.bind(made, *inner, scratch=beside, **options)
        return strips.joined(whole, dtype, product, consumer.bind(outs, *outer, scratch=beside, **attributes), scratch)

    def steps(out, *inputs, scratch, **attributes):
        whole, calls = first(out).shape, []
        if not math.prod(whole):
            return calls
        if strips is not None:
            joined = in_strips(out, inputs, scratch, attributes)
            if joined is not None:
                return joined
        room, beside = scratch[: made_bytes(out)], scratch[made_bytes(out) :]
        width, step = math.prod(whole[1:]) * dtype.itemsize, rows_of(out)
        for low in range(0, whole[0], step):
            high = min(low + step, whole[0])
            made = room[: (high - low) * width].view(dtype).reshape(high - low, *whole[1:])
            outs, outer, inner = tile(out, inputs, made, low, high)
            calls += producer.bind(made, *inner, scratch=beside, **options)
            calls += consumer.bind(outs, *outer, scratch=beside, **attributes)
        return calls

    def run(out, *inputs, scratch=None, **attributes):
        for function, arguments in steps(out, *inputs, scratch=scratch, **attributes):
            function(*arguments)

    return Kernel(run, f"{consumer.operation}[{producer.operation}]", consumer.target, scratch, steps)
