"""Whole programs on a GPU that is not there: real encoders and kernels, the executor, its streams and its memory.

The device records what is asked of it and does it late, in an order that its events allow (``fake``).
"""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
from fake import DeviceArray, FakeDevice, gpu
from zoo import ZOO, batch, build

import tinynet as tn
from tinynet.kernels.cuda.encoding import address

operands = importlib.import_module("tinynet.kernels.cuda.operands")

pytestmark = pytest.mark.usefixtures("harness")

ORDERS = ("first", "last", 1, 2)
BATCHES = [(np.random.default_rng(i).normal(size=(8, 6)).astype("float32"),
            np.random.default_rng(i + 50).integers(0, 3, 8)) for i in range(7)]  # fmt: skip


def training(optimizer="adam", loss="cross_entropy", dropout=0.0, **options):
    """A model, its optimizer and its captured step, the same each time."""
    tn.seed(3)
    layers = [tn.nn.Dense(6, 16, "relu"), tn.nn.Dropout(dropout), tn.nn.Dense(16, 3)]
    model = tn.nn.Sequential(*(each for each in layers if dropout or not isinstance(each, tn.nn.Dropout)))
    make = {"adam": tn.optim.Adam, "gd": tn.optim.GD}[optimizer]
    optimizer = make(model.parameters(), lr=0.02)
    loss_function = tn.losses.cross_entropy if loss == "cross_entropy" else tn.losses.mse

    def step(x, y):
        optimizer.zero_grad()
        value = loss_function(model(x), y)
        value.backward()
        optimizer.step()
        return value

    return model, optimizer, tn.capture(step, **options)


def run(step, batches=BATCHES):
    """Losses, read when all steps have been called."""
    return [loss.item() for loss in [step(*each) for each in batches]]


def weights(model):
    return {name: np.array(p.numpy()) for name, p in model.named_parameters()}


def expected(batches=BATCHES, **options):
    with tn.use_backend("numpy"):
        model, _, step = training(executor="numpy", **options)
        return run(step, batches), weights(model)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("graphs", [True, False])
def test_training_comes_to_the_numbers_of_the_processor_in_every_order_of_the_streams(order, graphs):
    losses, after = expected()
    with gpu(order, graphs) as (device, _):
        model, _, step = training()
        np.testing.assert_allclose(run(step), losses, rtol=1e-5)
        for name, value in weights(model).items():
            np.testing.assert_allclose(value, after[name], rtol=1e-4, atol=1e-6)
        kinds = {record.kind for record in device.records}
        assert ("graph" in kinds) is graphs and ("launch" in kinds) is not graphs
        explained = step.program(*BATCHES[0]).explain()
        assert ("as one CUDA graph" if graphs else "no graph could be captured (this device has none)") in explained


@pytest.mark.parametrize("order", ["first", "last"])
def test_gradients_in_the_place_of_inputs_are_those_of_the_processor(order, monkeypatch):
    monkeypatch.setattr("tinynet.program.passes.overlaying._ROUND", 4)  # strips of 8 rows, or 4
    losses, after = expected()
    with gpu(order, True):
        _, _, step = training(memory="1MiB")
        run(step, BATCHES[:3])
        whole = step.program(*BATCHES[0]).plan.workspace_bytes
        model, _, step = training(memory=whole - 1)
        np.testing.assert_allclose(run(step), losses, rtol=1e-5)
        for name, value in weights(model).items():
            np.testing.assert_allclose(value, after[name], rtol=1e-4, atol=1e-6)
        program = step.program(*BATCHES[0])
        assert "strips of their weights" in program.explain() and program.plan.workspace_bytes < whole


@pytest.mark.parametrize("options", [
    {"optimizer": "gd"}, {"optimizer": "gd", "loss": "mse"}, {"loss": "mse"}, {"dropout": 0.25},
])  # fmt: skip
def test_other_losses_and_optimizers_and_the_masks_of_dropout_are_those_of_the_processor(options):
    batches = BATCHES
    if options.get("loss") == "mse":
        batches = [(x, np.eye(3, dtype="float32")[y]) for x, y in BATCHES]
    losses, after = expected(batches, **options)
    with gpu():
        model, _, step = training(**options)
        np.testing.assert_allclose(run(step, batches), losses, rtol=1e-5)
        for name, value in weights(model).items():
            np.testing.assert_allclose(value, after[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "optimizer"), [("mse", "momentum"), ("ce", "adam")])
