from __future__ import annotations

import ast
import base64
import hashlib
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from factory import make_case, make_record, many_cases, quick_cases

from hpcrnn.errors import FileError
from hpcrnn.reporting.figures.canvas import log_ticks
from hpcrnn.reporting.report.sections import resource
from hpcrnn.reporting.report.write import write_report

VOID = {"meta", "img", "br", "link", "hr", "input"}
HOSTILE = "<script>alert('$x_1$')</script>|`*\"&amp;\n\x1b[2J"


class Page(HTMLParser):
    """Reads a page and keeps what the tests ask for; fails on tags that do not nest."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def of(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


def check_page(path):
    """Check what holds for every page, and return it."""
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.of("html") == [{"lang": "en"}]
    for _, attrs in page.tags:
        assert not attrs.get("src") or attrs["src"].startswith("data:image/svg+xml;base64,")
        assert "on" not in {key[:2] for key in attrs}
    assert page.of("script") == [{}]
    assert page.of("link") == [{"rel": "icon", "href": "data:,"}]
    assert not re.search(r"@import|url\(|https?://", re.sub(r"<(code|dd|td)[^>]*>[^<]*", "", text))
    (policy,) = [meta["content"] for meta in page.of("meta") if "http-equiv" in meta]
    allowed = base64.b64encode(hashlib.sha256(resource("report.js").encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"
    assert all(not a["href"].startswith(("http", "//", "javascript")) for a in page.of("a"))
    assert all(len(image["alt"]) > 20 for image in page.of("img"))
    assert all(th.get("scope") in ("col", "row") for th in page.of("th"))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for anchor in page.of("a"):
        if anchor["href"].startswith("#"):
            assert anchor["href"][1:] in ids
        else:
            assert (path.parent / anchor["href"]).is_file()
    return page


def check_files(paths, out):
    assert [p.name for p in paths[:3]] == ["report.html", "report.md", "report.pdf"]
    assert all(p.is_file() and p.stat().st_size > 0 for p in paths)
    assert {p.name for p in out.iterdir()} == {p.name for p in paths}
    for name in re.findall(r"\]\(([^)]+)\)", (out / "report.md").read_text(encoding="utf-8")):
        assert (out / name).is_file()
    for p in paths:
        if p.suffix == ".png":
            assert p.read_bytes().startswith(b"\x89PNG")
        if p.suffix == ".pdf":
            assert p.read_bytes().startswith(b"%PDF")


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The quick set, an INVALID case and torch peers: every section in one report."""
    out = tmp_path_factory.mktemp("quick")
    cases = [
        *quick_cases(),
        make_case(1, 64, 0.52, backend="torch", hidden=512),
        make_case(4, 64, 0.12, hidden=512, valid=False),
        make_case(1, 16, 0.11, hidden=512),
        make_case(1, 16, 0.10, hidden=512, backend="torch"),
    ]
    return out, write_report([make_record(cases)], out)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """One case, out of a record where every text is hostile."""
    out = tmp_path_factory.mktemp("one") / "made" / "on the way"
    case = make_case(1, workload=f"file:/data/{HOSTILE}", n=3)
    case = replace(case, stop_reason=HOSTILE, kernel=HOSTILE, verdict=replace(case.verdict, problem=HOSTILE))
    record = make_record(
        [case],
        argv=("hpcrnn", HOSTILE, "```"),
        source=f"results/{HOSTILE}.h5",
        environment={
            "hosts": [{"hostname": HOSTILE, "cpu_model": HOSTILE}],
            "mpi": {HOSTILE: HOSTILE},
            HOSTILE: HOSTILE,
        },
    )
    return out, write_report([record], out)


def test_the_quick_report_is_whole(quick):
    out, paths = quick
    check_files(paths, out)
    page = check_page(out / "report.html")
    stems = {p.stem for p in paths}
    assert {"strong_time", "strong_speedup", "strong_efficiency", "weak_time", "weak_efficiency"} <= stems
    assert {"steps", "phases", "loss_nats"} <= stems
    assert len(page.of("img")) == len(stems) - 1
    titles = "Strong scaling", "Weak scaling", "numpy beside torch", "Loss", "All cases", "System", "Method"
    assert all(title in page.text for title in titles)


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_both_forms_hold_the_same_numbers(quick, name):
    out, _ = quick
    text = (out / name).read_text(encoding="utf-8")
    for part in (
        "1.89×",
        "1.85–1.92×",
        "408–418 ms",
        "serial · numpy, 1 rank, 412 ms",
        "gradient layer0.R is off by 3.0e-2 (relative), allowed is 2.0e-6; 1 of 3 checks failed",
        "1 of 7 cases is excluded from every plot and comparison.",
        "mpirun -n 4 hpcrnn run --hidden 512 --workload stdlib",
        "Geometric mean over 2 problems (serial, 1 rank · MKL packed sgemm): ",
        "503 GiB",
        "rank-based 95 % interval",
    ):
        assert part in text


