"""The study of what decides whether segments can run at once: its tables, and that they can be drawn."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from launching import mpirun

from hpcrnn.benchmarks import time_study
from hpcrnn.records.study import read_study_record

MODULE = "hpcrnn.benchmarks.time_study"


def test_training_is_looked_at_and_drawn(tmp_path):
    out, plots = tmp_path / "study.h5", tmp_path / "plots"
    study = [MODULE, "--tables", "training", "--steps", "1", "--every", "1", "--out", str(out)]
    for command in (study, ["hpcrnn.reporting.study", str(out), "-o", str(plots)]):
        subprocess.run([sys.executable, "-m", *command], check=True, timeout=100, capture_output=True)
    (table,) = read_study_record(out).tables
    columns = table.columns
    assert columns["workload"].tolist() == ["stdlib"] * 2 + ["adding"] * 2
    assert columns["step"].tolist() == [0, 1, 0, 1]
    assert (columns["meeting_forward"] > 0).all()
    assert (columns["rounds_forward"] >= 2).all()
    # Exact to the tolerance: no worse than the serial run but for what single precision leaves open.
    assert (columns["gradient_error"] < 10 * columns["serial_error"] + 1e-5).all()
    assert np.isfinite(columns["lyapunov"]).all()
    assert len(set(columns["loss"].tolist())) == 4  # it really trains
    # Only the last step of a sequence of `adding` has a loss: its gradient is truncated where it has died out.
    assert columns["truncated_backward"].tolist()[:2] == [0, 0]
    assert list(plots.glob("*.png"))


def test_the_rows_are_counted_before_they_are_made(monkeypatch):
    class Anything:
        """Stands for a problem and its solves: rows are counted here, not filled."""

        def __init__(self, *_arguments):
            self.workload = self.executor = self.engine = self
            self.parameters = {}
            self.loss = 0.0

        def batch(self, step):
            return step

        def errors(self, *_arguments):
            return 0.0, 0.0

        def gradients(self, *_arguments):
            return {}

        def parameter_pieces(self):
            return {}

        def exponents(self):
            return {"layer0": 0.0}

        def solves(self):
            return (found("forward"), found("backward"))

        def step(self, _batch):
            return self.solves()

    def found(direction):
        solve = SimpleNamespace(meeting=np.zeros(1), steps=[1], truncated=False)
        return SimpleNamespace(direction=direction, solve=solve)

    Anything.load_parameters = lambda self, _parameters: None
    for name in ("Problem", "Reference"):
        monkeypatch.setattr(time_study, name, Anything)
    monkeypatch.setattr(time_study, "open_workload", lambda _spec: None)
    monkeypatch.setattr(time_study, "_training_row", lambda *_arguments: {})
    for steps, every in ((300, 15), (7, 3), (1, 5)):
        made = {
            "speedup": time_study.speedup_rows(None),
            "tolerance": time_study.tolerance_rows(None),
            "training": time_study.training_rows(None, steps, every),
            "chaos": time_study.chaos_rows(None),
        }
        assert set(made) == set(time_study.TABLES)
        for name, rows in made.items():
            assert len(list(rows)) == time_study.n_rows(name, steps, every), name


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("n_ranks", "flags", "words"),
    [
        (1, ("--every", "0"), "--every"),
        (1, ("--every", "-3"), "--every"),
        (1, ("--steps", "0"), "--steps"),
        (2, (), "2 rank(s); allowed is 1: python"),
    ],
)
def test_wrong_use_is_one_line(n_ranks, flags, words, tmp_path):
    ended = mpirun(n_ranks, "-m", MODULE, *flags, cwd=tmp_path)
    assert ended.code != 0
    assert len(ended.error_lines) == 1, ended.err
    assert words in ended.error_lines[0]
    assert "Traceback" not in ended.err
    assert not list(tmp_path.iterdir())
