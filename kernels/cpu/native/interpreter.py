"""The interpreter: a table of instructions, run by one thread or by several in step; written as vector IR once.

Every thread walks the whole table (its words are in ``layout``) and calls each function, which takes its share by the
number of the thread. So there is no queue and no scheduler, and who does what depends on nothing but the shape and the
number of threads.

A table can ask for denormal numbers to be taken as zero. Training makes them (the moments of a gradient that has gone
to zero decay through them), they are of no use, and each of them costs a core a hundred times what another number does.

Threads meet at a barrier: a counter of arrivals and a generation that the last one moves on. They wait for each other
by spinning, because what they wait for is microseconds away; for work they spin for a while and are then put to sleep
by who called ``work``: see ``pool``. Where there are fewer cores than threads, spinning keeps those away that one waits
for. So who has waited for long gives way and says so, and the pool then looks at how many cores there are.
"""

from __future__ import annotations

import sys

from llvmlite import ir

from . import layout
from .emit import I32, I64, VOID, number

_X86, _ARM = ("x86_64", "AMD64"), ("aarch64", "arm64")
# Turns at a barrier after which a thread lets others onto its core, and says so; a turn is some 2 ns.
PATIENCE = 1 << 16
# How many turns there are between two of the instructions that tell a core that it waits. A virtual machine is halted
# by its host for tens of microseconds where they come one upon the other (pause-loop exiting: 128 cycles apart).
PAUSES = 128
FUNCTION = ir.FunctionType(I32, [I64.as_pointer(), I64.as_pointer(), I64, I64, I64])  # numba's convention


class _Writer:
    """What the functions below share: words in memory, plain and atomic."""

    def __init__(self, module: ir.Module, name: str, result, arguments: int):
        self.module = module
        self.function = ir.Function(module, ir.FunctionType(result, [I64] * arguments), name)
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))

    def pointer(self, base, word: int = 0):
        address = self.builder.add(base, number(8 * word)) if word else base
        return self.builder.inttoptr(address, I64.as_pointer())

    def load(self, base, word: int = 0):
        return self.builder.load(self.pointer(base, word), align=8)

    def store(self, value, base, word: int = 0) -> None:
        self.builder.store(value, self.pointer(base, word), align=8)

    def load_atomic(self, base, word: int = 0):
        return self.builder.load_atomic(self.pointer(base, word), "seq_cst", 8)

    def store_atomic(self, value, base, word: int = 0) -> None:
        self.builder.store_atomic(value, self.pointer(base, word), "seq_cst", 8)

    def add_atomic(self, base, word: int):
        """One more; returns what was there before."""
        return self.builder.atomic_rmw("add", self.pointer(base, word), number(1), "seq_cst")

    def block(self, name: str) -> ir.Block:
        return self.function.append_basic_block(name)

    def pause(self) -> None:
        """Tells the core that this is a loop that waits."""
        word = "pause" if _machine() in _X86 else "yield" if _machine() in _ARM else None
        if word:
            self.builder.asm(ir.FunctionType(VOID, []), word, "~{memory}", [], True)

    def give_way(self) -> None:
        """Lets another thread onto this core."""
        if sys.platform != "win32":
            found = self.module.globals.get("sched_yield")
            self.builder.call(found or ir.Function(self.module, ir.FunctionType(I32, []), "sched_yield"), [])

    # ---- what the core does with denormal numbers: a bit of its control register ----

    def save_mode(self, mode) -> None:
        """Stores the control register of floating point arithmetic, where this knows how to."""
        if _machine() in _X86:
            self._control("stmxcsr", mode)
        elif _machine() in _ARM:
            read = ir.FunctionType(I64, [])
            self.builder.store(self.builder.trunc(self.builder.asm(read, "mrs $0, fpcr", "=r", [], True), I32), mode)

    def flush_denormals(self, mode) -> None:
        """Takes denormal operands and results as zero from here on."""
        bits = 0x8040 if _machine() in _X86 else 1 << 24  # flush to zero and denormals are zero; FZ
        if _machine() in (*_X86, *_ARM):
            changed = self.builder.alloca(I32)
            self.builder.store(self.builder.or_(self.builder.load(mode), ir.Constant(I32, bits)), changed)
            self.restore_mode(changed)

    def restore_mode(self, mode) -> None:
        if _machine() in _X86:
            self._control("ldmxcsr", mode)
        elif _machine() in _ARM:
            value = self.builder.zext(self.builder.load(mode), I64)
            self.builder.asm(ir.FunctionType(VOID, [I64]), "msr fpcr, $0", "r,~{memory}", [value], True)

    def _control(self, name: str, mode) -> None:
        name = f"llvm.x86.sse.{name}"
        pointer = ir.IntType(8).as_pointer()
        found = self.module.globals.get(name) or ir.Function(self.module, ir.FunctionType(VOID, [pointer]), name)
        self.builder.call(found, [self.builder.bitcast(mode, pointer)])

    def spin(self, done, most=None, late=None):
        """Waits until ``done() -> i1`` holds: for ``most`` turns, or however long it takes.

        In the latter case ``late()`` writes what is done now and then when it has taken long.
        """
        builder, before = self.builder, self.builder.block
        head, again, after = self.block("spin"), self.block("again"), self.block("after")
        builder.branch(head)
        builder.position_at_end(head)
        turn = builder.phi(I64)
        turn.add_incoming(number(0), before)
        builder.cbranch(done(), after, again)
        builder.position_at_end(again)
        following = builder.add(turn, number(1))
        seldom = builder.icmp_signed("==", builder.and_(following, number(PAUSES - 1)), number(0))
        with builder.if_then(seldom):
            self.pause()
        if most is None:
            long = builder.icmp_signed(">", following, number(PATIENCE))
            with builder.if_then(builder.and_(long, seldom)):
                late()
            turn.add_incoming(following, builder.block)
            builder.branch(head)
        else:
            turn.add_incoming(following, builder.block)
            builder.cbranch(builder.icmp_signed("<", following, most), head, after)
        builder.position_at_end(after)


