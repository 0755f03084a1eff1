"""The study of what decides whether segments can run at once: its tables, and that they can be drawn."""

import subprocess
import sys

import numpy as np

from hpcrnn.records.study import read_study_record


def test_training_is_looked_at_and_drawn(tmp_path):
    out, plots = tmp_path / "study.h5", tmp_path / "plots"
    study = ["hpcrnn.benchmarks.time_study", "--tables", "training", "--steps", "1", "--every", "1", "--out", str(out)]
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
