"""The spread of ranks: its numbers, and the figure that draws them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from factory import make_case, make_record, quick_cases
from rank_samples import ranked_case, ranked_entry

from hpcrnn.reporting.analysis.entries import make_entries
from hpcrnn.reporting.analysis.scaling import analyse
from hpcrnn.reporting.analysis.spread import GROUPS, MOST_ROWS, rank_spread
from hpcrnn.reporting.figures.canvas import drawing_style
from hpcrnn.reporting.figures.plan import plan_all
from hpcrnn.reporting.figures.ranks import ROWS_A_FIGURE, plan_ranks
from hpcrnn.reporting.figures.save import save
from hpcrnn.reporting.report.sections import sections
from hpcrnn.reporting.tables.table import Table


def drawn(entries):
    with drawing_style():
        return [sheet.draw() for sheet in plan_ranks(entries)]


def texts_of(drawing):
    (ax,) = drawing.figure.axes
    return [tick.get_text() for tick in ax.get_yticklabels()], [text.get_text() for text in ax.texts]


def test_busy_and_waiting_make_a_ranks_own_step():
    case = make_case(3, n=20, grid={"data": 3})
    place, spread = case.phases.index, rank_spread(case)
    work = ["forward", "backward", "weight_gradient", "update"]
    for rank in range(3):
        busy = sum(case.time_s[:, rank, place(phase)] for phase in work)
        assert spread.busy[rank].middle.median == pytest.approx(np.median(busy))
        assert (spread.busy[rank].low, spread.busy[rank].high) == pytest.approx((busy.min(), busy.max()))
        waiting = case.time_s[:, rank, 0] - busy
        assert spread.waiting[rank].middle.median == pytest.approx(np.median(waiting))


def test_an_outlier_of_one_rank_is_kept_and_marked():
    case = ranked_case(2, 30, noise=0.01)
    time_s = case.time_s.copy()
    time_s[4, 1, 1:] *= 5
    time_s[4, :, 0] *= 5
    spread = rank_spread(replace(case, time_s=time_s))
    assert spread.busy[0].outliers.size == 0
    assert spread.busy[1].outliers.tolist() == [spread.busy[1].high]


@pytest.mark.parametrize("n_ranks", [1, 2, MOST_ROWS, MOST_ROWS + 1, 64, 100])
def test_rows_cover_every_rank_once(n_ranks):
    spread = rank_spread(ranked_case(n_ranks, 6), apart=[n_ranks - 1, 0])
    covered = [rank for band in spread.busy for rank in range(band.first, band.last + 1)]
    assert covered == list(range(n_ranks))
    assert spread.busy[0].alone
    assert spread.busy[-1].alone
    if n_ranks > MOST_ROWS:
        assert GROUPS <= len(spread.busy) <= GROUPS + 2
        together = [band for band in spread.busy if not band.alone]
        assert len(together) >= GROUPS - 2
        assert all(np.isnan(band.middle.low) for band in together)
    else:
        assert len(spread.busy) == n_ranks


def test_a_case_without_steps_or_phases_has_no_spread_and_no_figure():
    case = make_case(2, n=10)
    for lacking in (replace(case, time_s=case.time_s[:0]), replace(case, phases=("step", *"abcdef"))):
        with pytest.raises(ValueError, match="data 2"):
            rank_spread(lacking)
        assert drawn(make_entries([make_record([lacking])])) == []


def test_one_rank_has_no_figure():
    assert drawn(make_entries([make_record([make_case(1), make_case(1, 32)])])) == []


def test_the_straggler_is_marked_and_named():
    (drawing,) = drawn([ranked_entry(8, 40, {3: 1.3}, noise=0.01)])
    labels, texts = texts_of(drawing)
    assert labels == [f"rank {rank}" for rank in range(8)]
    assert [k for k, text in enumerate(texts) if "slow: 1.3" in text] == [3]
    weights = [tick.get_fontweight() for tick in drawing.figure.axes[0].get_yticklabels()]
    assert weights == ["bold" if rank == 3 else weights[0] for rank in range(8)]
    assert weights[0] != "bold"
    assert "Stragglers: rank 3 on node01 is slow: 1.3" in drawing.caption
    assert "1  data 8 · numpy: busy " in drawing.alt


def test_of_many_ranks_the_straggler_alone_has_a_row_of_its_own():
    labels, texts = texts_of(*drawn([ranked_entry(64, 40, {37: 1.3}, noise=0.01)]))
    assert "rank 37" in labels
    assert "ranks 0–3" in labels
    assert len(labels) < 24
    assert sum("slow" in text for text in texts) == 1


def test_cases_share_a_sheet_until_it_is_full():
    cases = [ranked_case(8, 7, seed=k, batch=8 * (k + 1)) for k in range(12)]
    sheets = [texts_of(d)[0] for d in drawn(make_entries([make_record(cases)]))]
    assert sum(map(len, sheets)) == 12 * 8
    assert len(sheets) == 3
    assert all(len(labels) <= ROWS_A_FIGURE for labels in sheets)


@pytest.mark.parametrize("cases", [[ranked_case(2, 3)], [ranked_case(2, 5), ranked_case(128, 12)]])
def test_nothing_is_written_over_the_edge(cases, tmp_path):
    """Long names, n too small for an interval, many ranks: every text lies within the sheet."""
    long = [replace(case, kernel="a kernel of a very long name " * 3) for case in cases]
    with drawing_style():
        for drawing in drawn(make_entries([make_record([*long, *cases])])):
            save(drawing, tmp_path / drawing.name)
            renderer = drawing.figure.canvas.get_renderer()
            (ax,) = drawing.figure.axes
            for text in [*ax.get_yticklabels(), *ax.texts]:
                box = text.get_window_extent(renderer)
                assert box.x0 >= 0, text
                assert box.x1 <= drawing.figure.bbox.x1, text


def test_the_report_has_a_section_of_ranks_with_the_table_only_where_someone_stands_out():
    for cases, expected in (([ranked_case(4, 30, {2: 1.4})], 1), (quick_cases(), 0), ([make_case(1)], None)):
        analysis = analyse([make_record(cases)])
        kinds = [sheet.kind for sheet in plan_all(analysis)]
        assert ("ranks" in kinds) == (expected is not None)
        tables = [
            block
            for section in sections(analysis, [])
            if section.key == "ranks"
            for block in section.blocks
            if isinstance(block, Table)
        ]
        assert len(tables) == (expected or 0)
