"""The flat buffer and its views."""

import numpy as np
import pytest

from hpcrnn.model.parameters import FlatBuffer

SHAPES = [{"E": (3, 2)}, {"W": (2, 8), "R": (4, 8), "b": (8,)}, {}, {"W": (4, 5), "b": (5,)}]
SIZES = [6, 16 + 32 + 8, 0, 25]


def test_views_cover_the_flat_array_in_order_and_without_gaps():
    buffer = FlatBuffer(SHAPES, "float32")
    buffer.flat[...] = np.arange(buffer.flat.size)
    views = [view for block in buffer.blocks for view in block.values()]
    np.testing.assert_array_equal(np.concatenate([v.ravel() for v in views]), np.arange(sum(SIZES)))
    assert all(np.shares_memory(view, buffer.flat) for view in views)
    assert all(view.flags.c_contiguous for view in views)


def test_views_have_the_names_and_shapes_asked_for():
    buffer = FlatBuffer(SHAPES, "float64")
    assert [{name: view.shape for name, view in block.items()} for block in buffer.blocks] == SHAPES


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_buffer_starts_at_zero_in_its_dtype(dtype):
    buffer = FlatBuffer(SHAPES, dtype)
    assert buffer.flat.dtype == dtype
    assert buffer.flat.size == sum(SIZES)
    assert not buffer.flat.any()


@pytest.mark.parametrize(("start", "stop"), [(a, b) for a in range(4) for b in range(a + 1, 5)])
def test_a_range_of_blocks_is_a_view_of_exactly_their_parameters(start, stop):
    buffer = FlatBuffer(SHAPES, "float32")
    for block in buffer.blocks[start:stop]:
        for view in block.values():
            view[...] = 1
    part = buffer.range(start, stop)
    assert part.size == sum(SIZES[start:stop])
    assert part.all()
    assert buffer.flat.sum() == part.size
    assert not part.size or np.shares_memory(part, buffer.flat)


def test_a_buffer_of_nothing_is_empty():
    assert FlatBuffer([{}], "float32").flat.size == 0