@pytest.mark.parametrize("name", ZOO)
def test_models_of_the_zoo_are_trained_as_eagerly(name, kind, optimizer):
    with gpu("now") as (_, backend):
        (_, eager), (_, step) = (build(name, kind, optimizer, clip=1.0) for _ in range(2))
        captured = tn.capture(step)
        for i in (1, 2, 3, 4, 5):
            x, y = batch(i, name, kind)
            wanted = eager(tn.tensor(x), tn.tensor(y)).numpy()
            np.testing.assert_allclose(captured(x, y).numpy(), wanted, rtol=2e-5)
        program = captured.program(x, y)
        assert program.target == "cuda" and program.plan.peak_bytes in backend.blocks
        own = sum(program.target_of(i) == "cuda" for i, each in enumerate(program.graph) if not each.view)
        assert own >= 0.8 * sum(not each.view for each in program.graph)


def steady(device, step, arguments):
    """The records of one call of a program that has been called before."""
    for each in BATCHES[:4]:
        step(*each)
    before = len(device.records)
    step(*arguments)
    return device.records[before:]


def test_a_step_is_transfers_one_graph_and_the_copy_of_its_result():
    with gpu() as (device, _):
        _, _, step = training()
        records = steady(device, step, BATCHES[4])
        assert [record.kind for record in records] == [
            "wait", "upload", "upload", "record", "wait", "copy", "copy", "record", "graph", "copy"
        ]  # fmt: skip
        copying = records[0].stream
        assert copying != device.current().number
        assert [record.stream == copying for record in records] == [True] * 4 + [False] * 6
        sent, taken = records[3].what, records[7].what
        assert records[4].what == sent and records[0].what == taken  # of the call before
        assert device.drained == 0


def test_addresses_sizes_and_order_are_those_of_the_plan():
    with gpu() as (device, backend):
        _, _, step = training()
        records = steady(device, step, BATCHES[4])
        program = step.program(*BATCHES[4])
        graph, plan = program.graph, program.plan
        assert plan.peak_bytes in backend.blocks and plan.alignment == 256
        slots = {storage: address(program._slots[storage]) for storage in plan.offsets}
        (base,) = {at - plan.offsets[storage] for storage, at in slots.items()}
        assert base % 256 == 0 and all(at % 256 == 0 for at in slots.values())
        # transfers: from the host to the staging area, and from there to the slots of the arguments
        sizes = [each.nbytes for each in BATCHES[4]]
        assert [(at - base, nbytes) for at, _, nbytes in (r.what for r in records if r.kind == "upload")] == [
            (at, size) for (at, _), size in zip(plan.staging, sizes)
        ]
        copies = [record.what for record in records if record.kind == "copy"]
        inputs = [plan.offsets[graph.storage(register)] for register in graph.inputs]
        assert [(to - base, source - base, nbytes) for to, source, nbytes in copies[:2]] == [
            (to, at, size) for to, (at, _), size in zip(inputs, plan.staging, sizes)
        ]
        assert copies[2][1] - base == plan.offsets[graph.storage(graph.outputs[0])]
        # launches: in the order of the instructions, each on the memory that its operands have in the plan
        (launches,) = [record.what for record in records if record.kind == "graph"]
        assert launches == tuple(arguments[0] for _, arguments in program._code)
        begins = [0, *program._ends[:-1]]
        outside = {address(array) for r, array in program.bound.items()}
        outside |= {address(array) for array in graph.constants.values()}
        seen = 0
        for place, (begin, end) in enumerate(zip(begins, program._ends)):
            each = graph.instructions[place]
            registers = (*each.inputs, *each.outputs)
            planned = {base + plan.offsets[graph.storage(r)] for r in registers if graph.storage(r) in plan.offsets}
            planned |= {base + plan.scratch[place][0]} if place in plan.scratch else set()
            for launch in launches[begin:end]:
                pointers = {int(value) for value in launch.arguments if isinstance(value, np.uint64) and value}
                within = {at for at in pointers if base <= at < base + plan.peak_bytes}
                # a part of an operand (a batch, slices of scratch) begins within it
                for at in within:
                    assert any(0 <= at - where < plan.peak_bytes for where in planned), (each.op.name, at - base)
                assert pointers - within <= outside, each.op.name
                assert planned & within or not within
                seen += len(pointers)
        assert seen > 40


