"""Checks of the executor: what a captured step holds, against eager mode and against itself, and in device memory.

Each check makes its model anew. ``Setting`` says where: on the GPU, or wherever else captured steps run; what looks at
the pool of device memory needs CuPy's.
"""

from __future__ import annotations

import functools
import gc
import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import tinynet as tn

from .checks import distance, require

STEPS = 50
REPLAYS = 1000
SIZES, BATCH = (20, 33, 17, 10), 24
ROUNDING = 1e-4  # of float32 losses, relative, over the steps: fusion changes the order of sums
GRANULARITY = 512  # bytes, of CuPy's pool


class Setting(NamedTuple):
    """Where and how steps are captured: a backend, and options of ``tn.capture``."""

    backend: str = "cupy"
    executor: str | None = "cuda"


GPU = Setting()


class Training:
    """A small network, its data on the host, and its step.

    Args:
        loss: of ``tn.losses``. optimizer: "gd" or "adam". dropout: its rate after each hidden layer. batch: examples.
    """

    def __init__(self, loss: str = "cross_entropy", optimizer: str = "adam", dropout: float = 0.0, batch: int = BATCH):
        tn.seed(3)
        layers: list = []
        for n, m in itertools.pairwise(SIZES):
            layers.append(tn.nn.Dense(n, m, "relu" if m != SIZES[-1] else None))
            if dropout and m != SIZES[-1]:
                layers.append(tn.nn.Dropout(dropout))
        self.model = tn.nn.Sequential(*layers)
        make = {"gd": tn.optim.GD, "adam": tn.optim.Adam}[optimizer]
        self.optimizer = make(self.model.parameters(), lr=1e-2)
        self.loss_of = getattr(tn.losses, loss)
        rng = np.random.default_rng(5)
        shape = (4, batch, SIZES[-1])
        inputs = rng.standard_normal((4, batch, SIZES[0]), dtype="float32")
        labels = rng.integers(0, SIZES[-1], shape[:2])
        self.data = list(zip(inputs, rng.standard_normal(shape, dtype="float32") if loss == "mse" else labels))
        self.ring = [(tn.tensor(x), tn.tensor(y)) for x, y in self.data]

    def step(self, x, y):
        self.optimizer.zero_grad()
        loss = self.loss_of(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss

    def run(self, step: Callable, steps: int, ring=None, first: int = 0) -> list[float]:
        """The losses of so many steps."""
        ring = ring or self.ring
        return [step(*ring[i % len(ring)]).item() for i in range(first, first + steps)]

    def parameters(self) -> np.ndarray:
        return np.concatenate([p.numpy().reshape(-1) for p in self.model.parameters()])


def checks(setting: Setting = GPU) -> dict[str, Callable[[], dict]]:
    """All of them, by name."""
    found: dict[str, Callable] = {}
    for loss, optimizer, dropout in (
        ("mse", "gd", 0.0), ("mse", "adam", 0.0), ("cross_entropy", "gd", 0.0), ("cross_entropy", "adam", 0.0),
        ("cross_entropy", "adam", 0.3),
    ):  # fmt: skip
        name = f"{loss} {optimizer}{' dropout' if dropout else ''}"
        make = functools.partial(Training, loss, optimizer, dropout)
        found[f"captured is eager to rounding: {name}"] = functools.partial(captured_is_eager, make, setting)
        found[f"without fusion the bits are eager's: {name}"] = functools.partial(unfused_is_eager, make, setting)
    found |= {
        f"{check.__name__.replace('_', ' ')}": functools.partial(check, setting)
        for check in (
            graph_is_the_plain_stream, a_step_is_one_graph, rate_and_step_count_take_effect,
            arrays_of_the_host_give_the_same, bad_labels_change_nothing, device_bytes_are_the_plan,
            a_thousand_steps_allocate_nothing, without_memory_there_is_an_arena_error,
        )
    }  # fmt: skip
    return {name: functools.partial(_on, setting.backend, check) for name, check in found.items()}


def _on(backend: str, check: Callable[[], dict]) -> dict:
    gc.collect()  # what a check before has left
    with tn.use_backend(backend):
        return check()


def _worst(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) / max(abs(b), 1e-30) if np.isfinite(a) else float("inf") for a, b in zip(one, other))


# ---- values ----


