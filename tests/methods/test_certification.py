"""From what each rank saw of its solves to one certificate."""

import math

import numpy as np
import pytest

from hpcrnn.backends.base import LayerSolve
from hpcrnn.benchmarks.certification import certify
from hpcrnn.benchmarks.planning import make_plan
from hpcrnn.execution.measurement import Samples
from hpcrnn.methods.solver import Solve
from hpcrnn.records.certificate import SETTLED, UNMET
from hpcrnn.spec import Grid, build_spec
from hpcrnn.workloads import open_workload

BATCH, FOLD = 5, 2


def plan_of(grid, **options):
    fixed = {"workload": "synthetic", "input": "direct", "hidden": 6, "layers": 2, "batch": BATCH, "seq": 12}
    spec = build_spec({}, {**fixed, "method": "picard", "fold": FOLD, **options})
    return make_plan(spec, open_workload(spec), grid)


def make_solve(steps, meeting, *, row_steps=100, residual=1e-7, converged=True, truncated=False):
    return Solve(steps, row_steps, np.array(meeting, dtype=np.int64), residual, converged, truncated)


def solves_of(plan, make):
    """Let ``make(rank, place, rows, layer, direction)`` say what each rank saw of each micro-batch."""
    found = []
    for rank in range(plan.n_ranks):
        place, extent = plan.place(rank), plan.extent(rank)
        own = [plan.network.blocks[b] for b in extent.blocks]
        found.append(
            tuple(
                LayerSolve(block.name, direction, rows, make(rank, place, rows, block.name, direction))
                for block in own
                if block.is_recurrent
                for direction in ("forward", "backward")
                for rows in extent.microbatches
            )
        )
    return found


def numbered(plan, rank, place, rows, layer, direction):
    """Meeting lengths that tell layer, direction, segment and row of the global batch."""
    first_row = plan.rows(rank).start + rows.start
    sign = 1000 * (1 + ("layer0", "layer1").index(layer)) + 500 * (direction == "backward")
    segments = np.arange(place.time * FOLD, (place.time + 1) * FOLD)
    return make_solve((6, 2), sign + 10 * segments[:, None] + first_row + np.arange(rows.stop - rows.start)[None, :])


@pytest.mark.parametrize("microbatches", [1, 2])
@pytest.mark.parametrize(
    "grid", [Grid(), Grid(data=2, time=2), Grid(pipeline=2, time=3), Grid(data=2, pipeline=2, time=2)], ids=str
)
def test_every_segment_and_row_has_its_place(grid, microbatches):
    plan = plan_of(grid, microbatches=microbatches)
    solves = solves_of(plan, lambda *where: numbered(plan, *where))
    exponents = [{"layer0": -0.5, "layer1": -0.25}] * plan.n_ranks
    certificate = certify(plan, Samples(solves=[solves], exponents=[exponents] * 2), {})
    assert certificate.n_segments == grid.time * FOLD
    assert certificate.meeting.shape == (2, 2, grid.time * FOLD, BATCH)
    for (layer, direction, segment, row), length in np.ndenumerate(certificate.meeting):
        assert length == 1000 * (1 + layer) + 500 * direction + 10 * segment + row
    assert certificate.fault(1) == ""


def one_layer(grid, by_rank, microbatches=1):
    """The certificate of one step of one layer, forward; the same backward."""
    plan = plan_of(grid, layers=1, microbatches=microbatches)
    solves = solves_of(plan, lambda rank, place, rows, *_: by_rank(rank, rows))
    return certify(plan, Samples(solves=[solves], exponents=[[{}] * plan.n_ranks] * 2), {})


def test_critical_steps_are_of_every_round_the_most_of_any_rank():
    """Time ranks work side by side, and wait for each other after every round."""
    steps = [(6, 0, 1), (6, 4, 0), (6, 2, 3)]
    certificate = one_layer(Grid(time=3), lambda rank, _: make_solve(steps[rank], [[SETTLED] * BATCH] * FOLD))
    assert certificate.critical_steps[0, 0].tolist() == [6 + 4 + 3] * 2
    assert certificate.rounds[0, 0].tolist() == [3, 3]
    assert certificate.row_steps[0, 0].tolist() == [300, 300]


