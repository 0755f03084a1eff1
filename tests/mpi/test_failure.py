"""What goes wrong on ranks ends on all of them: soon, with the right words, and with nothing lost."""

import os
import signal
import subprocess
import sys

import pytest
from launching import SMALL, case_script, hpcrnn_run, mpirun

from hpcrnn.benchmarks.launch import default_launcher
from hpcrnn.records.hdf5 import read_record

pytestmark = pytest.mark.mpi

BROKEN_GRADIENT = """
import sys
from hpcrnn.cells import LSTM
right = LSTM.weight_gradient
def wrong(self, x, tape, into, work, *, accumulate=False):
    right(self, x, tape, into, work, accumulate=accumulate)
    if into["R"].dtype in {dtypes}:
        into["R"][0, 0] *= 1.5
LSTM.weight_gradient = wrong
from hpcrnn.cli import main
sys.exit(main(["run", *sys.argv[1:]]))
"""

DIES_ON_RANK_1 = """
import sys
from mpi4py import MPI
from hpcrnn.backends.numpy.engine import NumpyEngine
right = NumpyEngine.update
calls = []
def update(self, norm):
    calls.append(1)
    if MPI.COMM_WORLD.rank == 1 and len(calls) > 2:
        {death}
    return right(self, norm)
NumpyEngine.update = update
from hpcrnn.cli import main
sys.exit(main(["run", *sys.argv[1:]]))
"""


@pytest.mark.parametrize(
    ("dtypes", "quantity"),
    [
        ("('float32',)", "gradient layer"),  # wrong in the run under test only
        ("('float32', 'float64')", "finite difference layer0.R"),  # wrong in the reference too
    ],
)
def test_a_broken_gradient_is_invalid(dtypes, quantity, tmp_path):
    script = case_script(tmp_path, BROKEN_GRADIENT.format(dtypes=dtypes))
    ended = mpirun(2, script, *map(str, SMALL), "--layers", "1", "--gemm", "numpy", cwd=tmp_path)
    assert ended.code == 2, ended.err
    assert "INVALID" in ended.err
    assert quantity in ended.err
    record = read_record(tmp_path / "r.h5")
    assert {case.verdict.status for case in record.cases} == {"INVALID"}
    # What is not right is not timed.
    assert all(len(case.time_s) == 0 for case in record.cases)


def test_an_exception_on_one_rank_ends_all_with_its_traceback(tmp_path):
    script = case_script(tmp_path, DIES_ON_RANK_1.format(death="raise RuntimeError('the disk is on fire')"))
    ended = mpirun(3, script, *map(str, SMALL), cwd=tmp_path, timeout=30)
    assert ended.code != 0
    assert "rank 1 of 3 failed" in ended.err
    assert "RuntimeError: the disk is on fire" in ended.err
    assert "in update" in ended.err
    assert ended.err.count("Traceback") == 1
    assert not (tmp_path / "r.h5").exists()


