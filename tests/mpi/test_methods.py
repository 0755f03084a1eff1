"""Segments of time on ranks: the same as on one, proven in the record, and ended together when a number is not one.

Few launches check many cases, because starting ranks takes longer than checking.
"""

import json

import numpy as np
import pytest
from launching import SMALL, case_script, hpcrnn, hpcrnn_run, mpirun

from hpcrnn.records.hdf5 import read_record

pytestmark = pytest.mark.mpi

# 2 divides neither 5 rows nor 7 units, 4 segments or 6 do not divide 25 steps.
SIZES = {"hidden": 7, "embed": 3, "layers": 2, "batch": 5, "seq": 25, "workload": "file:text.txt"}

PROGRAM = """
import json, sys
import msgspec
import numpy as np
from hpcrnn.benchmarks.one_step import random_boundary, run_once
from hpcrnn.benchmarks.verification import verify
from hpcrnn.benchmarks.ways import Way
from hpcrnn.errors import NumericsError
from hpcrnn.execution.world import World, fail
from hpcrnn.grid import resolve_grid
from hpcrnn.spec import Grid, build_spec
from hpcrnn.workloads import open_workload

world = World.start()
sizes = json.loads(sys.argv[1])

def way_of(size=world.size, **overrides):
    spec = build_spec({}, {**sizes, **overrides})
    grid = resolve_grid(spec, size)
    return Way("numpy", msgspec.structs.replace(spec, parallel=msgspec.structs.replace(spec.parallel, grid=grid)))

def verdicts_of(ways):
    # Ways of one problem share its reference.
    found = verify(ways, open_workload(ways[0].spec), world)
    return [(found[way].status, found[way].gradient_error, str(found[way].worst)) for way in ways]

def executor_of(way, rank):
    return way.plan(open_workload(way.spec)).executor(rank, "numpy", world.communicators(way.grid))

def step_of(way, rank):
    workload = open_workload(way.spec)
    plan, executor = way.plan(workload), executor_of(way, rank)
    part = run_once(executor, plan, rank, workload, random_boundary(plan.network, way.spec))
    return executor, part

try:
    found = main()
except BaseException as error:
    fail(world, error)
if world.is_root:
    print("found " + json.dumps(found))
"""


def run_program(n_ranks, main, folder):
    """What ``main()`` of a program returned on rank 0."""
    program = PROGRAM.replace("\ntry:\n", f"\n{main}\ntry:\n", 1)
    (folder / "text.txt").write_bytes(np.random.default_rng(0).integers(0, 90, 4000, dtype=np.uint8).tobytes())
    ended = mpirun(n_ranks, case_script(folder, program), json.dumps(SIZES), cwd=folder, timeout=60)
    assert ended.code == 0, ended.err[-3000:]
    (line,) = (text for text in ended.out.splitlines() if text.startswith("found "))
    return json.loads(line.removeprefix("found "))


HYBRIDS = """
GRIDS = ("time=4", "data=2,time=2", "pipeline=2,time=2")
PICARD = [{"grid": grid, "method": "picard", "fold": 2, "microbatches": 2} for grid in GRIDS]
OTHERS = [{"grid": grid, "method": method, "fold": 2} for grid, method in zip(GRIDS, ("gateprod", "picard", "deer"))]
SCAN = [{"grid": grid, "method": "scan", "fold": 3} for grid in GRIDS]
PROBLEMS = [({"cell": "lstm"}, PICARD), ({"cell": "gru"}, OTHERS), ({"cell": "minlstm"}, SCAN)]
CARRIED = {"grid": "data=2,time=2", "method": "picard", "fold": 2}

def losses(way):
    workload, plan, rank = open_workload(way.spec), None, world.rank if way.n_ranks > 1 else 0
    plan, executor, path = way.plan(workload), executor_of(way, rank), []
    for step in range(6):
        executor.engine.load_batch(workload.batch(step, plan.rows(rank)))
        executor.run()
        path.append((executor.engine.loss, executor.gradient_norm))
    return np.array(path)

def main():
    exact = {"dtype": "float64", "tolerance": 1e-14}
    found = [verdicts_of([way_of(**exact, **cell, **case) for case in cases]) for cell, cases in PROBLEMS]
    path, serial = losses(way_of(**exact, carry=True, **CARRIED)), losses(way_of(1, **exact, carry=True))
    return [verdict for verdicts in found for verdict in verdicts], float(np.abs(path / serial - 1).max())
"""


def test_hybrids_of_segments_with_replicas_and_stages_are_exact_and_train_alike(tmp_path):
    verdicts, difference = run_program(4, HYBRIDS, tmp_path)
    assert len(verdicts) == 9
    assert not [verdict for verdict in verdicts if verdict[0] != "VALID"]
    assert difference < 1e-11  # of losses and gradient norms over six steps, states carried across ranks


