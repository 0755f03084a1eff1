"""The halo benchmark: it runs, its table says what it should, and its messages are the program's own."""

import re

import numpy as np
import pytest
from launching import case_script, mpirun

from hpcrnn.benchmarks.halo import SIZES
from hpcrnn.execution.transport import _joined

pytestmark = pytest.mark.mpi

MODULE = ("-m", "hpcrnn.benchmarks.halo")

WHAT_IS_EXCHANGED = """
import sys
from hpcrnn.benchmarks import halo
from hpcrnn.benchmarks.script import on_ranks
def main(world):
    cost = halo.measure_halo(world, sys.argv[1], 3, 5, 5)
    if world.is_root:
        print(cost.n_bytes, sorted(cost.bare), cost.suite.n, cost.suite.median > 0, cost.fastest in cost.bare)
    return 0
sys.exit(on_ranks(main))
"""


@pytest.mark.parametrize(("cell", "n_states"), [("lstm", 2), ("gru", 1)])
def test_an_exchange_is_all_states_there_and_back(cell, n_states, tmp_path):
    ended = mpirun(2, case_script(tmp_path, WHAT_IS_EXCHANGED), cell, cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert ended.out == f"{3 * 5 * 4 * n_states} ['Isend/Irecv', 'Send/Recv'] 5 True True\n"


def test_every_size_has_a_row_with_its_ratio(tmp_path):
    ended = mpirun(2, *MODULE, "--rounds", "3", cwd=tmp_path)
    assert ended.code == 0, ended.err
    head, *rows, goal = ended.out.splitlines()
    assert head.split()[0] == "B"
    assert [row.split()[0] for row in rows] == [f"{B}x{H}" for B, H in SIZES]
    assert all(float(re.search(r"([0-9.]+) \[nan, nan\]$", row)[1]) > 0 for row in rows)
    assert goal.startswith("goal: at most 1.3 times")


def test_states_that_fill_one_array_travel_as_one():
    stack = np.zeros((2, 3, 5))
    (whole,) = _joined(tuple(stack))
    assert whole is stack
    flat = np.zeros(30)
    (whole,) = _joined((flat[:13], flat[13:]))
    assert whole is flat


@pytest.mark.parametrize(
    "arrays",
    [
        (np.zeros(3), np.zeros(3)),
        (np.zeros((2, 3))[1], np.zeros((2, 3))[0]),
        tuple(np.zeros((2, 3))[::-1]),  # in the wrong order
        tuple(np.zeros((3, 3))[:2]),  # not the whole
        tuple(np.zeros((2, 6))[:, :3]),  # with gaps
    ],
)
def test_states_that_do_not_travel_each_on_its_own(arrays):
    assert _joined(arrays) is arrays


@pytest.mark.parametrize(
    ("n_ranks", "flags", "words"),
    [(1, (), "1 rank(s); allowed is 2"), (2, ("--rounds", "0"), "--rounds"), (2, ("--cell", "rnn"), "--cell")],
)
def test_wrong_use_is_one_line(n_ranks, flags, words, tmp_path):
    ended = mpirun(n_ranks, *MODULE, *flags, cwd=tmp_path)
    assert ended.code != 0
    assert len(ended.error_lines) == 1, ended.err
    assert words in ended.error_lines[0]
    assert "Traceback" not in ended.err
