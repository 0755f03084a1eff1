"""Segments of time as rows of the batch, and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcrnn.methods.folding import Folding

fixed_examples = settings(derandomize=True, deadline=None, max_examples=25, database=None)


@st.composite
def foldings(draw):
    steps = draw(st.integers(1, 12))
    return Folding(steps, draw(st.integers(1, 3)), draw(st.integers(1, steps)))


def numbered(folding, *rest):
    """Every element its own number, none zero."""
    shape = (folding.steps, folding.samples, *rest)
    return 1 + np.arange(np.prod(shape), dtype=np.float64).reshape(shape)


@fixed_examples
@given(foldings())
def test_unfolding_gives_back_what_was_folded(folding):
    for rest in ((), (2,), (2, 3)):
        a = numbered(folding, *rest)
        folded = folding.fold(a)
        assert folded.shape == (folding.longest, folding.rows, *rest)
        np.testing.assert_array_equal(folding.unfold(folded), a)


@fixed_examples
@given(foldings())
def test_a_row_is_a_sample_in_a_segment_and_what_it_lacks_is_zero(folding):
    a = numbered(folding, 2)
    folded = folding.fold(a)
    for v, part in enumerate(folding.parts):
        for b in range(folding.samples):
            row, length = v * folding.samples + b, part.stop - part.start
            assert folding.lengths[row] == length
            np.testing.assert_array_equal(folded[:length, row], a[part, b])
            assert not folded[length:, row].any()


@fixed_examples
@given(foldings())
def test_lengths_differ_by_at_most_one_and_longer_segments_come_first(folding):
    lengths = folding.lengths
    assert len(lengths) == folding.rows == folding.segments * folding.samples
    assert lengths.sum() == folding.steps * folding.samples
    assert (np.diff(lengths) <= 0).all()
    assert set(lengths) <= {folding.common, folding.longest}
    assert folding.longest - folding.common == (not folding.is_even)
    assert (lengths[: folding.long_rows] == folding.longest).all()
    assert (lengths[folding.long_rows :] == folding.common).all()
    ends = [part.stop for part in folding.parts]
    assert [part.start for part in folding.parts] == [0, *ends[:-1]]
    assert ends[-1] == folding.steps


@pytest.mark.parametrize("segments", [3, 4])
def test_folding_leaves_the_type(segments):
    folding = Folding(12, 2, segments)
    for dtype in (np.int32, np.float32):
        folded = folding.fold(np.ones((12, 2), dtype))
        assert folded.dtype == folding.unfold(folded).dtype == dtype