def test_a_dependency_that_is_left_out_shows_itself(monkeypatch):
    losses, _ = expected()
    monkeypatch.setattr(FakeDevice, "wait", lambda self, stream, event: None)
    found = []
    for order in ORDERS:
        with gpu(order):
            _, _, step = training()
            try:
                found.append(run(step))
            except Exception:  # labels that are not there yet may be any number
                found.append(None)
    assert not all(each is not None and np.allclose(each, losses, rtol=1e-5) for each in found)


def test_nothing_waits_for_the_device_but_for_the_transfer_of_two_calls_ago():
    with gpu("last") as (device, backend):
        _, _, step = training()
        steady(device, step, BATCHES[4])
        drained, waited, blocks = device.drained, device.waited, len(backend.blocks)
        finish, device.finish = device.finish, None  # what eager work and reading would call
        for each in BATCHES:
            step(*each)
        device.finish = finish
        assert (device.drained, len(backend.blocks)) == (drained, blocks) and device.waited - waited <= len(BATCHES)
        assert sum(record.kind == "graph" for record in device.records[-10:]) == 1


def test_arguments_on_the_device_and_on_the_host_give_the_same():
    losses, _ = expected()
    with gpu():
        _, _, step = training()
        for i, (x, y) in enumerate(BATCHES):
            if i % 2:
                x, y = tn.tensor(x), tn.tensor(y)
                assert isinstance(x.array, DeviceArray)
            assert step(x, y).item() == pytest.approx(losses[i], rel=1e-5)


def test_a_rate_that_changes_takes_effect():
    def rates(step, optimizer):
        found = []
        for i, each in enumerate(BATCHES):
            optimizer.lr = 0.02 / (i + 1)
            found.append(step(*each))
        return [loss.item() for loss in found]

    with tn.use_backend("numpy"):
        _, optimizer, step = training(executor="numpy")
        wanted = rates(step, optimizer)
    with gpu():
        _, optimizer, step = training()
        np.testing.assert_allclose(rates(step, optimizer), wanted, rtol=1e-5)


def test_labels_out_of_range_change_nothing():
    with gpu():
        model, _, step = training()
        for each in BATCHES[:4]:
            step(*each)
        before = weights(model)
        x, y = BATCHES[4]
        for wrong in (np.where(np.arange(8) == 5, 3, y), np.where(np.arange(8) == 5, -1, y)):
            for labels in (wrong, tn.tensor(wrong)):
                with pytest.raises(tn.errors.RangeError, match="labels from 0 to 2, got"):
                    step(x, labels)
        for name, value in weights(model).items():
            assert (value == before[name]).all()
        assert step(x, y).item() > 0


def test_another_stream_waits_for_the_first():
    losses, _ = expected()
    with gpu("last") as (device, _):
        _, _, step = training()
        found = [step(*each) for each in BATCHES[:4]]
        drained = device.drained
        with device.stream():
            found += [step(*each) for each in BATCHES[4:6]]
            assert device.drained == drained + 1
        found.append(step(*BATCHES[6]))
        np.testing.assert_allclose([loss.item() for loss in found], losses, rtol=1e-5)


@pytest.mark.parametrize(("precision", "relative"), [("tf32", 1e-3), ("bf16", 1e-2)])
def test_a_precision_is_that_of_the_products(precision, relative):
    tn.seed(0)
    a, b = np.random.default_rng(0).normal(size=(2, 96, 96)).astype("float32")
    with gpu() as (device, _):
        weight = tn.tensor(b)
        plain, rounded = (tn.capture(lambda x: x @ weight, precision=each) for each in ("float32", precision))
        for step in (plain, rounded):
            for _ in range(3):
                found = step(a).numpy()
        exact = a.astype("float64") @ b
        error = np.abs(found - exact).max() / np.abs(exact).max()
        assert 1e-5 < error < relative
        (launches,) = [record.what for record in device.records if record.kind == "graph"][-1:]
        assert any(precision in launch.function for launch in launches)


