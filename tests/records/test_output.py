"""The output of a measurement: looked at before, kept beside its name, put in its place, or in another."""

import errno
import os
import re
import tempfile
import threading
from pathlib import Path

import pytest

from hpcrnn.errors import FileError, SpecError
from hpcrnn.records.output import Output, check_writable, partial_name

KEY = "--out"
FULL = OSError(errno.ENOSPC, "No space left on device")


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def output(path, *, overwrite=False):
    return Output(path, overwrite=overwrite, key=KEY)


def without_links(monkeypatch):
    monkeypatch.setattr(Path, "hardlink_to", lambda self, target: os.link(target, "/proc/none"))


@pytest.fixture
def full(monkeypatch):
    """Folders in which no file can be made for lack of space."""
    folders, right = [], Path.open

    def open_(self, mode="r", *more, **options):
        if "x" in mode and self.parent in folders:
            raise FULL
        return right(self, mode, *more, **options)

    monkeypatch.setattr(Path, "open", open_)
    return folders


# --- kept before the end ----------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", [False, True])
def test_states_lie_beside_the_name_until_the_end(tmp_path, overwrite):
    path = tmp_path / "a.h5"
    if overwrite:
        path.write_bytes(b"older, complete")
    growing = output(path, overwrite=overwrite)
    for state in (b"one", b"one, two"):
        assert growing.keep(state) == tmp_path / "a.h5.partial"
        assert growing.kept.read_bytes() == state
        assert not overwrite or path.read_bytes() == b"older, complete"
    growing.finish(b"all")
    assert path.read_bytes() == b"all"
    assert names_in(tmp_path) == ["a.h5"]


@pytest.mark.parametrize("links", [True, False])
def test_two_jobs_keep_their_states_apart(tmp_path, monkeypatch, links):
    if not links:
        without_links(monkeypatch)
    jobs = [output(tmp_path / "a.h5") for _ in range(3)]
    for state in (b"first", b"second"):
        for k, job in enumerate(jobs):
            job.keep(state + b" of %d" % k)
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"second of %d" % k for k in range(3)]
    assert jobs[0].kept.name == "a.h5.partial"
    assert all(re.fullmatch(r"a-[0-9a-f]{12}\.h5\.partial", job.kept.name) for job in jobs[1:])
    jobs[1].finish(b"all of 1")
    assert len(names_in(tmp_path)) == 3  # its own state is gone, no other


def test_what_another_has_put_under_the_name_is_left_alone(tmp_path):
    ours, theirs = output(tmp_path / "a.h5"), output(tmp_path / "a.h5")
    ours.keep(b"ours").unlink()
    theirs.keep(b"theirs")
    assert theirs.kept == tmp_path / "a.h5.partial"
    ours.keep(b"ours, more")
    assert theirs.kept.read_bytes() == b"theirs"
    assert ours.kept.read_bytes() == b"ours, more"
    theirs.kept.rename(tmp_path / "elsewhere")
    (tmp_path / "a.h5.partial").write_bytes(b"a third's")
    theirs.finish(b"all")
    assert (tmp_path / "a.h5.partial").read_bytes() == b"a third's"


def test_a_state_that_cannot_be_kept_leaves_the_one_before(tmp_path, full):
    growing = output(tmp_path / "a.h5")
    growing.keep(b"one")
    full.append(tmp_path)
    with pytest.raises(FileError, match=r"a\.h5\.partial: cannot be written: No space left on device$"):
        growing.keep(b"one, two")
    assert growing.kept.read_bytes() == b"one"
    full.clear()
    assert growing.keep(b"one, two").read_bytes() == b"one, two"
    assert names_in(tmp_path) == ["a.h5.partial"]


@pytest.mark.parametrize("name", ["a", "x" * 250 + ".h5", "é" * 125 + ".h5", ".h5", "a.partial", "🌳" * 63])
def test_any_name_has_room_for_its_states(tmp_path, name):
    jobs = [output(tmp_path / name) for _ in range(2)]
    for job in jobs:
        assert job.keep(b"x").name.endswith(".partial")
        job.keep(b"y")
    jobs[0].finish(b"all")
    with pytest.raises(FileError, match="another run has taken this name"):
        jobs[1].finish(b"all")
    assert len(names_in(tmp_path)) == 2
    assert not list(tmp_path.glob("*.h5.partial"))


def test_no_pattern_for_results_matches_a_state():
    assert not partial_name(Path("a.h5")).match("*.h5")


