"""``hpcrnn compare`` and ``hpcrnn gate`` as a user or a scheduler starts them."""

import json
import sys

import pytest
from factory import make_case, make_record, quick_cases
from launching import hpcrnn, start

from hpcrnn.cli import main
from hpcrnn.records.hdf5 import write_record


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparing")
    slower = [make_case(1, 64, 0.412, hidden=512, seed=8), make_case(2, 64, 0.33, seed=8, hidden=512)]
    files = {"a.h5": quick_cases(), "b.h5": slower, "bad.h5": [make_case(valid=False)]}
    for seed, (name, cases) in enumerate(files.items()):
        write_record(make_record(cases, seed=seed), folder / name)
    return folder


def ran(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_compare_says_what_is_slower_and_ends_well(folder):
    ended = hpcrnn("compare", "a.h5", "b.h5", cwd=folder)
    assert ended.code == 0, ended.err
    assert "slower" in ended.out
    assert "\x1b" not in ended.out


def test_neither_command_needs_mpi_or_matplotlib(folder):
    code = (
        "import sys\nfrom hpcrnn.cli import main\nmain(['compare', 'a.h5', 'b.h5'])\n"
        "main(['gate', 'a.h5', '--ref', 'b.h5', '--tolerance', '9'])\n"
        "print([m for m in ('mpi4py', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    ended = start([sys.executable, "-c", code], cwd=folder, timeout=60)
    assert ended.out.splitlines()[-1] == "[]", ended.err


def test_compare_as_json(folder, capsys):
    code, out, _ = ran(capsys, "compare", folder / "a.h5", folder / "b.h5", "--json")
    assert code == 0
    assert [pair["metrics"][0]["verdict"] for pair in json.loads(out)["pairs"]] == ["undecided", "slower"]


def test_compare_a_file_with_itself(folder, capsys):
    one = folder / "a.h5"
    code, out, _ = ran(capsys, "compare", one, one, "--a", "ranks=1", "--b", "ranks=2", "batch=64")
    assert code == 0
    assert "faster" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.h5"], "required: B"),
        (["a.h5", "a.h5"], "choose cases"),
        (["a.h5", "gone.h5"], "gone.h5: is not there"),
        (["a.h5", "bad.h5"], "--across"),
        (["a.h5", "b.h5", "--a", "x"], "KEY=VALUE"),
        (["a.h5", "b.h5", "--acr"], "--acr"),
    ],
)
def test_a_wrong_comparison_is_one_line_and_code_1(arguments, words, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    code, out, err = ran(capsys, "compare", *arguments)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert words in err


def test_a_gate_ends_with_3_where_results_fall_short(folder, tmp_path):
    written = hpcrnn("gate", folder / "a.h5", "--write-ref", "ref.toml", cwd=tmp_path)
    assert (written.code, written.out) == (0, "written: ref.toml\n")
    ended = hpcrnn("gate", folder / "b.h5", "--ref", "ref.toml", "--json-out", "o.json", cwd=tmp_path)
    assert ended.code == 3, ended.err
    plain = json.loads((tmp_path / "o.json").read_text())
    assert ended.out.splitlines()[-1] == f"FAIL {plain['n_failed']} of {plain['n_checks']}"
    failed = [(c["case"] and c["case"]["label"], c["metric"]) for c in plain["checks"] if c["result"] == "fail"]
    # Data-parallel is slower, and the case of twice the batch is missing.
    assert failed == [("data 2 · numpy", "step_s"), ("data 2 · numpy", "efficiency"), (None, "case")]
    again = hpcrnn("gate", folder / "a.h5", "--write-ref", "ref.toml", cwd=tmp_path)
    assert again.code == 1
    assert "--overwrite" in again.err


def test_a_gate_is_passed_and_fails_what_is_invalid(folder, tmp_path, capsys):
    code, out, _ = ran(capsys, "gate", folder / "a.h5", "--ref", folder / "a.h5", "--tolerance", "0.1")
    assert (code, out.splitlines()[-1]) == (0, "PASS")
    both = (folder / "a.h5", folder / "bad.h5")
    code, out, _ = ran(capsys, "gate", *both, "--ref", folder / "a.h5", "--tolerance", "0.1")
    assert (code, out.splitlines()[-1]) == (3, "FAIL 1 of 4")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--ref --write-ref"),
        (["--ref", "r.toml", "--write-ref", "s.toml"], "not allowed with"),
        (["--ref", "gone.toml"], "gone.toml: cannot be read as TOML"),
        (["--ref", "a.h5"], "--tolerance = None"),
        (["--ref", "a.h5", "--tolerance", "x"], "invalid float"),
        (["--ref", "a.h5", "--tolerance", "nan"], "--tolerance = nan"),
        (["--ref", "a.h5", "--tolerance", "1", "--json-out", "a.h5"], "is an input"),
        (["--ref", "a.h5", "--tolerance", "1", "--overwrite"], "--write-ref"),
        (["--write-ref", "s.toml", "--strict"], "--strict goes with --ref"),
        (["--write-ref", "s.toml", "--json-out", "o"], "--json-out goes with --ref"),
        (["--write-ref", "a.h5", "--overwrite"], "ends in .toml"),
    ],
)
def test_a_wrong_gate_is_one_line_and_code_1(arguments, words, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    code, out, err = ran(capsys, "gate", "a.h5", *arguments)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert words in err
    assert sorted(folder.iterdir()) == before


def test_of_many_pairs_the_first_are_shown_and_how_to_get_the_rest(tmp_path, capsys):
    for seed, name in enumerate(("a.h5", "b.h5")):
        cases = [make_case(1, 64, 0.4, hidden=16 * (k + 1), n=6, n_warmup=1, seed=seed) for k in range(43)]
        write_record(make_record(cases, seed=seed), tmp_path / name)
    files = (tmp_path / "a.h5", tmp_path / "b.h5")
    _, out, _ = ran(capsys, "compare", *files)
    assert "3 more pairs not shown: --all shows, --json gives all" in out
    assert out.count("B is") == 40 + 1  # the note below says it too
    _, out, _ = ran(capsys, "compare", *files, "--all")
    assert "not shown" not in out
    assert out.count("B is") == 43 + 1
    _, out, _ = ran(capsys, "compare", *files, "--json")
    assert len(json.loads(out)["pairs"]) == 43
