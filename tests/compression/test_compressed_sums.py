"""Compressed sums: what holds for every codec, on one rank to eight."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from ranks_in_process import CODECS, ROUNDED, SHAPES, Ranks, layout_of

from hpcrnn.compression.codecs import memory_bytes, parse_codec, payload_bytes, stage_sizes, wire_bytes
from hpcrnn.errors import EXIT_INVALID, NumericsError

every_codec = pytest.mark.parametrize("codec", CODECS)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
LAYOUT = layout_of(*SHAPES)


def drawn(n_ranks, n, dtype=np.float64, seed=0):
    """Magnitudes over four decades, both signs."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n_ranks, n)) * 10.0 ** rng.uniform(-3, 1, n)).astype(dtype)


@every_codec
@every_dtype
@pytest.mark.parametrize("n_ranks", range(1, 9))
def test_nothing_is_lost_and_all_ranks_apply_the_same_bits(codec, dtype, n_ranks):
    ranks = Ranks(codec, LAYOUT, n_ranks, dtype)
    true, applied, scale = np.zeros(LAYOUT.size), np.zeros(LAYOUT.size), 0.0
    for step in range(12):
        gradients = drawn(n_ranks, LAYOUT.size, dtype, seed=step)
        found = ranks.step(gradients)
        assert all(np.array_equal(found[0], other) for other in found[1:])
        true += gradients.astype(np.float64).sum(axis=0)
        applied += found[0]
        scale += np.abs(gradients).sum()
        np.testing.assert_allclose(applied + ranks.held_back, true, rtol=0, atol=np.finfo(dtype).eps * scale)
    assert np.abs(ranks.held_back).max() > 0 or codec == "topk:0.1"


@every_codec
def test_the_same_gradients_give_the_same_bits(codec):
    first, second = (
        [ranks.step(drawn(3, LAYOUT.size, np.float32, seed)) for seed in range(4)]
        for ranks in (Ranks(codec, LAYOUT, 3, np.float32), Ranks(codec, LAYOUT, 3, np.float32))
    )
    np.testing.assert_array_equal(first, second)


@every_codec
def test_what_goes_on_from_a_kept_state_goes_on_bit_by_bit(codec):
    ranks = Ranks(codec, LAYOUT, 3, np.float32)
    for seed in range(3):
        ranks.step(drawn(3, LAYOUT.size, np.float32, seed))
    state = ranks.state()
    assert any(array.any() for arrays_ in state for array in arrays_.values())
    expected = [ranks.step(drawn(3, LAYOUT.size, np.float32, seed)) for seed in (3, 4)]
    again = Ranks(codec, LAYOUT, 3, np.float32)
    again.load(state)
    np.testing.assert_array_equal([again.step(drawn(3, LAYOUT.size, np.float32, seed)) for seed in (3, 4)], expected)


@every_codec
def test_a_sum_that_has_forgotten_all_steps_begins_again(codec):
    ranks = Ranks(codec, LAYOUT, 3, np.float32)
    gradients = drawn(3, LAYOUT.size, np.float32)
    first = [ranks.step(gradients) for _ in range(3)]
    for s in ranks.sums:
        s.reset()
    np.testing.assert_array_equal([ranks.step(gradients) for _ in range(3)], first)


@every_codec
@every_dtype
def test_zeros_stay_zero_and_a_codec_recovers_from_them(codec, dtype):
    """A power iteration that has once seen nothing must not see nothing for ever."""
    ranks = Ranks(codec, LAYOUT, 2, dtype)
    for _ in range(2):
        assert not ranks.step(np.zeros((2, LAYOUT.size))).any()
        assert not ranks.held_back.any()
    gradients = drawn(2, LAYOUT.size, dtype)
    total = gradients.sum(axis=0)
    for _ in range(60):
        last = ranks.step(gradients)[0]
    if codec != "topk:3":  # whose turn some elements have every 60th step
        assert np.linalg.norm(ranks.held_back) < 60 * np.linalg.norm(total)
    assert np.linalg.norm(last) > 0.1 * np.linalg.norm(total)


@every_codec
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(codec, value):
    ranks = Ranks(codec, LAYOUT, 3, np.float32)
    gradients = drawn(3, LAYOUT.size, np.float32)
    ranks.step(gradients)
    gradients[1, LAYOUT.slices[2].start + 5] = value
    with pytest.raises(NumericsError) as raised:
        ranks.step(gradients)
    message = str(raised.value)
    assert "the gradient of b.W is not finite on rank 1" in message
    assert "\n" not in message
    assert raised.value.exit_code == EXIT_INVALID


def test_factors_that_are_not_finite_are_named():
    """Each rank's gradient is finite, their sum is not."""
    ranks = Ranks("powersgd:1", LAYOUT, 2, np.float32)
    with (
        pytest.raises(NumericsError, match=r"the gradient of a\.W, summed over ranks, is not finite"),
        np.errstate(all="ignore"),
    ):
        ranks.step(np.full((2, LAYOUT.size), 3e38))