def test_an_invalid_case_is_in_no_figure(quick):
    out, _ = quick
    alts = [image["alt"] for image in check_page(out / "report.html").of("img")]
    assert not any("4 ranks" in alt or "data 4" in alt for alt in alts)
    assert any("data · numpy: 1.00× on 1 rank, 1.89× on 2 ranks" in alt for alt in alts)


def test_no_p99_under_a_hundred_samples(quick):
    out, _ = quick
    row = next(line for line in (out / "report.md").read_text().splitlines() if "32 + 2" in line)
    assert row.split(" | ")[6] == "n too small"
    assert row.split(" | ")[5] == "421 ms"


def test_figures_are_self_contained(quick):
    out, _ = quick
    for image in check_page(out / "report.html").of("img"):
        svg = base64.b64decode(image["src"].partition(",")[2]).decode()
        assert "<text" not in svg  # glyphs are paths: no font of the reader's machine
        assert not re.search(r'href="(?!#|data:)', svg)


def test_one_case_leaves_the_scaling_out_and_says_so(one):
    out, paths = one
    check_files(paths, out)
    page = check_page(out / "report.html")
    assert {p.stem for p in paths} == {"report", "steps", "phases", "loss_nats"}
    assert "No strong scaling: every case ran on one rank." in page.text
    assert "No weak scaling: every case ran on one rank." in page.text
    assert "n too small" in page.text
    assert "The one case is VALID" in page.text


def test_hostile_text_is_text(one):
    out, _ = one
    page = check_page(out / "report.html")
    assert "<script>alert('$x_1$')</script>" in page.text
    markdown = (out / "report.md").read_text(encoding="utf-8")
    outside_code = re.sub(r"^(`{3,})\n.*?^\1$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    assert "<script" not in outside_code
    assert r"\`\*" in outside_code
    assert "\x1b" not in markdown
    # A pipe in a cell must not make a column.
    tables = re.findall(r"(?:^\|.*\n)+", outside_code, flags=re.MULTILINE)
    assert len(tables) >= 4
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


@pytest.mark.thorough
def test_forty_cases(tmp_path, monkeypatch):
    monkeypatch.setattr("hpcrnn.reporting.figures.canvas.PNG_DPI", 20)
    paths = write_report([make_record(many_cases())], tmp_path, of_a_kind=5)
    check_files(paths, tmp_path)
    page = check_page(tmp_path / "report.html")
    stems = {p.stem for p in paths}
    # Five curves share a sheet; rows and learning curves go on several.
    assert {"strong_time", "steps_1", "steps_2", "phases_1", "phases_2", "loss_nats_5"} <= stems
    assert "loss_nats_6" not in stems
    assert "All 40 cases are VALID" in page.text


def test_a_second_report_replaces_the_first_and_nothing_can_be_reported(tmp_path):
    bad = make_record([make_case(1, valid=False)])
    (tmp_path / "report.html").write_text("old")
    check_files(write_report([bad], tmp_path), tmp_path)
    assert "No case may be plotted" in check_page(tmp_path / "report.html").text
    check_files(write_report([make_record([])], tmp_path), tmp_path)
    assert "There is no case to report." in check_page(tmp_path / "report.html").text


def test_times_that_are_all_the_same_still_draw(tmp_path):
    cases = [make_case(n, samples=[0.25] * 8) for n in (1, 2)]
    cases[1].loss[:] = np.nan
    paths = write_report([make_record(cases)], tmp_path)
    check_files(paths, tmp_path)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="the report cannot be written there") as caught:
        write_report([make_record([make_case()])], tmp_path / "file")
    assert "\n" not in str(caught.value)
    with pytest.raises(FileError):
        write_report([make_record([make_case()])], tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.9, 130, [1, 2, 4, 8, 16, 32, 64, 128]),
        (190, 430, [200, 300, 400]),
        (0.012, 600, [0.1, 1, 10, 100]),
        (0.9, 2.2, [1, 1.25, 1.5, 1.75, 2]),
    ],
)
def test_log_ticks_are_round(low, high, ticks):
    assert log_ticks(low, high) == pytest.approx(ticks)


def test_importing_the_package_is_cheap():
    code = (
        "import sys; import hpcrnn.reporting, hpcrnn.reporting.report.write, hpcrnn.reporting.terminal.show; "
        "print([m for m in ('matplotlib', 'jinja2', 'rich', 'h5py', 'mpi4py') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(answer.stdout) == []