# --- the end ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", [True, False])
def test_no_job_loses_its_results(tmp_path, monkeypatch, links):
    if not links:
        without_links(monkeypatch)
    complaints = []

    def job(k):
        one = output(tmp_path / "a.h5")
        one.keep(b"some")
        try:
            one.finish(b"%d" % k)
        except FileError as error:
            complaints.append((k, str(error)))

    threads = [threading.Thread(target=job, args=[k]) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"%d" % k for k in range(6)]
    assert len(complaints) == 5
    for k, complaint in complaints:
        found = re.search(r"another run has taken this name; the results of this one are in (\S+)$", complaint)
        assert Path(found[1]).read_bytes() == b"%d" % k


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The folder of the output, the current one, and that for temporary files."""
    folders = [tmp_path / name for name in ("out", "current", "temporary")]
    for folder in folders:
        folder.mkdir()
    monkeypatch.chdir(folders[1])
    monkeypatch.setattr(tempfile, "tempdir", str(folders[2]))
    return folders


def saved(error):
    return Path(re.search(r"the results are in (\S+) on \S+$", str(error.value))[1])


@pytest.mark.parametrize("n_full", [1, 2])
def test_a_full_disk_at_the_end_sends_the_results_elsewhere(places, full, n_full):
    path = places[0] / "a.h5"
    path.write_bytes(b"older, complete")
    growing = output(path, overwrite=True)
    growing.keep(b"some")
    full += places[:n_full]
    with pytest.raises(FileError, match=r"out/a\.h5: cannot be written: No space left on device; ") as error:
        growing.finish(b"all")
    assert saved(error).parent == places[n_full]
    assert saved(error).read_bytes() == b"all"
    assert path.read_bytes() == b"older, complete"
    assert growing.kept.read_bytes() == b"some"
    assert error.value.exit_code == 1
    assert str(error.value).isprintable()


def test_where_no_place_is_left_the_last_state_is_named(places, full):
    growing = output(places[0] / "a.h5")
    kept = growing.keep(b"some")
    full += places
    with pytest.raises(
        FileError, match=rf"nor can any other place; what was measured .* is in {re.escape(str(kept))}$"
    ):
        growing.finish(b"all")
    assert kept.read_bytes() == b"some"
    with pytest.raises(FileError, match=r"nor can any other place: the results are lost$"):
        output(places[0] / "b.h5").finish(b"all")


def test_a_folder_that_became_a_file(places):
    growing = output(places[0] / "a\n.h5")
    places[0].rmdir()
    places[0].write_bytes(b"")
    with pytest.raises(FileError, match="cannot be written: Not a directory") as error:
        growing.finish(b"all")
    assert saved(error).parent == places[1]
    assert saved(error).read_bytes() == b"all"


def test_a_folder_that_went_away_is_made_again(places):
    growing = output(places[0] / "a.h5")
    growing.keep(b"some").unlink()
    places[0].rmdir()
    growing.keep(b"more")
    growing.finish(b"all")
    assert names_in(places[0]) == ["a.h5"]


def test_a_current_folder_that_is_gone(places, full):
    full.append(places[0])
    places[1].rmdir()
    with pytest.raises(FileError) as error:
        output(places[0] / "a.h5").finish(b"all")
    assert saved(error).parent == places[2]


def test_a_name_that_is_the_cause_is_changed(places):
    growing = output(places[0] / "a.h5", overwrite=True)
    (places[0] / "a.h5").mkdir()
    with pytest.raises(FileError, match="cannot be written: Is a directory") as error:
        growing.finish(b"all")
    assert saved(error).parent == places[0]
    assert saved(error).read_bytes() == b"all"


def test_a_rename_that_fails_as_over_a_network(places, monkeypatch):
    right = Path.replace

    def replace(self, target):
        if target.parent == places[0]:
            raise OSError(errno.EIO, "Input/output error")
        return right(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    without_links(monkeypatch)
    with pytest.raises(FileError, match="cannot be written: Input/output error") as error:
        output(places[0] / "a.h5").finish(b"all")
    assert saved(error).read_bytes() == b"all"
    assert names_in(places[0]) == []


# --- before anything is measured --------------------------------------------------------------------


def test_a_free_name_in_a_directory_to_be_made(tmp_path):
    check_writable(tmp_path / "new" / "deep" / "a.h5", overwrite=False, key=KEY)
    assert names_in(tmp_path / "new" / "deep") == []


def test_a_taken_name(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"precious")
    with pytest.raises(SpecError, match=r"--out = .*: allowed is a name that is not taken"):
        check_writable(tmp_path / "a.h5", overwrite=False, key=KEY)
    check_writable(tmp_path / "a.h5", overwrite=True, key=KEY)
    assert (tmp_path / "a.h5").read_bytes() == b"precious"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "this is a directory"),
        ("/dev/null", "this is a device, a pipe or a socket"),
        ("/proc/none/a.h5", "a file that can be written"),
        ("/proc/a.h5", "a file that can be written"),
        ("file/a.h5", "Not a directory"),
        ("x" * 300, "File name too long"),
        ("a\0b", "null"),
    ],
)
def test_names_that_cannot_be(tmp_path, name, reason, overwrite):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SpecError, match=reason) as caught:
        check_writable(tmp_path / name, overwrite, KEY)
    assert str(caught.value).isprintable()
    assert names_in(tmp_path) == ["file"]


def test_a_dangling_link_is_taken_but_may_be_replaced(tmp_path):
    (tmp_path / "a.h5").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SpecError, match="not taken"):
        check_writable(tmp_path / "a.h5", overwrite=False, key=KEY)
    check_writable(tmp_path / "a.h5", overwrite=True, key=KEY)
