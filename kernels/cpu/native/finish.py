"""Epilogues: what is done to a product while it still lies in the cache (step 5 of the ladder).

C becomes activation(C + bias) where h > 0 and 0 elsewhere, each part if it is asked for: the forward pass of a layer,
and the gradient through a ReLU whose output h was kept. A finished strip of C, a few rows, is in the first-level cache
when it is read again; done afterwards over the whole of C, the same work would fetch it from memory. tanh and the
sigmoid are those of ``code.functions``."""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from ...activations import ACTIVATIONS
from .code import functions
from .emit import Code, choose, function, number


def activate(code: Code, activation: str | None, x):
    builder = code.builder
    if activation == "relu":
        return builder.select(builder.fcmp_ordered("<=", x, code.constant(0.0)), code.constant(0.0), x)
    if activation == "tanh":
        return functions.tanh(code, x)
    if activation == "sigmoid":
        return functions.sigmoid(code, x)
    return x


def write_finish(size: int, lanes: int, activation: str | None):
    def write(builder, rows, columns, c, c_row, bias, h, h_row):
        code = Code(builder, size, lanes)
        full, rest = builder.sdiv(columns, number(lanes)), builder.srem(columns, number(lanes))
        mask = code.mask(rest)
        has_bias, has_h = (builder.icmp_signed("!=", each, number(0)) for each in (bias, h))

        def vector(load, store, c, bias, h):
            value, before = load(c), builder.block
            with builder.if_then(has_bias):
                sum_, inside = builder.fadd(value, load(bias)), builder.block
            value = merged(value, before, sum_, inside)
            value, before = activate(code, activation, value), builder.block
            with builder.if_then(has_h):
                positive = builder.fcmp_ordered(">", load(h), code.constant(0.0))
                kept, inside = builder.select(positive, value, code.constant(0.0)), builder.block
            store(merged(value, before, kept, inside), c)

        def merged(one, before, other, inside):
            phi = builder.phi(code.vector)
            phi.add_incoming(one, before)
            phi.add_incoming(other, inside)
            return phi

        def row(values):
            def whole(values):
                vector(code.load, code.store, *values)
                return [code.at(each, size * lanes) for each in values]

            c, h = values
            ends = code.loop(full, [c, bias, h], whole)
            with builder.if_then(builder.icmp_signed(">", rest, number(0))):
                vector(
                    lambda address: code.load_masked(address, mask),
                    lambda value, address: code.store_masked(value, address, mask),
                    *ends,
                )
            return [code.at(c, c_row), code.at(h, h_row)]

        code.loop(rows, [c, h], row)

    return write


@intrinsic(prefer_literal=True)
def finish(typing, size, lanes, activation, rows, columns, c, c_row, bias, h, h_row):
    """C[:rows, :columns] = where(h > 0, activation(C + bias), 0), in place.

    Args:
        size, lanes: constants: bytes of an element, elements of a vector.
        activation: index in ``ACTIVATIONS``.
        bias: address of ``columns`` numbers, 0 for none.
        h: address of a matrix of C's shape, 0 for none; ``h_row`` bytes from row to row.
    """
    signature = types.void(size, lanes, *[types.int64] * 8)
    size, lanes = size.literal_value, lanes.literal_value

    def codegen(context, builder, signature, arguments):
        written = [
            function(builder.module, f"finish_{8 * size}_{lanes}_{name}", 7, write_finish(size, lanes, name))
            for name in ACTIVATIONS
        ]
        choose(builder, arguments[2], written, list(arguments[3:]))
        return context.get_dummy_value()

    return signature, codegen


def write_add_everywhere(size: int, lanes: int):
    def write(builder, count, c, number):
        code = Code(builder, size, lanes)
        value = code.load_spread(number)
        code.line(count, lambda piece, _: piece.store(builder.fadd(piece.load(c), value), c))

    return write


@intrinsic(prefer_literal=True)
def add_everywhere(typing, size, lanes, count, c, number):
    """Adds the one number at an address to ``count`` elements that lie side by side."""
    signature = types.void(size, lanes, *[types.int64] * 3)
    size, lanes = size.literal_value, lanes.literal_value

    def codegen(context, builder, signature, arguments):
        name = f"add_everywhere_{8 * size}_{lanes}"
        builder.call(function(builder.module, name, 3, write_add_everywhere(size, lanes)), arguments[2:])
        return context.get_dummy_value()

    return signature, codegen