TWO_RANKS = """
CODECS = [
    {"grid": "time=2", "method": "picard", "fold": 2, "halo_codec": codec}
    for codec in ("none", "bfloat16", "float16", "int8")
]
INEXACT = [
    {"grid": "time=2", "method": "tbptt_zero", "fold": 2}, {"grid": "time=2", "method": "tbptt_stale"},
    {"grid": "time=2", "method": "burnin", "burn_in": 8},
    {"grid": "time=2", "method": "overlap_verified", "burn_in": 8},
]

def line_calls():
    # What a solve relies on, message by message.
    line, rank = world.communicators(Grid(time=2)).line, world.rank
    own = np.arange(6, dtype=np.float16).reshape(2, 3) + 10 * rank
    sent = line.sent_bytes
    right, left = line.pass_right(own), line.pass_left(own)
    sent = line.sent_bytes - sent
    numbers = line.largest(np.array([rank, np.nan if rank else 1.0, -np.inf, np.inf, -1.0 - rank]))
    gathered = line.gather(own[:, :2])
    return [
        (line.rank, line.size) == (rank, 2), bool((right == own - 10 * rank).all()),
        bool((left == own + 10 * (1 - rank)).all()), sent == own.nbytes,
        np.array_equal(numbers, [1, np.nan, -np.inf, np.inf, -1], equal_nan=True),
        [a[0, 1].item() for a in gathered] == [1, 11] and gathered[0].shape == (2, 2),
    ]

def same_segments():
    # Four of them, on two ranks and on one: the solves see the same numbers.
    exact = {"dtype": "float64", "cell": "gru", "method": "picard", "seq": 48, "tolerance": 1e-10}
    executor, part = step_of(way_of(**exact, fold=2, grid="time=2"), world.rank)
    solves = world.comm.gather((executor.engine.solves(), part, executor.sent_bytes))
    if not world.is_root:
        return None
    alone, whole = step_of(way_of(1, **exact, fold=4), 0)
    differences = [
        float(np.abs(part.pieces[name].value - piece.value).max() / np.abs(piece.value).max())
        for _, part, _ in solves for name, piece in whole.pieces.items()
        if name in part.pieces and not name.startswith("dx")
    ]
    meetings = [
        [np.concatenate([halves.solve.meeting for halves in pair]).tolist(), one.solve.meeting.tolist()]
        for *pair, one in zip(*(found for found, *_ in solves), alone.engine.solves())
    ]
    residuals = [[s.solve.residual for s in found] for found, *_ in solves]
    return max(differences), meetings, residuals, [sent for *_, sent in solves], alone.sent_bytes

def not_a_number():
    # In what rank 1 alone reads.
    errors = []
    for part in ("x", "dy"):
        way = way_of(grid="time=2", method="picard", fold=2, workload="adding")
        executor = executor_of(way, world.rank)
        batch = open_workload(way.spec).batch(0)
        bad = (batch.inputs if part == "x" else batch.targets).copy()
        bad[-1] = np.nan
        changed = {"inputs" if part == "x" else "targets": bad}
        executor.engine.load_batch(type(batch)(**{"inputs": batch.inputs, "targets": batch.targets,
                                                  "weights": batch.weights, **changed}))
        try:
            executor.run()
            errors.append("")
        except NumericsError as error:
            errors.append(str(error))
    return world.comm.gather(errors)

def main():
    codecs = verdicts_of([way_of(cell="lstm", **case) for case in CODECS])
    inexact = verdicts_of([way_of(cell="lstm", **case) for case in INEXACT])
    calls = world.comm.gather(line_calls())
    larger = {"hidden": 12, "batch": 6, "seq": 50, "cell": "lstm"}
    default = verdicts_of([way_of(grid="time=2", method="picard", fold=3, **larger)])
    vanishing = {"workload": "adding", "hidden": 12, "seq": 320, "layers": 1, "mode": "gradient"}
    serial = verdicts_of([way_of(1, cell="lstm", **vanishing)])
    picard = verdicts_of([way_of(grid="time=2", method="picard", fold=4, cell="lstm", **vanishing)])
    scan = verdicts_of([way_of(grid="time=2", method="scan", fold=4, cell="mingru", **vanishing)])
    found = {"codecs": codecs, "inexact": inexact, "calls": calls, "default": default}
    found["vanishing"] = serial + picard + scan
    return found | {"same": same_segments(), "errors": not_a_number()}
"""


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """What was found on two ranks, in one launch."""
    return run_program(2, TWO_RANKS, tmp_path_factory.mktemp("two_ranks"))


def test_compressed_halos_are_approximate_with_their_gradient_error(two_ranks):
    (_, none, _), *compressed = two_ranks["codecs"]
    assert [status for status, *_ in compressed] == ["APPROXIMATE"] * 3
    bfloat16, float16, int8 = (error for _, error, _ in compressed)
    assert none < 1e-5 < float16 < bfloat16 < 1
    assert float16 < int8 < 1


