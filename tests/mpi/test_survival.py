"""What is left of runs that are killed, told to end, or cannot write: real ranks, real signals."""

import os
import random
import re
import signal
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from launching import case_script, mpirun

from hpcrnn.benchmarks import layers
from hpcrnn.benchmarks.sweep import Point, default_launcher
from hpcrnn.cli import main as hpcrnn
from hpcrnn.records.hdf5 import read_record, read_stored
from hpcrnn.records.invariants import examine
from hpcrnn.records.study import read_study_record
from hpcrnn.spec import RunSpec

pytestmark = pytest.mark.mpi

TINY = ("--hidden", "5", "--embed", "3", "--layers", "1", "--batch", "4", "--seq", "4", "--warmup", "1")
ENDLESS = ("--min-repeats", "1000000", "--max-repeats", "1000000", "--max-time", "600")
FOLDED = ("--method", "picard", "--fold", "2", "--seq", "8", "--grid", "time=2")

OFTEN = """
import os, sys
from hpcrnn.benchmarks import growing_record
from hpcrnn.execution import farewell
from hpcrnn.execution.world import World
from hpcrnn.records.output import Output
growing_record.LEAST_S = growing_record.SPARSE = 0.0
farewell._FIRST_RANK_S = float(os.environ.get("FIRST_RANK_S", "0.05"))
keep, finish, start = Output.keep, Output.finish, World.start
def say(text):
    os.write(2, (text + "\\n").encode())
def keep_and_say(self, content):
    say(f"kept {keep(self, content)}")
    return self.kept
def start_and_say():
    world = start()
    say(f"pid {world.rank} {os.getpid()}")
    return world
Output.keep, World.start = keep_and_say, start_and_say
"""

RUN = "from hpcrnn.cli import main\nsys.exit(main(['run', *sys.argv[1:]]))\n"


@dataclass
class Running:
    """A job that says its ranks' process ids, and when it has kept what was measured."""

    launcher: subprocess.Popen
    pids: dict[int, int]

    def end(self):
        """Hear it out: all that hold its standard error are gone then."""
        _, err = self.launcher.communicate(timeout=30)
        return self.launcher.returncode, err


def start_until_kept(folder, n_times, *flags, first_rank_s=0.05):
    """Start two ranks in a folder where an older result lies, and return when they have kept so many states."""
    (folder / "k.h5").write_bytes(b"an older, complete result")
    launcher = [part.replace("{ranks}", "2") for part in default_launcher()]
    command = [*launcher, sys.executable, case_script(folder, OFTEN + RUN), *TINY, *ENDLESS, *flags]
    command += ["--out", "k.h5", "--overwrite"]
    environment = {**os.environ, "FIRST_RANK_S": str(first_rank_s)}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    pids, n_kept = {}, 0
    for line in process.stderr:
        if found := re.fullmatch(r"pid (\d) (\d+)\n", line):
            pids[int(found[1])] = int(found[2])
        n_kept += line == "kept k.h5.partial\n"
        if n_kept == n_times:
            break
    assert sorted(pids) == [0, 1]
    return Running(process, pids)


def assert_left(folder):
    """The older result is as it was, and what was measured can be read and is sound."""
    assert (folder / "k.h5").read_bytes() == b"an older, complete result"
    path = folder / "k.h5.partial"
    record = read_record(path)
    assert not record.complete
    assert len({len(case.time_s) for case in record.cases}) == 1
    for case in record.cases:
        assert len(case.time_s) >= 1
        assert len(case.loss) == len(case.time_s) + 1
        assert case.verdict.status == "VALID"
        assert (case.bytes_sent > 0).all() == (case.n_ranks > 1)
        assert case.stop_reason == "unfinished"
    assert not examine(read_stored(path)).violations
    assert len(record.environment["hosts"]) == 2
    rest = {p.name for p in folder.iterdir()} - {"k.h5", "k.h5.partial", "case.py"}
    assert all(re.fullmatch(r"\.[0-9a-f]{32}\.\d+\.tmp", name) for name in rest)  # a write that was killed
    return record


@pytest.mark.parametrize("killed", ["a rank", "all"])
def test_a_kill_leaves_what_was_measured(killed, tmp_path):
    # Another moment in every run. With a method whose solves are certified, as far as it came.
    n_times, rank = random.randint(1, 9), random.randint(0, 1)  # noqa: S311
    running = start_until_kept(tmp_path, n_times, *FOLDED)
    for pid in running.pids.values() if killed == "all" else [running.pids[rank]]:
        os.kill(pid, signal.SIGKILL)
    if killed == "all":
        running.launcher.kill()
    code, _ = running.end()
    assert code != 0, (n_times, rank)
    certificates = [case.certificate for case in assert_left(tmp_path).cases if case.certificate is not None]
    assert len(certificates) == 2
    for certificate in certificates:
        assert np.isnan(certificate.lyapunov[1]).all()  # the last step is not known yet