def _machine() -> str:
    import platform

    return platform.machine()


def write(module: ir.Module) -> None:
    """Adds ``run``, ``start``, ``join`` and ``work`` to a module.

    run(table): all of it, by one thread.
    start(table, threads, control) -> sleepers: hands a table to the workers, and says how many of them sleep.
    join(table, threads, control): the share of the thread that started it; returns when all are through.
    work(index, threads, spins, control): what a worker does, until nothing has come for ``spins`` turns.
    """
    interpret = _write_interpret(module, _write_barrier(module))
    _write_run(module, interpret)
    _write_start(module)
    _write_join(module, interpret)
    _write_work(module, interpret)


def _write_barrier(module: ir.Module) -> ir.Function:
    w = _Writer(module, "barrier", VOID, 2)
    w.function.linkage = "internal"
    threads, control = w.function.args
    builder = w.builder
    generation = w.load_atomic(control, layout.GENERATION)
    arrived = builder.add(w.add_atomic(control, layout.ARRIVED), number(1))
    last, wait, end = w.block("last"), w.block("wait"), w.block("end")
    builder.cbranch(builder.icmp_signed("==", arrived, threads), last, wait)
    builder.position_at_end(last)
    w.store_atomic(number(0), control, layout.ARRIVED)
    w.store_atomic(builder.add(generation, number(1)), control, layout.GENERATION)
    builder.branch(end)
    builder.position_at_end(wait)

    def late():
        w.store_atomic(number(1), control, layout.WAITED)
        w.give_way()

    w.spin(lambda: builder.icmp_signed("!=", w.load_atomic(control, layout.GENERATION), generation), late=late)
    builder.branch(end)
    builder.position_at_end(end)
    builder.ret_void()
    return w.function