@every_codec
@every_dtype
def test_denormals_are_kept_until_they_can_be_said(codec, dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    ranks = Ranks(codec, LAYOUT, 2, dtype)
    gradients = np.full((2, LAYOUT.size), 8 * tiny, dtype)
    applied = sum(ranks.step(gradients)[0].astype(np.float64) for _ in range(5))
    assert np.isfinite(applied).all()
    np.testing.assert_allclose(applied + ranks.held_back, 80 * float(tiny), rtol=0, atol=400 * float(tiny))


@pytest.mark.parametrize(("codec", "limit"), [("float16", 65504.0), ("bfloat16", float.fromhex("0x1.fep127"))])
def test_what_is_beyond_a_codec_is_sent_as_its_largest_and_the_rest_later(codec, limit):
    ranks = Ranks(codec, layout_of(3), 1)
    found = ranks.step(np.array([[2.5 * limit, -limit, 0.0]]))[0]
    assert found.tolist() == [limit, -limit, 0.0]
    assert ranks.held_back.tolist() == [1.5 * limit, 0.0, 0.0]
    assert ranks.step(np.zeros((1, 3)))[0].tolist() == [limit, 0.0, 0.0]
    assert ranks.step(np.zeros((1, 3)))[0].tolist() == [limit / 2, 0.0, 0.0]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(CODECS), st.integers(1, 8), st.sampled_from([np.float32, np.float64]))
def test_any_gradient_of_any_size(data, codec, n_ranks, dtype):
    """Sizes of one, odd ones, fewer elements than ranks."""
    shapes = data.draw(st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple), min_size=1, max_size=3))
    layout = layout_of(*((f"p{at}", shape) for at, shape in enumerate(shapes)))
    width = 32 if dtype is np.float32 else 64
    numbers = st.floats(-1e6, 1e6, width=width).map(lambda v: v if abs(v) > 1e-30 else 0.0)
    steps = data.draw(arrays(dtype, (2, n_ranks, layout.size), elements=numbers, fill=st.just(0.0)))
    ranks = Ranks(codec, layout, n_ranks, dtype)
    applied = np.zeros(layout.size)
    for gradients in steps:
        found = ranks.step(gradients)
        assert all(np.array_equal(found[0], other) for other in found[1:])
        applied += found[0]
    wanted = steps.astype(np.float64).sum(axis=(0, 1))
    scale = np.abs(steps).astype(np.float64).sum()
    np.testing.assert_allclose(applied + ranks.held_back, wanted, rtol=0, atol=20 * np.finfo(dtype).eps * scale)
    for s in ranks.sums:
        itemsize = np.dtype(dtype).itemsize
        assert tuple(stage.size for stage in s.stages) == stage_sizes(codec, layout, itemsize, n_ranks)
        assert s.memory_bytes <= memory_bytes(codec, (layout,), itemsize, n_ranks)


