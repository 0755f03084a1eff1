"""The command line without ranks: help, what is imported, show, report, sweep, bad input."""

import string
import sys

import h5py
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from launching import SMALL, hpcrnn, hpcrnn_run, start

from hpcrnn.benchmarks.sweep import load_sweep
from hpcrnn.cli import make_parser
from hpcrnn.cli.run import overrides
from hpcrnn.errors import HpcrnnError
from hpcrnn.records.hdf5 import read_record
from hpcrnn.spec import build_spec, options

HEAVY = ("matplotlib", "scipy", "h5py", "torch", "jinja2", "rich")

SWEEP = """
[sweep]
name = "small"
ranks = [1, 2]
scaling = ["strong", "weak"]
[model]
hidden = 12
[problem]
batch = 4
seq = 9
[measure]
warmup = 1
min_repeats = 2
max_repeats = 3
ceilings = false
"""


@pytest.fixture
def sweep_folder(tmp_path):
    (tmp_path / "small.toml").write_text(SWEEP)
    return tmp_path


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("result")
    ended = hpcrnn_run(2, *SMALL, cwd=folder)
    assert ended.code == 0, ended.err
    return folder / "r.h5"


def imported_by(code, cwd):
    """Which heavy packages a Python program has loaded at its end."""
    report = f"\nimport sys\nprint([m for m in {HEAVY!r} + ('numpy', 'mpi4py') if m in sys.modules])"
    ended = start([sys.executable, "-c", code + report], cwd=cwd, timeout=60)
    assert ended.code == 0, ended.err
    return set(eval(ended.out.splitlines()[-1]))  # noqa: S307 - our own list


def test_help_loads_nothing_heavy(tmp_path):
    code = "from hpcrnn.cli import main\ntry: main(['run', '--help'])\nexcept SystemExit: pass"
    assert imported_by(code, tmp_path) == set()


