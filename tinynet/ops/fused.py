"""Operations that a program makes of others: chains of elementwise ones, products that are used up tile by tile, and
products of operands that are kept in bf16.

They are records like those of the table, so that a graph, a plan and an executor need to know nothing of them, but they
are not in the table: no user calls them, they have no samples and no derivative (a program is differentiated before it
is fused). A target that has no kernel of its own for one composes it of the kernels of its parts.
"""

from __future__ import annotations

import functools

from tinynet import kernels
from tinynet.errors import DTypeError

from .record import Op, lookup
from .spec import FLOAT32, Spec, as_dtype, broadcast_shapes, reduced_shape
from .splitting import JOIN, Split


class Chain(Op):
    """One expression over several inputs, which broadcast; and perhaps a reduction of it, which is never held whole.

    Args:
        expression: over inputs named as it says.
        dtype: the element type of the result.
        reduce: "sum", "mean", "max", "min" or None. Its axes come as attributes ``axis`` and ``keepdims``.
    """

    def __init__(self, expression: kernels.Expression, dtype, reduce: str | None = None):
        def rule(*specs, axis=(), keepdims=False):
            shape = broadcast_shapes("chain", *(spec.shape for spec in specs))
            return Spec(shape if reduce is None else reduced_shape(shape, axis, keepdims), dtype)

        def flops(out, *specs, **_):
            shape = broadcast_shapes("chain", *(spec.shape for spec in specs))
            return (expression.flops + (reduce is not None)) * Spec(shape, dtype).size

        self.body, self.reduce = expression, reduce
        name = expression.text if reduce is None else f"{reduce}({expression.text})"
        super().__init__(
            name, " ".join(expression.inputs), rule, expression=expression, broadcasts=reduce is None, listed=False,
            overwrites=() if reduce else tuple(range(len(expression.inputs))), flops=flops,
            attributes={"axis": (), "keepdims": False} if reduce else {},
        )  # fmt: skip
        if reduce is not None:  # not elementwise
            self.expression = self.split = None

    def kernel(self, target: str, dtype) -> kernels.Kernel:
        return _derived(self.body.tree, self.body.inputs, target, self.name, self.reduce)


@functools.lru_cache(maxsize=1024)
def _derived(tree, inputs, target, name, reduce):
    return kernels.derive(kernels.Expression(tree, inputs), target, name, reduce=reduce)


class Tiled(Op):
    """An operation one of whose inputs another makes, in tiles of rows: that input never stands whole.

    Args:
        consumer: whose input ``at`` is meant; its rows depend on the same rows of that input.
        producer, options: what makes it, and with which attributes; rows of its result depend on rows of some inputs.
        cuts: for each input (those of the producer stand in the place of ``at``), whether a tile gets its rows only.
        made: the spec of what is not held.
        tile_bytes: how much of it is held at a time.

    Attributes of the instruction are those of the consumer.
    """

    def __init__(
        self, consumer: Op, at: int, producer: Op, options: dict, cuts: tuple[bool, ...], made: Spec, tile_bytes: int
    ):
        self.tile_bytes = tile_bytes
        self.consumer, self.at, self.producer, self.options, self.cuts = consumer, at, producer, options, cuts
        self.made, count = made, len(cuts) - len(consumer.inputs) + 1
        self.count = count

        def parts(specs):
            inner = specs[at : at + count]
            return inner, (*specs[:at], producer.rule(*inner, **options), *specs[at + count :])

        def rule(*specs, **attributes):
            return consumer.rule(*parts(specs)[1], **attributes)

        def flops(out, *specs, **attributes):
            inner, outer = parts(specs)
            first = producer.flops(outer[at], *inner, **options) if producer.flops else 0
            return first + (consumer.flops(out, *outer, **attributes) if consumer.flops else 0)

        def shift(i):
            return i if i < at else i + count - 1

        names = [*consumer.inputs[:at], *(f"of{i}" for i in range(count)), *consumer.inputs[at + 1 :]]
        super().__init__(
            f"{consumer.name}[{producer.name}]", " ".join(names), rule, attributes=consumer.attributes, listed=False,
            updates={out: shift(i) for out, i in consumer.updates.items()}, flops=flops,
            overwrites=tuple((shift(i), out) for i, out in consumer.overwrites if i != at),
            split=lambda n, axes, /, *specs, **_: Split(tuple(0 if cut else None for cut in cuts), JOIN, 0),
        )  # fmt: skip

    def kernel(self, target: str, dtype) -> kernels.Kernel:
        return kernels.tiled(
            self.consumer.kernel(target, dtype), self.at, self.producer.kernel(target, self.made.dtype), self.options,
            self.cuts, self.count, self.made.dtype, self.tile_bytes,
        )  # fmt: skip


BF16 = as_dtype("uint16")  # holds the bits: no array library has the type

to_bf16 = Op("to_bf16", "x", lambda x: Spec(x.shape, BF16), flops=lambda out, x: out.size, listed=False)


@functools.cache
def of_bf16(name: str) -> Op:
    """The product of this name, of operands that ``to_bf16`` has rounded. The result is of float32."""
    product = lookup(name)

    def widened(specs):
        return (*(Spec(spec.shape, FLOAT32) for spec in specs[:2]), *specs[2:])

    def rule(*specs, **attributes):
        if any(spec.dtype != BF16 for spec in specs[:2]):
            raise DTypeError(of.name, expected="operands in bf16", got=", ".join(map(str, specs[:2])))
        return product.rule(*widened(specs), **attributes)

    of = Op(
        kernels.of_bf16(name), " ".join(product.inputs), rule, attributes=product.attributes, split=product.split,
        flops=product.flops, listed=False,
    )  # fmt: skip
    return of


class Reserved(Op):
    """Memory for a result that others write part by part. It computes nothing, and what it holds means nothing."""

    def __init__(self, spec: Spec):
        super().__init__(f"reserve{list(spec.shape)}", "", lambda: spec, listed=False, flops=lambda out: 0)

    def kernel(self, target: str, dtype) -> kernels.Kernel:
        return kernels.Kernel(lambda out: None, "reserve", target, steps=lambda out: [])
