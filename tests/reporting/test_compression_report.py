"""Gradient codecs in words and in a table: what they saved, what they left out, and that no such case goes unmarked."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from factory import make_case, make_record
from rich.console import Console

from hpcrnn.records.compression import Compression
from hpcrnn.reporting.analysis.scaling import analyse
from hpcrnn.reporting.describe import case_name
from hpcrnn.reporting.report.html import render_html
from hpcrnn.reporting.report.markdown import render_markdown
from hpcrnn.reporting.report.sections import make_page
from hpcrnn.reporting.tables.compression import compression_lines, compression_table
from hpcrnn.reporting.terminal.show import show
from hpcrnn.reporting.units import MISSING


def compressed(codec="int8", saving=4.0, errors=(0.009, 0.008, 0.02), **changes):
    case = make_case(4, gradient_error=9e-3, **changes)
    compression = Compression(
        plain_bytes=16_000_000,
        coded_bytes=int(20_000_000 / saving),
        plain_wire_bytes=24_000_000.0,
        coded_wire_bytes=24_000_000 / saving,
        training_step=np.arange(len(errors)),
        error=np.array(errors),
        backlog=np.full(len(errors), 0.011),
        held_back=np.tile([0.01, 0.012, 0.014, 0.03], (len(errors), 1)),
    )
    parallel = case.spec["parallel"] | {"grad_codec": codec}
    return replace(case, spec=case.spec | {"parallel": parallel}, compression=compression)


def shown(cases, *, verbose=False):
    stream = io.StringIO()
    show([make_record(cases)], Console(file=stream, width=100), verbose=verbose)
    return " ".join(stream.getvalue().split())


def test_a_case_says_what_was_saved_and_what_was_left_out():
    text = shown([make_case(1), compressed()])
    for part in (
        "data 4 · int8 · numpy",
        "APPROXIMATE: gradient error 9.0e-3",
        "gradients as int8: a rank sends 5.72 MiB a step at the least, 22.9 MiB without, 4.00× fewer",
        "error of a step 0.0090 [0.0080, 0.020] of the gradient (3 steps looked at)",
        "held back at last 0.011 of it",
    ):
        assert part in text
    assert "gradients as" not in shown([make_case(1), make_case(4)])


def test_a_codec_that_saves_nothing_is_loud():
    _, (_, quiet), _ = compression_lines(compressed())
    _, (text, loud), _ = compression_lines(compressed("topk:0.5", 0.4))
    assert not quiet
    assert loud
    assert "2.50× more" in text


def test_without_a_step_that_was_looked_at_there_is_no_error():
    lines = [text for text, _ in compression_lines(compressed(errors=()))]
    assert len(lines) == 2
    table = compression_table(analyse([make_record([compressed(errors=())])]).included)
    assert table.rows[0][-4:-1] == [MISSING] * 3


def test_codecs_of_one_grid_are_told_apart():
    cases = [make_case(4), compressed(), compressed("topk:0.01", 12.0)]
    assert [case_name(case) for case in cases] == [
        "data 4 · numpy",
        "data 4 · int8 · numpy (approximate)",
        "data 4 · topk:0.01 · numpy (approximate)",
    ]
    assert len({case.id for case in cases}) == 3
    assert len({case.split.series_name for case in cases}) == 3


def test_the_table_has_a_row_for_every_codec_and_is_in_every_report():
    analysis = analyse([make_record([make_case(1), make_case(4), compressed(), compressed("topk:0.01", 12.0)])])
    table = compression_table(analysis.included)
    assert [row[2] for row in table.rows] == ["int8", "topk:0.01"]
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["Sent without"] == "22.9 MiB"
    assert row["Saved"] == "4.00× fewer"
    assert row["First error"] == "9.0e-3"
    assert row["Error of a step"] == "0.0090 [0.0080, 0.020]"
    assert row["Held back"] == "0.013 [0.010, 0.030]"
    page = make_page(analysis, ())
    assert "## Compressed gradients" in render_markdown(page)
    assert 'id="compression"' in render_html(page)


def test_a_report_without_codecs_has_no_such_section():
    analysis = analyse([make_record([make_case(1), make_case(4)])])
    assert compression_table(analysis.included) is None
    assert "Compressed gradients" not in render_markdown(make_page(analysis, ()))


@pytest.mark.parametrize("mode", ["gradient", "train"])
def test_the_loss_is_said_where_there_was_training(mode):
    table = compression_table(analyse([make_record([compressed(mode=mode)])]).included)
    assert ("nats per byte at step 34" in table.rows[0][-1]) == (mode == "train")


def test_the_label_says_the_codec_once():
    text = shown([make_case(1), compressed(), compressed("topk:0.01", 12.0)])
    assert text.count("int8") == 3  # the row, the heading, the line of the codec
