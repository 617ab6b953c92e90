"""The memory that a plan predicts is the memory that a program has: its arena holds all, and running takes no more."""

from __future__ import annotations

import functools
import gc
import itertools
import tracemalloc
import types
import weakref

import numpy as np
import pytest
from zoo import ZOO, batch, build, classifying

import tinynet as tn
from tinynet.backend import get_backend
from tinynet.program import proof
from tinynet.program.graph import CONSTANT, EXTERNAL


def ready(step, *args, fuse=True):
    """The program of a step for these arguments, with arrays for its inputs and externals, after some calls."""
    captured = tn.capture(step, fuse=fuse)
    for _ in range(3):
        captured(*args)
    program = captured.program(*args)
    return program, list(args), dict(program.bound)


def arrays_within(thing, seen=None):
    """All arrays that a bound call can reach: arguments, partial applications, closures, methods."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, (str, bytes, int, float, type, types.ModuleType)):
        return
    seen.add(id(thing))
    inner = ()
    if isinstance(thing, np.ndarray):
        yield thing
    elif isinstance(thing, (list, tuple)):
        inner = thing
    elif isinstance(thing, dict):
        inner = thing.values()
    elif isinstance(thing, functools.partial):
        inner = (thing.func, thing.args, thing.keywords)
    elif isinstance(thing, (types.MethodType, types.BuiltinMethodType)):
        inner = (thing.__self__, getattr(thing, "__func__", None))
    elif isinstance(thing, types.FunctionType):
        inner = [cell.cell_contents for cell in thing.__closure__ or ()]
    for each in inner:
        yield from arrays_within(each, seen)


def root(array):
    """The array that owns the memory of a view."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def span(array):
    return np.lib.array_utils.byte_bounds(array)


def inside(array, homes):
    low, high = span(array)
    return any(start <= low and high <= end for start, end in homes)


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("name", ZOO)
def test_all_memory_of_a_program_is_its_arena(name, fuse):
    """What its calls touch lies in an arena of ``plan.peak_bytes`` bytes, in tensors outside, or in constants."""
    program, _, externals = ready(build(name, "ce", "adam", clip=1.0)[1], *batch(1, name, "ce"), fuse=fuse)
    plan, arrays, graph = program.plan, program._arrays, program.graph
    bases = {program.backend.address(arrays[r]) - at for r, at in plan.offsets.items() if arrays[r].size}
    assert len(bases) == 1 and min(bases) % plan.alignment == 0
    arena = min(bases), min(bases) + plan.peak_bytes
    block = next(a for a in map(root, arrays.values()) if span(a)[0] <= arena[0] and arena[1] <= span(a)[1])
    assert plan.peak_bytes <= block.nbytes <= plan.peak_bytes + plan.alignment
    outside = [span(array) for array in (*externals.values(), *graph.constants.values()) if array.size]
    for index, array in arrays.items():
        homes = outside if graph.kind_of_storage(index) in (EXTERNAL, CONSTANT) else [arena]
        assert inside(array, homes), graph.registers[index]
    found = [array for array in arrays_within(program._code) if array.size]
    assert len(found) > len(graph)
    for array in found:
        assert inside(array, [arena, *outside]) or array.nbytes <= 16, f"{array.dtype}{array.shape} is outside"


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("name", ZOO)
def test_running_a_program_allocates_no_array(name, fuse):
    """Beyond copies of the outputs, a run takes less than 4 KB: less than one number for each row of the batch.

    NumPy's functions take buffers of a fixed size where rows are short; they are made small, so that arrays show.
    """
    n = 4096
    args = batch(1, name, "ce", n=n)
    program, inputs, externals = ready(build(name, "ce", "adam", clip=1.0)[1], *args, fuse=fuse)
    outputs = sum(each.nbytes for each in program.run(inputs, externals))
    most, buffer = {}, np.setbufsize(16)
    tracemalloc.start()
    try:
        program.fill(inputs, externals)
        with program.backend.quiet():
            for place, each in enumerate(program.graph):  # one by one, so that a failure names the kernel
                for function, arguments in program._code[([0, *program._ends])[place] : program._ends[place]]:
                    tracemalloc.reset_peak()
                    before = tracemalloc.get_traced_memory()[0]
                    function(*arguments)
                    most[each.op.name] = max(most.get(each.op.name, 0), tracemalloc.get_traced_memory()[1] - before)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        program.run(inputs, externals)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
        np.setbufsize(buffer)
    assert not {name: taken for name, taken in most.items() if taken >= 2 * n}
    assert peak - outputs < 2 * n


def test_in_steady_state_memory_does_not_grow():
    _, step = build("dropout", "ce", "adam")
    captured = tn.capture(step)
    x, y = batch(1, "dropout", "ce")
    tracemalloc.start()
    sizes = []
    for _ in range(6):  # in the first rounds the interpreter's own free lists fill up
        for _ in range(1000):
            captured(x, y)
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    # one object that stays per call would be 28,000 bytes or more in every round
    assert min(after - before for before, after in itertools.pairwise(sizes)) < 1000


@pytest.mark.parametrize("memory", [None, "1MB"])
def test_a_program_lets_go_of_the_arguments_of_its_first_call(memory):
    w = tn.tensor(np.ones((8, 1), "float32"), requires_grad=True)
    step = tn.capture(lambda x: tn.square(x @ w).sum(), memory=memory)
    given = []
    for _ in range(3):
        x = tn.tensor(np.ones((4, 8), "float32"))
        given.append(weakref.ref(x.array))
        step(x)
        del x
    gc.collect()
    assert [array() for array in given] == [None] * 3


@pytest.mark.parametrize("executor", ["numpy", None])
def test_what_the_first_calls_need_is_gone_without_the_collector(executor):
    """A proof's program and its copies, the gradients of the eager run: each is more than what a program takes."""
    tn.seed(0)
    model = tn.nn.Sequential(tn.nn.Dense(64, 256, "relu"), tn.nn.Dense(256, 256, "relu"), tn.nn.Dense(256, 10))
    step = tn.capture(classifying(model, tn.optim.Adam(model.parameters())), executor=executor)

    x, y = tn.tensor(np.ones((16, 64), "float32")), tn.tensor(np.arange(16) % 10)
    plan = tn.plan(model, "cross_entropy", "adam", 16, executor=executor)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(3):
            step(x, y)
        arrays = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
        held = sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([arrays]).traces)
        [[variant]] = step._variants.values()
        arena = weakref.ref(next(iter(variant.program._slots.values())).base)
        del variant
        stayed = arena() is not None
        del step
        assert stayed and arena() is None
    finally:
        tracemalloc.stop()
        gc.enable()
    gradients = sum(p.nbytes for p in model.parameters())
    assert plan.peak_bytes <= held < plan.peak_bytes + gradients / 4


def changed(before, ours, theirs, everything=0.0):
    return proof.changed_alike(get_backend("numpy"), before, ours, theirs, everything)


@pytest.mark.parametrize("at", [0, proof._PIECE - 1, proof._PIECE, 2 * proof._PIECE + 6])
def test_one_wrong_number_in_a_large_array_is_found(at):
    rng = np.random.default_rng(0)
    before = rng.standard_normal(2 * proof._PIECE + 7).astype("float32")
    theirs = before + rng.standard_normal(before.shape).astype("float32")
    assert changed(before, theirs, theirs)
    for wrong in (np.nan, np.inf, 1e6):
        ours = theirs.copy()
        ours[at] = wrong
        assert not changed(before, ours, theirs)
        assert changed(before, theirs, ours) is (wrong != 1e6)  # where the eager run has none, anything may be
