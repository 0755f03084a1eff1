"""The overhead benchmark: the executor runs real programs on idle engines, messages and all."""

import re

import numpy as np
import pytest
from launching import mpirun

from hpcrnn.benchmarks.overhead import LARGE, IdleEngine, measure_program
from hpcrnn.schedules.graph import Value
from hpcrnn.spec import Grid

pytestmark = pytest.mark.mpi


@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_it_prints_what_instructions_and_programs_cost(n_ranks, tmp_path):
    ended = mpirun(n_ranks, "-m", "hpcrnn.benchmarks.overhead", cwd=tmp_path)
    assert ended.code == 0, ended.err
    steps = re.findall(r"^ +(\S+) .* (\d+) instructions, .* ([0-9.]+) µs each$", ended.out, re.MULTILINE)
    axes = {grid.partition("=")[0] for grid, _, _ in steps}
    assert axes == ({"data", "pipeline", "time"} if n_ranks > 1 else {"data"})
    # Far above any machine, even one whose cores three ranks and other tests share: it must only be a number.
    assert all(0 < float(each) < 1e5 for _, _, each in steps)
    programs = re.findall(r"(\d+) instructions, +([0-9.]+) ms$", ended.out, re.MULTILINE)
    assert len(programs) == 6


def test_a_program_of_one_of_many_ranks_is_built_without_the_others():
    grid = Grid(pipeline=LARGE)
    n, spent_s = measure_program({"layers": LARGE, "order": "seq_1f1b", "chunks": 16}, grid, LARGE // 2)
    # F, B and W of 16 chunks, a message and its wait from and to both sides.
    assert n > 16 * (3 + 2 * 4)
    # The goal is a second; building all ranks' programs would take minutes.
    assert spent_s < 20


def test_a_buffer_stays_where_it_is():
    engine, value = IdleEngine(), Value("y", 1, 0, 2)
    (into,), (again,), (out,) = (engine.buffers(value, incoming=incoming) for incoming in (True, True, False))
    assert into is again
    assert not np.shares_memory(into, out)
