"""Which part of every parameter a shard holds, and that the parts make the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcrnn.cells import GRU, LSTM, Elman
from hpcrnn.model.network import Block
from hpcrnn.model.sharding import (
    WHOLE,
    Shard,
    is_sharded,
    join,
    join_units,
    positions,
    shard_shapes,
    take,
    take_units,
)

D, H, OUT = 5, 7, 3


def blocks(inputs=D, hidden=H, outputs=OUT):
    """One block of every kind with parameters."""
    cells = [Elman(), GRU(), GRU(reset="before"), LSTM()]
    recurrent = [
        Block("layer0", "recurrent", inputs, hidden, cell.parameter_shapes(inputs, hidden), cell) for cell in cells
    ]
    return [
        Block("input", "embedding", 9, inputs, {"E": (9, inputs)}),
        Block("input", "linear", 9, inputs, {"W": (9, inputs), "b": (inputs,)}),
        *recurrent,
        Block("head", "head", hidden, outputs, {"W": (hidden, outputs), "b": (outputs,)}),
    ]


every_block = pytest.mark.parametrize("block", blocks(), ids=lambda b: getattr(b.cell, "name", b.kind))


def numbered(shape):
    return np.arange(np.prod(shape), dtype=float).reshape(shape)


@given(st.integers(0, 200), st.integers(1, 20))
def test_units_are_contiguous_parts_of_nearly_the_same_size_larger_first(hidden, size):
    parts = [Shard(index, size).units(hidden) for index in range(size)]
    assert [unit for part in parts for unit in range(part.start, part.stop)] == list(range(hidden))
    counts = [part.stop - part.start for part in parts]
    assert counts == [Shard(index, size).count(hidden) for index in range(size)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] - counts[-1] <= 1


@pytest.mark.parametrize(("index", "size"), [(2, 2), (-1, 2), (0, 0)])
def test_a_shard_is_one_of_its_group(index, size):
    with pytest.raises(ValueError, match=f"shard {index} of {size}"):
        Shard(index, size)


def test_a_recurrent_shard_has_the_columns_of_every_gate_for_its_units():
    block = Block("layer0", "recurrent", D, H, GRU().parameter_shapes(D, H), GRU())
    shard = Shard(1, 3)  # units 3 and 4 of 7
    columns = [3, 4, 10, 11, 17, 18]
    for name in ("W", "R", "b"):
        canonical = numbered(block.shapes[name])
        np.testing.assert_array_equal(take(block, name, canonical, shard), canonical[..., columns])
    np.testing.assert_array_equal(take(block, "bR", numbered((H,)), shard), [3, 4])
    assert shard_shapes(block, shard) == GRU().parameter_shapes(D, 2, H)


def test_a_head_shard_has_the_rows_of_its_units_and_the_whole_bias():
    head = blocks()[-1]
    canonical = numbered((H, OUT))
    np.testing.assert_array_equal(take(head, "W", canonical, Shard(2, 3)), canonical[5:7])
    assert shard_shapes(head, Shard(2, 3)) == {"W": (2, OUT), "b": (OUT,)}


@every_block
def test_what_is_sharded_is_what_has_hidden_units(block):
    sharded = {name for name in block.shapes if is_sharded(block, name)}
    expected = {"recurrent": set(block.shapes), "head": {"W"}, "linear": set(), "embedding": set()}
    assert sharded == expected[block.kind]


@every_block
def test_the_only_shard_is_the_whole(block):
    assert shard_shapes(block, WHOLE) == block.shapes
    for name, shape in block.shapes.items():
        canonical = numbered(shape)
        np.testing.assert_array_equal(take(block, name, canonical, WHOLE), canonical)


@every_block
def test_a_part_is_contiguous_and_of_the_shape_it_is_said_to_have(block):
    for index in range(3):
        shard = Shard(index, 3)
        for name, shape in shard_shapes(block, shard).items():
            part = take(block, name, numbered(block.shapes[name]), shard)
            assert part.shape == shape
            assert part.flags.c_contiguous


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 12), st.integers(1, 6))
def test_joining_what_was_taken_gives_the_whole_back(size, inputs, hidden, outputs):
    shards = [Shard(index, size) for index in range(size)]
    for block in blocks(inputs, hidden, outputs):
        for name, shape in block.shapes.items():
            canonical = numbered(shape)
            parts = [take(block, name, canonical, shard) for shard in shards]
            np.testing.assert_array_equal(join(block, name, parts), canonical)
            if is_sharded(block, name):  # nothing is held twice
                assert sum(part.size for part in parts) == canonical.size


@given(st.integers(1, 6), st.integers(1, 12))
def test_writing_at_the_positions_of_every_part_gives_the_whole_back(size, hidden):
    for block in blocks(hidden=hidden):
        for name, shape in block.shapes.items():
            canonical, written = numbered(shape), np.full(shape, np.nan)
            for index in range(size):
                shard = Shard(index, size)
                written[positions(block, name, shard)] = take(block, name, canonical, shard)
            np.testing.assert_array_equal(written, canonical)


@given(st.integers(1, 6), st.integers(1, 12))
def test_units_of_a_state_are_views_and_join_again(size, hidden):
    canonical = numbered((2, 3, hidden))
    parts = [take_units(canonical, Shard(index, size)) for index in range(size)]
    assert all(np.shares_memory(part, canonical) for part in parts if part.size)
    np.testing.assert_array_equal(join_units(parts), canonical)