@pytest.mark.parametrize(
    ("told", "number"), [("launcher", signal.SIGTERM), ("rank 0", signal.SIGINT), ("rank 1", signal.SIGTERM)]
)
def test_a_signal_ends_a_run_with_one_line(told, number, tmp_path, monkeypatch, capsys):
    # Where all are told, the second rank must not lose patience with the first on a busy machine.
    running = start_until_kept(tmp_path, 1, first_rank_s=20 if told == "launcher" else 0.05)
    os.kill(running.launcher.pid if told == "launcher" else running.pids[int(told[-1])], number)
    code, err = running.end()
    assert code == 128 + number
    ours = [line for line in err.splitlines() if line.startswith("hpcrnn: ")]
    name, rank = signal.Signals(number).name, int(told[-1]) if told.startswith("rank") else 0
    assert len(ours) == 1, err
    assert ours[0].startswith(f"hpcrnn: stopped by {name} on rank {rank} of 2: what was measured is in k.h5.partial")
    assert "Traceback" not in err
    assert_left(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert hpcrnn(["verify", "k.h5.partial"]) == 0
    assert hpcrnn(["show", "k.h5.partial"]) == 0
    out = capsys.readouterr().out
    assert "k.h5.partial: ok (2 cases, " in out
    assert "incomplete" in out
    left = tmp_path / "k.h5.partial"
    assert not Point("k", 2, RunSpec(), left).is_done()  # a sweep runs it again


FEW = ("--min-repeats", "6", "--max-repeats", "6", "--out", "out/r.h5")


def test_a_run_that_comes_to_its_end_leaves_its_record_alone(tmp_path):
    ended = mpirun(2, case_script(tmp_path, OFTEN + RUN), *TINY, *FEW, cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert ended.err.count("kept out/r.h5.partial\n") == 5  # after every round but the last
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["r.h5"]
    assert read_record(tmp_path / "out/r.h5").complete


AT_THE_END = "def wrong(self, content):\n    {deed}\n    finish(self, content)\nOutput.finish = wrong\n"


def test_results_that_cannot_be_written_go_elsewhere(tmp_path):
    # The folder of the results becomes a file, with what was kept in it.
    deed = "import shutil; shutil.rmtree('out'); open('out', 'w').close()"
    script = case_script(tmp_path, OFTEN + AT_THE_END.format(deed=deed) + RUN)
    ended = mpirun(2, script, *TINY, *FEW, cwd=tmp_path)
    assert ended.code == 1, ended.err
    assert len(ended.error_lines) == 1, ended.err
    found = re.fullmatch(
        r"hpcrnn: error: out/r\.h5: cannot be written: Not a directory; the results are in (\S+) on \S+",
        ended.error_lines[0],
    )
    assert found, ended.err
    assert "note:" not in ended.err
    record = read_record(found[1])
    assert record.complete
    assert {len(case.time_s) for case in record.cases} == {6}


def test_a_disk_that_takes_no_file_ends_no_run_before_its_end(tmp_path):
    # What is kept on the way is larger than this process may write; at the end there is room.
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({soft}, resource.RLIM_INFINITY))\n"
    deed = limit.format(soft="resource.RLIM_INFINITY").replace("\n", ";")
    script = case_script(tmp_path, OFTEN + limit.format(soft=4096) + AT_THE_END.format(deed=deed) + RUN)
    ended = mpirun(1, script, *TINY, *FEW, cwd=tmp_path)
    assert ended.code == 0, ended.err
    warnings = [line for line in ended.err.splitlines() if line.startswith("hpcrnn: warning")]
    told = "cannot be written: File too large; a kill would lose what is measured from here on"
    assert warnings == [f"hpcrnn: warning: out/r.h5.partial: {told}"]
    assert read_record(tmp_path / "out/r.h5").complete


def test_an_error_says_where_the_rest_is(tmp_path):
    patch = (
        "from hpcrnn.backends.numpy.engine import NumpyEngine\n"
        "from hpcrnn.errors import NumericsError\n"
        "right, steps = NumpyEngine.update, []\n"
        "def update(self, norm):\n"
        "    steps.append(1)\n"
        "    if os.path.exists('out/r.h5.partial'): raise NumericsError('not finite')\n"
        "    return right(self, norm)\n"
        "NumpyEngine.update = update\n"
    )
    ended = mpirun(1, case_script(tmp_path, OFTEN + patch + RUN), *TINY, *FEW, cwd=tmp_path)
    assert ended.code == 2, ended.err
    assert ended.error_lines == ["hpcrnn: error: not finite"]
    assert "\nhpcrnn: note: what was measured is in out/r.h5.partial" in ended.err
    assert not read_record(tmp_path / "out/r.h5.partial").complete


NOT_TAKEN = "allowed is a name that is not taken, unless --overwrite is given"


def test_layers_replaces_an_older_result_only_when_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "r.h5").write_bytes(b"an older result")
    monkeypatch.chdir(tmp_path)
    assert layers.main(["--out", "r.h5"]) == 1
    assert capsys.readouterr().err == f"hpcrnn: error: --out = 'r.h5': {NOT_TAKEN}\n"
    assert (tmp_path / "r.h5").read_bytes() == b"an older result"


STUDY = """
from hpcrnn.benchmarks import time_study
from hpcrnn.benchmarks.script import on_ranks
def speedup(world):
    yield {"cell": "lstm", "rounds": 1}
def tolerance(world):
    yield {"cell": "lstm"}
    raise RuntimeError("the disk is on fire")
time_study.speedup_rows, time_study.tolerance_rows = speedup, tolerance
sys.exit(on_ranks(time_study.main))
"""


def test_a_study_keeps_the_tables_it_has(tmp_path):
    script = case_script(tmp_path, OFTEN + STUDY)
    ended = mpirun(1, script, "--tables", "speedup", "tolerance", "--out", "r.h5", cwd=tmp_path)
    assert ended.code == 1, ended.err
    assert "hpcrnn: note: what was measured is in r.h5.partial" in ended.err
    assert {path.name for path in tmp_path.iterdir()} == {"case.py", "r.h5.partial"}
    assert [table.name for table in read_study_record(tmp_path / "r.h5.partial").tables] == ["speedup"]
    (tmp_path / "taken.h5").write_bytes(b"an older result")
    ended = mpirun(1, script, "--out", "taken.h5", cwd=tmp_path)
    assert ended.code == 1
    assert ended.error_lines == [f"hpcrnn: error: --out = 'taken.h5': {NOT_TAKEN}"]
