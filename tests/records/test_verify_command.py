"""``hpcrnn verify``: a line a file or a line a violation, exit codes, JSON, and files that cannot be read."""

import json
import re
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from sound_samples import edit_file, make_case, sound_cases, sound_record

from hpcrnn.cli import main
from hpcrnn.records.hdf5 import write_merged, write_record
from hpcrnn.records.invariants import CASE_CHECKS, MERGED_CHECKS, RUN_CHECKS

N_CHECKS = 1 + 2 * len(CASE_CHECKS) + len(RUN_CHECKS)
"""Made of a file of two cases."""

CASES = sound_cases()[:2]
STORED = Path(__file__).parent / "stored"


@pytest.fixture
def sound(tmp_path):
    write_record(sound_record(*CASES), tmp_path / "sound.h5")
    return tmp_path / "sound.h5"


@pytest.fixture
def wrong(tmp_path):
    path = tmp_path / "wrong.h5"
    write_record(sound_record(*CASES), path)

    def change(file):
        file["cases"][CASES[1].id]["time"][3, 1, 2] += 1.0
        file["cases"][CASES[0].id]["loss"][0] = float("nan")

    edit_file(path, change)
    return path


@pytest.fixture
def unreadable(tmp_path, sound):
    """One of each kind, by kind, and what is said of it."""
    paths = {kind: tmp_path / f"{kind}.h5" for kind in ("missing", "empty", "text", "foreign", "truncated", "newer")}
    paths["empty"].touch()
    paths["text"].write_text("hello\n" * 100)
    with h5py.File(paths["foreign"], "w") as file:
        file["x"] = 1
    paths["truncated"].write_bytes(sound.read_bytes()[:-100])
    paths["newer"].write_bytes(sound.read_bytes())
    edit_file(paths["newer"], lambda file: file.attrs.__setitem__("schema_version", 4))
    paths["flipped"] = tmp_path / "flipped.h5"
    content = bytearray(sound.read_bytes())
    content[5000] ^= 1
    paths["flipped"].write_bytes(content)
    paths["without a part"] = tmp_path / "part.h5"
    paths["without a part"].write_bytes(sound.read_bytes())
    edit_file(paths["without a part"], lambda file: file["cases"][CASES[0].id].pop("loss"))
    paths["folder"] = tmp_path
    return paths


SAID = {
    "missing": "is not there",
    "empty": "is empty",
    "text": "is not an hpcrnn record",
    "foreign": "is HDF5, but not an hpcrnn record",
    "truncated": "is truncated",
    "newer": "has schema version 4, and this hpcrnn reads up to 3: update hpcrnn",
    "flipped": "is damaged, or was edited: its checksum does not match",
    "without a part": "has no loss",
    "folder": "is not a file",
}


def verify(capsys, *arguments):
    code = main(["verify", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


def test_a_sound_file_is_a_line(capsys, sound):
    assert verify(capsys, sound) == (0, [f"{sound}: ok (2 cases, {N_CHECKS} checks)"], [])


def test_each_violation_is_a_line_that_is_not_wrapped_and_the_code_is_2(capsys, wrong, sound):
    code, out, err = verify(capsys, wrong, sound)
    assert (code, err) == (2, [])
    first, second, last = out
    where = f"{wrong}: {CASES[0].id} serial · numpy: loss"
    assert first == f"{where}[training_step 0]: found nan, expected a finite number: a run stops at any other (losses)"
    assert second.startswith(
        f"{wrong}: {CASES[1].id} pipeline 2 · fill_drain · numpy: sum of phases of time[rep 3, rank 1]"
    )
    assert re.search(r": found 1\.\d+, expected their step, 0\.\d+ s \(phase sums\)$", second)
    assert last == f"{sound}: ok (2 cases, {N_CHECKS} checks)"


def test_what_cannot_be_read_is_told_and_the_others_are_verified(capsys, unreadable, wrong, sound):
    code, out, err = verify(capsys, *unreadable.values(), wrong, sound)
    assert code == 1, "what could not be read was not verified, whatever the others are"
    assert len(out) == 3
    assert len(err) == len(unreadable)
    for line, (kind, path) in zip(err, unreadable.items(), strict=True):
        assert line.startswith(f"hpcrnn: error: {path}: ")
        assert SAID[kind] in line


def test_json_says_the_same(capsys, unreadable, wrong, sound):
    code, out, err = verify(capsys, "--json", sound, wrong, unreadable["newer"])
    assert (code, err) == (1, [])
    right, bad, newer = json.loads("\n".join(out))
    assert right == {"file": str(sound), "status": "ok", "n_cases": 2, "n_checks": N_CHECKS, "violations": []}
    assert bad["status"] == "wrong"
    assert [violation["check"] for violation in bad["violations"]] == ["losses", "phase sums"]
    assert bad["violations"][0] == {
        "check": "losses",
        "run": None,
        "case": CASES[0].id,
        "label": "serial · numpy",
        "quantity": "loss[training_step 0]",
        "found": "nan",
        "expected": "a finite number: a run stops at any other",
    }
    assert newer["status"] == "unreadable"
    assert SAID["newer"] in newer["error"]


def test_a_wrong_run_of_a_merged_file_is_named(capsys, tmp_path):
    path = tmp_path / "merged.h5"
    write_merged([sound_record(make_case(seed=k)) for k in range(2)], path, inputs=(), overwrite=False)
    assert verify(capsys, path) == (
        0,
        [f"{path}: ok (2 cases, {N_CHECKS + len(RUN_CHECKS) + len(MERGED_CHECKS)} checks)"],
        [],
    )
    edit_file(path, lambda file: next(iter(file["runs/1/cases"].values())).attrs.__setitem__("flops", -1.0))
    code, (line,), _ = verify(capsys, path)
    assert code == 2
    assert line.startswith(f"{path}: run 1: ")
    assert line.endswith(" serial · numpy: flops: found -1, expected a finite number >= 0 (counts)")


def test_whatever_a_file_holds_lines_stay_lines(capsys, tmp_path):
    case = make_case()
    path = tmp_path / "odd.h5"
    write_record(sound_record(case), path)

    def change(file):
        group = file["cases"][case.id]
        group.attrs["metric_kind"] = "co\nst\x1b[31m"
        group["time"].attrs["units"] = "\r[bold]s"

    edit_file(path, change)
    code, out, err = verify(capsys, path)
    assert (code, len(out), err) == (2, 2, [])
    assert all(line.isprintable() for line in out)


def test_a_pipe_gets_ascii_where_it_can_hold_nothing_else(wrong):
    code = "import sys; from hpcrnn.cli import main; code = main(['verify', sys.argv[1]]); "
    code += "print([m for m in ('matplotlib', 'mpi4py', 'jinja2') if m in sys.modules]); sys.exit(code)"
    environment = {"PYTHONIOENCODING": "ascii", "PATH": ""}
    ended = subprocess.run(
        [sys.executable, "-c", code, wrong], capture_output=True, timeout=60, check=False, env=environment
    )
    assert ended.returncode == 2, ended.stderr
    assert b"serial | numpy" in ended.stdout
    assert ended.stdout.splitlines()[-1] == b"[]", "nothing is loaded that is not needed"


def test_stored_files_of_every_version_hold(capsys):
    code, out, _ = verify(capsys, *sorted(STORED.glob("*.h5")))
    assert code == 0
    assert [line.rpartition(": ")[2] for line in out] == [f"ok (2 cases, {N_CHECKS} checks)"] * 3
