"""A report of times to a target: the words and the figures say what was measured, for people and for programs."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from factory import make_case, make_record
from learning_samples import curve_of, ends_at, target_cases, trained, with_curves
from rich.console import Console
from test_figure_text import collisions, words

from hpcrnn.errors import HpcrnnError
from hpcrnn.records.learning import COLUMNS
from hpcrnn.reporting.analysis.entries import make_entries
from hpcrnn.reporting.analysis.learning import goals, outcome_of
from hpcrnn.reporting.comparison.compare import compare, to_json
from hpcrnn.reporting.export.export import export
from hpcrnn.reporting.figures.canvas import drawing_style
from hpcrnn.reporting.figures.learning import draw_staleness, plan_learning
from hpcrnn.reporting.figures.plan import choose
from hpcrnn.reporting.tables.cases import names, timing_table
from hpcrnn.reporting.tables.learning import (
    bits,
    goal_sentences,
    learning_lines,
    loss_table,
    loss_text,
    staleness_lines,
    staleness_shares,
    staleness_table,
    target_table,
)
from hpcrnn.reporting.tables.samples import leg_note
from hpcrnn.reporting.terminal.comparison import show_comparison

INF = math.inf


def ranked(*cases):
    (goal,) = goals(make_entries([make_record(cases)]))
    return {one.entry.number: one for one in goal.ranked}


# --- words ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def entries():
    return make_entries([make_record(target_cases())])


def test_bits_stand_beside_nats():
    assert bits(math.log(2)) == pytest.approx(1.0)
    assert loss_text(2.5, "nats per byte") == "2.50 nats per byte (3.61 bits)"
    assert loss_text(0.125, "") == "0.125"


def test_the_table_ranks_and_says_what_was_not_reached(entries):
    (goal,) = goals(entries)
    table = target_table(goal, names(entries))
    assert all(len(row) == len(table.columns) for row in table.rows)
    cells = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert [row[0] for row in table.rows][-2:] == ["7", "8"]
    assert cells["3"]["To the target"] == "faster than no. 1"
    assert cells["7"]["Reached"] == "2 of 5"
    assert cells["7"]["Time"].startswith("not reached (over 28.")
    assert cells["8"]["Its seeds"] == "over 24.4 s"
    assert cells["8"]["Speedup"] == "below 0.923×"
    assert cells["6"]["Its seeds"] == "10.5 s to over 12.2 s"
    assert cells["6"]["To the target"] == "undecided"
    assert cells["1"]["Energy"] == "1.22 kJ"
    assert cells["8"]["Energy"] == "—"
    assert cells["1"]["To the target"] == "base"
    sentences = goal_sentences(goal, names(entries))
    assert sentences.startswith(
        "lstm H256 L2 D256 · B64 T64 · float32 · stdlib · train to 2.5. Target: 2.50 nats per byte (3.61 bits) on "
        "256 sequences of the last tenth. Base: no. 1"
    )
    assert "Slower: " in sentences
    losses = loss_table(goal, names(entries))
    assert losses.rows[5][2] == "target 3, most steps 2"
    assert "At the end [bits per byte]" in losses.columns


def test_too_few_seeds_are_said_to_be():
    entries = make_entries([make_record(target_cases(3))])
    (goal,) = goals(entries)
    table = target_table(goal, names(entries))
    assert {row[table.columns.index("To the target")] for row in table.rows} == {"base", "undecided: n too small"}
    assert "95 % interval" not in table.columns
    alone = make_entries([make_record([trained(2)])])
    (goal,) = goals(alone)
    table = target_table(goal, names(alone))
    assert table.rows[0][table.columns.index("To the target")] == "—"
    assert "Energy" not in table.columns
    assert "No VALID serial run" in goal_sentences(goal, names(alone))


def test_six_seeds_have_an_interval():
    entries = make_entries([make_record(target_cases(7))])
    (goal,) = goals(entries)
    table = target_table(goal, names(entries))
    cells = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert cells["3"]["95 % interval"] == "6.85 s to 7.64 s"
    assert cells["8"]["95 % interval"] == "from 24.1 s"


def test_what_is_of_another_file_or_of_several_processes_is_said():
    case = trained(2)
    again = replace(case, learning=replace(case.learning, restarts=(3, 8)))
    entries = make_entries([make_record([trained(1)], source="base.h5"), make_record([again], seed=1)])
    (goal,) = goals(entries)
    (one,) = (one for one in goal.ranked if one.entry.number == 2)
    lines = learning_lines(one.entry, lambda _: "", one)
    assert "serial · numpy of another file (base.h5)" in lines[1]
    assert "taken up again from a checkpoint 2 times" in lines
    assert [row[-1] for row in loss_table(goal, names(entries)).rows] == ["0", "2"]


def test_what_a_sample_is_a_mean_of_is_said():
    late = make_case(2)
    late.spec["parallel"] |= {"data_method": "local_sgd", "sync_every": 8}
    entries = make_entries([make_record([make_case(1), trained(1), late, trained(2)])])
    note = " A sample is a mean of no. 3 over 8, of no. 2, 4 over 20 steps: "
    assert leg_note(entries).startswith(note)
    assert leg_note(entries[:1]) == ""
    assert note in timing_table(entries).note


def test_staleness_in_shares(entries):
    table = staleness_table(entries, names(entries))
    assert table.columns[3:] == ["0", "1", "2", "3"]
    assert [row[2:] for row in table.rows] == [["1464", "61 %", "29 %", "8.9 %", "1.0 %"]]
    long = trained(2, staleness=[5, 0, 1, 0, 0, 0, 1, 1, 1, 1])
    shares = staleness_shares(long)
    assert len(shares) == 8
    assert shares[-1] == pytest.approx(0.3)
    assert sum(shares) == pytest.approx(1.0)
    assert staleness_table(entries[:1], names(entries)) is None


def test_lines_of_a_case(entries):
    drawn = []
    lines = learning_lines(entries[6], lambda losses: drawn.append(losses) or "▇▁")
    assert lines[0].startswith(
        "reached 2.50 nats per byte (3.61 bits): 2 of 5 seeds; median not reached: over 28.5 s (24.1 s to over 28.6 s)"
    )
    assert lines[1] == "held-out loss ▇▁ from 5.54; without it 3 seeds ended at 2.94–3.01"
    assert not np.isnan(drawn[0]).any()
    assert "gradients by the updates they were old: 0: 61 %" in staleness_lines(entries[5].case)[0]
    (goal,) = goals(entries)
    beside = {one.entry.number: learning_lines(one.entry, lambda _: "", one)[1] for one in goal.ranked}
    assert beside[2] == (
        "to the target 1.82× (1.63–2.02×), faster than serial · numpy; by its steps 1.00×, by a step's time 1.82×"
    )
    assert beside[8] == "to the target below 0.923×, slower than serial · numpy; by a step's time 1.67×"
    assert beside[1].startswith("held-out loss")
    assert learning_lines(make_entries([make_record([make_case(1)])])[0], lambda _: "") == []


# --- figures ----------------------------------------------------------------------------------------


def colliding(drawing):
    """Words of a figure that lie on one another, or outside it."""
    width, height = drawing.figure.get_size_inches() * drawing.figure.dpi
    return collisions(words(drawing.figure), width, height)


def test_figures_say_what_tables_say(entries):
    with drawing_style():
        drawings = {sheet.name: sheet.draw() for sheet in plan_learning(entries)}
        assert [name for name, drawing in drawings.items() if colliding(drawing)] == []
    assert set(drawings) == {"target_time", "target_steps", "learning", "staleness"}
    times = [text.get_text() for text in drawings["target_time"].figure.axes[0].texts]
    assert times[0] == "6.92 s, 5 of 5"
    assert times[-2:] == ["not reached, 2 of 5", "not reached, 0 of 5"]
    said = f"{names(entries)[7]}: not reached (over 28.5 s), 2 of 5 seeds, slower than no. 1."
    assert said in drawings["target_time"].alt
    axes = drawings["learning"].figure.axes
    assert [ax.get_xlabel() for ax in axes] == [
        "time of training [s]", "optimizer steps", "sent by all ranks [GiB]",
    ]  # fmt: skip
    assert "What sends nothing is not drawn against bytes." in drawings["learning"].caption
    hollow = sum(line.get_markerfacecolor() == "white" for line in axes[1].lines)
    assert hollow == 2  # of which the median did not reach it


def test_methods_have_a_colour_and_ranks_dashes():
    ways = [(method, n) for method in ("local_sgd", "diloco") for n in (2, 4)]
    cases = [trained(n, n_seeds=1, sent_bytes=10, changes={"data_method": method}) for method, n in ways]
    with drawing_style():
        drawing = next(s for s in plan_learning(make_entries([make_record(cases)])) if s.kind == "learning").draw()
    handles, _ = drawing.figure.axes[0].get_legend_handles_labels()
    colors = [h.get_color() for h in handles[:4]]
    assert colors[0] == colors[1] != colors[2] == colors[3]
    assert handles[0].get_linestyle() != handles[1].get_linestyle() == handles[3].get_linestyle()


def test_goals_have_sheets_of_their_own_and_many_cases_several():
    cases = [trained(1, n_seeds=1, target=target) for target in (2.5, 2.6)]
    cases += [trained(2, n_seeds=1, changes={"microbatches": m}) for m in range(1, 22)]
    names_of = [sheet.name for sheet in plan_learning(make_entries([make_record(cases)]))]
    assert names_of[:3] == ["target_time_1", "target_time_2", "target_time_3"]
    assert [name for name in names_of if name.startswith("learning")] == [f"learning_{k}" for k in (1, 2, 3, 4)]


def test_old_gradients_fill_their_bar(entries):
    with drawing_style():
        drawing = draw_staleness("staleness", [entries[5]])
    assert sum(bar.get_width() for bar in drawing.figure.axes[0].patches) == pytest.approx(100.0)
    assert "0 61 %" in drawing.alt


LONG = "file:/scratch/project_465000123/users/a-rather-long-user-name/corpora/enwik9-lowercased-and-deduplicated.txt"


def thirty():
    methods = ("allreduce_bucketed", "local_sgd", "diloco", "hierarchical", "parameter_server_async")
    stale = [9, 5, 3, 1, 1, 1, 1, 1, 1]
    return [
        trained(
            n, n_seeds=1, step_s=0.1 / n, pace=(1 - 0.1 * k) / n**0.2, sent_bytes=n * 10 ** (4 + k), staleness=stale,
            changes={"data_method": method, "workload": LONG},
        )
        for k, method in enumerate(methods)
        for n in (2, 4, 8, 16, 32, 1024)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "cases",
    [
        lambda: [with_curves([curve_of([0.0], [1.0]), curve_of([0.0, 1.0], [5.0, 1.0], seed=1)], target=2.0)],
        lambda: [
            trained(1, step_s=40.0, n_seeds=1),
            trained(2, step_s=2e-6, sent_bytes=5, n_seeds=1),
            trained(4, floor=3.0, n_seeds=2),
            trained(8, floor=3.0, ending="diverged", sent_bytes=3, n_seeds=2),
        ],
        thirty,
    ],
    ids=["there before its first step", "far apart and never", "thirty with long names"],
)
def test_no_words_of_its_figures_collide(cases):
    with drawing_style():
        for sheet in choose(plan_learning(make_entries([make_record(cases())])), 1)[0]:
            assert colliding(sheet.draw()) == [], sheet.name


# --- for other programs -----------------------------------------------------------------------------


def table_of(records, **options):
    text = export(records, "csv", **options).content.decode()
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def test_curves_as_csv_read_back_as_the_same_bits(entries):
    rows = table_of([entries[0].record], curves=True)
    for entry in entries:
        for curve in entry.case.learning.curves:
            mine = [r for r in rows if (r["number"], r["seed"]) == (str(entry.number), str(curve.seed))]
            assert {r["ending"] for r in mine} == {curve.ending}
            for name in COLUMNS:
                read = [float(r[name]) if r[name] else math.nan for r in mine]
                np.testing.assert_array_equal(read, getattr(curve, name))
    with pytest.raises(HpcrnnError, match="no case of these files was trained to a target"):
        export([make_record([make_case(1)])], "csv", curves=True)
    with pytest.raises(HpcrnnError, match="two tables"):
        export([entries[0].record], "csv", curves=True, summary=True)


def test_the_summary_and_json_say_what_the_report_says(entries):
    rows = table_of([make_record([*target_cases(), make_case(1)])], summary=True)
    assert rows[7]["target_seconds"] == ""
    assert float(rows[7]["target_seconds_at_least"]) == outcome_of(entries[7]).time.median_at_least
    assert [row["target_against_base"] for row in rows[:4]] == ["base", "faster", "faster", "faster"]
    assert {value for key, value in rows[8].items() if key.startswith(("target_", "n_seeds"))} == {""}
    plain = json.loads(export([entries[0].record], "json").content, parse_constant=pytest.fail)["cases"]
    (goal,) = goals(entries)
    for one in goal.ranked:
        learned = plain[one.entry.number - 1]["learning"]
        assert learned["n_reached"] == one.outcome.learning.n_reached
        assert learned["base"]["finding"] == one.finding
        median = one.outcome.time.interval.median
        assert learned["to_target"]["time_s"]["median"] == (None if math.isinf(median) else median)
    assert plain[5]["staleness"] == [900, 420, 130, 14]
    assert plain[5]["learning"]["curves"][0]["train_loss"][0] is None
    assert json.loads(export([make_record([make_case(1)])], "json").content)["cases"][0]["learning"] is None


# --- one file beside another ------------------------------------------------------------------------


def test_two_files_are_compared_by_the_time_to_their_target_too():
    a, b = make_record([ends_at([100, 101, 102, 103])]), make_record([ends_at([50, 51, (90.0, "max_time")])], seed=1)
    faster = make_record([ends_at([50, 51, 52, 53])], seed=2)
    never = make_record([ends_at([(200.0, "max_time")] * 6)], seed=3)
    for other, finding, n_too_small in ((b, "undecided", True), (faster, "faster", False), (never, "slower", False)):
        (pair,) = compare([a], [other], across=True).pairs
        found = {metric.name: metric for metric in pair.metrics}
        assert found["time to target"].finding == finding
        assert found["time to target"].n_too_small is n_too_small
        json.dumps(to_json(compare([a], [other], across=True)), allow_nan=False)
    console = Console(width=110, file=io.StringIO())
    show_comparison(compare([a], [never], across=True), console)
    (line,) = [line for line in console.file.getvalue().splitlines() if line.startswith("time to target")]
    said = "time to target, n=4|6 102 s n too small not reached from 200 s — from 1.94× slower"
    assert line.split() == said.split()


def test_files_of_several_targets_are_not_compared_by_them():
    a, b = make_record([ends_at([10] * 4)]), make_record([ends_at([10] * 4, target=1.9)], seed=1)
    (pair,) = compare([a], [b], across=True).pairs
    assert not {"time to target", "steps to target"} & {metric.name for metric in pair.metrics}
