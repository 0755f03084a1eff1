"""Ranks of unequal speed: whatever their shares, the result is the serial one; what is measured and said of them."""

import json

import numpy as np
import pytest
from launching import SMALL, case_script, hpcrnn_run, mpirun

from hpcrnn.records.hdf5 import read_record
from hpcrnn.reporting.analysis.entries import make_entries
from hpcrnn.reporting.analysis.onsets import find_onsets

pytestmark = pytest.mark.mpi

# No share of 23 rows, 19 steps or 6 layers is even, whatever the weights.
SIZES = {"hidden": 13, "embed": 7, "layers": 6, "batch": 23, "seq": 19}

PROGRAM = """
import json, sys
import msgspec
from hpcrnn.benchmarks.verification import verify
from hpcrnn.benchmarks.ways import Way
from hpcrnn.execution.world import World, fail
from hpcrnn.grid import resolve_grid
from hpcrnn.schedules.placement import Layout
from hpcrnn.spec import build_spec
from hpcrnn.spec.unequal import parse_weights
from hpcrnn.workloads import open_workload

def way_of(overrides):
    spec = build_spec({}, overrides)
    parallel = msgspec.structs.replace(spec.parallel, grid=resolve_grid(spec, world.size))
    spec = msgspec.structs.replace(spec, parallel=parallel)
    return Way("numpy", spec, Layout(weights=parse_weights(parallel.balance)))

def check(cases):
    ways = [way_of(case) for case in cases]
    workload = open_workload(ways[0].spec)
    verdicts = verify(ways, workload, world)
    return [(verdicts[way].status, str(verdicts[way].worst), way.plan(workload).shares()) for way in ways]

world = World.start()
try:
    found = check(json.loads(sys.argv[1]))
except BaseException as error:
    fail(world, error)
if world.is_root:
    print("found " + json.dumps(found))
"""

CUTS = [{"microbatches": 3, "chunks": 2}, {}, {"order": "1f1b", "microbatches": 2}]

CASES = {
    2: (["data=2", "pipeline=2", "time=2"], "1,3"),
    3: (["data=3", "pipeline=3", "time=3"], "0.5,2,1"),
    4: (["data=2,pipeline=2", "pipeline=2,time=2", "data=2,time=2", "data=2,tensor=2"], "1,2,4,4"),
    5: (["data=5", "pipeline=5", "time=5"], "5,1,1,1,2"),
}


@pytest.mark.parametrize("n_ranks", [pytest.param(n, marks=() if n == 2 else pytest.mark.thorough) for n in CASES])
def test_uneven_shares_compute_the_serial_result(n_ranks, tmp_path):
    grids, weights = CASES[n_ranks]
    cuts = CUTS[: 5 - n_ranks] or CUTS[:1]
    cases = [{**SIZES, "grid": grid, "balance": f"weights:{weights}", **cut} for grid in grids for cut in cuts]
    if n_ranks == 2:
        cases += [{**SIZES, "grid": "time=2", "balance": "weights:1,3", "method": "picard", "fold": 2}]
        cases += [{**SIZES, "grid": "pipeline=2", "balance": "weights:2,1", "order": "interleaved", "virtual_stages": 2,
                   "microbatches": 2}]  # fmt: skip
    ended = mpirun(n_ranks, case_script(tmp_path, PROGRAM), json.dumps(cases), cwd=tmp_path)
    assert ended.code == 0, ended.err[-3000:]
    found = json.loads(ended.out.partition("found ")[2])
    assert len(found) == len(cases)
    for case, (status, worst, shares) in zip(cases, found, strict=True):
        assert status == "VALID", (case, worst)
        uneven = {axis for axis, parts in shares.items() if max(parts) - min(parts) > 1 and axis != "tensor"}
        assert uneven, (case, shares)  # or the test says nothing


@pytest.mark.thorough
def test_a_measured_split_gives_a_slow_rank_less(tmp_path):
    """A fifth of the speed: beyond what a busy machine does to the other rank."""
    flags = [*SMALL, "--hidden", 24, "--batch", 44, "--balance", "measured", "--handicap", "1:0.2"]
    ended = hpcrnn_run(2, *flags, cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "balance measured: the slowest rank takes" in ended.err
    record = read_record(tmp_path / "r.h5")
    facts = record.environment["balance"]
    assert facts["how"] == "measured"
    assert max(facts["weights"]) == 1
    assert facts["weights"][1] < 0.5 * facts["weights"][0]
    first, second = facts["passes"]
    assert first["rows"] == [22, 22]
    assert sum(second["rows"]) == 44
    assert second["rows"][1] < 11
    assert all(len(samples) >= 7 for one in facts["passes"] for samples in one["sample_s"])
    serial, even, balanced = record.cases
    assert [case.spec["parallel"]["balance"] for case in record.cases] == ["even", "even", "measured"]
    assert all(case.verdict.status == "VALID" for case in record.cases)
    # The even split is measured in the same rounds; the serial base is nobody's handicapped run.
    assert len(even.time_s) == len(balanced.time_s)
    assert serial.is_serial_base
    assert (serial.handicap, even.handicap, balanced.handicap) == ("", "1:0.2", "1:0.2")
    assert "HANDICAPPED 1:0.2" in even.label
    assert len({case.id for case in record.cases}) == 3
    np.testing.assert_allclose(balanced.loss, serial.loss, rtol=1e-5)


def test_given_weights_are_recorded_and_even_shares_stand_beside_them(tmp_path):
    ended = hpcrnn_run(3, *SMALL, "--batch", 9, "--balance", "weights:4,1,1", cwd=tmp_path)
    assert ended.code == 0, ended.err
    record = read_record(tmp_path / "r.h5")
    assert record.environment["balance"] == {"how": "given", "weights": [4, 1, 1]}
    assert [case.spec["parallel"]["balance"] for case in record.cases] == ["even", "even", "weights:4,1,1"]


def test_weights_of_other_ranks_are_told_once(tmp_path):
    ended = hpcrnn_run(2, *SMALL, "--balance", "weights:1,2,3", cwd=tmp_path)
    assert ended.code == 1
    (line,) = ended.error_lines
    assert "parallel.balance = 'weights:1,2,3': allowed is a weight for each of 2 ranks, not 3" in line


@pytest.mark.thorough
def test_a_rank_that_becomes_slow_in_mid_run_is_named_with_its_step(tmp_path):
    """A tenth of its speed: no noise of a busy machine is as large."""
    flags = [*SMALL, "--hidden", 24, "--min-repeats", 24, "--max-repeats", 24, "--no-baseline"]
    ended = hpcrnn_run(2, *flags, "--handicap", "1:0.1@12", cwd=tmp_path)
    assert ended.code == 0, ended.err
    (entry,) = make_entries([read_record(tmp_path / "r.h5")])
    (onset,) = find_onsets(entry)
    assert (onset.rank, onset.n_steps) == (1, 24)
    assert abs(onset.step - 12) <= 1
    assert onset.rise.median > 3
    assert "becomes slow with step" in ended.out