@pytest.mark.mpi
def test_a_rank_that_does_not_write_loads_no_hdf5_and_no_plotting(tmp_path):
    (tmp_path / "case.py").write_text(
        "import sys\nfrom hpcrnn.cli import main\n"
        "code = main(['run', *sys.argv[1:]])\n"
        "from mpi4py import MPI\n"
        f"loaded = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "if MPI.COMM_WORLD.rank == 1: print('rank 1 loaded', loaded)\n"
    )
    from launching import mpirun

    ended = mpirun(2, "case.py", *map(str, SMALL), cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "rank 1 loaded []" in ended.out


def test_every_key_has_a_flag_and_help_shows_it(tmp_path):
    ended = hpcrnn("run", "--help", cwd=tmp_path)
    assert ended.code == 0
    for leaf in options():
        assert leaf.flag in ended.out


def test_show_prints_every_case(result):
    ended = hpcrnn("show", result, cwd=result.parent)
    assert ended.code == 0, ended.err
    assert "serial" in ended.out
    assert "data 2" in ended.out
    assert "VALID" in ended.out
    assert "\x1b" not in ended.out


def test_report_writes_figures_and_pages(result, tmp_path):
    ended = hpcrnn("report", result, "-o", tmp_path / "out", "--figures", 1, cwd=tmp_path)
    assert ended.code == 0, ended.err
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.html", "report.md", "strong_speedup.png", "strong_speedup.pdf"} <= names


def test_a_dry_run_says_what_it_would_start_and_starts_nothing(sweep_folder):
    ended = hpcrnn("sweep", "small.toml", "--dry-run", cwd=sweep_folder)
    assert ended.code == 0, ended.err
    # strong on 1 and 2 ranks, weak on 2: weak on 1 rank is strong on 1 rank.
    assert ended.err.count("-m hpcrnn run") == 3
    assert "--batch 8" in ended.err
    assert not (sweep_folder / "results").exists()


def test_a_group_may_say_on_how_many_ranks_it_runs(sweep_folder):
    groups = (
        'each = [{ ranks = [1] }, { grid = "data={ranks}", chunks = 2 },'
        ' { ranks = [2], grid = "pipeline={ranks}" }]\n[model]'
    )
    text = SWEEP.replace('["strong", "weak"]', '["strong"]').replace("[model]", groups)
    (sweep_folder / "each.toml").write_text(text)
    sweep = load_sweep(sweep_folder / "each.toml", None)
    found = [(point.ranks, str(point.spec.parallel.grid), point.spec.parallel.chunks) for point in sweep.points]
    assert found == [(1, "None", 1), (1, "data=1", 2), (2, "data=2", 2), (2, "pipeline=2", 1)]


def test_a_grid_a_backend_has_not_is_refused_before_anything_starts(sweep_folder):
    pytest.importorskip("torch")
    groups = 'each = [{ ranks = [2], grid = "time=2", backend = "torch" }]\n[model]'
    (sweep_folder / "each.toml").write_text(SWEEP.replace("[model]", groups))
    ended = hpcrnn("sweep", "each.toml", "--dry-run", cwd=sweep_folder)
    assert ended.code == 1
    assert "parallel.grid = 'time=2': allowed is the axis data alone, with backend torch" in ended.err


@pytest.mark.parametrize("ranks", ["[3]", "[]", "2"])
def test_a_group_on_ranks_the_sweep_does_not_have_is_refused(ranks, sweep_folder):
    text = SWEEP.replace("[model]", f"each = [{{ ranks = {ranks} }}]\n[model]")
    (sweep_folder / "each.toml").write_text(text)
    ended = hpcrnn("sweep", "each.toml", "--dry-run", cwd=sweep_folder)
    assert ended.code == 1
    assert f"sweep.each.ranks = {ranks}: allowed is some of sweep.ranks (1, 2)" in ended.err


@pytest.mark.mpi
def test_a_sweep_runs_every_point_and_resumes_what_is_missing_or_damaged(sweep_folder):
    ended = hpcrnn("sweep", "small.toml", "--report", "plots/small", cwd=sweep_folder, timeout=110)
    assert ended.code == 0, ended.err
    files = sorted((sweep_folder / "results" / "small").glob("*.h5"))
    assert len(files) == 3
    assert (sweep_folder / "plots" / "small" / "report.html").exists()
    kept = read_record(files[0]).uuid

    files[1].write_bytes(files[1].read_bytes()[:1000])
    files[2].unlink()
    ended = hpcrnn("sweep", "small.toml", cwd=sweep_folder, timeout=110)
    assert ended.code == 0, ended.err
    assert ended.err.count("done before") == 1
    assert read_record(files[0]).uuid == kept
    assert all(read_record(path).complete for path in files)


@pytest.mark.mpi
def test_a_point_that_fails_is_named_and_the_rest_goes_on(sweep_folder):
    text = SWEEP.replace("[model]", 'launcher = ["python3-that-is-not-there"]\n[model]')
    (sweep_folder / "bad.toml").write_text(text)
    ended = hpcrnn("sweep", "bad.toml", cwd=sweep_folder)
    assert ended.code == 4
    assert "sweep.launcher" in ended.err

    text = SWEEP.replace("[model]", f'launcher = ["{sys.executable}", "-c", "import sys; sys.exit(3)"]\n[model]')
    (sweep_folder / "failing.toml").write_text(text)
    ended = hpcrnn("sweep", "failing.toml", cwd=sweep_folder)
    assert ended.code == 3
    assert ended.err.count("FAILED with exit code 3") == 3


@pytest.mark.mpi
def test_a_point_that_hangs_is_stopped(sweep_folder):
    hangs = f'launcher = ["{sys.executable}", "-c", "import time; time.sleep(600)"]\ntimeout = 1\n[model]'
    (sweep_folder / "hangs.toml").write_text(SWEEP.replace("[model]", hangs).replace("[1, 2]", "[1]"))
    ended = hpcrnn("sweep", "hangs.toml", cwd=sweep_folder, timeout=60)
    assert ended.code == 4
    assert "sweep.timeout" in ended.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "sweep = None: allowed is a table"),
        ('[sweep]\nname = "a/b"', "sweep.name = 'a/b'"),
        ('[sweep]\nname = "a"\nranks = [0]', "sweep.ranks"),
        ('[sweep]\nname = "a"\nrank = [1]', "sweep.rank = [1]: allowed is one of the keys name"),
        ('[sweep]\nname = "a"\nvary = { depth = [1] }', "key = 'depth'"),
        ('[sweep]\nname = "a"\nvary = { hidden = [0] }', "model.hidden = 0"),
        ('[sweep]\nname = "a"\nvary = { hidden = [] }', "sweep.vary"),
        ('[sweep]\nname = "a"\nranks = [100]', "problem.batch = 64"),
        ('[sweep]\nname = "a"\nranks = [2]\n[parallel]\ngrid = "data=3"', "parallel.grid"),
        ('[sweep]\nname = "a"\n[measure]\nout = "x.h5"', "measure.out"),
        ('[sweep]\nname = "a"\n[problem]\nworkload = "file:gone"', "gone"),
    ],
)
def test_a_bad_sweep_is_refused_before_anything_starts(text, words, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(HpcrnnError) as caught:
        load_sweep(path, tmp_path / "results")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("command", ["show", "report"])
@pytest.mark.parametrize("kind", ["missing", "empty", "text", "foreign", "truncated", "folder"])
def test_a_file_that_cannot_be_read_is_one_line(command, kind, result, tmp_path):
    path = tmp_path / "bad.h5"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("hello\n" * 100)
    elif kind == "foreign":
        with h5py.File(path, "w") as file:
            file["x"] = 1
    elif kind == "truncated":
        path.write_bytes(result.read_bytes()[:-100])
    elif kind == "folder":
        path.mkdir()
    ended = hpcrnn(command, path, cwd=tmp_path)
    assert ended.code == 1
    assert len(ended.err.splitlines()) == 1
    assert str(path) in ended.err


@pytest.mark.parametrize(
    "arguments", [[], ["fly"], ["show"], ["run", "--bogus"], ["run", "a", "b"], ["sweep"], ["run", "--hid", "3"]]
)
def test_a_wrong_command_line_is_one_line_and_exit_code_1(arguments, tmp_path):
    ended = hpcrnn(*arguments, cwd=tmp_path)
    assert ended.code == 1
    assert len(ended.err.splitlines()) == 1, ended.err
    assert ended.err.startswith("hpcrnn: error: ")


TEXTS = st.text(string.printable, max_size=12) | st.integers().map(str) | st.floats().map(str)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(list(options())), TEXTS), max_size=4))
def test_any_flags_make_a_specification_or_an_error_of_ours(pairs):
    flags = [f"{leaf.flag}={text}" for leaf, text in pairs]
    refusal = ""
    try:
        build_spec({}, overrides(make_parser().parse_args(["run", *flags])))
    except HpcrnnError as error:
        refusal = str(error)
    assert len(refusal.splitlines()) <= 1
