"""report.pdf: the numbers of the other two forms, nothing cut, the same bytes each time."""

from __future__ import annotations

import io
import re

import pypdf
import pytest
from factory import make_case, make_record, many_cases, quick_cases
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcrnn.reporting.analysis.scaling import analyse
from hpcrnn.reporting.report import paper_table
from hpcrnn.reporting.report.html import render_html
from hpcrnn.reporting.report.paper import FOOT, MARGIN, Paper
from hpcrnn.reporting.report.paper_table import fit, put_table
from hpcrnn.reporting.report.pdf import MOST_OF_A_KIND, render_pdf
from hpcrnn.reporting.report.sections import make_page
from hpcrnn.reporting.report.write import write_report
from hpcrnn.reporting.tables.table import Table

MM = 72 / 25.4


def read(data):
    return pypdf.PdfReader(io.BytesIO(data))


def words_of(reader):
    """All text without spaces: a PDF has no words, only places."""
    return re.sub(r"\s", "", "".join(page.extract_text() for page in reader.pages))


def placed(reader):
    """Yield (page, x, y, text), points from the lower left, of every piece of text."""
    for page in reader.pages:
        found = []

        def visit(text, _cm, tm, _font, _size, found=found):
            if text.strip():
                found.append((tm[4], tm[5], text.strip()))

        page.extract_text(visitor_text=visit)
        yield page, found


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    out = tmp_path_factory.mktemp("pdf")
    cases = [*quick_cases(), make_case(4, 64, 0.12, hidden=512, valid=False)]
    write_report([make_record(cases)], out)
    return out


def test_it_holds_the_numbers_of_the_other_forms(quick):
    text = words_of(read((quick / "report.pdf").read_bytes()))
    for part in (
        "NOT ALL VALID",
        "1.89×",
        "1.85–1.92×",
        "408–418 ms",
        "mpirun -n 4 hpcrnn run --hidden 512 --workload stdlib",
        "gradient layer0.R is off by 3.0e-2 (relative), allowed is 2.0e-6; 1 of 3 checks failed",
        "rank-based 95 % interval",
        "503 GiB",
    ):
        assert part.replace(" ", "") in text


def test_its_outline_is_the_page_s_sections_and_it_says_what_it_is(quick):
    reader = read((quick / "report.pdf").read_bytes())
    (root, *entries) = [item.title for item in reader.outline if not isinstance(item, list)]
    html = (quick / "report.html").read_text(encoding="utf-8")
    assert root == "hpcrnn scaling report"
    assert entries == re.findall(r"<h2[^>]*>([^<]+)</h2>", html)
    assert reader.metadata.title == "hpcrnn scaling report"
    assert reader.metadata.subject == "lstm H512 L2 D512 · T64 · float32 · stdlib · train"
    assert reader.trailer["/Root"]["/Lang"] == "en"
    for number, page in enumerate(reader.pages, 1):
        assert f"{number} / {len(reader.pages)}" in page.extract_text()


def test_every_figure_is_there_and_carries_its_words(quick):
    data = (quick / "report.pdf").read_bytes()
    reader = read(data)
    shown = sum(len(page.images) for page in reader.pages)
    alts = re.findall(r'<img [^>]*alt="([^"]+)"', (quick / "report.html").read_text(encoding="utf-8"))
    assert shown == len(alts)
    held = [obj["/Alt"] for obj in map(reader.get_object, range(1, len(reader.xref[0]) + 1)) if _is_figure(obj)]
    assert held == [re.sub("&#39;", "'", alt) for alt in alts]


def _is_figure(obj):
    return isinstance(obj, dict) and "/Alt" in obj


def test_the_same_record_gives_the_same_bytes():
    page = make_page(analyse([make_record(quick_cases())]), [])
    first = render_pdf(page)
    assert render_pdf(page) == first
    assert read(first).metadata.creation_date.isoformat() == "2025-11-20T15:42:11+00:00"


