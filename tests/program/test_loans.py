"""Arguments that native programs read where they lie: the same bits as with copies, and nothing else than a reading."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tinynet as tn
from tinynet.kernels import available

pytestmark = pytest.mark.skipif(not available("native"), reason="native kernels cannot run here")

ROWS, COLUMNS = 96, 256  # 96 KiB of float32


def model():
    tn.seed(0)
    return tn.nn.Sequential(tn.nn.Dense(COLUMNS, 33, "tanh"), tn.nn.Dense(33, 5))


def inputs(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((ROWS, COLUMNS), "float32")


def settled(step, *args):
    """A captured step whose program runs from now on."""
    captured = tn.capture(step, executor="native")
    for _ in range(3):
        captured(*args)
    return captured


def lent(captured, *args) -> list[bool]:
    """For each argument, whether it is read where it lies."""
    return [loan is not None for loan in captured.program(*args)._loans]


@pytest.fixture
def forward():
    network = model()

    def step(x):
        with tn.no_grad():
            return network(x)

    return settled(step, inputs())


def misaligned(x):
    return np.concatenate([[np.float32(0)], x.ravel()])[1:].reshape(x.shape)


def turned(x):
    return np.asfortranarray(x)


def between_bytes(x):
    held = np.zeros(x.nbytes + 1, "uint8")[1:]
    held[:] = np.frombuffer(x.tobytes(), "uint8")
    return held.view(x.dtype).reshape(x.shape)


@pytest.mark.parametrize("way", [np.array, misaligned, turned, between_bytes, lambda x: np.repeat(x, 2, 1)[:, ::2]])
def test_arrays_that_lie_in_other_ways_give_the_same_bits(forward, way):
    assert lent(forward, inputs()) == [True]
    for seed in (1, 2, 1):
        x = inputs(seed)
        right = forward.program(x)(x)
        program = forward.program(x)
        program.fill([x])  # a copy
        program.execute()
        assert program.run([way(x)])[0].tobytes() == right.tobytes()
        assert forward(way(x)).numpy().tobytes() == right.tobytes()


def test_the_slot_of_a_lent_argument_is_not_touched(forward):
    program = forward.program(inputs())
    slot = program._input_slots[0]
    slot[...] = -7
    x = inputs(3)
    program(x)
    assert not (slot == x).any()  # the plan has other uses for its bytes by then
    program.fill([x])
    assert (slot == x).all()


def test_a_call_leaves_nothing_behind_that_another_one_reads(forward):
    first, second = inputs(1), inputs(2)
    right = [forward(x).numpy() for x in (first, second)]
    first_again = first.copy()
    one = forward(first_again).numpy()
    first_again[...] = np.nan
    np.testing.assert_array_equal(forward(second).numpy(), right[1])
    np.testing.assert_array_equal(one, right[0])


def test_training_gives_the_bits_of_copies_and_the_arguments_stay_as_they_are(monkeypatch):
    rng, losses = np.random.default_rng(0), []
    batches = [(inputs(i), rng.standard_normal((ROWS, 5), "float32")) for i in range(6)]
    before = [x.copy() for x, _ in batches]
    for least in (None, 1 << 40):
        if least is not None:
            from tinynet.kernels.cpu.native import loans

            monkeypatch.setattr(loans, "LEAST", least)
        network = model()
        optimizer = tn.optim.Adam(network.parameters())

        def step(x, y, network=network, optimizer=optimizer):
            optimizer.zero_grad()
            loss = tn.losses.mse(network(x), y)
            loss.backward()
            optimizer.step()
            return loss

        captured = tn.capture(step, executor="native")
        losses.append([captured(x, y).item() for x, y in batches])
        assert lent(captured, *batches[0])[0] is (least is None)
    assert losses[0] == losses[1]
    for (x, _), same in zip(batches, before):
        np.testing.assert_array_equal(x, same)


def test_what_is_written_to_or_given_back_or_small_or_whole_numbers_is_copied():
    x, labels = inputs(), np.random.default_rng(0).integers(0, COLUMNS, 8000)

    def step(x, small, labels, kept):
        return x * 2 + 1, small + 1, tn.sum(tn.one_hot(labels, classes=COLUMNS), axis=0), kept.reshape(-1)

    captured = settled(step, x, x[:2].copy(), labels, x.copy())
    found = lent(captured, x, x[:2].copy(), labels, x.copy())
    assert found[1:] == [False, False, False]
    mine = x.copy()
    assert not np.shares_memory(captured(x, x[:2].copy(), labels, mine)[3].numpy(), mine)


def test_a_program_that_writes_is_served_from_copies():
    """Called as it stands, nobody looks at whether an argument is memory that it writes to."""
    state = tn.tensor(inputs())

    def step(x):
        tn.ops.assign(state, state + tn.exp(x) * 0.5)

    captured = settled(step, inputs(1))
    program = captured.program(inputs(1))
    before = state.numpy().copy()
    program(state.numpy())
    np.testing.assert_allclose(state.numpy(), before + np.exp(before) * 0.5, rtol=1e-5, atol=1e-6)


def test_a_profile_times_the_numbers_that_were_given(forward):
    assert forward.program(inputs()).profile(repeats=2).seconds > 0
    x = inputs(5)
    np.testing.assert_array_equal(forward(x).numpy(), forward(x.copy()).numpy())


def test_slots_elsewhere_are_each_another_distance_away():
    from tinynet.kernels.cpu.native.loans import elsewhere

    block = np.zeros(4 * 4096, "uint8")
    slots = [block[i * 4096 : (i + 1) * 4096].view("float32").reshape(32, 32) for i in range(4)]
    others = elsewhere(slots)
    distances = {other.ctypes.data - slot.ctypes.data for slot, other in zip(slots, others)}
    assert len(distances) == 4
    spans = sorted((other.ctypes.data, other.ctypes.data + other.nbytes) for other in others)
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