@pytest.mark.parametrize(("codec", "unit"), [("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
def test_two_roundings_lose_at_most_half_a_unit_each(codec, unit):
    gradients = np.abs(drawn(4, 500)) + 1e-3
    total = gradients.sum(axis=0)
    relative = np.abs(Ranks(codec, layout_of(500), 4).step(gradients)[0] / total - 1)
    assert 0.9 * unit < relative.max() <= 2 * unit + unit**2


def test_int8_loses_half_a_level_of_each_block():
    """A large value coarsens its own block of 256 alone."""
    gradients = drawn(1, 1024)
    gradients[0, 400] = 1e6
    found = Ranks("int8", layout_of(1024), 1).step(gradients)[0]
    for block in np.split(np.arange(1024), 4):
        lost = np.abs(found[block] - gradients[0, block]).max()
        half = np.abs(gradients[0, block]).max() / 254
        assert lost <= half * (1 + 1e-4)


def test_topk_sends_the_largest_and_keeps_the_rest():
    gradients = np.array([[5.0, -1, 0.5, 3], [-6.0, 2, 7, 0.1]])
    ranks = Ranks("topk:2", layout_of(4), 2)
    assert ranks.step(gradients)[0].tolist() == [-1.0, 0, 7, 3]
    assert ranks.held_back.tolist() == [0.0, 1, 0.5, 0.1]
    assert ranks.step(np.zeros((2, 4)))[0].tolist() == [0.0, 1, 0.5, 0.1]


@pytest.mark.parametrize(
    ("amount", "n", "count"),
    [("1", 50, 1), ("60", 50, 50), ("0.1", 30, 3), ("0.07", 100, 7), ("1.0", 50, 50), ("0.001", 5, 1), (".5", 3, 2)],
)
def test_an_amount_with_a_point_is_a_share_and_one_without_a_count(amount, n, count):
    """Of a share nothing is lost to binary fractions: 0.07 of 100 are seven."""
    assert parse_codec(f"topk:{amount}").count(n) == count


@every_dtype
def test_all_elements_are_the_plain_sum(dtype):
    gradients = drawn(3, LAYOUT.size, dtype)
    found = Ranks("topk:1.0", LAYOUT, 3, dtype).step(gradients)[0]
    np.testing.assert_array_equal(found, (gradients[0] + gradients[1]) + gradients[2])


def test_a_matrix_of_low_rank_is_exact_after_one_step():
    rng = np.random.default_rng(3)
    layout = layout_of(("W", (30, 20)))
    gradients = np.stack([(rng.standard_normal((30, 2)) @ rng.standard_normal((2, 20))).ravel() for _ in range(2)])
    found = Ranks("powersgd:4", layout, 2).step(gradients)[0]
    np.testing.assert_allclose(found, gradients.sum(axis=0), atol=1e-12)
    # Two columns are not enough for the sum, whose rank is four.
    assert np.abs(Ranks("powersgd:2", layout, 2).step(gradients)[0] - gradients.sum(axis=0)).max() > 0.1


def test_a_warm_start_finds_the_best_directions():
    """Of a constant gradient, with feedback cleared, Q converges to the largest singular vectors."""
    rng = np.random.default_rng(4)
    u, _, vt = np.linalg.svd(rng.standard_normal((30, 20)), full_matrices=False)
    sizes = 0.5 ** np.arange(20)
    matrix = u * sizes @ vt
    ranks = Ranks("powersgd:3", layout_of(("W", (30, 20))), 1)
    for _ in range(20):
        found = ranks.step(matrix.reshape(1, -1))[0].reshape(30, 20)
        ranks.sums[0].state["residual"][...] = 0
    np.testing.assert_allclose(np.linalg.norm(matrix - found), np.linalg.norm(sizes[3:]), rtol=1e-6)


def test_where_two_factors_save_nothing_the_matrix_is_sent_as_it_is():
    """(20, 3) with rank 2 has 46 numbers for 60, with rank 3 as many as 69; vectors and single numbers never save."""
    gradients = drawn(2, LAYOUT.size)
    plain = {"a.b", "b.s", "b.c"}
    for rank, also in ((2, set()), (3, {"b.W"}), (500, {"a.W", "b.W"})):
        found = Ranks(f"powersgd:{rank}", LAYOUT, 2).step(gradients)[0]
        exact = {
            name
            for name, part in zip(LAYOUT.names, LAYOUT.slices, strict=True)
            if np.array_equal(found[part], gradients[:, part].sum(axis=0))
        }
        assert exact == plain | also
    assert len(stage_sizes("powersgd:500", LAYOUT, 8, 2)) == 1


def test_bytes_of_a_sum():
    """Of 1000 numbers of four bytes on four ranks."""
    layout = (layout_of(("W", (40, 25))),)
    contributed = {c: payload_bytes(c, layout, 4, 4) for c in ("none", "float16", "int8", "topk:0.01", "powersgd:2")}
    assert contributed == {"none": 4000, "float16": 2500, "int8": 254 * 5, "topk:0.01": 80, "powersgd:2": 4 * 2 * 65}
    sent = {c: wire_bytes(c, layout, 4, 4) for c in contributed}
    # An allreduce is a reduce-scatter and an allgather: 3/4 of the bytes twice. What is gathered goes to three others.
    assert sent == {"none": 6000, "float16": 3000, "int8": 254 * 6, "topk:0.01": 240, "powersgd:2": 780}
    assert all(wire_bytes(c, layout, 4, 1) == 0 for c in contributed)


def least_squares(codec, *, feedback, n_ranks=4, steps=400):
    """Descend on a sum of quadratic functions, a rank each; return how far from the minimum it ends, relatively.

    The ranks' own minima lie far from that of the sum, so that gradients of ranks do not vanish there.
    """
    rng = np.random.default_rng(11)
    layout = layout_of(("W", (12, 10)))
    n = layout.size
    curvature = rng.uniform(0.5, 1.5, (n_ranks, n))
    centre = 10 * rng.standard_normal((n_ranks, n))
    best = (curvature * centre).sum(axis=0) / curvature.sum(axis=0)
    ranks = Ranks(codec, layout, n_ranks)
    x = np.zeros(n)
    for step in range(steps):
        x -= 0.2 / n_ranks / (1 + step / 30) * ranks.step(curvature * (x - centre))[0]
        if not feedback:
            for s in ranks.sums:
                for name, array in s.state.items():
                    array[...] = 0 if "residual" in name else array
    return np.linalg.norm(x - best) / np.linalg.norm(best)


@every_codec
def test_descent_converges_with_feedback_and_stalls_without(codec):
    """Where ranks pull apart, what a message leaves out of each does not cancel in the sum."""
    with_feedback = least_squares(codec, feedback=True)
    assert with_feedback < 0.2
    assert least_squares(codec, feedback=False) > 5 * with_feedback


def test_every_rounding_is_tested():
    assert set(ROUNDED) <= set(CODECS)
