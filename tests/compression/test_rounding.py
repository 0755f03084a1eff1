"""Numbers in two bytes or one: to the bit."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcrnn.compression.rounding import (
    LARGEST_BFLOAT16,
    LARGEST_FLOAT16,
    from_bfloat16,
    from_int8,
    to_bfloat16,
    to_int8,
)


def bfloat16(values):
    out = np.empty(np.shape(values), np.float64)
    from_bfloat16(to_bfloat16(np.asarray(values)), out)
    return out


@given(st.floats(-(2.0**126), 2.0**126), st.sampled_from([np.float32, np.float64]))
def test_bfloat16_is_the_nearest_and_of_two_the_even_one(value, dtype):
    """Held against fractions: nothing is rounded twice."""
    exact = Fraction(float(dtype(value)))
    found = to_bfloat16(np.array([dtype(value)]))
    distances = []
    for step in (-1, 0, 1):
        upper = np.array([(int(found[0]) & 0x7FFF) + step]).clip(0, 0x7F7F).astype(np.uint16)
        out = np.empty(1)
        from_bfloat16(upper, out)
        distances.append(abs(Fraction(out[0]) - abs(exact)))
    others = (distances[0], distances[2])
    assert all(distances[1] <= other for other in others)
    if distances[1] in others and distances[1]:
        assert found[0] % 2 == 0


def test_a_float64_next_to_a_tie_is_none():
    """Rounded to float32 first it would be one."""
    above, below = 1 + 2.0**-8 + 2.0**-40, 1 + 3 * 2.0**-8 - 2.0**-40
    np.testing.assert_array_equal(
        bfloat16([above, -above, below, -below]), [1 + 2**-7, -1 - 2**-7, 1 + 2**-7, -1 - 2**-7]
    )


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0xFF800001])
def test_every_nan_stays_one(bits):
    """Those whose bits are all ones would be carried to minus zero, small ones to infinity."""
    single = np.array([bits, 0x3F800000], np.uint32).view(np.float32)
    with np.errstate(invalid="ignore"):
        double = single.astype(np.float64)
    for values in (single, double):
        found = bfloat16(values)
        assert np.isnan(found[0])
        assert found[1] == 1


def test_infinity_and_the_largest():
    np.testing.assert_array_equal(bfloat16([np.inf, -np.inf, LARGEST_BFLOAT16]), [np.inf, -np.inf, LARGEST_BFLOAT16])
    assert np.isinf(bfloat16([LARGEST_BFLOAT16 * (1 + 2**-8)])[0])
    assert np.float16(LARGEST_FLOAT16) == np.finfo(np.float16).max


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20),
    st.sampled_from([np.float32, np.float64]),
)
def test_int8_is_off_by_half_a_level_and_what_is_tiny_by_its_scale(values, dtype):
    rows = np.array([values], dtype)
    levels, scale = to_int8(rows)
    out = np.empty_like(rows)
    from_int8(levels, scale, out)
    assert np.isfinite(out).all()
    assert np.abs(levels.astype(int)).max() <= 127
    largest = np.abs(rows.astype(np.float64)).max()
    # The scale is a float32 and its least step 2^-149, the 127 of which may be the whole number.
    assert np.abs(out.astype(np.float64) - rows).max() <= largest / 254 * 1.001 + 127 * 2.0**-149


def test_int8_of_a_row_beyond_float32():
    rows = np.array([[1e300, -2e300, 1e200]])
    levels, scale = to_int8(rows)
    assert levels.tolist() == [[127, -127, 127]]
    assert np.isfinite(scale).all()