def captured_is_eager(make: Callable[[], Training], setting: Setting) -> dict:
    """The same losses and parameters over ``STEPS`` steps, but for rounding; and training changes both."""
    eager, other = make(), make()
    losses = eager.run(eager.step, STEPS)
    captured = other.run(tn.capture(other.step, executor=setting.executor), STEPS)
    error, apart = _worst(captured, losses), distance(other.parameters(), eager.parameters())
    require(error <= ROUNDING, f"losses differ by {error:.1e}: expected {ROUNDING:.0e}")
    require(apart <= 10 * ROUNDING, f"parameters differ by {apart:.1e}: expected {10 * ROUNDING:.0e}")
    moved = distance(eager.parameters(), make().parameters())
    require(moved > 100 * ROUNDING, f"training moves parameters by no more than {moved:.1e}")
    return {"losses": error, "parameters": apart}


def unfused_is_eager(make: Callable[[], Training], setting: Setting) -> dict:
    eager, other = make(), make()
    losses = eager.run(eager.step, STEPS)
    unfused = other.run(tn.capture(other.step, fuse=False), STEPS)
    require(unfused == losses, f"losses differ by {_worst(unfused, losses):.1e}: expected the same bits")
    same = eager.parameters().tobytes() == other.parameters().tobytes()
    require(same, "parameters differ: expected the same bits")
    return {"steps": STEPS}


def graph_is_the_plain_stream(setting: Setting) -> dict:
    """What a replay writes, and the calls of the same program made one by one on copies."""
    training = Training(dropout=0.3)
    captured = tn.capture(training.step, executor=setting.executor)
    training.run(captured, 4)
    x, y = training.ring[0]
    program = captured.program(x, y)
    backend, written = program.backend, program.graph.written()
    bound = dict(program.bound)
    state = {r: backend.copy(a) if program.graph.storage(r) in written else a for r, a in bound.items()}
    captured(x, y)
    program.fill([x.array, y.array], state)
    with backend.quiet():
        for function, arguments in program._code:  # as bound, before any of them were made one
            function(*arguments)
    backend.synchronize()
    program.bound = None  # the next run binds its own arrays again
    compared = [r for r in bound if program.graph.storage(r) in written]
    require(bool(compared), "the step writes to nothing")
    for r in compared:
        one, other = (backend.to_host(each[r]) for each in (bound, state))
        require(one.tobytes() == other.tobytes(), f"{program.graph.registers[r].name} differs: expected the same bits")
    return {"arrays": len(compared)}


def a_step_is_one_graph(setting: Setting) -> dict:
    """Captured by the driver, and not made of separate launches."""
    training = Training()
    captured = tn.capture(training.step, executor=setting.executor)
    training.run(captured, 4)
    says = captured.program(*training.ring[0]).explain()
    notes = [line for line in says.splitlines() if "launch" in line]
    require(len(notes) == 1 and "as one CUDA graph" in notes[0], f"expected one CUDA graph, got {notes or says}")
    return {"note": notes[0]}


def rate_and_step_count_take_effect(setting: Setting) -> dict:
    """A rate that is set between replays, and Adam's corrections, which depend on the count of steps."""
    found = {}
    for name in ("eager", "captured", "rate as it was"):
        training = Training()
        step = training.step if name == "eager" else tn.capture(training.step, executor=setting.executor)
        losses = training.run(step, 5)
        if name != "rate as it was":
            training.optimizer.lr = 5e-2
        found[name] = [*losses, *training.run(step, 10, first=5)]
        require(training.optimizer.steps == 15, f"expected a count of 15 steps, got {training.optimizer.steps}")
    error = _worst(found["captured"], found["eager"])
    require(error <= ROUNDING, f"losses differ from eager mode's by {error:.1e}")
    changed = _worst(found["captured"], found["rate as it was"])
    require(changed > 100 * ROUNDING, f"another rate changes the losses by {changed:.1e} only")
    return {"losses": error, "changed": changed}


def arrays_of_the_host_give_the_same(setting: Setting) -> dict:
    """NumPy's arrays as arguments; one is written over right after each call, when it may still be on its way."""
    one, other = Training(), Training()
    step = tn.capture(one.step, executor=setting.executor)
    expected = one.run(step, STEPS)
    step, losses = tn.capture(other.step, executor=setting.executor), []
    for i in range(STEPS):
        x, y = other.data[i % len(other.data)]
        given = x.copy()
        losses.append(step(given, y))
        given[...] = np.nan
    losses = [loss.item() for loss in losses]
    require(losses == expected, f"losses differ by {_worst(losses, expected):.1e}: expected the same bits")
    return {"steps": STEPS}


