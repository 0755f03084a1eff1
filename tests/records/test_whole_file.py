"""Files that are there whole or not at all: kills, names two programs want, and what is left lying about."""

import os
import random
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hpcrnn.errors import FileError
from hpcrnn.records.hdf5 import read_record
from hpcrnn.records.whole_file import LEFTOVER_AGE_S, NameTakenError, check_output, write_output, write_whole

N_KILLS = 100
"""At random; as many more fall on one line each."""


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def without_links(monkeypatch):
    monkeypatch.setattr(Path, "hardlink_to", lambda self, target: os.link(target, "/proc/none"))


def test_a_kill_at_any_moment_leaves_a_folder_of_whole_files(tmp_path):
    seed = random.randrange(2**32)  # noqa: S311 - new moments in every run; a failure names them
    program = Path(__file__).with_name("killed_writers.py")
    command = [sys.executable, program, tmp_path, str(N_KILLS), str(seed)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    done = [int(line) for line in ended.stdout.split()]
    assert len(done) > N_KILLS, seed
    for k, n_done in enumerate(done):
        folder = tmp_path / str(k)
        results = sorted(folder.glob("*.h5")) if folder.exists() else []
        # At each moment at most one more than those it was done with.
        n_files = (n_done + 1) // 2
        assert n_files <= len(results) <= n_files + 1, (seed, k)
        assert [path.name for path in results] == [f"{n}.h5" for n in range(len(results))], (seed, k)
        for path in results:
            assert len(read_record(path).cases) == 1, (seed, k)
        leftovers = set(names_in(folder)) - {path.name for path in results} if folder.exists() else set()
        assert all(re.fullmatch(r"\.[0-9a-f]{32}\.\d+\.tmp", name) for name in leftovers), (seed, k)
    assert len(set(done)) > 1, "every kill fell on the same record"


def test_only_old_leftovers_are_cleared_away(tmp_path):
    leftover = f".{'0' * 32}.17.tmp"
    kept = [f".{'1' * 32}.18.tmp", ".0.tmp", "b.h5", f".{'2' * 32}.19.tmp.h5"]
    for name in (leftover, *kept):
        (tmp_path / name).write_bytes(b"x")
        if name != kept[0]:  # that one may be another program's, which writes just now
            age = LEFTOVER_AGE_S + 60
            now = (tmp_path / name).stat().st_mtime
            os.utime(tmp_path / name, (now - age, now - age))
    (tmp_path / f".{'3' * 32}.20.tmp").mkdir()
    write_whole(tmp_path / "a.h5", b"new", overwrite=False)
    assert names_in(tmp_path) == sorted([*kept, "a.h5", f".{'3' * 32}.20.tmp"])


@pytest.mark.parametrize("links", [True, False])
def test_a_name_is_taken_by_one_alone(tmp_path, monkeypatch, links):
    if not links:
        without_links(monkeypatch)
    outcomes = []
    ready = threading.Barrier(8)

    def job(k):
        ready.wait(timeout=30)
        try:
            outcomes.append(write_whole(tmp_path / "a", b"%d" % k, overwrite=False))
        except NameTakenError:
            outcomes.append(None)

    threads = [threading.Thread(target=job, args=[k]) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes, key=str) == [*[tmp_path / "a"], *[None] * 7]
    assert names_in(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() in {b"%d" % k for k in range(8)}


@pytest.mark.parametrize("links", [True, False])
def test_beside_a_taken_name(tmp_path, monkeypatch, links):
    if not links:
        without_links(monkeypatch)
    assert write_whole(tmp_path / "a.h5", b"first", overwrite=False, beside=True) == tmp_path / "a.h5"
    other = write_whole(tmp_path / "a.h5", b"second", overwrite=False, beside=True)
    assert re.fullmatch(r"a-[0-9a-f]{12}\.h5", other.name)
    assert (tmp_path / "a.h5").read_bytes() == b"first"
    assert other.read_bytes() == b"second"
    assert len(names_in(tmp_path)) == 2


def test_a_link_whose_answer_was_lost_is_ours(tmp_path, monkeypatch):
    def twice(self, target):
        os.link(target, self)
        os.link(target, self)

    monkeypatch.setattr(Path, "hardlink_to", twice)
    assert write_whole(tmp_path / "a", b"x", overwrite=False) == tmp_path / "a"
    assert names_in(tmp_path) == ["a"]


def test_without_links_a_rename_that_fails_gives_the_name_back(tmp_path, monkeypatch):
    without_links(monkeypatch)

    def fail(self, target):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="Input/output"):
        write_whole(tmp_path / "a", b"x", overwrite=False)
    assert names_in(tmp_path) == []


def test_an_output_never_replaces_an_input(tmp_path):
    source, link = tmp_path / "a.h5", tmp_path / "b.h5"
    source.write_bytes(b"precious")
    link.symlink_to(source)
    (tmp_path / "c.h5").hardlink_to(source)
    for output in (source, link, tmp_path / "c.h5", tmp_path / "." / "a.h5"):
        with pytest.raises(FileError, match="is an input, which is never overwritten"):
            write_output(output, b"x", inputs=[source], overwrite=True)
    assert source.read_bytes() == b"precious"


def test_an_output_replaces_only_what_it_may(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    for name in ("a", "nowhere"):
        with pytest.raises(FileError, match="is there already: choose another name, or give --overwrite"):
            check_output(tmp_path / name, [], overwrite=False)
        write_output(tmp_path / name, b"new", inputs=[tmp_path / "missing"], overwrite=True)
        assert (tmp_path / name).read_bytes() == b"new"


@pytest.mark.parametrize("name", ["file/a", "x" * 300, "a\0b", "/proc/none/a"])
def test_names_that_cannot_be(tmp_path, name):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match="cannot be written: ") as caught:
        write_output(tmp_path / name, b"x", inputs=[], overwrite=False)
    assert str(caught.value).isprintable()
    assert names_in(tmp_path) == ["file"]