def test_replicas_work_side_by_side_and_micro_batches_in_turn():
    """The slower replica counts, with both of its micro-batches; replicas may take different numbers of rounds."""
    steps = {(0, 0): (6, 1), (0, 2): (6, 2), (1, 0): (6, 2, 2), (1, 1): (6,)}
    rows_of = {0: 3, 1: 2}

    def see(rank, rows):
        meeting = np.zeros((FOLD, rows.stop - rows.start))
        return make_solve(steps[rank, rows.start], meeting, row_steps=10 * rows_of[rank])

    certificate = one_layer(Grid(data=2), see, microbatches=2)
    assert certificate.critical_steps[0, 0, 0] == max(6 + 1 + 6 + 2, 6 + 2 + 2 + 6)
    assert certificate.rounds[0, 0, 0] == 3
    assert certificate.row_steps[0, 0, 0] == 2 * 30 + 2 * 20


def test_the_worst_of_all_ranks_is_what_is_said():
    def see(rank, rows):
        return make_solve(
            (6,),
            [[SETTLED] * 5, [7, 9, UNMET, SETTLED, 11]] if rank else [[UNMET] * 5, [SETTLED] * 5],
            residual=(1e-7, 3e-5)[rank],
            converged=rank == 0,
            truncated=rank == 1,
        )

    certificate = one_layer(Grid(time=2), see)
    assert certificate.residual[0, 0, 0] == 3e-5
    assert not certificate.converged.any()
    assert certificate.truncated.all()
    assert certificate.n_unmet[0, 0, 0] == 6
    # Of those that met: 7, 9, 11.
    np.testing.assert_allclose(certificate.meeting_quantiles[0, 0, 0], [7, 8, 9, 10, 10.6, 11])
    assert (certificate.n_unconverged, certificate.n_truncated) == (1, 1)


def test_where_nothing_had_to_meet_quantiles_are_unknown():
    certificate = one_layer(Grid(), lambda *_: make_solve((6,), [[SETTLED] * 5] * 2))
    assert np.isnan(certificate.meeting_quantiles).all()
    assert certificate.n_unmet.sum() == 0
    assert certificate.rounds.max() == 1


def test_steps_are_kept_one_by_one_and_the_last_ones_lengths_whole():
    plan = plan_of(Grid(), layers=1)
    steps = [
        solves_of(plan, lambda *_, k=k: make_solve((6, k), [[SETTLED] * 5, [k] * 5], residual=k)) for k in (1, 2, 3)
    ]
    exponents = [[{"layer0": -0.5}], [{"layer0": -0.25}]]
    choice = {"method": "picard", "reason": "met after 3 steps"}
    certificate = certify(plan, Samples(solves=steps, exponents=exponents), choice)
    assert certificate.critical_steps[:, 0, 0].tolist() == [7, 8, 9]
    assert certificate.residual[:, 0, 1].tolist() == [1, 2, 3]
    assert certificate.meeting_quantiles[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert certificate.meeting[0, 0, 1].tolist() == [3] * 5
    assert certificate.lyapunov.tolist() == [[-0.5], [-0.25]]
    assert certificate.choice is choice
    assert certificate.fault(3) == ""


def test_exponents_are_the_mean_over_the_ranks_that_have_the_layer():
    plan = plan_of(Grid(pipeline=2, time=2))
    solves = solves_of(plan, lambda *where: numbered(plan, *where))
    places = [plan.place(rank) for rank in range(4)]
    first = [{f"layer{place.pipeline}": float(-1 - place.pipeline - place.time)} for place in places]
    certificate = certify(plan, Samples(solves=[solves], exponents=[first, [{}] * 4]), {})
    assert certificate.lyapunov[0].tolist() == [-1.5, -2.5]
    assert all(math.isnan(exponent) for exponent in certificate.lyapunov[1])


def test_in_mode_forward_there_is_one_direction():
    plan = plan_of(Grid(), mode="forward")
    solves = [tuple(s for s in solves_of(plan, lambda *w: numbered(plan, *w))[0] if s.direction == "forward")]
    certificate = certify(plan, Samples(solves=[solves], exponents=[[{}]] * 2), {})
    assert certificate.directions == ("forward",)
    assert certificate.rounds.shape == (1, 2, 1)


def test_a_case_that_never_ran_has_no_certificate():
    assert certify(plan_of(Grid()), Samples(stop_reason="invalid"), {}) is None
