"""A solve comes to the chain, for every cell and method, however time is cut; and it ends."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from method_samples import (
    CELLS,
    LINEAR,
    TOLERANCE,
    FoldedLayer,
    Layer,
    assert_same_bits,
    chain,
    error,
    every_cell,
    make_layer,
    make_scalar_layer,
    on_line,
    solved,
)

from hpcrnn.cells import GRU, LSTM, Elman, MinGRU
from hpcrnn.errors import EXIT_INVALID, NumericsError
from hpcrnn.records.certificate import SETTLED, UNMET
from hpcrnn.spec import RecurrenceSpec

fixed_examples = settings(derandomize=True, deadline=None, max_examples=40, database=None)

ALLOWED = 1e3 * TOLERANCE

T = 23
# Ranks and segments of each: alone, folded unevenly, over ranks, both, and a step a segment in every way.
CUTS = [(1, 1), (1, 4), (2, 1), (3, 2), (1, T), (2, 11)]
every_cut = pytest.mark.parametrize("cut", CUTS, ids=lambda cut: f"{cut[0]}x{cut[1]}")


def methods_for(cell):
    return ("picard", "gateprod", "deer", *(("scan",) if cell.name in LINEAR else ()))


def assert_is_chain(found, expected, n_segments, allowed=ALLOWED):
    assert error(found, expected) <= allowed
    for solves in (found.forward, found.backward):
        assert {solve.converged for solve in solves} == {True}
        (rounds,) = {len(solve.steps) for solve in solves}
        assert rounds <= n_segments
        assert max(solve.residual for solve in solves) <= TOLERANCE
        assert len({solve.residual for solve in solves}) == 1  # all ranks decided by the same number


def solved_or_ended(layer, method, ranks, fold, **options):
    """Solve; a solve that would not end by itself is not converged after as many rounds as segments."""
    return solved(layer, method, fold, ranks, max_rounds=ranks * fold, **options)


@every_cell
@every_cut
def test_every_method_comes_to_the_chain(cell, cut):
    layer = make_layer(cell, T)
    expected = chain(layer)
    for method in methods_for(cell):
        assert_is_chain(solved_or_ended(layer, method, *cut), expected, cut[0] * cut[1])


@fixed_examples
@given(
    st.sampled_from(sorted(CELLS)),
    st.integers(1, 17),
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(0, 9),
)
def test_whatever_the_sizes(name, steps, samples, hidden, ranks, fold, seed):
    ranks = min(ranks, steps)
    fold = min(fold, steps // ranks)
    layer = make_layer(CELLS[name], steps, samples, 2, hidden, seed)
    expected = chain(layer)
    for method in methods_for(layer.cell):
        assert_is_chain(solved_or_ended(layer, method, ranks, fold), expected, ranks * fold)


@every_cell
def test_a_warm_up_changes_the_way_and_not_the_result(cell):
    layer = make_layer(cell, T)
    expected = chain(layer)
    for burn_in in (2, 3, 5):
        assert_is_chain(solved_or_ended(layer, "picard", 2, 2, burn_in=burn_in), expected, 4)


@pytest.mark.parametrize("name", LINEAR)
def test_a_scan_takes_one_correction_however_long_the_memory(name):
    cell = type(CELLS[name])(forget_bias=6.0)
    layer = make_layer(cell, 64)
    for ranks, fold in ((1, 16), (4, 4)):
        found = solved(layer, "scan", fold, ranks)
        assert {len(solve.steps) for solve in (*found.forward, *found.backward)} == {2}
        assert error(found, chain(layer)) <= 1e-13
    assert len(solved(layer, "picard", 16, tolerance=1e-14).forward[0].steps) > 8


@pytest.mark.parametrize(
    "cell",
    [GRU(forget_bias=4.0), LSTM(forget_bias=4.0)],
    ids=["gru", "lstm"],
)
def test_gate_products_and_newton_need_fewer_rounds_where_gates_remember(cell):
    layer = make_layer(cell, 64).with_parameters(R=0.1)
    rounds = {}
    for method in ("picard", "gateprod", "deer"):
        found = solved_or_ended(layer, method, 1, 16, tolerance=1e-6)
        assert found.forward[0].converged
        assert found.backward[0].converged
        rounds[method] = len(found.forward[0].steps), len(found.backward[0].steps)
    for direction in (0, 1):
        assert rounds["picard"][direction] == 16
        assert rounds["gateprod"][direction] <= 7
        assert rounds["deer"][direction] <= 5


# Sums that are exact in whatever order: then the chain is met to the last bit.


def make_counting_layer(T, B=2, H=3):
    """Rectified units that add up positive multiples of 1/1024, to less than one: with R = 1 they forget nothing."""
    rng = np.random.default_rng(0)
    eye = np.eye(H)
    x = rng.integers(1, 9, (T, B, H)) / 1024
    dy = rng.integers(-8, 9, (T, B, H)) / 1024
    states = rng.integers(1, 9, (2, 1, B, H)) / 1024
    return Layer(Elman(activation="relu"), {"W": eye, "R": eye, "b": np.zeros(H)}, x, dy, *states)


@pytest.mark.parametrize("cut", [(1, 5), (1, 20), (5, 1), (2, 4)], ids=lambda cut: f"{cut[0]}x{cut[1]}")
def test_where_nothing_meets_picard_is_the_chain_to_the_last_bit(cut):
    layer, n_segments = make_counting_layer(20), cut[0] * cut[1]
    found = solved(layer, "picard", cut[1], cut[0])
    assert_same_bits(found, chain(layer))
    assert {len(solve.steps) for solve in (*found.forward, *found.backward)} == {n_segments}
    assert max(solve.residual for solve in (*found.forward, *found.backward)) == 0


@pytest.mark.parametrize("method", ["gateprod", "deer"])
@pytest.mark.parametrize("cut", [(1, 5), (5, 1), (2, 4)], ids=lambda cut: f"{cut[0]}x{cut[1]}")
def test_an_exact_prediction_takes_one_correction_to_the_last_bit(method, cut):
    layer = make_counting_layer(20)
    found = solved(layer, method, cut[1], cut[0])
    assert_same_bits(found, chain(layer))
    assert {len(solve.steps) for solve in (*found.forward, *found.backward)} == {2}


@pytest.mark.parametrize("cell", [MinGRU(forget_bias=9.0), GRU(forget_bias=9.0)], ids=["mingru", "gru"])
def test_states_of_one_unit_and_one_input_are_those_of_the_chain_to_the_last_bit(cell):
    """No sum is then longer than one product, and these cells run a step again from the state itself."""
    layer = make_layer(cell, 24, 3, D=1, H=1)
    found = solved(layer, "picard", 6)
    assert found.forward[0].converged
    assert_same_bits(found, chain(layer), ["y", "final 0"])


def make_chaotic_layer(T, gain=3.0, H=24, seed=0):
    layer = make_layer(Elman(), T, 2, 3, H, seed)
    R = gain / H**0.5 * np.random.default_rng(seed).standard_normal((H, H))
    return replace(layer, parameters={**layer.parameters, "R": R})


@pytest.mark.parametrize("method", ["picard", "gateprod"])
@pytest.mark.parametrize("cut", [(1, 8), (4, 2)], ids=lambda cut: f"{cut[0]}x{cut[1]}")
def test_a_chaotic_network_is_solved_as_a_chain(method, cut):
    layer = make_chaotic_layer(48)
    found = solved(layer, method, cut[1], cut[0])
    # Rounding differences grow as every difference does, by some orders of magnitude.
    assert_is_chain(found, chain(layer), 8, allowed=1e-6)
    assert np.mean(found.exponents) > 0
    for direction in ("forward", "backward"):
        rounds = {len(solve.steps) for solve in getattr(found, direction)}
        assert rounds == {8}
        assert (found.meeting(direction) == UNMET).any()


def test_a_stalled_solve_runs_one_segment_a_round():
    """Ten segments, of which all that may run again do so twice in vain; then one after the other."""
    layer, n, B, V = make_counting_layer(20), 2, 2, 10
    (solve,) = solved(layer, "picard", V).forward
    assert solve.steps == V * (n,)
    # Nine and eight segments of ten are more than half, so all run along.
    assert solve.row_steps == n * B * (V + V + V + 7)
    assert (solve.meeting == [[SETTLED] * B] + 9 * [[UNMET] * B]).all()


# Work: what has met does nothing.

HALVING = 10
"""Steps until half to that power is below a tolerance of 1e-3."""


def test_rows_that_met_do_no_work():
    """h = h/2 + 1 in 4 segments of 16 steps: a start that is wrong by its whole size has met after ten."""
    found = solved(make_scalar_layer(0.5, 64), "picard", 4, tolerance=1e-3)
    for solve, meeting in (
        (found.forward[0], [SETTLED, HALVING, HALVING, HALVING]),
        (found.backward[0], [HALVING, HALVING, HALVING, SETTLED]),
    ):
        assert solve.meeting[:, 0].tolist() == meeting
        assert solve.steps == (16, HALVING)
        assert solve.row_steps == 4 * 16 + 4 * HALVING  # three rows of four: the fourth runs along
        assert solve.residual <= 1e-3
        assert solve.converged


def test_of_several_ranks_each_counts_its_own_work():
    found = solved(make_scalar_layer(0.5, 64), "picard", 2, 2, tolerance=1e-3)
    assert [solve.steps for solve in found.forward] == [(16, HALVING), (16, HALVING)]
    # One row of two is copied out of the batch, two of two are all.
    assert [solve.row_steps for solve in found.forward] == [32 + HALVING, 32 + 2 * HALVING]
    assert [solve.row_steps for solve in found.backward] == [32 + 2 * HALVING, 32 + HALVING]
    assert found.meeting("forward")[:, 0].tolist() == [SETTLED, HALVING, HALVING, HALVING]
    alone = solved(make_scalar_layer(0.5, 64), "picard", 1, 4, tolerance=1e-3)
    assert [solve.row_steps for solve in alone.forward] == [16, *[16 + HALVING] * 3]
    assert [solve.steps for solve in alone.forward] == [(16, 0), *[(16, HALVING)] * 3]


def test_longer_segments_start_their_adjoint_a_step_earlier():
    """Lengths 17, 17, 16, 16: a row meets after ten steps of its own."""
    found = solved(make_scalar_layer(0.5, 66), "picard", 4, tolerance=1e-3)
    (forward,), (backward,) = found.forward, found.backward
    assert forward.steps == (17, HALVING)
    assert backward.steps == (17, HALVING + 1)
    assert backward.meeting[:, 0].tolist() == [HALVING, HALVING, HALVING, SETTLED]
    # The two long rows one step, all four nine steps; then both long rows have met, and the last is copied out.
    assert backward.row_steps == 4 * 17 + 2 + 4 * (HALVING - 1) + 1


def test_one_slow_sample_runs_alone():
    """Of eight samples one excites the unit that remembers; the others leave the batch once they have met."""
    fast, slow, B, T = 0.5, 0.99, 8, 64
    scalar = make_scalar_layer(1.0, T, B)
    eye = np.eye(2)
    x = np.zeros((T, B, 2))
    x[..., 0], x[:, 5, 1] = 1, 1
    states = np.zeros((1, B, 2))
    parameters = {"W": eye, "R": np.diag([fast, slow]), "b": np.zeros(2)}
    layer = Layer(scalar.cell, parameters, x, np.ones((T, B, 2)), states, states)
    (solve,) = solved(layer, "picard", 4, tolerance=1e-3).forward
    assert (np.delete(solve.meeting, 5, axis=1) == [[SETTLED]] + 3 * [[HALVING]]).all()
    assert (solve.meeting[1:, 5] == UNMET).all()
    assert solve.steps == (16, 16, 16, 16)
    again = (4 * B * HALVING + 3 * (16 - HALVING), 2 * 16, 1 * 16)
    assert solve.row_steps == 4 * B * 16 + sum(again)
    assert sum(again) < (3 * 4 * B * 16) / 3  # of all rows in every round
    assert_is_chain(solved_or_ended(layer, "picard", 1, 4), chain(layer), 4)


def test_segments_that_start_right_never_run_again():
    """A guess of zero that is right: from zero, without input, there is nothing to correct."""
    layer = make_scalar_layer(0.5, 32)
    (solve,) = solved(replace(layer, x=0 * layer.x), "picard", 4).forward
    assert solve.steps == (8,)
    assert (solve.meeting == SETTLED).all()
    assert solve.residual == 0


# Ends that are not the chain's, and are said.


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("max_rounds", [1, 2, 3])
def test_too_few_rounds_are_reported(max_rounds, ranks):
    found = solved(make_counting_layer(24), "picard", 6 // ranks, ranks, max_rounds=max_rounds, tolerance=1e-6)
    for solve in (*found.forward, *found.backward):
        assert len(solve.steps) == max_rounds
        assert not solve.converged
        assert solve.residual > 1e-6


def make_last_step_layer(T, factor=0.5):
    """Only the last step has a loss."""
    layer = make_scalar_layer(factor, T)
    dy = np.zeros_like(layer.dy)
    dy[-1] = 1
    return replace(layer, dy=dy)


@pytest.mark.parametrize(("ranks", "fold"), [(1, 16), (4, 4), (16, 1)])
def test_a_gradient_dropped_where_nothing_else_is_is_truncated(ranks, fold):
    """Four steps a segment, ten until the gradient is below the tolerance: it is dropped in the third from the end."""
    found = solved(make_last_step_layer(64), "picard", fold, ranks, tolerance=1e-3)
    assert any(solve.truncated for solve in found.backward)
    assert not any(solve.truncated for solve in found.forward)
    assert found.meeting("backward")[-4:, 0].tolist() == [SETTLED, 2, UNMET, SETTLED]
    assert not found.arrays["dx"][: 64 - 4 * 4].any()


def test_a_gradient_that_is_carried_to_the_first_step_is_not_truncated():
    found = solved(make_last_step_layer(64), "picard", 16, tolerance=1e-25)
    assert not found.backward[0].truncated
    assert error(found, chain(make_last_step_layer(64))) <= ALLOWED


def test_a_loss_of_every_step_is_not_truncated():
    found = solved(make_scalar_layer(0.5, 64), "picard", 16, tolerance=1e-3)
    assert not found.backward[0].truncated


def spoilt(layer, what):
    """A layer with a NaN late in time, so that of several ranks the last alone sees it."""
    if what in layer.parameters:
        bad = layer.parameters[what].copy()
        bad.flat[-1] = np.nan
        return replace(layer, parameters={**layer.parameters, what: bad})
    bad = getattr(layer, what).copy()
    bad.flat[-1] = np.nan
    return replace(layer, **{what: bad})


@every_cell
@pytest.mark.parametrize("ranks", [1, 3])
def test_what_is_not_a_number_raises_on_every_rank(cell, ranks):
    layer = make_layer(cell, 12)
    for what in ("x", "W", "initial"):
        with pytest.raises(NumericsError, match="a state is not finite after the forward pass of method picard"):
            solved(spoilt(layer, what), "picard", 2, ranks)
    for what in ("dy", "cotangent"):
        with pytest.raises(NumericsError, match="a gradient of a state is not finite after the backward pass"):
            solved(spoilt(layer, what), "picard", 2, ranks)


@pytest.mark.parametrize("method", ["tbptt_zero", "gateprod", "deer"])
def test_an_overflow_raises_too(method):
    layer = make_scalar_layer(1e100, 24)
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(NumericsError) as raised:
        solved(layer, method, 4)
    assert method in str(raised.value)
    assert raised.value.exit_code == EXIT_INVALID


def test_every_rank_learns_of_a_number_that_is_not_one():
    """None is left waiting, none goes on."""
    layer = spoilt(make_layer(LSTM(), 12), "x")

    def outcome(line):
        folded = FoldedLayer(layer, RecurrenceSpec(method="picard", fold=2), line)
        try:
            folded.solve()
        except NumericsError as raised:
            return str(raised)
        return ""

    messages = on_line(3, outcome)
    assert messages[0] == messages[1] == messages[2] != ""


def test_in_single_precision_a_solve_loses_what_its_tolerance_says():
    layer = make_layer(LSTM(), 96, 2, 3, 16)
    exact, single = chain(layer), layer.astype(np.float32)
    found = solved(single, "picard", 8, tolerance=1e-6)
    assert found.forward[0].converged
    assert found.backward[0].converged
    assert error(chain(single), exact) < 3e-6
    assert error(found, exact) < 1e-5


def make_amplifying_layer():
    """h = 2h + x: a start off by less than the tolerance is left, and predicted to move the next one by more."""
    x = np.full((12, 1, 1), 1e-9)
    x[2], x[6:9] = 0.9e-6, 1
    return replace(make_scalar_layer(2.0, 12), x=x)


@pytest.mark.timeout(20)  # for ever is how long it would take
@pytest.mark.parametrize("method", ["gateprod", "deer"])
def test_a_prediction_that_leads_nowhere_ends_as_a_chain(method):
    found = solved(make_amplifying_layer(), method, 4, tolerance=1e-6)
    assert found.forward[0].converged
    assert len(found.forward[0].steps) <= 2 * 4
    assert error(found, chain(make_amplifying_layer())) < 1e-4  # the dropped 0.9e-6 has doubled nine times


@pytest.mark.parametrize("method", ["gateprod", "deer"])
def test_a_prediction_that_amplifies_what_is_below_the_tolerance_takes_no_more_rounds_than_segments(method):
    found = solved_or_ended(make_amplifying_layer(), method, 1, 4, tolerance=1e-6)
    assert found.forward[0].converged


def test_a_gradient_dropped_at_a_boundary_is_truncated():
    """32 steps after the loss it is 2e-10, and the segment that has nothing else gets nothing of it."""
    found = solved(make_last_step_layer(64), "picard", 2, tolerance=1e-6)
    assert not found.arrays["dx"][:32].any()
    assert found.backward[0].truncated


def test_a_scan_that_corrects_every_segment_drops_nothing():
    layer = make_layer(MinGRU(forget_bias=3.0), 64)
    dy = np.zeros_like(layer.dy)
    dy[-1] = 1
    layer = replace(layer, dy=dy)
    found = solved(layer, "scan", 8)
    assert error(found, chain(layer)) < 1e-13
    assert (found.meeting("backward")[:-1] != SETTLED).all()
    assert not found.backward[0].truncated
