"""Damaged, foreign, newer and hostile files: a line each, exit code 1, and the good files are still worked on."""

import json
import os
import shutil
import socket
import subprocess
import sys
from unittest import mock

import h5py
import numpy as np
import pytest
from damage import (
    USER_BLOCK,
    all_files,
    assert_plain,
    call,
    damaged_bytes,
    damaged_structure,
    good_files,
    other_files,
    seal,
    shown,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcrnn.errors import FileError
from hpcrnn.records.hdf5 import read_file
from hpcrnn.reporting.layers import main as report_layers
from hpcrnn.reporting.study.page import main as report_study

FIXED = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    (folder / "good.h5").write_bytes(good_files()["version_3"])
    return folder


def commands(bad, good, out):
    """Every command that takes several files, the bad one first."""
    return {
        "show": ["show", bad, good],
        "export": ["export", bad, good, "--to", "json"],
        "gate": ["gate", bad, good, "--ref", good, "--tolerance", "1"],
        "write-ref": ["gate", bad, good, "--write-ref", out / "ref.toml"],
        "merge": ["merge", bad, good, "-o", out / "merged.h5"],
        "compare": ["compare", bad, good],
        "verify": ["verify", bad, good],
    }


def error_lines(ended, path):
    return [line for line in ended.err.splitlines() if shown(path) in line]


# --- no result file at all -------------------------------------------------------------------------------------------


def make_none(path):
    pass


def make_folder(path):
    path.mkdir()


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(path.parent, os.O_RDONLY)
        try:
            listener.bind(f"/proc/self/fd/{here}/{path.name}")  # a socket's path may have no more than 107 bytes
        finally:
            os.close(here)


def make_loop(path):
    path.symlink_to(path)


def make_zeros(path):
    path.symlink_to("/dev/zero")


def make_empty(path):
    path.write_bytes(b"")


def make_text(path):
    path.write_text("hello")


def make_png(path):
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))


def make_sparse(path):
    """A terabyte that takes no room, with the beginning of a record."""
    with path.open("wb") as stream:
        stream.write(good_files()["version_3"][:USER_BLOCK])
        stream.truncate(2**40)


def make_other_schema(path):
    path.write_bytes(other_files()["study"])


def make_newer(path):
    path.write_bytes(edited("version_3", lambda file: file.attrs.modify("schema_version", 99)))


def edited(name, change):
    """A good file that another program has changed, and sealed again."""
    path = edited.folder / "edited.h5"
    path.write_bytes(all_files()[name])
    with h5py.File(path, "r+") as file:
        change(file)
    return seal(path.read_bytes()[USER_BLOCK:])


@pytest.fixture(autouse=True)
def _edited_in(folder):
    edited.folder = folder


NOT_RESULTS = {
    make_none: "is not there",
    make_folder: "is not a file",
    make_fifo: "is not a file",
    make_socket: "is not a file",
    make_loop: "cannot be read: ",
    make_zeros: "is not a file",
    make_empty: "is empty",
    make_text: "is not an hpcrnn record",
    make_png: "is not an hpcrnn record",
    make_sparse: "is damaged",
    make_other_schema: "is HDF5, but not an hpcrnn record",
    make_newer: "update hpcrnn",
}


@pytest.mark.parametrize("make", NOT_RESULTS, ids=lambda make: make.__name__)
def test_what_is_no_result_is_one_line_and_the_good_file_is_worked_on(make, folder, tmp_path):
    bad, good = tmp_path / "bad \x1b[2J\n.h5", folder / "good.h5"
    make(bad)
    ended = {name: call(*words) for name, words in commands(bad, good, tmp_path).items()}
    for name, one in ended.items():
        assert_plain(one, name)
        assert one.code == 1, name
        (line,) = error_lines(one, bad)
        assert line.startswith(
            f"hpcrnn: error: {shown(bad)}: {NOT_RESULTS[make]}" if make is not make_newer else "hpcrnn"
        )
        assert NOT_RESULTS[make] in line
    assert "good.h5" in ended["show"].out
    assert len(json.loads(ended["export"].out)["runs"]) == 1
    assert ended["gate"].out.splitlines()[-1] == "NOT PASSED: 1 file cannot be read"
    assert f"{good}: ok" in ended["verify"].out.replace("\n", "")
    assert {path.name for path in tmp_path.iterdir()} <= {bad.name}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read(folder, tmp_path):
    bad = tmp_path / "bad.h5"
    shutil.copy(folder / "good.h5", bad)
    bad.chmod(0)
    ended = call("show", bad, folder / "good.h5")
    assert (ended.code, error_lines(ended, bad)) == (1, [f"hpcrnn: error: {bad}: cannot be read: Permission denied"])


def test_nothing_is_written_where_no_file_is_good(tmp_path):
    bad = [tmp_path / "a.h5", tmp_path / "b.h5"]
    for words in (
        ["show", *bad],
        ["report", *bad, "-o", tmp_path / "report"],
        ["export", *bad, "--to", "csv", "-o", tmp_path / "out.csv"],
        ["export", *bad, "--to", "perfetto"],
        ["gate", *bad, "--write-ref", tmp_path / "r.toml"],
        ["merge", *bad, "-o", tmp_path / "m.h5", "--skip-damaged"],
    ):
        ended = call(*words)
        assert (ended.code, ended.out) == (1, ""), words
        assert [len(error_lines(ended, path)) for path in bad] == [1, 1], words
    assert list(tmp_path.iterdir()) == []


