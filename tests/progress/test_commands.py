"""Real commands on a real terminal, under MPI too, and into pipes."""

import subprocess
import sys

import pytest
from launching import SMALL, hpcrnn, hpcrnn_run
from pseudo_terminal import COLOURS, ESCAPE, MOVES, on_terminal

from hpcrnn.benchmarks.launch import default_launcher

RUN = [sys.executable, "-m", "hpcrnn", "run", *map(str, SMALL)]

SAYS = "import time; print('hpcrnn: warning: odd'); print('hpcrnn: step 1, 10 s so far'); print('other')"
SWEEP = f"""
[sweep]
name = "says"
ranks = [1, 2]
launcher = ["{sys.executable}", "-c", "{SAYS}"]
[model]
hidden = 12
[problem]
batch = 4
seq = 9
"""


@pytest.mark.mpi
@pytest.mark.parametrize("columns", [60, 80])
def test_a_run_under_mpi_is_drawn_on_the_terminal_of_mpirun(tmp_path, columns):
    launcher = [part.replace("{ranks}", "2") for part in default_launcher()]
    code, text = on_terminal([*launcher, *RUN], cwd=tmp_path, columns=columns)
    assert code == 0, text
    shown = ESCAPE.sub("", text)
    assert MOVES.search(text)
    assert "verifying numpy data=2 (2 of 2)" in shown
    assert "hpcrnn: verifying" not in shown
    results = shown[shown.rindex("r.h5\r\n  ") if "r.h5\r\n  " in shown else 0 :]
    assert "VALID" in results
    assert "$ mpirun -n 2 hpcrnn run --hidden 12" in results.replace("\r\n", " ")


@pytest.mark.mpi
def test_a_run_into_pipes_is_plain(tmp_path):
    ended = hpcrnn_run(2, *SMALL, cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert ended.err == "hpcrnn: verifying numpy serial, numpy data=2\n"


def test_a_run_whose_errors_go_elsewhere_draws_nothing(tmp_path):
    shell = " ".join(RUN) + " 2>errors"
    code, text = on_terminal(["sh", "-c", shell], cwd=tmp_path, stdout=subprocess.DEVNULL)
    assert (code, text) == (0, "")
    assert (tmp_path / "errors").read_text() == "hpcrnn: verifying numpy serial\n"


def test_a_sweep_on_a_terminal(tmp_path):
    (tmp_path / "says.toml").write_text(SWEEP)
    command = [sys.executable, "-m", "hpcrnn", "sweep", "says.toml"]
    code, text = on_terminal(command, cwd=tmp_path)
    assert code == 0, text
    assert COLOURS.search(text)
    shown = ESCAPE.sub("", text)
    for words in ("sweep says · 2 to go", "sweep says · 1 done · 1 to go", "[1/2] lstm-H12-", "step 1, 10 s so far"):
        assert words in shown
    lines = [line.split("\r")[-1] for line in shown.split("\r\n")]
    assert any(line.startswith("[1/2]") and line.endswith("warning: odd") for line in lines)
    assert any(line.startswith("[2/2]") and ": done in " in line for line in lines)

    code, text = on_terminal(command, cwd=tmp_path, NO_COLOR="1")
    assert code == 0
    assert MOVES.search(text)
    assert not COLOURS.search(text)


def test_a_sweep_into_a_pipe_or_on_a_dumb_terminal_is_plain(tmp_path):
    (tmp_path / "says.toml").write_text(SWEEP)
    ended = hpcrnn("sweep", "says.toml", cwd=tmp_path)
    code, text = on_terminal([sys.executable, "-m", "hpcrnn", "sweep", "says.toml"], cwd=tmp_path, TERM="dumb")
    assert (ended.code, code) == (0, 0)
    for lines in (ended.err.splitlines(), text.replace("\r\n", "\n").splitlines()):
        assert len(lines) == 8
        assert all(
            line.startswith(f"hpcrnn: [{1 + (n > 3)}/2] lstm-H12-B4-n{1 + (n > 3)}-") for n, line in enumerate(lines)
        )
        assert not any(ESCAPE.search(line) or "\r" in line for line in lines)
        assert " s so far, about " in lines[3]
        assert lines[3].endswith("left, by the one point done, none on 2 ranks")
        assert lines[6].endswith(": step 1, 10 s so far")
