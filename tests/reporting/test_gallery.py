"""The gallery: its table, the repository and what the reports draw agree; what no longer does is named."""

from __future__ import annotations

import re
import shutil
import struct
from pathlib import Path

import pytest
from study_factory import make_study

from hpcrnn.errors import FileError
from hpcrnn.records.study import StudyRecord, write_study_record
from hpcrnn.reporting import gallery
from hpcrnn.reporting.gallery import GALLERY, SLACK_PX, Report, Room, check, make, make_room, png_size, strangers

ROOT = Path(__file__).parents[2]
NAMES = {f"{room.name}/{name}" for room in GALLERY for name in room.files}
SMALL = Room("study", Report.STUDY, ("study.md", "time_tolerance.png"))
PICTURE = "study/time_tolerance.png"
TRACED = "lstm-H256-B64-n2-b115b152.h5.gz"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    whole = make_study()
    record = StudyRecord(whole.created_utc, whole.environment, (whole.table("tolerance"),))
    write_study_record(record, folder / "study/time_study.h5")
    return folder


@pytest.fixture(scope="module")
def made(results, tmp_path_factory):
    plots = tmp_path_factory.mktemp("plots")
    assert make([SMALL], results, plots, lambda line: None) == 0
    return plots


@pytest.fixture
def drawn(made, tmp_path):
    """A gallery of its own; the report is drawn again whenever it is made or checked."""
    return shutil.copytree(made, tmp_path / "plots")


@pytest.fixture
def plots(made, drawn, monkeypatch):
    """A gallery of its own; the report gives what was drawn once."""

    def copy(room, source, folder):
        for name in SMALL.kept:
            yield Path(shutil.copy(made / "study" / name, folder))

    monkeypatch.setitem(gallery._MAKERS, Report.STUDY, copy)
    return drawn


def wrong(results, plots, rooms=(SMALL,)):
    """Check, and return the lines that complain."""
    lines = []
    n_faults = check(rooms, results, plots, lines.append)
    complaints = [re.sub(r"\s+", " ", line) for line in lines if "WRONG" in line]
    assert len(complaints) == n_faults
    return complaints


def test_the_table_names_what_the_repository_keeps_and_nothing_else():
    kept = {path.relative_to(ROOT / gallery.PLOTS).as_posix() for path in (ROOT / gallery.PLOTS).rglob("*.*")}
    assert kept == NAMES
    assert strangers(GALLERY, ROOT / gallery.PLOTS) == []


def test_every_room_has_results_and_every_timeline_its_file():
    for room in GALLERY:
        folder = ROOT / gallery.RESULTS / room.name
        assert list(folder.glob(room.report.value)), room.name
        assert all((folder / file).is_file() for file in (room.timelines or {}).values()), room.name


def test_no_file_is_named_twice():
    assert all(len(set(room.files)) == len(room.files) for room in GALLERY)
    assert len({room.name for room in GALLERY}) == len(GALLERY)


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda p: p.name)
def test_what_a_document_shows_is_in_the_gallery(page):
    shown = re.findall(r"plots/reference/([\w/]+\.\w+)", page.read_text(encoding="utf-8"))
    assert set(shown) <= NAMES


def test_kept_figures_are_whole_pictures():
    for name in sorted(n for n in NAMES if n.endswith(".png")):
        path = ROOT / gallery.PLOTS / name
        assert min(png_size(path)) > 300, name
        assert path.read_bytes().endswith(b"IEND\xaeB`\x82"), name


def test_what_was_made_passes_its_check(results, made):
    assert wrong(results, made) == []


def test_made_again_the_bytes_are_the_same_and_the_files_left_alone(results, drawn):
    before = {path: (path.read_bytes(), path.stat().st_ino) for path in sorted(drawn.rglob("*.*"))}
    lines = []
    assert make([SMALL], results, drawn, lines.append) == 0
    assert {path: (path.read_bytes(), path.stat().st_ino) for path in sorted(drawn.rglob("*.*"))} == before
    assert [line.split()[0] for line in lines] == ["study/study.md", PICTURE]
    assert all("as it was" in line for line in lines)


def test_make_says_what_is_new_and_what_changed(results, plots):
    (plots / PICTURE).write_bytes(b"old")
    (plots / "study/study.md").unlink()
    lines = []
    assert make([SMALL], results, plots, lines.append) == 0
    assert [line.split()[1] for line in lines] == ["new", "changed"]
    assert wrong(results, plots) == []
    assert not list(plots.rglob(".*"))  # no temporary folder is left


