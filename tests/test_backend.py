"""Which backend is in use, for the process, a block, a tensor; how backends refuse to mix; and the random streams."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import tinynet as tn
from tinynet import backend as backends
from tinynet.errors import ArgumentError, BackendError, DTypeError, MissingExtraError, TinynetError


@pytest.fixture
def other(other_backend):
    """A second backend, known by name; the process's choice is put back afterwards."""
    before = tn.get_backend()
    tn.register_backend("other", lambda: other_backend)
    yield other_backend
    tn.use_backend(before)


def run_python(code, **environment):
    result = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )
    return result.returncode, result.stdout.strip(), result.stderr


# ---- choosing ----


def test_numpy_is_the_backend_if_none_is_chosen():
    code, out, err = run_python("import tinynet as tn; print(tn.get_backend().name)", TINYNET_BACKEND="")
    assert (code, out) == (0, "numpy"), err


def test_calling_use_backend_chooses_for_the_process(other):
    tn.use_backend("other")
    assert tn.zeros(1).backend is other and tn.tensor(1.0).backend is other and tn.arange(2).backend is other
    found = []
    thread = threading.Thread(target=lambda: found.append(tn.get_backend()))
    thread.start()
    thread.join()
    assert found == [other]


def test_a_block_chooses_for_itself_and_its_thread_and_nests(other):
    found = []
    with tn.use_backend("other") as inside:
        assert inside is other and tn.zeros(1).backend is other
        with tn.use_backend("numpy"):
            assert tn.zeros(1).backend.name == "numpy"
        assert tn.zeros(1).backend is other
        thread = threading.Thread(target=lambda: found.append(tn.get_backend().name))
        thread.start()
        thread.join()
    assert found == ["numpy"] and tn.get_backend().name == "numpy"


def test_a_block_ends_with_an_exception(other):
    with pytest.raises(KeyError), tn.use_backend("other"):
        raise KeyError
    assert tn.get_backend().name == "numpy"