def test_a_report_names_what_it_does_not_hold(folder, tmp_path):
    missing = tmp_path / "gone \x1b[1m.h5"
    with mock.patch("hpcrnn.reporting.report.write.plan_all", return_value=[]):  # figures take seconds
        ended = call("report", folder / "good.h5", missing, "-o", tmp_path / "report")
    assert (ended.code, len(error_lines(ended, missing))) == (1, 1)
    page = (tmp_path / "report" / "report.md").read_text()
    assert "1 file could not be read: see Exclusions." in page
    assert "is not there" in page[page.index("## Exclusions") :]
    assert "\x1b" not in page


def test_a_gate_fails_and_says_so_as_json_too(folder, tmp_path):
    good = folder / "good.h5"
    ended = call(
        "gate", good, tmp_path / "gone", "--ref", good, "--tolerance", "1", "--json", "--json-out", tmp_path / "o"
    )
    outcome = json.loads(ended.out)
    assert (ended.code, outcome["passed"], len(outcome["unreadable"]), outcome["n_failed"]) == (1, False, 1, 0)
    assert json.loads((tmp_path / "o").read_text()) == outcome


# --- hostile files ---------------------------------------------------------------------------------------------------


def add(path, **options):
    def change(file):
        file.create_dataset(path, **options)

    return change


def link(path, target):
    def change(file):
        file[path] = target

    return change


def bend(file):
    layout = h5py.VirtualLayout(shape=(3,), dtype="f8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(3,))
    file.create_virtual_dataset("later", layout)


def nest(file):
    del file["environment/mpi"]
    file["environment/mpi"] = '{"a":' * 100_000 + "1" + "}" * 100_000


def nest_within_bounds(file):
    file["environment"]["later"] = "[" * 70 + "]" * 70


HOSTILE = {
    "never written": (
        add("later", shape=(2**40,), dtype="f8", chunks=(1024,)),
        "says that it holds 87960930",
    ),
    "bomb": (add("later", data=np.zeros(2**24), compression="gzip", chunks=(2**20,)), "says that it holds"),
    "outside": (link("later", h5py.ExternalLink("/etc/passwd", "/")), "/later is a link that leads elsewhere"),
    "soft": (link("later", h5py.SoftLink("/later")), "/later is a link that leads elsewhere"),
    "virtual": (bend, "/later is kept in another file"),
    "external": (
        add("later", shape=(3,), dtype="f8", external=[("/etc/passwd", 0, 24)]),
        "/later is kept in another file",
    ),
    "deep": (nest, "is no JSON text"),
    "nested": (nest_within_bounds, "is JSON nested more than 64 deep"),
}


def hostile(name):
    change, words = HOSTILE[name]

    return edited("version_3", change), words


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_before_a_value_is_read(name, folder, tmp_path):
    content, words = hostile(name)
    (tmp_path / "bad.h5").write_bytes(content)
    with pytest.raises(FileError) as caught:
        read_file(tmp_path / "bad.h5")
    assert words in str(caught.value)


def test_hostile_files_take_no_memory(folder, tmp_path):
    names = list(HOSTILE)
    for name in names:
        (tmp_path / f"{name}.h5").write_bytes(hostile(name)[0])
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "from hpcrnn.cli import main; sys.exit(main(['verify', *sys.argv[1:]]))"
    )
    files = [tmp_path / f"{name}.h5" for name in names]
    ended = subprocess.run(
        [sys.executable, "-c", code, *files, folder / "good.h5"],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == len(names)
    assert "emory" not in ended.stderr
    assert ended.stdout.count(": ok") == 1


# --- any damage ------------------------------------------------------------------------------------------------------


def hold(bad, good, words):
    """Run a command over a bad and a good file, and hold it to what is promised."""
    try:
        read_file(bad)
        readable = True
    except FileError:
        readable = False
    for line in words:
        ended = call(*line)
        assert_plain(ended, line)
        if line[0] == "verify":
            assert ended.code in (0, 1, 2)
            assert len(error_lines(ended, bad)) == (ended.code == 1)
            assert str(good) in ended.out
        elif not readable:
            assert ended.code == 1
            assert len(error_lines(ended, bad)) == 1
            assert line[0] != "show" or str(good) in ended.out.replace("\n", "")


def some_commands(draw, bad, good):
    every = [["show", bad, good], ["export", bad, "--to", "json"], ["export", bad, "--to", "csv", "--summary"]]
    every += [["compare", bad, good, "--across"], ["gate", bad, "--ref", good, "--tolerance", "1"]]
    return [["verify", bad, good], draw(st.sampled_from(every))]


@settings(FIXED, max_examples=8)
@given(data=st.data())
def test_any_bytes(folder, data):
    bad = folder / "bytes.h5"
    name = data.draw(st.sampled_from(sorted(good_files())))
    bad.write_bytes(data.draw(damaged_bytes(name, sealed=data.draw(st.booleans()))))
    hold(bad, folder / "good.h5", some_commands(data.draw, bad, folder / "good.h5"))


@settings(FIXED, max_examples=10)
@given(data=st.data())
def test_any_structure(folder, data):
    bad = folder / "structure.h5"
    bad.write_bytes(data.draw(damaged_structure(data.draw(st.sampled_from(sorted(good_files()))))))
    hold(bad, folder / "good.h5", some_commands(data.draw, bad, folder / "good.h5"))


@settings(FIXED, max_examples=12)
@given(data=st.data())
def test_studies_and_layer_benchmarks(folder, data):
    bad = folder / "other.h5"
    name = data.draw(st.sampled_from(sorted(other_files())))
    bad.write_bytes(data.draw(damaged_structure(name)))
    readable = call(bad, "-o", folder / name, command=report_layers if name == "layers" else report_study)
    assert_plain(readable)
    assert readable.code in (0, 1)
    assert len(readable.err.splitlines()) == readable.code