def _write_interpret(module: ir.Module, barrier: ir.Function) -> ir.Function:
    w = _Writer(module, "interpret", VOID, 4)
    w.function.linkage = "internal"
    table, thread, threads, control = w.function.args
    builder = w.builder
    result, failure = builder.alloca(I64), builder.alloca(I64)  # numba's functions write there, and nobody reads it
    several = builder.icmp_signed(">", threads, number(1))
    flush = builder.icmp_signed("!=", w.load(table, layout.FLUSH), number(0))
    mode = builder.alloca(I32)
    with builder.if_then(flush):
        w.save_mode(mode)
        w.flush_denormals(mode)
    count, first_row = w.load(table, layout.COUNT), builder.add(table, number(8 * layout.TABLE))
    before = builder.block
    head, inside, after = w.block("head"), w.block("inside"), w.block("after")
    builder.branch(head)
    builder.position_at_end(head)
    at, left = builder.phi(I64), builder.phi(I64)
    builder.cbranch(builder.icmp_signed(">", left, number(0)), inside, after)
    builder.position_at_end(inside)
    address, length, limit, meet = (w.load(at, i) for i in (layout.FUNCTION, layout.LENGTH, layout.LIMIT, layout.MEET))
    with builder.if_then(builder.and_(several, builder.icmp_signed("!=", meet, number(0)))):
        builder.call(barrier, [threads, control])
    mine = builder.select(builder.icmp_signed("<", limit, threads), limit, threads)
    with builder.if_then(builder.icmp_signed("<", thread, mine)):
        function = builder.inttoptr(address, FUNCTION.as_pointer())
        turned = builder.icmp_signed("!=", w.load(at, layout.REVERSED), number(0))
        share = builder.select(turned, builder.sub(builder.sub(mine, number(1)), thread), thread)
        builder.call(function, [result, failure, builder.add(at, number(8 * layout.HEADER)), share, mine])
    following, rest = builder.add(at, builder.mul(length, number(8))), builder.sub(left, number(1))
    end = builder.block
    builder.branch(head)
    for phi, first, then in ((at, first_row, following), (left, count, rest)):
        phi.add_incoming(first, before)
        phi.add_incoming(then, end)
    builder.position_at_end(after)
    with builder.if_then(flush):
        w.restore_mode(mode)
    with builder.if_then(several):
        builder.call(barrier, [threads, control])
    builder.ret_void()
    return w.function


def _write_run(module: ir.Module, interpret: ir.Function) -> None:
    w = _Writer(module, "run", VOID, 1)
    w.builder.call(interpret, [*w.function.args, number(0), number(1), number(0)])
    w.builder.ret_void()


def _write_join(module: ir.Module, interpret: ir.Function) -> None:
    w = _Writer(module, "join", VOID, 3)
    table, threads, control = w.function.args
    w.builder.call(interpret, [table, number(0), threads, control])
    w.store(w.load(control, layout.EPOCH), control, layout.FINISHED)
    w.builder.ret_void()


def _write_start(module: ir.Module) -> None:
    w = _Writer(module, "start", I64, 3)
    table, threads, control = w.function.args
    builder = w.builder
    w.store(table, control, layout.GIVEN)
    # Here the epoch moves and then sleepers are looked for; a worker that falls asleep says so and then looks at the
    # epoch. So one of the two sees the other.
    w.add_atomic(control, layout.EPOCH)
    before, head, inside, after = builder.block, w.block("head"), w.block("inside"), w.block("after")
    builder.branch(head)
    builder.position_at_end(head)
    index, sleepers = builder.phi(I64), builder.phi(I64)
    builder.cbranch(builder.icmp_signed("<", index, threads), inside, after)
    builder.position_at_end(inside)
    asleep = w.load_atomic(_line_of(w, control, index), layout.ASLEEP)
    for phi, first, then in (
        (index, number(1), builder.add(index, number(1))), (sleepers, number(0), builder.add(sleepers, asleep))
    ):  # fmt: skip
        phi.add_incoming(first, before)
        phi.add_incoming(then, inside)
    builder.branch(head)
    builder.position_at_end(after)
    builder.ret(sleepers)


def _line_of(w: _Writer, control, index):
    """The address of a worker's line."""
    return w.builder.add(
        control, w.builder.mul(w.builder.add(index, number(layout.WORKERS // layout.LINE)), number(8 * layout.LINE))
    )


def _write_work(module: ir.Module, interpret: ir.Function) -> None:
    w = _Writer(module, "work", VOID, 4)
    index, threads, spins, control = w.function.args
    builder = w.builder
    own = _line_of(w, control, index)
    look, ready, tired, end = w.block("look"), w.block("ready"), w.block("tired"), w.block("end")

    def news():
        return builder.icmp_signed("!=", w.load_atomic(control, layout.EPOCH), w.load(own, layout.SEEN))

    builder.branch(look)
    builder.position_at_end(look)
    w.store_atomic(number(0), own, layout.ASLEEP)
    w.spin(news, spins)
    builder.cbranch(news(), ready, tired)
    builder.position_at_end(tired)
    w.store_atomic(number(1), own, layout.ASLEEP)
    builder.cbranch(news(), ready, end)
    builder.position_at_end(ready)
    w.store_atomic(number(0), own, layout.ASLEEP)
    w.store(builder.add(w.load(own, layout.SEEN), number(1)), own, layout.SEEN)
    builder.call(interpret, [w.load(control, layout.GIVEN), index, threads, control])
    builder.branch(look)
    builder.position_at_end(end)
    builder.ret_void()