def test_a_killed_rank_ends_the_job_and_earlier_results_stay_readable(tmp_path):
    assert hpcrnn_run(2, *SMALL, "--out", "before.h5", cwd=tmp_path).code == 0
    script = case_script(
        tmp_path, DIES_ON_RANK_1.format(death="import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    )
    # The timeout is the assertion: a job that hangs fails here.
    ended = mpirun(2, script, *map(str, SMALL), cwd=tmp_path, timeout=30)
    assert ended.code != 0
    assert not (tmp_path / "r.h5").exists()
    assert not list(tmp_path.glob("*.tmp*"))
    assert read_record(tmp_path / "before.h5").complete


def test_gradients_that_are_not_finite_stop_the_run_with_one_line(tmp_path):
    flags = ("--cell", "elman", "--activation", "relu", "--optimizer", "sgd", "--lr", "1e12", "--max-repeats", "60")
    ended = hpcrnn_run(2, *SMALL, *flags, "--min-repeats", "60", cwd=tmp_path)
    assert ended.code == 2, ended.err
    assert any("not finite" in line and "training.lr" in line for line in ended.err.splitlines()), ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "r.h5").exists()


ON_RANK_1 = """
import sys
from mpi4py import MPI
{patch}
from hpcrnn.cli import main
sys.exit(main(["run", *sys.argv[1:]]))
"""


def test_ranks_that_read_other_data_are_refused_by_name(tmp_path):
    patch = (
        "from hpcrnn.workloads.text import TextWorkload\n"
        "right = TextWorkload.describe\n"
        "TextWorkload.describe = lambda self: right(self) | ({'sha256': 'other'} if MPI.COMM_WORLD.rank == 1 else {})"
    )
    ended = mpirun(2, case_script(tmp_path, ON_RANK_1.format(patch=patch)), *map(str, SMALL), cwd=tmp_path)
    assert ended.code == 4, ended.err
    assert len(ended.error_lines) == 1
    assert "rank 1 has sha256 = other" in ended.error_lines[0]


def test_an_error_of_ours_on_one_rank_alone_ends_all_with_its_line(tmp_path):
    patch = (
        "from hpcrnn.backends.numpy.engine import NumpyEngine\n"
        "from hpcrnn.errors import NumericsError\n"
        "right = NumpyEngine.update\n"
        "def update(self, norm):\n"
        "    if MPI.COMM_WORLD.rank == 1: raise NumericsError('only here')\n"
        "    return right(self, norm)\n"
        "NumpyEngine.update = update"
    )
    # The timeout is the assertion that no rank hangs.
    script = case_script(tmp_path, ON_RANK_1.format(patch=patch))
    ended = mpirun(2, script, *map(str, SMALL), cwd=tmp_path, timeout=30)
    assert ended.code != 0
    assert "hpcrnn: error on rank 1 of 2: only here" in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "r.h5").exists()


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--hidden", "0"), 1, "model.hidden = 0: allowed is an integer >= 1"),
        (("--hidden", "many"), 1, "model.hidden = 'many'"),
        (("--hiden", "3"), 1, "--hiden"),
        (("--grid", "data=3"), 4, "its product is 3, allowed is the number of ranks, 2"),
        (("--expect-ranks", "4"), 4, "machine.expect_ranks = 4: MPI started 2"),
        (("--batch", "1"), 1, "problem.batch = 1: allowed is at least one row a rank of data=2"),
        (("--workload", "file:nowhere.txt"), 1, "nowhere.txt"),
        (("--workload", "file:empty.txt"), 1, "empty.txt"),
        (("--workload", "poetry"), 1, "problem.workload = 'poetry'"),
        (("--out", "empty.txt/r.h5"), 1, "empty.txt"),
        (("--out", "taken.h5"), 1, "taken.h5"),
        (("--threads", "64"), 4, "machine.threads = 64"),
        (("--hidden", "2000000000"), 1, "GiB"),
        (("missing.toml",), 1, "missing.toml"),
        (("bad.toml",), 1, "bad.toml"),
        (("unknown.toml",), 1, "model.depth = 3: allowed is one of the keys cell"),
    ],
)
def test_bad_input_is_one_line_on_rank_0_with_its_exit_code(flags, code, words, tmp_path):
    (tmp_path / "empty.txt").touch()
    (tmp_path / "taken.h5").touch()
    (tmp_path / "bad.toml").write_text("[model\n")
    (tmp_path / "unknown.toml").write_text("[model]\ndepth = 3\n")
    before = sorted(tmp_path.rglob("*"))
    ended = hpcrnn_run(2, *SMALL, *flags, cwd=tmp_path)
    assert ended.code == code, ended.err
    assert len(ended.error_lines) == 1, ended.err
    assert words in ended.error_lines[0]
    assert "Traceback" not in ended.err
    assert sorted(tmp_path.rglob("*")) == before


def test_interrupting_a_run_ends_all_ranks(tmp_path):
    launcher = [part.replace("{ranks}", "2") for part in default_launcher()]
    flags = [*map(str, SMALL), "--max-repeats", "1000000", "--min-repeats", "1000000", "--max-time", "600"]
    command = [*launcher, sys.executable, "-m", "hpcrnn", "run", *flags]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    for line in process.stderr:
        if "verifying" in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert not (tmp_path / "r.h5").exists()