def test_the_default_tolerance_is_never_called_wrong_in_single_precision(two_ranks):
    """What is dropped is small beside the layer's largest gradient, and may not be beside a small array's."""
    ((status, error, worst),) = two_ranks["default"]
    assert status in {"VALID", "APPROXIMATE"}, worst
    assert error < 2e-6  # of the parameters' gradients


@pytest.mark.parametrize("way", [0, 1, 2], ids=["serial", "picard", "scan"])
def test_a_gradient_that_vanishes_on_its_way_is_not_wrong(two_ranks, way):
    """That of the initial states, 320 steps before the only loss; the least float32 is far above it."""
    status, _, worst = two_ranks["vanishing"][way]
    assert status != "INVALID", worst


def test_inexact_methods_are_approximate_with_their_gradient_error(two_ranks):
    assert [status for status, *_ in two_ranks["inexact"]] == ["APPROXIMATE"] * 4
    zero, stale, burnin, overlap = (error for _, error, _ in two_ranks["inexact"])
    assert 1e-6 < overlap < burnin < zero < 1  # the first know more of what they cut off
    assert 1e-6 < stale < 1


def test_ranks_of_a_line_hear_from_their_neighbours_and_of_the_largest(two_ranks):
    assert all(all(rank) for rank in two_ranks["calls"]), two_ranks["calls"]


def test_segments_are_the_same_on_two_ranks_and_folded_on_one(two_ranks):
    difference, meetings, residuals, sent, sent_alone = two_ranks["same"]
    assert difference < 1e-9
    assert len(meetings) == 2 * SIZES["layers"]
    assert all(over_ranks == alone for over_ranks, alone in meetings)
    assert residuals[0] == residuals[1]
    assert min(sent) > 0 == sent_alone


def test_a_number_that_is_not_one_on_one_rank_stops_both(two_ranks):
    states, gradients = zip(*two_ranks["errors"], strict=True)
    assert states[0] == states[1]
    assert states[0].startswith("a state is not finite after the forward pass of method picard")
    assert gradients[0] == gradients[1]
    assert gradients[0].startswith("a gradient of a state is not finite after the backward pass of method picard")


def test_a_run_on_time_ranks_is_valid_and_its_certificate_is_kept_and_shown(tmp_path):
    flags = ("--seq", 50, "--grid", "time=3", "--method", "picard", "--fold", 2, "--cell", "lstm")
    flags += ("--dtype", "float64", "--tolerance", 1e-14)
    ended = hpcrnn_run(3, *SMALL, *flags, cwd=tmp_path)
    assert ended.code == 0, ended.err
    record = read_record(tmp_path / "r.h5")
    serial, *_, case = record.cases
    assert {case.verdict.status for case in record.cases} == {"VALID"}
    assert (serial.n_ranks, case.n_ranks) == (1, 3)
    assert serial.certificate is None
    found = case.certificate
    assert (found.layers, found.n_segments) == (("layer0", "layer1"), 6)
    assert found.fault(len(case.loss)) == ""
    assert found.converged.all()
    assert (found.residual <= 1e-14).all()
    assert ((found.rounds > 1) & (found.rounds <= 6)).all()
    assert ((found.critical_steps >= 9) & (found.critical_steps <= 54)).all()
    assert (found.row_steps >= 50 * 6).all()
    assert (found.lyapunov < 0).all()
    np.testing.assert_allclose(case.loss, serial.loss, rtol=1e-10)
    assert case.spec["recurrence"]["method"] == "picard"
    assert serial.spec["recurrence"]["method"] == "chain"

    shown = hpcrnn("show", "r.h5", cwd=tmp_path)
    assert shown.code == 0, shown.err
    assert "picard, 6 segments, tolerance 1e-14" in shown.out
    assert "rounds" in shown.out
    assert "Lyapunov" in shown.out


OVERFLOWS = """
import sys
import numpy as np
from mpi4py import MPI
from hpcrnn.methods import codec
encode = codec._CODECS["float16"]
if MPI.COMM_WORLD.rank == 0:
    codec._CODECS["float16"] = (lambda states: encode[0](states + np.float32(1e6)), encode[1])
from hpcrnn.cli import main
sys.exit(main(["run", *sys.argv[1:]]))
"""


def test_a_state_that_a_codec_cannot_carry_ends_all_ranks(tmp_path):
    """On one rank alone; the other waits for the message, and a job that hangs fails here."""
    flags = ("--grid", "time=2", "--method", "picard", "--halo-codec", "float16", "--no-baseline")
    ended = mpirun(2, case_script(tmp_path, OVERFLOWS), *map(str, SMALL), *flags, cwd=tmp_path, timeout=30)
    assert ended.code == 2, ended.err
    assert "recurrence.halo_codec = float16: a state of 1e+06 is beyond its range" in ended.err
    assert "allowed is at most 65504" in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "r.h5").exists()
