"""SIGUSR1, which Slurm sends before the time of a job is up: what runs ends early and is kept, and no more begins."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from launching import SMALL
from slurm_samples import SWEEP, write_project

from hpcrnn.benchmarks.launch import default_launcher
from hpcrnn.benchmarks.sweep import load_sweep
from hpcrnn.execution.farewell import drop_shared_memory
from hpcrnn.records.hdf5 import read_record

LONG = (*SMALL[:-2], "--min-repeats", 1, "--max-repeats", 1000000, "--ci-width", 1e-9, "--max-time", 100)

SLOW_SWEEP = (
    SWEEP.replace("ranks = [1, 2, 4]", "ranks = [2]")
    .replace("max_repeats = 4", "max_repeats = 1000000\nci_width = 1e-9")
    .replace("max_time = 5", "max_time = 100")
)

ANY = [sys.executable, "-m", "hpcrnn"]


class Started:
    """A command whose errors are read as they come: no sleeping, its own words say how far it is."""

    def __init__(self, command, cwd, **variables):
        self.process = subprocess.Popen(
            [str(word) for word in command],
            cwd=cwd,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **variables},
        )
        self.lines = []

    def until(self, words):
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
            if words in line:
                return
        raise AssertionError("\n".join(self.lines))

    def ask(self):
        self.process.send_signal(signal.SIGUSR1)

    def end(self):
        out, err = self.process.communicate(timeout=60)
        self.lines += err.splitlines()
        return self.process.returncode, out, self.lines


@pytest.fixture
def start(tmp_path):
    begun = []

    def start(command, **variables):
        begun.append(Started(command, tmp_path, **variables))
        return begun[-1]

    yield start
    for one in begun:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate(timeout=10)


@pytest.mark.mpi
@pytest.mark.parametrize("n_ranks", [1, 2])
def test_a_run_ends_early_with_what_it_has(start, tmp_path, n_ranks):
    launcher = [part.replace("{ranks}", str(n_ranks)) for part in default_launcher()]
    run = start([*launcher, *ANY, "run", *LONG, "--out", "r.h5"])
    run.until("verifying")  # by then it listens
    run.ask()
    code, out, _ = run.end()
    assert code == 0
    assert "written: r.h5" in out
    record = read_record(tmp_path / "r.h5")
    assert record.complete
    for case in record.cases:
        assert case.stop_reason == "asked"
        assert case.verdict.status == "VALID"
        assert 1 <= len(case.time_s) < 1000000


@pytest.mark.mpi
@pytest.mark.parametrize(("least", "done"), [(1, True), (500000, False)])
def test_a_sweep_ends_its_point_and_begins_no_other(start, tmp_path, least, done):
    """And its job is queued again, but where it got no further: it never would."""
    write_project(tmp_path, SLOW_SWEEP.replace("min_repeats = 2", f"min_repeats = {least}"))
    calls, scontrol = tmp_path / "calls", tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    scontrol.chmod(0o755)
    path = f"{scontrol.parent}:{os.environ['PATH']}"
    sweep = start([*ANY, "sweep", "tiny.toml", "--requeue"], PATH=path, SLURM_JOB_ID="17")
    sweep.until("verifying")
    sweep.ask()
    code, _, lines = sweep.end()
    said = "\n".join(lines)
    assert code == 1  # points are left
    assert said.count("started on 2 ranks") == 1
    assert "FAILED" not in said
    assert (": done in " in said) is done
    assert ("too few repetitions to count as done" in said) is not done
    assert lines[-2] == f"hpcrnn: asked to end by SIGUSR1: {1 if done else 2} of 2 points are left"
    if done:
        assert lines[-1] == "hpcrnn: job 17 goes back into the queue"
        assert calls.read_text() == "requeue 17\n"
    else:
        assert "not queued again: no point was done within the time of the job" in lines[-1]
        assert not calls.exists()
    assert len(list((tmp_path / "results/tiny").glob("*.h5"))) == 1
    again = load_sweep(tmp_path / "tiny.toml", tmp_path / "results/tiny")
    assert sum(point.is_done() for point in again.points) == int(done)


def test_ranks_that_die_of_the_signal_are_no_failure(start, tmp_path):
    """It may come before they listen for it."""
    program = "import signal; print('hpcrnn: here', flush=True); signal.pause()"
    launcher = f'launcher = ["{sys.executable}", "-c", "{program}"]'
    write_project(tmp_path, SWEEP.replace("[model]", f"{launcher}\n[model]"))
    sweep = start([*ANY, "sweep", "tiny.toml"])
    sweep.until("here")
    sweep.ask()
    code, _, lines = sweep.end()
    assert code == 1
    assert "FAILED" not in "\n".join(lines)
    assert lines[-1] == "hpcrnn: asked to end by SIGUSR1: 6 of 6 points are left"


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm")  # noqa: S108
def test_shared_memory_of_mpich_is_dropped_and_nothing_else(tmp_path):
    """A step of the same number after a requeue would find it, and hang: see test_interrupted_jobs.py."""
    ours, another = (Path(f"/dev/shm/{kind}_{os.getpid()}") for kind in ("mpich_shm_test", "other"))  # noqa: S108
    maps = tmp_path / "maps"
    line = "7f0000000000-7f0000001000 rw-s 00000000 00:19 {n}                         {path}\n"
    named = [ours, another, ours, ours.with_name("mpich_shm_gone")]
    maps.write_text("".join(line.format(n=n, path=path) for n, path in enumerate(named)))
    try:
        for path in (ours, another):
            path.touch()
        drop_shared_memory(maps)
        assert (ours.exists(), another.exists()) == (False, True)
    finally:
        for path in (ours, another):
            path.unlink(missing_ok=True)
    drop_shared_memory(tmp_path / "none")  # where the system does not tell


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--requeue"], "--requeue is for Slurm jobs, and this is none"),
        (["--point", "6"], "--point = 6: allowed is 0 to 5"),
        (["--point", "-1"], "--point = -1"),
        (["--point", "x"], "--point"),
        (["--ranks", "2", "--point", "2"], "--point = 2: allowed is 0 to 1"),
        (["--ranks", "0"], "--ranks"),
        (["--ranks", "1,,2"], "--ranks"),
        (["--site", "none.toml"], "none.toml"),
    ],
)
def test_wrong_use_is_one_line(here, capsys, flags, words):
    from hpcrnn.cli import main

    assert main(["sweep", "tiny.toml", *flags]) == 1
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert not (here / "results").exists()


def test_the_launcher_of_the_site_is_taken(here, capsys):
    from hpcrnn.cli import main

    (here / "site.toml").write_text('[launch]\ncommand = ["mpirun", "-np", "{ranks}"]')
    assert main(["sweep", "tiny.toml", "--ranks", "2", "--point", "1", "--site", "site.toml", "--dry-run"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert ": mpirun -np 2 " in line
    assert "--cell gru" in line
