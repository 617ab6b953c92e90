"""Counter-based randomness: Philox against its authors' vectors, and dropout masks that repeat everywhere."""

import numpy as np
import pytest

import tinynet as tn
from tinynet.kernels.reference.random import philox, random_bits

# Random123 1.14, kat_vectors, "philox4x32 10": counter, key, result
KNOWN = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_gives_the_published_numbers(counter, key, expected, backend):
    words = [backend.from_host(np.array([word], dtype="uint64")) for word in counter]
    with backend.quiet():
        got = philox(backend.xp, words, key)
    assert tuple(int(word[0]) for word in got) == expected


def test_bits_of_an_element_do_not_depend_on_the_shape_around_it():
    step = np.asarray(3, dtype="int64")
    long = random_bits(np.empty(1000), step, 11, 5)
    for shape in ((1,), (7,), (2, 3, 4), (999,), ()):
        bits = random_bits(np.empty(shape), step, 11, 5)
        np.testing.assert_array_equal(bits.reshape(-1), long[: bits.size])


def test_seed_stream_and_step_each_change_the_bits():
    def bits(seed=1, stream=2, step=3):
        return random_bits(np.empty(64), np.asarray(step, dtype="int64"), seed, stream)

    first = bits()
    for other in (bits(seed=2), bits(stream=3), bits(step=4), bits(seed=1 + 2**40)):
        assert (first != other).mean() > 0.9


def _dropout(n=200_000, p=0.3, step=0, seed=7, stream=1, dtype="float32", backend=None):
    x = tn.ones(n, dtype=dtype, backend=backend)
    return tn.ops.dropout(x, tn.tensor(np.int64(step), backend=backend), p=p, seed=seed, stream=stream).numpy()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    y = _dropout(p=p)
    n, deviation = y.size, (p * (1 - p)) ** 0.5
    assert abs((y == 0).mean() - p) < 5 * deviation / n**0.5
    np.testing.assert_allclose(y[y != 0], 1 / (1 - p), rtol=1e-6)
    assert abs(y.mean() - 1) < 5 * deviation / (1 - p) / n**0.5


def test_dropout_masks_of_neighbours_steps_and_streams_are_uncorrelated():
    mask = (_dropout() == 0).astype(float)
    others = [(_dropout(step=1) == 0), (_dropout(stream=2) == 0), (_dropout(seed=8) == 0)]
    for other in [*(np.asarray(each, float) for each in others), np.roll(mask, 1), np.roll(mask, 4)]:
        assert abs(np.corrcoef(mask, other)[0, 1]) < 5 / mask.size**0.5


def test_dropout_repeats_from_its_three_numbers():
    np.testing.assert_array_equal(_dropout(step=5), _dropout(step=5))


def test_dropout_mask_is_the_same_on_every_backend_and_element_type(backend):
    expected = _dropout(999, backend="numpy") == 0
    for dtype in ("float32", "float64"):
        np.testing.assert_array_equal(_dropout(999, dtype=dtype, backend=backend) == 0, expected)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_dropout_of_nothing_and_of_everything(p, backend):
    np.testing.assert_array_equal(_dropout(50, p=p, backend=backend), np.full(50, 1 - p, "float32"))


def test_gradient_of_dropout_has_the_mask_of_its_forward():
    x = tn.ones(1000, requires_grad=True)
    y = tn.ops.dropout(x, tn.tensor(np.int64(4)), p=0.5, seed=3)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())


@pytest.mark.parametrize("bad", [{"p": -0.1}, {"p": 1.5}, {"p": float("nan")}])
def test_dropout_refuses_what_is_no_probability(bad):
    with pytest.raises(tn.errors.ArgumentError):
        tn.ops.dropout(tn.ones(3), tn.tensor(np.int64(0)), seed=1, **bad)