def test_operands_that_are_kept_in_bf16_come_to_the_bits_of_those_that_every_product_rounds(monkeypatch):
    rng = np.random.default_rng(2)
    batches = [(rng.normal(size=(24, 32)).astype("float32"), rng.integers(0, 24, 24)) for _ in range(5)]

    def trained(least):
        monkeypatch.setattr(operands, "LEAST", least)
        with gpu() as (_, backend):
            tn.seed(3)
            model = tn.nn.Sequential(tn.nn.Dense(32, 40, "relu"), tn.nn.Dense(40, 24))
            optimizer = tn.optim.Adam(model.parameters(), lr=0.02)

            @tn.capture(precision="bf16")
            def step(x, y):
                optimizer.zero_grad()
                loss = tn.losses.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                return loss

            losses, program = run(step, batches), step.program(*batches[0])
            assert program.plan.peak_bytes in backend.blocks
            return losses, weights(model), [each.op.name for each in program.graph]

    losses, after, names = trained(10**9)
    kept, kept_after, kept_names = trained(1)
    assert not [name for name in names if name.endswith("bf16")]
    # inputs, weights and gradients of the outputs of two layers; the first needs no gradient of its input
    assert kept_names.count("to_bf16") == 6
    assert sum(name.endswith("_of_bf16") for name in kept_names) == 5
    assert kept == losses
    for name, value in kept_after.items():
        assert (value == after[name]).all(), name
    assert np.ptp(losses) > 0


def test_a_precision_needs_a_program_for_a_gpu():
    step = tn.capture(lambda x: x @ x, precision="bf16")
    with pytest.raises(tn.errors.ArgumentError, match="a program for a GPU"):
        step(np.ones((2, 2), "float32"))
    with pytest.raises(tn.errors.ArgumentError, match="precision to be one of 'float32', 'tf32', 'bf16', got 'half'"):
        tn.capture(lambda x: x, precision="half")
    with pytest.raises(tn.errors.ArgumentError, match="tensors of the backend 'cupy' for executor='cuda'"):
        tn.capture(lambda x: x @ x, executor="cuda")(np.ones((2, 2), "float32"))


def test_without_memory_the_error_names_the_largest_batch(monkeypatch):
    with gpu() as (_, backend):
        model, _, step = training(verify=False)
        block, room = backend.block, 100_000

        def small(nbytes):
            if nbytes > room:
                raise MemoryError("out of memory")
            return block(nbytes)

        monkeypatch.setattr(backend, "block", small)
        monkeypatch.setattr(backend, "free_bytes", lambda: room)
        before = weights(model)
        rows = lambda n: (np.ones((n, 6), "float32"), np.zeros(n, "int64"))
        with pytest.raises(tn.errors.ArenaError, match=r"for the arena.*at most [\d,]+ rows fits") as caught:
            step(*rows(5000))
        assert caught.value.requested > room and caught.value.free == room
        assert all((value == before[name]).all() for name, value in weights(model).items())
        largest = int(caught.value.mend.split("at most ")[1].split(" ")[0].replace(",", ""))
        assert step(*rows(largest)).item() > 0
        assert step.program(*rows(largest)).plan.peak_bytes <= room
        with pytest.raises(tn.errors.ArenaError):
            step(*rows(largest + 8))
        _, _, step = training()
        with pytest.raises(tn.errors.ArenaError, match=r"at most [\d,]+ rows") as caught:
            step(*rows(5000))
        proven = int(caught.value.mend.split("at most ")[1].split(" ")[0].replace(",", ""))
        assert 0 < proven < largest and step(*rows(proven)).item() > 0  # a proof has an arena of its own


def test_without_memory_for_a_proof_the_step_has_changed_nothing(monkeypatch):
    with gpu() as (_, backend):
        model, _, step = training(precision="tf32")
        losses, block, before = [step(*BATCHES[0]).item()], backend.block, weights(model)

        def small(nbytes):
            if nbytes > 1000:
                raise MemoryError("out of memory")
            return block(nbytes)

        with monkeypatch.context() as patched:
            patched.setattr(backend, "block", small)
            patched.setattr(backend, "free_bytes", lambda: 1000)
            with pytest.raises(tn.errors.ArenaError, match="for the arena") as caught:
                step(*BATCHES[1])
        assert caught.value.free == 1000
        assert all((value == before[name]).all() for name, value in weights(model).items())
        losses += run(step, BATCHES[1:])
    np.testing.assert_allclose(losses, expected()[0], rtol=2e-2)


