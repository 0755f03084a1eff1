"""Programs of replicas that exchange models, have a server, or sum through nodes: right whatever the cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from program_samples import PIPELINE_ORDERS, fixed_examples, make_schedule, with_instructions
from symbolic_machine import what_is_wrong

from hpcrnn.errors import ScheduleError
from hpcrnn.schedules.nodes import Nodes, in_turn, nodes_named
from hpcrnn.schedules.program import AllReduce, Average, PostSend, Serve, SumStage, Task, Update, Wait
from hpcrnn.schedules.validation import validate, validate_rank
from hpcrnn.simulation.unit_cost import simulate, unit_cost


def assert_right(schedule):
    programs = schedule.programs()
    validate(programs, schedule)
    for synchronous in (True, False):
        assert what_is_wrong(programs, schedule, synchronous=synchronous) == ""


@given(
    nodes=st.lists(st.integers(0, 3), min_size=2, max_size=8).map(tuple),
    cut=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    order=st.sampled_from(PIPELINE_ORDERS),
    layers=st.integers(1, 4),
    mode=st.sampled_from(["train", "gradient"]),
    carry=st.booleans(),
)
@settings(fixed_examples, max_examples=20)
def test_sums_through_any_nodes_are_right(nodes, cut, order, **options):
    assert_right(make_schedule(f"data={len(nodes)}", *cut, order, data_method="hierarchical", nodes=nodes, **options))


@given(
    n_ranks=st.integers(2, 6),
    cut=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    order=st.sampled_from(PIPELINE_ORDERS),
    method=st.sampled_from(["parameter_server_sync", "parameter_server_async", "local_sgd", "diloco", "ensemble"]),
    carry=st.booleans(),
)
@settings(fixed_examples, max_examples=20)
def test_servers_and_averages_are_right(n_ranks, cut, order, method, carry):
    averages = method in ("local_sgd", "diloco")
    options = {"staleness": 1} if method == "parameter_server_async" else {"averages": averages}
    assert_right(make_schedule(f"data={n_ranks}", *cut, order, data_method=method, carry=carry, **options))


def test_every_stage_begins_with_its_operand_and_overlaps_with_the_backward_pass():
    program = make_schedule("data=4", layers=3, data_method="hierarchical", nodes=(0, 0, 1, 1)).program(1)
    texts = [str(i) for i in program.instructions]
    for block in range(5):
        assert texts.index(f"ReduceScatter({block}:{block + 1}) within node, {500 + block} B") == (
            texts.index(f"W({block},0,0)") + 1
        )
    last_task = max(at for at, i in enumerate(program.instructions) if isinstance(i, Task))
    early = {str(i).split("(")[0] for i in program.instructions[:last_task] if isinstance(i, SumStage)}
    assert early == {"ReduceScatter", "AllReduce", "AllGather"}


@pytest.mark.parametrize(("nodes", "expected"), [((0, 0, 0), 2 / 3), ((0, 0, 1), None), ((0, 1, 2), None)])
def test_parts_add_up_to_the_gradient(nodes, expected):
    """Each part is summed once across nodes; what a rank gathers from are all parts."""
    schedule = make_schedule(f"data={len(nodes)}", data_method="hierarchical", nodes=nodes)
    across, gathered = {}, {}
    for program in schedule.programs():
        node = nodes[program.rank]
        for i in program.instructions:
            if isinstance(i, SumStage) and i.verb != "ReduceScatter":
                found = across if i.verb == "AllReduce" else gathered
                found[node, i.start] = found.get((node, i.start), 0) + i.n_bytes
    for found in (across, gathered):
        assert all(n_bytes == 500 + block for (_, block), n_bytes in found.items())
    assert bool(gathered) == (len(set(nodes)) < len(nodes))
    assert bool(across) == (len(set(nodes)) > 1)
    assert expected is None or not across


def test_nodes_may_be_of_any_size_and_names():
    nodes = nodes_named(["a", "b", "a", "c", "a", "c"])
    assert nodes == Nodes((0, 1, 0, 2, 0, 2))
    assert (nodes.n_nodes, nodes.n_parts) == (3, 1)
    assert [nodes.within(rank) for rank in range(3)] == [(0, 2, 4), (1,), (0, 2, 4)]
    assert (nodes.across(0), nodes.across(4), nodes.across(5)) == ((0, 1, 3), (4,), (5,))
    assert (nodes.counts(0, 7), nodes.counts(1, 7)) == ((7, 0, 0), (7,))
    assert in_turn(5, 2).counts(0, 7) == (7, 0)
    assert in_turn(4, 2).counts(3, 7) == (4, 3)
    assert in_turn(3, 5).of == (0, 0, 0)


FLAT = make_schedule("data=3")
THROUGH = make_schedule("data=3", data_method="hierarchical", nodes=(0, 0, 1))
SERVED = make_schedule("data=3", data_method="parameter_server_sync")
LATE = make_schedule("data=3", data_method="parameter_server_async", staleness=1)
AVERAGE = make_schedule("data=2", data_method="local_sgd", averages=True)
LOCAL = make_schedule("data=2", data_method="local_sgd")


@pytest.mark.parametrize("other", [THROUGH, SERVED, LATE, AVERAGE, LOCAL], ids=lambda s: f"{s.data_method}")
@pytest.mark.parametrize("schedule", [FLAT, THROUGH, SERVED, LATE, AVERAGE, LOCAL], ids=lambda s: f"{s.data_method}")
def test_programs_of_one_method_are_refused_as_those_of_another(schedule, other):
    if schedule is other or schedule.n_ranks != other.n_ranks:
        return
    with pytest.raises(ScheduleError):
        validate(other.programs(), schedule)


def first_line(schedule, rank, change):
    programs = schedule.programs()
    found = [change(i) for i in programs[rank].instructions]
    with pytest.raises(ScheduleError) as raised:
        validate(with_instructions(programs, {rank: [i for i in found if i is not None]}), schedule)
    return str(raised.value).splitlines()[0]


def replaced(old, new):
    return lambda i: new if i == old else i


STAGE = SumStage("ReduceScatter", 2, 3, "within node", 502)


@pytest.mark.parametrize(
    ("schedule", "rank", "change", "expected"),
    [
        (THROUGH, 1, replaced(STAGE, AllReduce(2, 3, ("data",), 502)), "what sums these gradients here is Reduce"),
        (THROUGH, 1, replaced(STAGE, SumStage("ReduceScatter", 2, 3, "within node", 9)), "502 B"),
        (THROUGH, 0, lambda i: None if "AllGather(0:1)" in str(i) else i, "AllGather(0:1) within node, 500 B never"),
        (SERVED, 1, lambda i: Update() if isinstance(i, Wait) and "recv" in str(i) else i, "the server updates"),
        (SERVED, 1, lambda i: None if "gradient(1:2)" in str(i) else i, "the gradient of block 1 is never sent"),
        (SERVED, 0, lambda i: None if str(i) == "Add gradient(2:3) from 1" else i, "it is the turn of rank 1"),
        (SERVED, 0, lambda i: None if "parameters(0:3) to 2" in str(i) else i, "rank 2 never gets its parameters"),
        (SERVED, 0, lambda i: Task("F", 0, 0, 0) if isinstance(i, Update) else i, "not a task of this rank"),
        (LATE, 0, lambda i: Serve(i.value, i.peers, 2, i.n_bytes), "a server does Serve gradient(0:3) from 1,2, stal"),
        (LATE, 2, lambda i: None if isinstance(i, PostSend) or "send" in str(i) else i, "block 0 is never sent"),
        (AVERAGE, 0, lambda i: None if isinstance(i, Average) else i, "the average is missing"),
        (AVERAGE, 1, lambda i: Average() if isinstance(i, Update) else i, "needs the sum of the models first"),
        (LOCAL, 1, lambda i: Average() if isinstance(i, Update) else i, "has no place in a step of local_sgd"),
    ],
)
def test_a_rule_that_is_broken_is_named(schedule, rank, change, expected):
    line = first_line(schedule, rank, change)
    assert line.startswith(f"rank {rank}, step ")
    assert expected in line


@pytest.mark.parametrize("method", ["parameter_server_sync", "parameter_server_async", "hierarchical", "local_sgd"])
def test_a_rank_of_a_large_run_can_check_its_own_part(method):
    nodes = tuple(rank // 16 for rank in range(96)) if method == "hierarchical" else None
    schedule = make_schedule("data=96", data_method=method, nodes=nodes)
    for rank in (0, 1, 95):
        assert validate_rank(schedule, rank).rank == rank


def test_a_server_idles_in_the_simulation_as_long_as_its_workers_work():
    served = simulate(SERVED, unit_cost(SERVED.graph))
    assert served.busy[0] == 0
    assert served.alike == {0: 1, 1: 1, 2: 1}
    assert served.bubble == pytest.approx(1 / 3)
    late = simulate(LATE, unit_cost(LATE.graph))
    assert late.makespan == served.makespan
    assert simulate(LOCAL, unit_cost(LOCAL.graph)).alike == {0: 2}