def test_each_thread_may_work_on_a_backend_of_its_own(other):
    found, start = {}, threading.Barrier(2)

    def work(name):
        with tn.use_backend(name):
            start.wait()
            found[name] = (tn.ones(2) * 2.0).backend.name

    threads = [threading.Thread(target=work, args=(name,)) for name in ("numpy", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"numpy": "numpy", "other": "other"}


def test_a_tensor_may_choose_for_itself_and_results_follow_their_inputs(other):
    x = tn.tensor([1.0, 2.0], backend="other")
    assert x.backend is other and (x * 2.0 + np.ones(2, "float32")).backend is other
    assert tn.grad(lambda t: (t * t).sum())(x).backend is other
    assert tn.tensor(x).backend is other and tn.tensor(x, backend="numpy").backend.name == "numpy"


def test_environment_variable_chooses_for_the_process():
    code, out, err = run_python("import tinynet as tn; print(tn.zeros(1).backend.name)", TINYNET_BACKEND="numpy")
    assert (code, out) == (0, "numpy"), err
    code, _, err = run_python("import tinynet as tn; tn.zeros(1)", TINYNET_BACKEND="abacus")
    assert code == 1 and "BackendError" in err and "abacus" in err and "numpy" in err


def test_unknown_backend_is_refused_with_those_there_are_and_the_choice_stays(other):
    for use in (tn.use_backend, tn.get_backend, lambda name: tn.zeros(1, backend=name)):
        with pytest.raises(BackendError, match=r"numpy.*'abacus'"):
            use("abacus")
    assert tn.get_backend().name == "numpy"


def test_backends_are_made_on_first_use_and_once():
    made = []

    def factory():
        made.append(backends.Backend("lazy", np))
        return made[-1]

    tn.register_backend("lazy", factory)
    assert not made and "lazy" in tn.available_backends()
    assert tn.get_backend("lazy") is tn.get_backend("lazy") is made[0] and len(made) == 1
    assert tn.get_backend(made[0]) is made[0]


def test_cupy_without_package_or_gpu_is_one_typed_error_that_says_what_to_do():
    try:
        tn.get_backend("cupy")
    except (BackendError, MissingExtraError) as error:
        assert isinstance(error, TinynetError)
        assert "tinynet[cuda" in str(error) or "nvidia-smi" in str(error)
    else:
        pytest.skip("there is a GPU")
    with pytest.raises((BackendError, MissingExtraError)):
        tn.use_backend("cupy")
    assert tn.get_backend().name == "numpy"


# ---- mixing ----


def test_backends_do_not_mix_and_nothing_changes(other):
    a, b = tn.ones(2), tn.ones(2, backend="other")
    for mix in (
        lambda: a + b, lambda: tn.ops.matmul(b, a), lambda: tn.ops.concatenate(a, b), lambda: a.__setitem__(0, b[0]),
        lambda: tn.ops.where(a > 0.0, b, a),
    ):  # fmt: skip
        with pytest.raises(BackendError, match=r"numpy|other"):
            mix()
    assert a.tolist() == b.tolist() == [1.0, 1.0]
    assert (a + b.to("numpy")).tolist() == [2.0, 2.0]


def test_the_engine_leaves_no_host_array_on_another_device(strict):
    """A network's step on the second device of array-api-strict, which takes no host array in any operation."""
    rng = np.random.default_rng(0)
    with tn.use_backend(strict):
        x, w, b = (tn.tensor(rng.standard_normal(shape)) for shape in ((5, 4), (4, 3), (3,)))
        loss = lambda w, b: tn.ops.softmax_cross_entropy(tn.ops.tanh(x @ w + b), np.array([0, 1, 2, 1, 0])).mean()
        value, gradients = tn.value_and_grad(loss, argnums=(0, 1))(w, b)
        for tensor in (value, *gradients):
            assert tensor.backend is strict and strict.owns(tensor.data)
            assert tensor.data.device == strict.xp.Device("device1")


def test_hosts_arrays_travel_to_a_backend_and_back(backend):
    for dtype in ("bool", "uint8", "int64", "float32", "float64"):
        host = np.arange(6).reshape(2, 3).T.astype(dtype)
        there = backend.from_host(host)
        assert backend.owns(there) and backend.dtype_of(there) == dtype
        back = backend.to_host(there)
        assert type(back) is np.ndarray
        np.testing.assert_array_equal(back, host)


def test_from_host_copies(backend):
    host = np.zeros(3)
    there = backend.from_host(host)
    host[0] = 1.0
    assert not backend.to_host(there).any()


def test_memory_that_is_asked_for_has_shape_and_type(backend):
    for make in (backend.empty, backend.zeros, lambda shape, dtype: backend.full(shape, 0, dtype)):
        array = make((2, 0, 3), np.dtype("float32"))
        assert tuple(array.shape) == (2, 0, 3) and backend.dtype_of(array) == "float32" and backend.owns(array)
    assert not backend.to_host(backend.zeros((4,), np.dtype("int64"))).any()
    backend.synchronize()


def test_reshape_says_whether_memory_is_shared(backend):
    array = backend.from_host(np.arange(6.0).reshape(2, 3))
    whole, shares = backend.reshape(array, (3, 2))
    assert shares and tuple(whole.shape) == (3, 2)
    turned, shares = backend.reshape(backend.xp.permute_dims(array, (1, 0)), (6,))
    assert not shares
    np.testing.assert_array_equal(backend.to_host(turned), [0, 3, 1, 4, 2, 5])


def test_types_of_other_libraries_have_canonical_names(backend):
    for name in ("bool", "int32", "float32", "float64"):
        assert backends.as_dtype(getattr(backend.xp, name)) == name
    for bad in ("complex128", "float16", object, "nonsense", None.__class__):
        with pytest.raises(DTypeError):
            backends.as_dtype(bad)


def test_floating_point_exceptions_are_quiet_in_every_operation(backend):
    x = tn.tensor([0.0, -1.0, 1e38])
    assert tn.ops.log(x).numpy()[0] == -np.inf and np.isnan(tn.ops.sqrt(x).numpy()[1])
    assert np.isinf((x * x).numpy()[2]) and np.isinf(tn.ops.exp(x).numpy()[2])
    assert np.isnan((x / x).numpy()[0])


# ---- random streams ----


@pytest.fixture
def process_seed():
    """The process's seed is put back, so that later tests draw from streams of their own."""
    before = backends.process_seed()
    yield
    tn.seed(before)


def test_seeding_repeats_every_stream_in_the_order_of_their_making(process_seed):
    def draw():
        tn.seed(5)
        streams = [backends.new_stream() for _ in range(3)]
        return streams, [backends.generator(stream).random(4) for stream in streams]

    (streams, first), (again, second) = draw(), draw()
    assert streams == again and len(set(streams)) == 3
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], first[1])


def test_numbers_depend_on_seed_stream_and_step_and_on_nothing_else():
    def draw(seed=1, stream=2, step=3):
        return backends.generator(stream, seed=seed, step=step).random(8)

    first = draw()
    np.random.default_rng(0).random(1000)
    np.testing.assert_array_equal(draw(), first)
    for other in (draw(seed=2), draw(stream=3), draw(step=4)):
        assert not np.array_equal(other, first)


@pytest.mark.parametrize("n", [0, 1, 2**64 - 1, np.int64(3)])
def test_any_whole_number_of_64_bits_is_a_seed(n, process_seed):
    tn.seed(n)
    assert backends.process_seed() == int(n)
    first, second = (backends.generator(backends.new_stream()).random(3) for _ in range(2))
    assert not np.array_equal(first, second)


def test_neighbouring_large_seeds_are_two_seeds():
    draws = [backends.generator(0, seed=2**64 - 1 - k).random(3).tolist() for k in range(3)]
    assert len(set(map(tuple, draws))) == 3


@pytest.mark.parametrize("n", [-1, 2**64, 1.0, "1", None, True])
def test_other_seeds_are_refused_and_the_old_one_stays(n):
    before = backends.process_seed()
    with pytest.raises(ArgumentError, match="integer"):
        tn.seed(n)
    assert backends.process_seed() == before


def test_processes_that_are_not_seeded_differ():
    code = "from tinynet import backend; print(backend.process_seed())"
    assert run_python(code)[1] != run_python(code)[1]