def test_a_check_writes_nothing(results, plots, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (plots / PICTURE).unlink()
    before = sorted(tmp_path.rglob("*"))
    wrong(results, plots)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_figure_that_is_not_kept_is_named(results, plots):
    (plots / PICTURE).unlink()
    assert wrong(results, plots) == [f"{PICTURE} WRONG is in the table, and not in the gallery"]


def test_without_a_gallery_all_is_missing(results, tmp_path):
    assert len(wrong(results, tmp_path / "none")) == len(SMALL.files)


@pytest.mark.parametrize("name", ["study/time_old.png", "elsewhere/study.md", "loose.png", ".gallery-x/study/study.md"])
def test_a_file_that_is_not_in_the_table_is_named(results, plots, name):
    (plots / name).parent.mkdir(parents=True, exist_ok=True)
    (plots / name).write_bytes(b"")
    (complaint,) = wrong(results, plots)
    assert complaint.startswith(f"{name} WRONG is in the gallery, and not in the table")


@pytest.mark.parametrize("side", [0, 1])
def test_a_figure_of_another_size_is_named(results, plots, side):
    path = plots / PICTURE
    content, size = path.read_bytes(), list(png_size(path))

    def resize(by):
        new = [n + by * (k == side) for k, n in enumerate(size)]
        path.write_bytes(content[:16] + struct.pack(">II", *new) + content[24:])
        return new

    resize(SLACK_PX)  # another matplotlib
    assert wrong(results, plots) == []
    for by in (SLACK_PX + 1, -SLACK_PX - 1):
        width, height = resize(by)
        now = f"{size[0]} × {size[1]} px"
        assert wrong(results, plots) == [f"{PICTURE} WRONG is of {width} × {height} px, and made now of {now}"]


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"no picture, and longer than the head of one"])
def test_a_figure_that_is_no_picture_is_named(results, plots, content):
    (plots / PICTURE).write_bytes(content)
    assert wrong(results, plots) == [f"{PICTURE} WRONG is not a PNG"]


def test_a_page_with_another_word_is_named(results, plots):
    page = plots / "study/study.md"
    page.write_text(page.read_text(encoding="utf-8") + "more\n", encoding="utf-8")
    assert wrong(results, plots) == ["study/study.md WRONG says something else than what is made now"]


def test_a_figure_the_report_no_longer_draws_is_named(results, plots):
    room = Room("study", Report.STUDY, (*SMALL.kept, "time_gone.png"))
    (plots / "study/time_gone.png").write_bytes((plots / PICTURE).read_bytes())
    assert wrong(results, plots, [room]) == [
        "study/time_gone.png WRONG cannot be made: the report no longer has it",
    ]


@pytest.mark.parametrize("act", [make, check])
def test_a_drawing_that_fails_is_named_with_its_place_and_the_other_rooms_are_made(results, drawn, monkeypatch, act):
    def fail(table):
        message = "no\nsuch\x1bcolour"
        raise KeyError(message)

    monkeypatch.setattr("hpcrnn.reporting.study.page.draw_tolerance", fail)
    other = Room("study_too", Report.STUDY, ("study.md",))
    before = (drawn / PICTURE).read_bytes()
    lines = []
    assert act([SMALL, other], results, drawn, lines.append) >= len(SMALL.files)
    assert re.search(r"cannot be made: KeyError: .*\(test_gallery.py:\d+\)$", lines[0])
    assert lines[-1].startswith("study_too/study.md")
    assert all(line.isprintable() for line in lines)
    assert (drawn / PICTURE).read_bytes() == before


@pytest.mark.parametrize("damage", ["missing", "empty", "text"])
def test_results_that_cannot_be_read_are_named(drawn, tmp_path, damage):
    folder = tmp_path / "results/study"
    folder.mkdir(parents=True)
    if damage != "missing":
        (folder / "time_study.h5").write_text("" if damage == "empty" else "a text", encoding="utf-8")
    complaints = wrong(folder.parent, drawn)
    assert len(complaints) == len(SMALL.files)
    assert all("cannot be made" in c and "time_study.h5" in c for c in complaints)


def test_too_large_a_gallery_is_named(results, plots, monkeypatch):
    monkeypatch.setattr(gallery, "MOST_BYTES", 1000)
    (complaint,) = wrong(results, plots)
    assert re.fullmatch(r"WRONG: results and gallery take .* KiB; allowed are 1000 B", complaint)


def test_a_timeline_is_found_by_its_file(tmp_path):
    """Whatever is measured beside it: the report's own number of a timeline would be another."""
    source = ROOT / gallery.RESULTS / "strategies"
    (tmp_path / "strategies").mkdir()
    shutil.copy(source / TRACED, tmp_path / "strategies")
    (tmp_path / "out").mkdir()
    kept = {"timeline_gone.png": "gone.h5"}
    room = Room("strategies", Report.SCALING, (), timelines={"timeline_1f1b.png": TRACED, **kept})
    first, second = make_room(room, tmp_path, tmp_path / "out")
    assert first.path is not None
    assert png_size(first.path) == png_size(ROOT / gallery.PLOTS / "strategies/timeline_1f1b.png")
    assert second.path is None
    assert second.fault == "cannot be made: gone.h5: 0 cases with a timeline on several ranks, and one is needed"


def test_the_command(results, plots, monkeypatch, capsys):
    monkeypatch.setattr(gallery, "GALLERY", (SMALL,))
    where = ["--results", str(results), "-o", str(plots)]
    assert gallery.main(["--check", *where]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 files of the gallery, none WRONG"
    assert gallery.main(where) == 0
    assert gallery.main(["--check", "--results", str(results), "-o", str(results / "none")]) == 1
    assert "2 WRONG" in capsys.readouterr().out


def test_the_command_where_there_are_no_results(tmp_path, capsys):
    assert gallery.main(["--results", str(tmp_path / "none"), "-o", str(tmp_path / "plots")]) == 1
    assert "is not there: run this where it is, or give --results" in capsys.readouterr().err
    assert not (tmp_path / "plots").exists()


def test_a_gallery_that_cannot_be_written_is_a_plain_error(results, tmp_path):
    (tmp_path / "plots").write_text("a file", encoding="utf-8")
    with pytest.raises(FileError, match="the gallery cannot be written there"):
        make([SMALL], results, tmp_path / "plots", lambda line: None)
