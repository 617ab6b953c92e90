"""Vector code, written as LLVM's intermediate representation: loads, stores, fused multiply-adds, loops.

numba compiles Python loops well and leaves the choice of registers to LLVM. A register tile must not be left to it: the
operands of a product are views of one arena, of which LLVM has to assume that they overlap. So the inner loops are
spelled out here, vector by vector; ``intrinsic`` functions of the other modules hand them to numba.

Addresses are integers (int64) and strides are in bytes, everywhere below this package's door.
"""

from __future__ import annotations

from llvmlite import ir

from . import machine

I1, I32, I64, VOID, DOUBLE = ir.IntType(1), ir.IntType(32), ir.IntType(64), ir.VoidType(), ir.DoubleType()


def number(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


class Code:
    """A function under construction, with vectors of one element type and one width.

    Args:
        size: bytes of an element: 4 (float) or 8 (double).
        lanes: elements in a vector; 1 makes scalar code.
    """

    def __init__(self, builder: ir.IRBuilder, size: int, lanes: int):
        self.builder, self.size, self.lanes = builder, size, lanes
        self.element = ir.FloatType() if size == 4 else ir.DoubleType()
        self.integer = ir.IntType(8 * size)
        self.vector = ir.VectorType(self.element, lanes) if lanes > 1 else self.element
        self.integers = ir.VectorType(self.integer, lanes) if lanes > 1 else self.integer
        self.mask_type = ir.VectorType(I1, lanes) if lanes > 1 else I1
        self.suffix = f"v{lanes}f{8 * size}" if lanes > 1 else f"f{8 * size}"

    def declare(self, name: str, result, arguments) -> ir.Function:
        module = self.builder.module
        found = module.globals.get(name)
        return found or ir.Function(module, ir.FunctionType(result, arguments), name)

    # ---- constants ----

    def constant(self, value: float):
        one = ir.Constant(self.element, value)
        return one if self.lanes == 1 else ir.Constant(self.vector, [one] * self.lanes)

    def whole(self, value: int):
        """An integer in every lane, of the width of an element."""
        return ir.Constant(self.integers, value if self.lanes == 1 else [value] * self.lanes)

    def spread(self, scalar):
        """One value in all lanes."""
        if self.lanes == 1:
            return scalar
        vector = ir.VectorType(scalar.type, self.lanes)
        first = self.builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(I32, 0))
        order = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), order)

    # ---- memory ----

    def pointer(self, address, kind=None):
        return self.builder.inttoptr(address, ir.PointerType(kind or self.vector))

    def load(self, address):
        """A vector from an address that is a multiple of an element's size."""
        return self.builder.load(self.pointer(address), align=self.size)

    def store(self, value, address):
        self.builder.store(value, self.pointer(address), align=self.size)

    def load_spread(self, address):
        """One element, in all lanes."""
        return self.spread(self.builder.load(self.pointer(address, self.element), align=self.size))

    def mask(self, count):
        """Which lanes are below ``count``, an int64."""
        lanes = ir.Constant(self.integers, list(range(self.lanes)))
        return self.builder.icmp_unsigned("<", lanes, self.spread(self.builder.trunc(count, self.integer)))

    def load_masked(self, address, mask, beyond: float = 0.0):
        """A vector with ``beyond`` where the mask is off. What is masked is not touched, be it mapped or not."""
        pointer = self.pointer(address)
        name = f"llvm.masked.load.{self.suffix}.p0"
        load = self.declare(name, self.vector, [pointer.type, I32, self.mask_type, self.vector])
        return self.builder.call(load, [pointer, ir.Constant(I32, self.size), mask, self.constant(beyond)])

    def store_masked(self, value, address, mask):
        pointer = self.pointer(address)
        name = f"llvm.masked.store.{self.suffix}.p0"
        store = self.declare(name, VOID, [self.vector, pointer.type, I32, self.mask_type])
        self.builder.call(store, [value, pointer, ir.Constant(I32, self.size), mask])

    def prefetch(self, address):
        pointer = self.pointer(address, ir.IntType(8))
        prefetch = self.declare("llvm.prefetch.p0", VOID, [pointer.type, I32, I32, I32])
        self.builder.call(prefetch, [pointer, ir.Constant(I32, 0), ir.Constant(I32, 3), ir.Constant(I32, 1)])

    def stream(self, value, address):
        """Stores a vector at a multiple of its bytes, past the caches: what is there is not fetched first."""
        store = self.builder.store(value, self.pointer(address), align=self.size * self.lanes)
        store.set_metadata("nontemporal", self.builder.module.add_metadata([ir.Constant(I32, 1)]))

    def fence(self):
        """Has what was streamed arrive before what is stored from here on: on x86 other stores keep their order."""
        if machine.features().get("sse2"):
            self.builder.call(self.declare("llvm.x86.sse.sfence", VOID, []), [])

    def barrier(self):
        """Keeps LLVM from moving loads across this place: no instruction of the processor."""
        self.builder.asm(ir.FunctionType(VOID, []), "", "~{memory}", [], True)

    # ---- arithmetic ----

    def multiply_add(self, a, b, c):
        """a b + c: fused where the processor does that as fast as it multiplies."""
        function = self.declare(f"llvm.fmuladd.{self.suffix}", self.vector, [self.vector] * 3)
        return self.builder.call(function, [a, b, c])

    def across(self, vector, combine):
        """One element of a vector: halves are combined until one lane is left."""
        lanes, builder = self.lanes, self.builder
        while lanes > 1:
            lanes //= 2
            orders = (ir.Constant(ir.VectorType(I32, lanes), list(range(start, start + lanes))) for start in (0, lanes))
            undefined = ir.Constant(vector.type, ir.Undefined)
            vector = combine(*[builder.shuffle_vector(vector, undefined, order) for order in orders])
        return builder.extract_element(vector, ir.Constant(I32, 0))

    def as_double(self, element):
        return element if self.size == 8 else self.builder.fpext(element, DOUBLE)

    def as_element(self, double):
        return double if self.size == 8 else self.builder.fptrunc(double, self.element)

    def everywhere(self, double):
        """A double, rounded to the type of elements, in all lanes."""
        return self.spread(self.as_element(double))

    def at(self, address, *offsets):
        """address + offsets: each an int64 value or a Python integer."""
        for offset in offsets:
            if not (isinstance(offset, int) and offset == 0):
                address = self.builder.add(address, number(offset) if isinstance(offset, int) else offset)
        return address

    def times(self, value, count: int):
        return self.builder.mul(value, number(count))

    # ---- control ----

    def loop(self, count, carried: list, body) -> list:
        """Runs ``body(values) -> values`` ``count`` times, an int64 that may be 0, and returns the values then."""
        builder = self.builder
        before = builder.block
        head, inside, after = (builder.append_basic_block(name) for name in ("head", "inside", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        left = builder.phi(I64)
        values = [builder.phi(value.type) for value in carried]
        builder.cbranch(builder.icmp_signed(">", left, number(0)), inside, after)
        builder.position_at_end(inside)
        following = body(list(values))
        rest = builder.sub(left, number(1))
        end = builder.block
        builder.branch(head)
        for phi, first, next_ in zip((left, *values), (count, *carried), (rest, *following)):
            phi.add_incoming(first, before)
            phi.add_incoming(next_, end)
        builder.position_at_end(after)
        return values

    def line(self, count, body, carried: list | tuple = (), turn: int = 1, merge=None) -> list:
        """Runs ``body(piece, values) -> values`` over ``count`` elements side by side, and returns the values then.

        A ``Piece`` is a vector of them: whole ones first, and what is left with a mask.

        Args:
            turn: pieces that are worked on at a time, each with values of its own: chains that do not wait for each
                other. Which element belongs to which chain depends on ``count`` alone.
            merge: ``merge(values, values) -> values`` of two chains.
        """
        builder, width = self.builder, self.size * self.lanes
        full, rest = builder.sdiv(count, number(self.lanes)), builder.srem(count, number(self.lanes))
        n = len(carried)

        def whole(values):
            offset, *values = values
            following = []
            for i in range(turn):
                following += body(Piece(self, self.at(offset, i * width)), values[i * n : (i + 1) * n]) or []
            return [self.at(offset, turn * width), *following]

        def one(values):
            offset, *values = values
            return [self.at(offset, width), *(body(Piece(self, offset), values) or [])]

        turns = builder.sdiv(full, number(turn)) if turn > 1 else full
        offset, *values = self.loop(turns, [number(0), *[*carried] * turn], whole)
        first, others = values[:n], [values[i * n : (i + 1) * n] for i in range(1, turn)]
        if turn > 1:
            offset, *first = self.loop(builder.srem(full, number(turn)), [offset, *first], one)
        before = builder.block
        with builder.if_then(builder.icmp_signed(">", rest, number(0))):
            last = body(Piece(self, offset, self.mask(rest)), first) or []
            inside = builder.block
        values = []
        for without, with_ in zip(first, last):
            phi = builder.phi(without.type)
            phi.add_incoming(without, before)
            phi.add_incoming(with_, inside)
            values.append(phi)
        for each in others if carried else ():
            values = merge(values, each)
        return values


class Piece:
    """A vector's worth of a line: the same place in every array whose elements lie side by side.

    Attributes:
        offset: bytes from the beginning of the line.
        mask: the lanes that belong to it; None for all.
    """

    def __init__(self, code: Code, offset, mask=None):
        self.code, self.offset, self.mask = code, offset, mask

    def load(self, address, beyond: float = 0.0):
        """The piece of the array at ``address``, with ``beyond`` in lanes that do not belong to it."""
        address = self.code.at(address, self.offset)
        return self.code.load(address) if self.mask is None else self.code.load_masked(address, self.mask, beyond)

    def store(self, value, address) -> None:
        address = self.code.at(address, self.offset)
        if self.mask is None:
            self.code.store(value, address)
        else:
            self.code.store_masked(value, address, self.mask)

    def keep(self, value, beyond: float = 0.0):
        """The value, with ``beyond`` in lanes that do not belong to the piece."""
        return value if self.mask is None else self.code.builder.select(self.mask, value, self.code.constant(beyond))


def function(module: ir.Module, name: str, arguments: int, write) -> ir.Function:
    """A private function of ``arguments`` int64 values, made once for each name: ``write(builder, *values)``."""
    found = module.globals.get(name)
    if found is not None:
        return found
    made = ir.Function(module, ir.FunctionType(VOID, [I64] * arguments), name)
    made.linkage = "internal"
    made.attributes.add("noinline")
    made.attributes.add("nounwind")
    builder = ir.IRBuilder(made.append_basic_block("entry"))
    write(builder, *made.args)
    builder.ret_void()
    return made


def choose(builder: ir.IRBuilder, index, functions: list[ir.Function], arguments: list) -> None:
    """Calls the function at ``index``, an int64; none where there is no such index."""
    after = builder.append_basic_block("chosen")
    switch = builder.switch(index, after)
    for i, each in enumerate(functions):
        block = builder.append_basic_block("case")
        switch.add_case(number(i), block)
        builder.position_at_end(block)
        builder.call(each, arguments)
        builder.branch(after)
    builder.position_at_end(after)
