"""States as fewer bytes: how much is lost, and what cannot be written."""

import numpy as np
import pytest

from hpcrnn.errors import EXIT_INVALID, NumericsError
from hpcrnn.methods.codec import make_codec

NAMES = ("none", "float16", "bfloat16", "int8")
DTYPES = (np.float32, np.float64)
every_codec = pytest.mark.parametrize("name", NAMES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])


def there_and_back(name, states):
    codec = make_codec(name)
    out = np.full(states.shape, np.nan, states.dtype)
    codec.decode(codec.encode(states), out)
    return out


def drawn(dtype, shape=(2, 3, 50), seed=0):
    """Magnitudes over four decades, both signs, all in the normal range of float16."""
    rng = np.random.default_rng(seed)
    size = 10.0 ** rng.uniform(-3, 1, shape)
    return (size * rng.choice((-1, 1), shape)).astype(dtype)


@every_dtype
def test_nothing_is_lost_without_a_codec(dtype):
    states = drawn(dtype)
    np.testing.assert_array_equal(there_and_back("none", states), states)


@every_dtype
@pytest.mark.parametrize(("name", "unit"), [("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
def test_half_precision_loses_half_a_unit_in_the_last_place(name, unit, dtype):
    states = drawn(dtype)
    relative = np.abs(there_and_back(name, states) / states - 1)
    assert relative.max() <= unit
    assert relative.max() > 0.9 * unit  # the bound is met: nothing more exact is claimed to be sent


@every_dtype
def test_int8_loses_half_a_level_of_each_row(dtype):
    states = drawn(dtype)
    states[0, 1] *= 1000  # each state of each sample has a scale of its own
    half = np.abs(states).max(axis=2, keepdims=True) / 254
    lost = np.abs(there_and_back("int8", states) - states) / half
    assert lost.max() <= 1 + 1e-4  # the scale itself is a float32
    assert lost.max() > 0.9


def test_ties_go_to_the_even_neighbour():
    """Seven bits follow the point of a bfloat16: neighbours of one are 1/128 apart."""
    states = np.array([[[1 + 1 / 256, 1 + 3 / 256, -1 - 1 / 256, -1 - 3 / 256, 1 + 1 / 256 + 2**-20]]])
    expected = [[[1, 1 + 4 / 256, -1, -1 - 4 / 256, 1 + 2 / 256]]]
    for dtype in DTYPES:
        np.testing.assert_array_equal(there_and_back("bfloat16", states.astype(dtype)), expected)


@every_codec
@every_dtype
def test_zeros_stay_zero(name, dtype):
    states = np.zeros((2, 3, 5), dtype)
    np.testing.assert_array_equal(there_and_back(name, states), states)
    states[0, 0] = 0.5  # beside a row that is not
    np.testing.assert_array_equal(there_and_back(name, states), states)


@pytest.mark.parametrize(("name", "n_bytes"), [("none", 60), ("float16", 30), ("bfloat16", 30), ("int8", 15 + 12)])
def test_the_message_has_the_size_its_name_promises_and_is_contiguous(name, n_bytes):
    folded = np.ones((1, 4, 3, 5), np.float32)
    wires = [make_codec(name).encode(states) for states in (folded[:, -1], 0 * folded[:, 0])]
    for wire in wires:
        assert wire.nbytes == n_bytes
        assert wire.flags.c_contiguous
        assert (wire.shape, wire.dtype) == (wires[0].shape, wires[0].dtype)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "int8"])
def test_what_has_been_sent_once_is_sent_again_without_loss(name):
    once = there_and_back(name, drawn(np.float32))
    np.testing.assert_allclose(there_and_back(name, once), once, rtol=1e-6)


@every_dtype
def test_a_state_beyond_float16_is_refused_and_the_largest_is_not(dtype):
    states = drawn(dtype)
    states[1, 2, 3] = -65504
    assert there_and_back("float16", states)[1, 2, 3] == -65504
    states[1, 2, 3] = -70000
    with pytest.raises(NumericsError) as raised:
        make_codec("float16").encode(states)
    message = str(raised.value)
    for part in ("recurrence.halo_codec", "float16", "7e+04", "65504", "bfloat16"):
        assert part in message
    assert "\n" not in message
    assert raised.value.exit_code == EXIT_INVALID
    for name in ("bfloat16", "int8"):
        assert np.isfinite(there_and_back(name, states)).all()


@every_codec
def test_what_is_not_a_number_stays_so(name):
    """So that the ranks that receive it find it too."""
    states = drawn(np.float32)
    states[0, 1, 7] = np.nan
    with np.errstate(invalid="ignore"):
        found = there_and_back(name, states)
    assert np.isnan(found[0, 1, 7])
    np.testing.assert_array_equal(np.isfinite(found[1]), np.ones_like(found[1], bool))
