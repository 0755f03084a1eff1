"""Programs of methods that solve all windows of time together: no halo messages, and the same tasks in one order."""

from dataclasses import replace

import pytest

from hpcrnn.benchmarks.planning import make_plan
from hpcrnn.errors import ScheduleError
from hpcrnn.schedules.graph import Task, TaskGraph
from hpcrnn.schedules.program import Message
from hpcrnn.schedules.validation import validate, validate_rank
from hpcrnn.spec import Grid, build_spec, parse_grid
from hpcrnn.workloads import open_workload


@pytest.fixture(autouse=True)
def _text(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_bytes(bytes(range(200)))
    monkeypatch.chdir(tmp_path)


def plan_of(grid, method="picard", **options):
    fixed = {"workload": "file:text.txt", "hidden": 6, "layers": 4, "batch": 9, "seq": 24, "cell": "lstm"}
    spec = build_spec({}, {**fixed, "method": method, **options})
    return make_plan(spec, open_workload(spec), Grid(**parse_grid(grid)))


GRIDS = ["time=2", "time=3", "pipeline=2,time=2", "data=2,time=2", "data=2,pipeline=2,time=2"]
ORDERS = ["fill_drain", "1f1b", "seq_1f1b", "zb_h1"]


def messages(plan):
    return [i for program in plan.programs for i in program.instructions if isinstance(i, Message)]


@pytest.mark.parametrize("carry", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("grid", GRIDS)
def test_programs_are_valid_and_have_no_halo_messages(grid, order, carry):
    """But for the states a next step starts from, which go from the last window to the first."""
    plan = plan_of(grid, order=order, microbatches=3, carry=carry)
    last = plan.schedule.graph.n_chunks - 1
    kinds = {m.value.kind for m in messages(plan) if not (m.value.kind == "halo" and m.value.chunk == last)}
    assert kinds == ({"y", "dy"} if "pipeline" in grid else set())
    carried = {m.value for m in messages(plan) if m.value.kind == "halo"}
    assert len(carried) == (4 * 3 if carry else 0)
    chain = plan_of(grid, "chain", order=order, microbatches=3, carry=carry)
    assert {"halo", "dhalo"} <= {m.value.kind for m in messages(chain)}
    assert sum(p.bytes_sent for p in plan.programs) < sum(p.bytes_sent for p in chain.programs)
    assert [validate_rank(plan.schedule, rank) for rank in range(plan.n_ranks)] == list(plan.programs)


def test_tasks_of_a_coupled_graph_wait_for_none_of_another_chunk():
    coupled, plain = (TaskGraph((False, True, False), 1, 3, coupled=coupled) for coupled in (True, False))
    assert list(coupled.tasks()) == list(plain.tasks())
    for task in coupled.tasks():
        assert {needed.chunk for needed in coupled.needs(task)} <= {task.chunk}
        assert {v.kind for v in (*coupled.values_into(task), *coupled.values_out_of(task))} <= {"y", "dy"}
        assert set(coupled.needs(task)) <= set(plain.needs(task))
    assert any(needed.chunk != 1 for needed in plain.needs(Task("F", 1, 0, 1)))


def with_micro_batches_swapped(program):
    """The tasks of two micro-batches in each other's place: as good for a rank alone."""

    def swapped(instruction):
        if not isinstance(instruction, Task) or instruction.microbatch > 1:
            return instruction
        return Task(instruction.kind, instruction.block, 1 - instruction.microbatch, instruction.chunk)

    return replace(program, instructions=tuple(map(swapped, program.instructions)))


@pytest.mark.parametrize("order", ORDERS)
def test_windows_of_time_work_in_lockstep(order):
    """Each waits inside a task for all others to be in theirs."""
    plan = plan_of("time=3", order=order, microbatches=2)
    programs = list(plan.programs)
    programs[2] = with_micro_batches_swapped(programs[2])
    with pytest.raises(ScheduleError) as raised:
        validate(programs, plan.schedule)
    line = str(raised.value).splitlines()[0]
    assert line.startswith("rank 2, step ")
    assert line.endswith("time ranks work in lockstep")
    assert "rank 0 does " in line
    # All of them alike are in step again.
    assert validate([with_micro_batches_swapped(p) for p in plan.programs], plan.schedule) is None


def test_replicas_do_not_wait_for_each_other_inside_tasks():
    plan = plan_of("data=2", microbatches=2)
    programs = [plan.programs[0], with_micro_batches_swapped(plan.programs[1])]
    assert validate(programs, plan.schedule) is None


def test_weight_gradients_need_not_be_in_step():
    """They exchange nothing inside."""
    plan = plan_of("time=2", microbatches=2)
    found = list(plan.programs[1].instructions)
    first, second = (found.index(Task("W", 2, m, 1)) for m in (0, 1))
    found.insert(second, found.pop(first))
    assert validate([plan.programs[0], replace(plan.programs[1], instructions=tuple(found))], plan.schedule) is None


def test_windows_idle_for_nothing_but_unequal_shares():
    assert plan_of("time=2").bubble_bound() == pytest.approx(0, abs=1e-12)
    assert plan_of("time=2", "chain").bubble_bound() > 0.05
    assert 0 < plan_of("time=2", seq=25).bubble_bound() < 0.05