def test_the_largest_batch_is_named_of_a_step_that_differentiates_by_its_argument(monkeypatch):
    def slope(x):
        (x * x * x).sum().backward()
        return x.grad

    with gpu() as (_, backend):
        rows = lambda n: tn.ones((n, 4), requires_grad=True, backend=backend)
        step = tn.capture(slope, verify=False)
        assert (step(rows(4)).numpy() == 3).all()
        block = backend.block
        many = rows(5000)

        def small(nbytes):
            if nbytes > 20_000:
                raise MemoryError("out of memory")
            return block(nbytes)

        monkeypatch.setattr(backend, "block", small)
        monkeypatch.setattr(backend, "free_bytes", lambda: 20_000)
        with pytest.raises(tn.errors.ArenaError, match=r"at most [\d,]+ rows"):
            step(many)


@pytest.mark.parametrize(("limit", "used", "free"), [(0, 7, 150), (1000, 7, 150), (100, 30, 70), (100, 120, 0)])
def test_what_is_free_is_no_more_than_the_limit_of_the_pool_leaves(limit, used, free):
    from tinynet.backend.gpu import CuPyBackend

    pool = SimpleNamespace(free_bytes=lambda: 50, get_limit=lambda: limit, used_bytes=lambda: used)
    cuda = SimpleNamespace(runtime=SimpleNamespace(memGetInfo=lambda: (100, 1000)))
    xp = SimpleNamespace(cuda=cuda, get_default_memory_pool=lambda: pool)
    assert CuPyBackend.free_bytes(SimpleNamespace(xp=xp)) == free


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_gpu_is_planned_for_without_one(precision):
    def layers():
        return tn.nn.Sequential(tn.nn.Dense(600, 520, "relu"), tn.nn.Dense(520, 3))

    plan = tn.plan(layers(), "cross_entropy", "adam", 520, executor="cuda", precision=precision)
    with gpu():
        model = layers()
        assert tn.plan(model, "cross_entropy", "adam", 520, precision=precision).peak_bytes == plan.peak_bytes
    assert (precision == "bf16") is any(t.nbytes == 2 * 600 * 520 for t in plan.tensors)  # operands that are kept
    with pytest.raises(tn.errors.ArgumentError, match="a program for a GPU"):
        tn.plan(layers(), "cross_entropy", "adam", 8, executor="numpy", precision="tf32")


def test_programs_without_fusion_give_the_bits_of_eager_mode():
    with gpu():
        model, _, step = training(fuse=False)
        losses = run(step)
        again, _, captured = training()
        found = [captured.step(tn.tensor(x), tn.tensor(y)).item() for x, y in BATCHES]
        assert losses == found
        for name, value in weights(again).items():
            assert (value == weights(model)[name]).all()


def test_fit_sends_batches_while_a_step_runs():
    train = (np.random.default_rng(0).normal(size=(80, 6)), np.random.default_rng(1).integers(0, 3, 80))

    def fitted():
        tn.seed(5)
        model = tn.nn.Sequential(tn.nn.Dense(6, 16, "relu"), tn.nn.Dense(16, 3))
        history = tn.fit(model, train, loss="cross_entropy", optimizer="adam", epochs=3, batch_size=16, valid=train)
        return history, tn.predict(model, train[0])

    wanted, outputs = fitted()
    with gpu("last") as (device, _):
        history, found = fitted()
    assert sum(record.kind == "upload" for record in device.records) >= 2 * 12
    np.testing.assert_allclose(history["loss"], wanted["loss"], rtol=1e-5)
    np.testing.assert_allclose(history["valid_accuracy"], wanted["valid_accuracy"])
    np.testing.assert_allclose(found, outputs, rtol=1e-4, atol=1e-5)


def test_fit_finds_the_backend_of_its_model():
    train = (np.random.default_rng(0).normal(size=(80, 6)), np.random.default_rng(1).integers(0, 3, 80))
    with gpu() as (device, _):
        model = tn.nn.Sequential(tn.nn.Dense(6, 16, "relu"), tn.nn.Dense(16, 3))
        with tn.use_backend("numpy"):
            history = tn.fit(model, train, loss="cross_entropy", optimizer="adam", epochs=2, batch_size=16)
        assert history["loss"][1] < history["loss"][0]
        assert any(record.kind == "graph" for record in device.records)