def bad_labels_change_nothing(setting: Setting) -> dict:
    """A class that there is not is a RangeError, with parameters and moments as they were; and training goes on."""
    training = Training()
    step = tn.capture(training.step, executor=setting.executor)
    training.run(step, 4)
    for on_host in (False, True):
        for label in (-1, SIZES[-1], 2**40):
            x, y = training.data[0]
            y = y.copy()
            y[BATCH // 2] = label
            before, count = training.parameters(), training.optimizer.steps
            moments = [tn.ops.sum(m).item() for m in itertools.chain(*training.optimizer._moments.values())]
            refused = False
            try:
                step(*((x, y) if on_host else (tn.tensor(x), tn.tensor(y))))
            except tn.errors.RangeError:
                refused = True
            where = f"label {label}{' from the host' if on_host else ''}"
            require(refused, f"expected a RangeError for {where}, got none")
            after = [tn.ops.sum(m).item() for m in itertools.chain(*training.optimizer._moments.values())]
            same = before.tobytes() == training.parameters().tobytes() and moments == after
            require(same and training.optimizer.steps == count, f"{where} changed parameters, moments or the count")
    loss = training.run(step, 1)[0]
    require(np.isfinite(loss), f"after the refusals the loss is {loss}")
    return {"loss": loss}


# ---- memory ----


def _pool():
    import cupy

    return cupy.get_default_memory_pool()


def _program(setting: Setting, training: Training):
    captured = tn.capture(training.step, executor=setting.executor)
    training.run(captured, 4)
    return captured, captured.program(*training.ring[0])


def _again(program):
    """Another program of the same graph, in an arena of its own."""
    return type(program)(program.graph, target=program.target, precision=program.precision)


def device_bytes_are_the_plan(setting: Setting) -> dict:
    """What the pool hands out for a program is the plan's peak, in the pool's steps of 512 bytes; and comes back."""
    pool = _pool()
    _, program = _program(setting, Training())
    gc.collect()
    before = pool.used_bytes()
    another = _again(program)
    taken, planned = pool.used_bytes() - before, another.plan.peak_bytes
    expected = -(-planned // GRANULARITY) * GRANULARITY
    require(taken == expected, f"expected {expected:,} bytes for a plan of {planned:,}, got {taken:,}")
    del another
    gc.collect()
    require(pool.used_bytes() == before, f"{pool.used_bytes() - before:,} bytes of a program did not come back")
    return {"planned": planned, "taken": taken}


def a_thousand_steps_allocate_nothing(setting: Setting) -> dict:
    """In steady state the pool neither grows nor asks for memory, and all that it hands out comes back."""
    pool, training = _pool(), Training(dropout=0.3)
    captured, _ = _program(setting, training)
    training.run(captured, 50)
    gc.collect()
    used, total = pool.used_bytes(), pool.total_bytes()
    losses = [captured(*training.ring[i % 4]) for i in range(8)]  # held together, as a caller may
    del losses
    training.run(captured, REPLAYS)
    gc.collect()
    grown = pool.total_bytes() - total
    require(grown <= 8 * GRANULARITY, f"the pool grew by {grown:,} bytes over {REPLAYS:,} steps")
    require(pool.used_bytes() == used, f"{pool.used_bytes() - used:,} bytes are kept after {REPLAYS:,} steps")
    return {"steps": REPLAYS, "grown": grown}


def without_memory_there_is_an_arena_error(setting: Setting) -> dict:
    """The pool is limited to what it has; a program more is an ArenaError, and the first one goes on."""
    pool, training = _pool(), Training(batch=8192)  # with an arena that fits into nothing that is left over
    captured, program = _program(setting, training)
    gc.collect()
    pool.free_all_blocks()
    limit = pool.get_limit()
    pool.set_limit(size=pool.total_bytes() + GRANULARITY)
    try:
        _again(program)
        raised = None
    except tn.errors.ArenaError as error:
        raised = str(error)
    finally:
        pool.set_limit(size=limit)
    require(raised is not None, "expected an ArenaError, got none")
    another = _again(program)
    require(another.plan.peak_bytes == program.plan.peak_bytes, "another program has another plan")
    loss = training.run(captured, 1)[0]
    require(np.isfinite(loss), f"afterwards the loss is {loss}")
    return {"error": raised[:120]}