def test_nothing_is_written_outside_the_page():
    reader = read(render_pdf(make_page(analyse([make_record(many_cases())]), [])))
    assert len(reader.pages) > 3
    for page, pieces in placed(reader):
        width, height = float(page.mediabox.width), float(page.mediabox.height)
        body = [piece for piece in pieces if piece[1] > FOOT * MM]
        assert body
        assert all(MARGIN * MM - 1 <= x < width - MARGIN * MM and y <= height - MARGIN * MM for x, y, _ in body)


@pytest.fixture(scope="module")
def paper():
    return Paper("title", "", "")


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 14).flatmap(
        lambda n: st.lists(st.lists(st.text(max_size=60), min_size=n, max_size=n), min_size=1, max_size=6)
    ),
    st.sets(st.integers(0, 13)),
)
def test_whatever_a_table_holds_its_columns_fit_the_paper(paper, cells, words):
    heads, *rows = cells
    table = Table("a table", heads, rows, tuple(words & set(range(len(heads)))))
    columns = fit(paper, table)
    room = (297 if columns.landscape else 210) - 2 * MARGIN
    assert sum(columns.widths) + paper_table.PAD * (len(heads) - 1) <= room + 1e-6
    put_table(paper, table, columns)
    for row in rows:
        for cell, width in zip(row, columns.widths, strict=True):
            lines = paper.wrap(cell, width, columns.size)
            assert "".join("".join(lines).split()) == "".join(paper.clean(cell).split())
            assert all(paper.width(line, columns.size) <= width + 1e-6 for line in lines if len(line) > 1)


def test_a_list_of_numbers_is_broken_and_a_number_is_not():
    numbers = ", ".join(map(str, range(200)))
    table = Table("a table", ["No.", "Time"], [[numbers, "1.89× (1.85–1.92×)"]], ())
    assert [table.may_break(0), table.may_break(1)] == [True, False]
    paper = Paper("title", "", "")
    columns = fit(paper, table)
    assert len(paper.wrap(numbers, columns.widths[0], columns.size)) > 1
    assert len(paper.wrap("1.89× (1.85–1.92×)", columns.widths[1], columns.size)) == 1


def test_the_head_of_a_table_is_on_every_page_and_a_row_is_in_one_piece():
    rows = [[f"row {k}", "words " * 30, str(k)] for k in range(100)]
    paper = Paper("title", "", "")
    table = Table("a table", ["Which", "What", "Number"], rows, (0, 1))
    put_table(paper, table, fit(paper, table))
    pages = [page.extract_text() for page in read(paper.bytes()).pages]
    assert len(pages) > 2
    assert all(text.count("Which") == 1 for text in pages)
    assert sum(text.count("row ") for text in pages) == 100


def test_a_cell_longer_than_a_page_is_continued():
    paper = Paper("title", "", "")
    table = Table("a table", ["Words"], [["word " * 20_000]])
    put_table(paper, table, fit(paper, table))
    assert words_of(read(paper.bytes())).count("word") == 20_000


def test_long_tables_are_cut_and_say_where_the_rest_is(monkeypatch):
    monkeypatch.setattr(paper_table, "MOST_ROWS", 10)
    page = make_page(analyse([make_record(many_cases())]), [])
    text = words_of(read(render_pdf(page)))
    assert "30morerowsstandinreport.htmlandreport.md." in text
    html = render_html(page)
    assert "more rows" not in html
    many = [make_record([make_case(seed=k)], seed=k, source=f"results/{k}.h5") for k in range(MOST_OF_A_KIND + 2)]
    text = words_of(read(render_pdf(make_page(analyse(many), []))))
    assert "2morefilesstandinreport.htmlandreport.md." in text


def test_characters_no_font_has_are_boxes(caplog):
    paper = Paper("title", "流 subject", "not a date")
    paper.text("H流 α → 3×", 9)
    text = read(paper.bytes()).pages[0].extract_text()
    assert "H\u25a1 α → 3×" in text
    assert not caplog.records
