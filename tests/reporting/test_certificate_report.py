"""Certificates of time-parallel methods: words, table, figure, and that nothing inexact goes unmarked."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from factory import LONG, make_case, make_certificate, make_record, time_parallel_cases, uncorrected
from rich.console import Console

from hpcrnn.records.record import Check, Verdict
from hpcrnn.reporting.analysis.contest import contests
from hpcrnn.reporting.analysis.entries import exclusion_reason, make_entries
from hpcrnn.reporting.analysis.scaling import analyse, find_base
from hpcrnn.reporting.describe import case_name, distinctions, shortfalls
from hpcrnn.reporting.figures.canvas import drawing_style
from hpcrnn.reporting.figures.certificates import draw_certificates, draw_meetings
from hpcrnn.reporting.figures.curves import draw_strong_speedup
from hpcrnn.reporting.figures.strategies import draw_strategies
from hpcrnn.reporting.report.html import render_html
from hpcrnn.reporting.report.markdown import render_markdown
from hpcrnn.reporting.report.sections import make_page
from hpcrnn.reporting.report.write import write_report
from hpcrnn.reporting.tables.certificates import certificate_lines, certificate_table, error_text, summarise
from hpcrnn.reporting.terminal.show import show

STEPS = [4.0, 4.1, 4.2, 4.3, 4.5, 4.6, 4.7, 4.8]
FOLDED = {"method": "picard", "fold": 8}


def folded(n_ranks=1, factor=1.0, *, batch=64, **changes):
    grid = {"time": n_ranks} if n_ranks > 1 else {"data": 1}
    return make_case(n_ranks, batch, samples=[s * factor for s in STEPS], grid=grid, **{**FOLDED, **changes})


def serial(factor=1.0, **changes):
    return make_case(1, samples=[s * factor for s in STEPS], **changes)


def shown(cases, width=80):
    stream = io.StringIO()
    show([make_record(cases)], Console(file=stream, width=width))
    return stream.getvalue()


@pytest.fixture(scope="module")
def cases():
    return time_parallel_cases()


@pytest.fixture(scope="module")
def analysis(cases):
    return analyse([make_record(cases)])


# --- words ------------------------------------------------------------------------------------------


def test_a_steady_certificate_in_words():
    certificate = make_certificate(growth=0.0, directions=("forward",))
    certificate.critical_steps[...] = 542
    certificate.meeting_quantiles[...] = [20, 25, 29, 30, 31, 33]
    case = make_case(1, 1, certificate=certificate, method="picard", fold=128, **LONG)
    assert [line for line, _ in certificate_lines(case)] == [
        (
            "picard, 128 segments, tolerance 1e-06: rounds 2 fwd; critical path 542 fwd of 65536 steps; "
            "met after 29 fwd steps (worst 33); residual 4.0e-7; converged"
        ),
        "gradient error 4.0e-7, serial float32 2.2e-7",
        "largest Lyapunov exponent a time step: layer0 -0.31 → -0.26",
    ]
    assert not any(loud for _, loud in certificate_lines(case))


def test_the_summary_is_typical_of_counted_steps_and_worst_of_all():
    certificate = make_certificate(n_steps=5, layers=2, growth=0.0)
    certificate.rounds[...] = 2
    certificate.rounds[0], certificate.rounds[4, 1] = 9, 3
    certificate.critical_steps[...] = 600
    certificate.critical_steps[:2] = 10_000
    certificate.meeting_quantiles[1, 0, 0, 5] = 400
    case = make_case(1, 1, n=3, certificate=certificate, **{**LONG, "layers": 2}, **FOLDED)
    forward, backward = summarise(case, certificate)
    assert (forward.rounds, forward.most_rounds) == (2, 9)
    assert (forward.critical_steps, forward.serial_steps) == (1200, 2 * 65_536)
    assert forward.gain == pytest.approx(65_536 / 600)
    assert forward.worst_met_after == 400
    assert backward.direction == "backward"


@pytest.mark.parametrize("method", ["scan", "tbptt_zero"])
def test_where_nothing_had_to_meet_there_is_no_meeting_length(method):
    certificate = uncorrected(make_certificate(n_segments=64))
    case = make_case(1, 1, certificate=certificate, method=method, fold=64, n=3, n_warmup=31, **LONG)
    text = certificate_lines(case)[0][0]
    assert "rounds 1 fwd, 1 bwd" in text
    assert "met after" not in text
    assert ("tolerance" in text) == (method == "scan")
    assert math.isnan(summarise(case, certificate)[0].met_after)


def test_what_went_wrong_is_loud(cases):
    loud = [line for line, flag in certificate_lines(cases[3]) if flag]
    assert loud[0].startswith("did not converge in 3 of 34 steps")
    assert loud[1].startswith("gradient truncated in 34 of 34 steps: a correction was dropped")
    assert loud[2].endswith("layer0 0.020 → 0.070; chaotic")
    assert "re-run to the end unmet 21 fwd, 21 bwd" in certificate_lines(cases[3])[0][0]
    assert ("APPROXIMATE: gradient error 3.0e-2, serial float32 2.2e-7", True) in certificate_lines(cases[4])
    assert not any("converge" in line for line, _ in certificate_lines(cases[4]))
    assert certificate_lines(cases[0]) == []


def test_how_a_method_was_chosen_and_what_halos_lost_is_said():
    certificate = replace(make_certificate(), choice={"method": "picard", "reason": "met after 29 \x1b[2Jsteps"})
    case = make_case(1, 1, certificate=certificate, burn_in=16, halo_codec="int8", **FOLDED, **LONG)
    lines = [line for line, _ in certificate_lines(case)]
    assert "tolerance 1e-06, burn-in 16, halos in int8: " in lines[0]
    assert lines[-1] == "chosen by --method auto: met after 29  [2Jsteps"


def test_without_gradients_the_nearest_check_stands_for_them():
    case = replace(folded(), verdict=Verdict("VALID", "", 8.0, (Check("state layer0.h", 3e-7, 2e-7, 1e-6),)))
    assert error_text(case) == "state layer0.h error 3.0e-7, serial float32 2.0e-7"


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_it_all_within_its_width(cases, width):
    text = shown(cases, width)
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    joined = " ".join(text.split())
    assert "APPROXIMATE 32 1.90 s" in joined
    assert "picard, 256 segments, tolerance 1e-06: rounds 2 (at most 3) fwd" in joined
    assert "did not converge in 3 of 34 steps" in joined
    assert "base: serial · numpy, 1 rank, 24.3 s" in joined


# --- what is compared with what ---------------------------------------------------------------------


def test_no_folded_run_is_a_base():
    entries = make_entries([make_record([folded(), folded(2, 0.5)])])
    assert find_base(entries[1], entries) is None
    entries = make_entries([make_record([folded(), serial(3.0), folded(2, 0.5)])])
    assert find_base(entries[2], entries).entry.number == 2
    assert find_base(entries[0], entries).entry.number == 2
    # Of a weak curve neither: the serial run is, though the folded one is of the same method.
    weak = analyse([make_record([folded(), serial(3.0), folded(2, batch=128)])]).weak
    assert [[p.entry.number for p in s.points] for s in weak] == [[2, 3]]
    assert weak[0].points[1].efficiency.median == pytest.approx(3.0)


def test_an_approximate_run_is_no_base():
    wrong = replace(serial(0.1), verdict=replace(serial().verdict, status="APPROXIMATE"))
    entries = make_entries([make_record([wrong, serial(), folded(2, 0.5)])])
    assert find_base(entries[2], entries).entry.number == 2


def test_methods_and_folds_are_curves_of_their_own():
    cases = [
        serial(),
        folded(1, 0.4),
        folded(2, 0.2),
        folded(2, 0.25, fold=16),
        folded(2, 0.3, tolerance=1e-5),
        folded(2, 0.1, method="tbptt_zero", gradient_error=2e-2),
        make_case(2, samples=STEPS, grid={"time": 2}),
    ]
    series = analyse([make_record(cases)]).strong
    assert {tuple(p.entry.number for p in s.points): s.strategy for s in series} == {
        (2, 3): "time · picard 8",
        (1, 4): "time · picard 16",
        (1, 5): "time · picard 8",
        (1, 6): "time · tbptt_zero 8",
        (1, 7): "time · fill_drain",
    }
    # The base of them all is the serial run, though the folded one is faster.
    assert {p.base.entry.number for s in series for p in s.points} == {1}


def test_one_rank_at_once_takes_part_in_the_contest():
    (contest,) = contests(analyse([make_record([serial(), folded(1, 0.25)])]).included)
    (contender,) = contest.contenders
    assert contender.point.speedup.median == pytest.approx(4.0)
    assert contests(analyse([make_record([serial(), serial(1.1, microbatches=2)])]).included) == ()


def test_names_say_what_sets_a_case_apart():
    plain, loose = folded(), folded(tolerance=1e-5, halo_codec="float16")
    assert distinctions([serial(), plain]) == ["", ""]
    assert distinctions([plain, loose]) == ["tolerance=1e-06", "tolerance=1e-05 · float16"]


# --- nothing inexact goes unmarked ------------------------------------------------------------------


def test_marks(cases):
    assert [shortfalls(case) for case in cases] == [
        [], [], [], ["unconverged", "gradient truncated"], ["approximate"]
    ]  # fmt: skip
    assert case_name(cases[3]) == "time 2 · gateprod 64 · numpy (unconverged)"
    assert case_name(replace(cases[4], simulated=True)) == "tbptt_zero 64 · numpy (simulated, approximate)"


def test_an_approximate_case_is_drawn_where_its_errors_are_known():
    case = folded(gradient_error=3e-2)
    assert exclusion_reason(case) == ""
    nan = Check("gradient layer0.R", math.nan, 1e-7, 1e-6)
    assert "not a finite number" in exclusion_reason(replace(case, verdict=replace(case.verdict, checks=(nan,))))
    unchecked = replace(case, verdict=replace(case.verdict, checks=()))
    assert exclusion_reason(unchecked) == "APPROXIMATE, and no check was recorded"


def test_the_curves_and_bars_mark_it(analysis):
    with drawing_style():
        drawing = draw_strong_speedup("x", analysis.strong)
        figure = draw_strategies("x", contests(analysis.included)[0]).figure
    legend = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert any("gateprod" in text and text.endswith("unconverged · gradient truncated") for text in legend)
    styles = {line.get_fillstyle() for line in drawing.figure.axes[0].lines if line.get_marker() == "s"}
    assert "left" in styles
    assert "half-filled" in drawing.caption
    hatched = [bar for bar in figure.axes[0].patches if bar.get_hatch()]
    assert len(hatched) == 2


# --- table and figure -------------------------------------------------------------------------------


def test_the_table_of_certificates(analysis):
    table = certificate_table(analysis.entries)
    assert all(len(row) == len(table.columns) for row in table.rows)
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert list(rows) == ["2", "3", "4", "5"]
    picard = rows["2"]
    assert picard["Segments"] == "128"
    assert picard["Rounds"] == "2 (3) / 2 (3)"
    assert re.fullmatch(r"11\d× / 11\d×", picard["T over it"])
    assert (picard["Gradient error"], picard["Serial error"]) == ("4.0e-7", "2.2e-7")
    assert (picard["Verdict"], picard["Beware"]) == ("VALID", "—")
    assert rows["4"]["Beware"] == "did not converge in 3 of 34 steps; gradient truncated in 34 of 34 steps"
    assert (rows["5"]["Verdict"], rows["5"]["Met after"]) == ("APPROXIMATE", "— / —")
    assert certificate_table(analysis.entries[:1]) is None


def test_the_figure_has_a_line_a_direction_and_rounds_below(analysis):
    with drawing_style():
        drawings = list(draw_certificates(analysis.included))
    # Where nothing met there is nothing to draw.
    assert [d.name for d in drawings] == ["over_time_1", "over_time_2", "over_time_3"]
    first, third = drawings[0], drawings[2]
    above, below = first.figure.axes
    assert (above.get_ylabel(), below.get_ylabel()) == ("meeting length [steps]", "rounds")
    assert below.get_xlabel() == "training step, warm-up included"
    assert above.get_xlabel() == ""
    assert "forward: median 35, at most 47 time steps, 2 rounds, at most 3." in first.alt
    assert first.section == "over_time"
    assert "It did not converge in 3 of 34 steps." in third.caption
    assert "did not converge" in [text.get_text() for text in third.figure.legends[0].get_texts()]
    renderer = first.figure.canvas.get_renderer()
    for ax in (above, below):
        box = ax.get_tightbbox(renderer)
        assert box.x0 >= 0
        assert box.x1 <= first.figure.bbox.width
    assert above.get_tightbbox(renderer).y0 >= below.get_window_extent(renderer).y1


@pytest.mark.parametrize("n_steps", [1, 3, 200])
def test_any_number_of_steps_draws(n_steps):
    certificate = make_certificate(n_steps, n_segments=1600, layers=3, directions=("forward",), converges=n_steps > 9)
    certificate.meeting_quantiles[0, 0] = np.nan
    case = make_case(1, 1, n=n_steps, n_warmup=0, certificate=certificate, **{**LONG, "layers": 3}, **FOLDED)
    (entry,) = make_entries([make_record([case])])
    with drawing_style():
        drawing = draw_meetings("x", entry, certificate)
    # Meeting lengths come near the length of a segment: it is drawn.
    assert "length of a segment" in [text.get_text() for text in drawing.figure.legends[0].get_texts()]


def test_the_report_holds_the_section(cases, tmp_path):
    paths = write_report([make_record([cases[1], cases[4]])], tmp_path)
    assert {"over_time", "strategies"} <= {p.stem for p in paths}
    page, markdown = ((tmp_path / name).read_text("utf-8") for name in ("report.html", "report.md"))
    for text in (page, markdown):
        for part in (
            "Over time",
            "NOT ALL EXACT",
            "1 of 2 cases is not the serial result",
            "T over it",
            "(approximate)",
        ):
            assert part in text
    assert '<span class="approximate">APPROXIMATE</span>' in page
    assert 'href="#over-time"' in page
    assert "![Meeting lengths and rounds of each training step of picard 128" in markdown


def test_a_report_without_certificates_has_no_such_section():
    context = make_page(analyse([make_record([serial()])]), [])
    assert "## Over time" not in render_markdown(context)
    assert 'id="over-time"' not in render_html(context)
