"""What must not happen to programs on a GPU while their work is in flight, and to what is refused on the way."""

import gc
import weakref

import numpy as np
import pytest
from fake import FakeDevice, gpu

import tinynet as tn
from tinynet.kernels.cuda import blas, graphs
from tinynet.kernels.cuda.device import Device, capturing
from tinynet.kernels.cuda.feeding import Feed

pytestmark = pytest.mark.usefixtures("harness")

ORDERS = ("first", "last", 1, 2)


def places(device):
    """A slot and its staging area."""
    return (device.hold(np.zeros(4, dtype)) for dtype in ("float32", "float32"))


@pytest.mark.parametrize("order", ORDERS)
def test_a_program_bound_anew_leaves_the_arguments_of_the_call_before_alone(order):
    arguments = np.random.default_rng(0).normal(size=(4, 8, 8)).astype("float32")
    with gpu(order):
        weights = [tn.tensor(np.full((8, 8), value, "float32")) for value in (1, 2)]
        weight = weights[0]
        step = tn.capture(lambda x: x @ weight)
        for _ in range(3):
            step(arguments[0])
        program = step.program(arguments[0])
        (register,) = program.bound
        found = [program.run([x], {register: weights[i % 2].array})[0] for i, x in enumerate(arguments)]
        found = [program.backend.to_host(each) for each in found]
    for i, (x, ours) in enumerate(zip(arguments, found)):
        np.testing.assert_allclose(ours, x @ np.full((8, 8), 1 + i % 2, "float32"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("order", ORDERS)
def test_the_first_transfer_comes_after_what_used_the_memory_before(order):
    with gpu(order) as (device, _):
        slot, staging = places(device)
        device._put("launch", device.current(), (), lambda: staging.fill(-1))
        Feed([slot], [staging])(np.arange(4, dtype="float32"))
        device.finish()
        assert (slot == np.arange(4)).all()


def test_pinned_memory_is_kept_until_the_device_has_read_it():
    with gpu() as (device, _):
        slot, staging = places(device)
        feed = Feed([slot], [staging])
        feed(np.arange(4, dtype="float32"))
        room = weakref.ref(feed._rooms[0][0])
        del feed
        gc.collect()
        assert not slot.any() and room() is not None
        Feed(*([each] for each in places(device)))(np.ones(4, "float32"))  # which may get the same memory
        assert (staging == np.arange(4)).all() and room() is None
        device.finish()


@pytest.mark.parametrize("order", ORDERS)
def test_a_host_argument_that_is_written_to_gets_the_numbers_of_the_program(order):
    with gpu(order):

        def step(x):
            x[:] = x * 2
            return x.sum()

        captured = tn.capture(step)
        given = np.arange(6, dtype="float32")
        for _ in range(3):
            captured(tn.tensor(given))
        program, x = captured.program(tn.tensor(given)), given + 1
        result = program(x)
        assert (x == (given + 1) * 2).all() and program.backend.to_host(result) == x.sum()


def test_numpy_scalars_are_of_the_host():
    assert Device().is_host(np.float32(1)) and Device().is_host(np.zeros(()))


class _Capturing:
    """A stream, and the graph that its capture gives."""

    ended = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def begin_capture(self):
        pass

    def end_capture(self):
        self.ended = True
        return self

    def upload(self, stream):
        pass

    def launch(self):
        pass


def test_a_capture_is_ended_by_an_interruption_too(monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    stream = _Capturing()
    monkeypatch.setattr(Device, "stream", lambda self: stream)
    with pytest.raises(KeyboardInterrupt):
        Device().capture([(interrupted, ())])
    assert stream.ended


def test_nobody_waits_for_the_whole_device_while_a_stream_is_captured(monkeypatch):
    held = []
    monkeypatch.setattr(Device, "stream", lambda self: _Capturing())
    Device().capture([(lambda: held.append(capturing.locked()), ())])
    assert held == [True] and not capturing.locked()


def test_products_by_cublas_are_captured_one_graph_at_a_time(monkeypatch):
    held = []
    monkeypatch.setattr(blas.Call, "__call__", lambda self: held.append(graphs._multiplying.locked()))
    with gpu() as (device, _):
        graphs.Graph([(blas.Call(None), ())])()
    assert held == [True] and isinstance(device, FakeDevice)


def without_room(backend, monkeypatch, room):
    def small(nbytes):
        raise MemoryError("out of memory")

    monkeypatch.setattr(backend, "block", small)
    monkeypatch.setattr(backend, "free_bytes", lambda: room)


def test_a_step_that_takes_no_other_batch_does_not_hide_that_there_is_no_memory(monkeypatch):
    def step(x):
        if x.shape[0] != 64:
            raise ValueError("another batch")
        return (x * 2).sum()

    with gpu() as (_, backend):
        x = np.ones((64, 64), "float32")
        without_room(backend, monkeypatch, 20_000)
        with pytest.raises(tn.errors.ArenaError, match="or make the batch or the model smaller"):
            tn.capture(step)(x)


def test_no_batch_is_named_where_none_fits(monkeypatch):
    with gpu() as (_, backend):
        x = np.ones((64, 64), "float32")
        without_room(backend, monkeypatch, 10)
        with pytest.raises(tn.errors.ArenaError) as caught:
            tn.capture(lambda x: (x * 2).sum())(x)
    assert "rows" not in caught.value.mend
