"""Fitted laws: known parameters come back, intervals cover, and what a fit cannot say is said."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from factory import make_case, make_record, many_cases, quick_cases, time_parallel_cases
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from hpcrnn.reporting.analysis.cores import cores_of, oversubscribed
from hpcrnn.reporting.analysis.entries import make_entries
from hpcrnn.reporting.analysis.fits import (
    AMDAHL,
    GUSTAFSON,
    LAWS,
    UNIVERSAL,
    Fit,
    Refusal,
    bootstrap_medians,
    fit_series,
    least_squares,
)
from hpcrnn.reporting.analysis.scaling import analyse
from hpcrnn.reporting.figures.canvas import drawing_style
from hpcrnn.reporting.figures.curves import draw_strong_efficiency, draw_strong_speedup, draw_weak_efficiency
from hpcrnn.reporting.figures.fits import BEYOND, MOST_FITTED, THIN
from hpcrnn.reporting.tables.fits import fit_table

COUNTS = (1, 2, 4, 8, 16, 32)
RANKS = np.array(COUNTS[1:], dtype=np.float64)
FLAT = np.array([1.0, 1.01, 0.99, 1.02, 0.98, 1.03, 0.97, 1.0])
"""Steps of median 1, enough for an interval."""

shares = st.floats(0.0, 1.0)
coherencies = st.floats(0.0, 0.5)
efficiencies = st.lists(st.floats(0.01, 3.0), min_size=5, max_size=5).map(np.array)


def usl(n, sigma=0.03, kappa=0.001):
    """Return the speedup on n ranks."""
    return n / (1 + sigma * (n - 1) + kappa * n * (n - 1))


def strong(speedup, counts=COUNTS, one=0.4, *, shape=FLAT, **how):
    """Make cases of one problem with exactly these speedups of the medians."""
    return [make_case(n, 64, samples=one / speedup(n) * shape, **how) for n in counts]


def fits_of(cases, kind="strong", **changes):
    """Fit the one series of these cases."""
    (series,) = getattr(analyse([make_record(cases, **changes)]), kind)
    return fit_series(series)


def reasons_of(cases, kind="strong"):
    return [one.reason if isinstance(one, Refusal) else "" for one in fits_of(cases, kind)]


# --- least squares ----------------------------------------------------------------------------------


@given(sigma=shares, kappa=coherencies)
@settings(deadline=None)
def test_known_parameters_come_back(sigma, kappa):
    for law, values in ((UNIVERSAL, (sigma, kappa)), (AMDAHL, (sigma,)), (GUSTAFSON, (min(sigma, 0.99),))):
        found = least_squares(law, RANKS, law.efficiency(RANKS, values))
        assert found == pytest.approx(values, rel=1e-8, abs=1e-8)


@given(measured=efficiencies)
@settings(deadline=None)
def test_parameters_stay_within_their_bounds_and_are_the_best_there(measured):
    for law in LAWS:
        found = least_squares(law, RANKS, measured)
        highest = [1.0, np.inf][: found.size]
        assert (found >= 0).all()
        assert (found <= np.array(highest) * (1 + 1e-12)).all()
        # The peer: minimise the relative errors of the ratio by an iterative solver.
        weight = 1 / measured if law.weak else measured
        matrix, right = (weight * law.columns(RANKS)).T, 1 - weight
        peer = lsq_linear(matrix, right, (np.zeros(found.size), highest), method="bvls").x
        ours, theirs = (float(((matrix @ x - right) ** 2).sum()) for x in (found, peer))
        assert ours <= theirs * (1 + 1e-6) + 1e-12


@given(measured=efficiencies)
@settings(deadline=None)
def test_without_coherency_the_universal_law_is_amdahls(measured):
    sigma, kappa = least_squares(UNIVERSAL, RANKS, measured)
    (share,) = least_squares(AMDAHL, RANKS, measured)
    assume(kappa == 0.0)
    assert sigma == pytest.approx(share, abs=1e-9)
    assert UNIVERSAL.efficiency(RANKS, (share, 0.0)) == pytest.approx(AMDAHL.efficiency(RANKS, (share,)))


def test_many_are_fitted_at_once_as_each_alone():
    measured = np.random.default_rng(5).uniform(0.05, 1.5, (200, RANKS.size))
    for law in LAWS:
        together = least_squares(law, RANKS, measured)
        assert together.shape == (200, len(law.parameters))
        assert together == pytest.approx(np.stack([least_squares(law, RANKS, row) for row in measured]))


# --- the bootstrap ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 6, 7, 13, 40])
def test_medians_are_those_of_samples_drawn_again(n):
    samples = np.random.default_rng(n).gamma(1.5, 1.0, n)
    random = np.random.default_rng(1)
    fast = np.sort(bootstrap_medians(samples, random, 40_000))
    slow = np.sort(np.median(random.choice(samples, (40_000, n)), axis=1))
    steps = np.unique(np.concatenate([fast, slow]))
    apart = np.searchsorted(fast, steps, side="right") - np.searchsorted(slow, steps, side="right")
    assert (
        np.abs(apart).max() / 40_000 < 0.015
    )  # Kolmogorov and Smirnov: 1.95 sqrt(2 / n) is 0.014 at one in a thousand


def test_the_same_report_has_the_same_intervals():
    cases = strong(usl)
    assert fits_of(cases) == fits_of(cases)


@given(scale=st.floats(1e-6, 1e4))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_fits_do_not_know_the_unit_of_time(scale):
    rough = np.random.default_rng(3).gamma(8.0, 0.125, 15)
    for one, other in zip(fits_of(strong(usl, shape=rough)), fits_of(strong(usl, one=scale, shape=rough)), strict=True):
        for a, b in zip((*one.parameters, one.most_speedup), (*other.parameters, other.most_speedup), strict=True):
            assert (b.value, b.low, b.high) == pytest.approx((a.value, a.low, a.high), rel=1e-6, abs=1e-12)


@pytest.fixture(scope="module")
def trials():
    """Fits of two hundred runs of one machine, its steps scattered to the right."""
    random, found = np.random.default_rng(11), []
    right = 0.8 + 0.2 * random.gamma(1.5, 1.0, 1_000_000)
    truth = float(np.median(right))
    even = strong(lambda n: usl(n, 0.05, 0.002), shape=np.ones(21))
    for _ in range(200):
        shapes = (0.8 + 0.2 * random.gamma(1.5, 1.0, (len(COUNTS), 21))) / truth
        found.append(
            fits_of([replace(c, time_s=c.time_s * s[:, None, None]) for c, s in zip(even, shapes, strict=True)])
        )
    return found


def test_intervals_cover_what_is_true(trials):
    for index, true in ((0, 0.05), (1, 0.002)):
        estimates = [universal.parameters[index] for _, universal in trials]
        covered = sum(e.low <= true <= e.high for e in estimates) / len(estimates)
        assert 0.91 <= covered <= 0.99
        assert np.median([e.value for e in estimates]) == pytest.approx(true, rel=0.1)
    peak = math.sqrt(0.95 / 0.002)
    assert 0.91 <= sum(u.peak_ranks.low <= peak <= u.peak_ranks.high for _, u in trials) / len(trials) <= 0.99
    best = usl(peak, 0.05, 0.002)
    assert 0.91 <= sum(u.most_speedup.low <= best <= u.most_speedup.high for _, u in trials) / len(trials) <= 0.99


def test_the_law_that_holds_is_seldom_doubted_and_the_other_more_often(trials):
    doubted = [sum(fits[k].holds is False for fits in trials) for k in range(2)]
    assert doubted[1] < 0.05 * len(trials)
    assert doubted[0] > 5 * doubted[1]


# --- what a fit says --------------------------------------------------------------------------------


def test_a_fit_by_hand():
    amdahl, universal = fits_of(strong(usl))
    assert (amdahl.law, universal.law) == (AMDAHL, UNIVERSAL)
    assert universal.values == pytest.approx((0.03, 0.001))
    peak = math.sqrt(0.97 / 0.001)
    assert universal.peak_ranks.value == pytest.approx(peak)
    assert universal.most_speedup.value == pytest.approx(usl(peak))
    assert universal.peak_ranks.low < peak < universal.peak_ranks.high
    assert universal.holds is True
    assert universal.efficiency(RANKS) * RANKS == pytest.approx([usl(n) for n in RANKS])
    assert amdahl.most_speedup.value == pytest.approx(1 / amdahl.values[0])
    assert amdahl.most_speedup.low == pytest.approx(1 / amdahl.parameters[0].high)
    assert amdahl.holds is False
    assert (amdahl.worst.n_ranks, amdahl.worst.error > 0.05) == (32, True)
    assert [r.n_ranks for r in amdahl.residuals] == [2, 4, 8, 16, 32]  # the base is no residual


def test_gustafson_by_hand():
    cases = [make_case(n, 32 * n, samples=0.2 / (1 - 0.1 * (1 - 1 / n)) * FLAT) for n in COUNTS]
    (fit,) = fits_of(cases, "weak")
    assert fit.law is GUSTAFSON
    assert fit.values == pytest.approx((0.1,))
    assert fit.efficiency(np.array([4.0])) * 4 == pytest.approx(4 - 0.1 * 3)
    assert math.isinf(fit.most_speedup.value)
    assert fit.holds is True


def test_each_point_has_the_base_of_its_own_file():
    slow = make_record(strong(usl, (1, 2, 4)), seed=0)
    fast = make_record(strong(usl, (1, 8, 16), one=0.1), seed=1)
    (series,) = analyse([slow, fast]).strong
    _, universal = fit_series(series)
    assert universal.values == pytest.approx((0.03, 0.001))


def test_all_repeated_measurements_count():
    once = fits_of(strong(usl, (1, 2, 4)))[0]
    again = make_case(4, 64, samples=0.4 / usl(4) * 1.2 * FLAT)
    twice = fits_of([*strong(usl, (1, 2, 4)), again])[0]
    assert twice.values[0] > once.values[0]
    assert [r.n_ranks for r in twice.residuals] == [2, 4, 4]


def test_without_repetitions_enough_there_is_no_interval_and_no_judgement():
    for fit in fits_of(strong(usl, shape=FLAT[:5])):
        assert all(math.isnan(p.low) and math.isnan(p.high) for p in (*fit.parameters, fit.most_speedup))
        assert fit.holds is None
    row = fit_table(analyse([make_record(strong(usl, shape=FLAT[:5]))]).strong).rows[1]
    assert row[4].startswith("σ 0.0300 (n too small), κ ")
    assert re.fullmatch(r"11\.0× \(n too small\) on 31 \(n too small\) ranks", row[5])
    assert row[7] == "undecided: n too small"


def test_one_miss_is_a_miss_though_another_point_has_no_interval():
    cases = strong(usl)
    cases[2] = make_case(4, 64, samples=0.4 / usl(4) * FLAT[:5])
    assert fits_of(cases)[0].holds is False


def test_super_linear_points_and_bounds_are_said():
    cases = strong(lambda n: {1: 1, 2: 2.4, 4: 4.9, 8: 7.9}[n], (1, 2, 4, 8))
    amdahl, universal = fits_of(cases)
    assert (amdahl.values, universal.values) == ((0.0,), (0.0, 0.0))
    assert amdahl.superlinear == (2, 4)
    assert math.isinf(amdahl.most_speedup.value)
    table = fit_table(analyse([make_record(cases)]).strong)
    assert "super-linear on 2, 4 ranks, which the law cannot be; serial share on its bound 0" in table.rows[0][7]
    assert "σ on its bound 0; κ on its bound 0" in table.rows[1][7]
    assert table.rows[0][5] == "none"


def test_slower_on_more_ranks_is_the_other_bound():
    amdahl, universal = fits_of(strong(lambda n: 1 / (1 + 0.3 * (n - 1) ** 0.5), (1, 2, 4, 8)))
    assert amdahl.values == (1.0,)
    assert amdahl.holds is False
    assert universal.most_speedup.value <= 1.0
    assert universal.peak_ranks.value == 1.0


def test_a_serial_run_that_is_not_the_base_is_a_residual():
    torch = make_case(1, 64, samples=0.2 * FLAT, backend="torch")
    amdahl, _ = fits_of([*strong(usl), torch])
    own = next(r for r in amdahl.residuals if r.n_ranks == 1)
    assert own.error == pytest.approx(1.0)
    assert own.missed is True


# --- where none is made -----------------------------------------------------------------------------


@pytest.mark.parametrize(("n_counts", "made"), [(1, 0), (2, 1), (3, 2)])
def test_a_law_needs_more_rank_counts_than_it_has_parameters(n_counts, made):
    found = fits_of(strong(usl, COUNTS[: n_counts + 1]))
    assert [isinstance(one, Fit) for one in found] == [True] * made + [False] * (2 - made)
    assert all("rank counts beside 1 are needed" in one.reason for one in found[made:])


def test_repeated_rank_counts_are_one():
    cases = strong(usl, (1, 2))
    assert all("there is 1" in reason for reason in reasons_of([*cases, *strong(usl, (2,), one=0.41)]))


def test_no_fit_without_a_base_of_other_algorithms_or_of_other_results():
    assert set(reasons_of(strong(usl, COUNTS[1:]))) == {"no VALID serial run to compare with"}
    rest = time_parallel_cases()
    first, second = analyse([make_record(rest)]).strong
    assert {one.reason for one in fit_series(first)} == {
        "segments of time at once are another algorithm than the base's"
    }
    assert {one.reason for one in fit_series(second)} == {"what it computes is not the serial result"}


def test_simulated_series_are_fitted_and_called_so():
    cases = [replace(case, simulated=True) for case in strong(usl)]
    assert all(isinstance(one, Fit) for one in fits_of(cases))
    table = fit_table(analyse([make_record(cases)]).strong)
    assert table.rows[0][1] == "data · numpy · simulated"


# --- cores ------------------------------------------------------------------------------------------


def shared_host(n_ranks, n_cores, affinity="0-1"):
    """Return the hosts of ranks that share one machine."""
    host = {"hostname": "vm", "affinity": affinity, "n_physical_cores": n_cores}
    return {"hosts": [dict(host) for _ in range(n_ranks)]}


def entry_on(environment, n_ranks=4, **how):
    (entry,) = make_entries([make_record([make_case(n_ranks, 64, **how)], environment=environment)])
    return entry


def test_ranks_of_one_affinity_share_its_cores():
    assert cores_of(entry_on(shared_host(4, 2))) == 2
    assert oversubscribed(entry_on(shared_host(4, 2)))
    assert not oversubscribed(entry_on(shared_host(4, 4)))
    assert oversubscribed(entry_on(shared_host(4, 4), threads=2))
    assert not oversubscribed(entry_on(shared_host(4, 2), n_ranks=2))


def test_bound_ranks_have_cores_of_their_own():
    (entry,) = make_entries([make_record([make_case(70, 70)])])
    assert cores_of(entry) == 70  # two hosts, a core each rank


@pytest.mark.parametrize(
    "hosts",
    [[], None, ["node"], shared_host(3, 2)["hosts"], *(shared_host(4, bad)["hosts"] for bad in ("2", None, 0, True))],
)
def test_what_is_not_recorded_is_not_called_oversubscribed(hosts):
    entry = entry_on({"hosts": hosts})
    assert cores_of(entry) is None
    assert not oversubscribed(entry)


def test_neither_gpus_nor_simulations_share_cores():
    assert not oversubscribed(entry_on(shared_host(4, 2), backend="cupy"))
    simulated = make_record([replace(make_case(4, 64), simulated=True)], environment=shared_host(4, 2))
    assert not oversubscribed(make_entries([simulated])[0])


def test_a_fit_through_shared_cores_is_called_so():
    series = analyse([make_record(strong(usl, (1, 2, 4)), environment=shared_host(4, 2))]).strong
    table = fit_table(series)
    assert fit_series(series[0])[0].shared == (4,)
    assert table.rows[0][7].endswith("; ranks share cores on 4 ranks")
    assert "more than cores (2)" in table.note
    with drawing_style():
        assert "ranks that share cores" in draw_strong_speedup("x", series).caption
    assert "cores" not in fit_table(analyse([make_record(strong(usl, (1, 2, 4)))]).strong).note


# --- table and figures ------------------------------------------------------------------------------


def test_the_table_of_forty_cases():
    table = fit_table(analyse([make_record(many_cases())]).strong)
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert [row[2] for row in table.rows] == ["Amdahl", "USL"] * 5
    assert table.rows[0][:2] == ["2–8", "data · numpy · H128"]
    assert "extrapolated by the fit, not measured" in table.note
    assert "Gustafson" not in table.note
    assert all(" ranks" in row[5] for row in table.rows if row[2] == "USL")


def test_a_peak_that_may_be_is_said():
    cases = strong(lambda n: usl(n, 0.2, 0.0) * (1.01 if n == 8 else 1.0), (1, 2, 4, 8))
    series = analyse([make_record(cases)]).strong
    _, universal = fit_series(series[0])
    assert math.isinf(universal.peak_ranks.value)
    assert math.isfinite(universal.peak_ranks.low)
    assert re.search(r"; no peak \(\d+ to ∞ ranks\)", fit_table(series).rows[1][5])


def test_series_without_a_fit_share_a_row_that_says_why():
    cases = [c for k in (1, 2, 3) for c in strong(usl, (1, 2), hidden=64 * k)]
    table = fit_table(analyse([make_record(cases)]).strong)
    assert [row[:3] for row in table.rows] == [["2, 4, 6", "3 series", "Amdahl, USL"]]
    assert table.rows[0][7] == "not made: at least 2 rank counts beside 1 are needed, there is 1"
    assert fit_table([]) is None


def lines_of(drawing):
    """Return the measured and the further part of each fit."""
    thin = [line for line in drawing.figure.axes[0].lines if line.get_linewidth() == THIN["linewidth"]]
    drawn = [np.asarray(line.get_xdata(), dtype=float) for line in thin if np.size(line.get_xdata())]
    return drawn[::2], drawn[1::2]


def test_fits_are_drawn_as_far_as_was_measured_and_a_little_dotted():
    with drawing_style():
        drawing = draw_strong_speedup("x", analyse([make_record(strong(usl))]).strong)
    within, beyond = lines_of(drawing)
    assert [x[0] for x in within] + [x[-1] for x in within] == pytest.approx([1, 1, 32, 32])
    assert [x[0] for x in beyond] + [x[-1] for x in beyond] == pytest.approx([32, 32, 32 * BEYOND, 32 * BEYOND])
    legend = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert legend[-1] == "fit beyond the measured ranks"
    assert legend[-3].startswith("fit: Amdahl, serial share")
    assert legend[-3].endswith("(does not fit)")
    assert legend[-2].startswith("fit: USL, σ 0.0300, κ ")
    assert "fits, not measurements" in drawing.caption
    assert "fit: USL" in drawing.alt
    top = drawing.figure.axes[0].get_ylim()[1]
    assert all(np.max(line.get_ydata()) <= top for line in drawing.figure.axes[0].lines if np.size(line.get_ydata()))


def test_few_series_of_a_sheet_carry_a_fit():
    series = analyse([make_record(many_cases())]).strong
    with drawing_style():
        drawing = draw_strong_speedup("x", series)
    assert len(lines_of(drawing)[0]) == MOST_FITTED
    assert "Of 5 series with a fit, 3 on the most rank counts show it." in drawing.caption


def test_where_nothing_was_fitted_nothing_is_said_of_fits():
    analysis = analyse([make_record(quick_cases())])
    with drawing_style():
        for drawing in (draw_strong_speedup("x", analysis.strong), draw_weak_efficiency("x", analysis.weak)):
            assert lines_of(drawing) == ([], [])
            assert "fit" not in drawing.caption + drawing.alt
        whole = analyse([make_record(strong(usl))]).strong
        assert "fit" not in draw_strong_efficiency("x", whole).caption


def test_weak_efficiency_carries_gustafson():
    cases = [make_case(n, 32 * n, 0.2 * (1 + 0.05 * (n > 1)), seed=n) for n in (1, 2, 4)]
    with drawing_style():
        drawing = draw_weak_efficiency("x", analyse([make_record(cases)]).weak)
    assert len(lines_of(drawing)[0]) == 1
    assert "Gustafson, serial share" in drawing.alt
