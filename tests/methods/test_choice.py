"""``auto``: what a probe finds, what follows from it, and that no clock is asked here."""

import json
import math
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from hpcrnn.backends.registry import make_engine
from hpcrnn.benchmarks import choice
from hpcrnn.benchmarks.planning import make_plan
from hpcrnn.model.network import initial_parameters
from hpcrnn.records.certificate import UNMET
from hpcrnn.recurrence import check_recurrence
from hpcrnn.schedules.graph import Task
from hpcrnn.spec import Grid, RecurrenceSpec, build_spec
from hpcrnn.workloads import open_workload

ALONE = SimpleNamespace(on_root=lambda function: function())

STEP_S = 1e-3

CHAOTIC = 8.0
"""What recurrent weights of an Elman cell have to be multiplied by."""


def seconds(per_folded_step):
    """What a step of training takes, by specification: the same a time step, folded or not, but for a factor."""

    def step_s(spec, _):
        folded = spec.recurrence.method != "chain"
        return STEP_S * spec.problem.seq * (per_folded_step / spec.recurrence.fold if folded else 1)

    return step_s


class SerialExecutor:
    """A program of one rank, without MPI; with recurrent weights times a gain."""

    def __init__(self, spec, gain):
        workload = open_workload(spec)
        plan = make_plan(spec, workload, Grid())
        parameters = initial_parameters(plan.network, spec.problem.seed)
        self.engine = make_engine("numpy", plan.network, plan.extent(0), spec)
        self.engine.load_parameters({n: a * (gain if n.endswith(".R") else 1) for n, a in parameters.items()})
        self.engine.load_batch(workload.batch(0))
        self._tasks = [i for i in plan.program(0).instructions if isinstance(i, Task)]

    def run(self):
        self.engine.begin_step()
        for task in self._tasks:
            call = {"F": "forward", "B": "backward", "W": "weight_gradient"}[task.kind]
            getattr(self.engine, call)(task.block, task.microbatch, task.chunk)


@pytest.fixture
def chosen(monkeypatch):
    """A function from options to the specification and the probe that ``auto`` comes to."""

    def choose(gain=1.0, per_folded_step=1.0, **overrides):
        monkeypatch.setattr(choice, "_executor", lambda spec, _: SerialExecutor(spec, gain))
        monkeypatch.setattr(choice, "_step_s", seconds(per_folded_step))
        fixed = {"workload": "synthetic", "hidden": 16, "layers": 1, "batch": 2, "seq": 512, "cell": "elman"}
        fixed |= {"method": "auto", "fold": 8, "gemm": "numpy"}
        spec = build_spec({}, {**fixed, **overrides})
        found, plain = choice.choose_method(spec, ALONE)
        check_recurrence(found, found.parallel.grid or Grid())
        untouched = msgspec.structs.replace(found, recurrence=spec.recurrence)
        assert untouched == spec
        return found.recurrence, plain

    return choose


def test_one_segment_is_a_chain_without_a_probe(chosen, monkeypatch):
    monkeypatch.setattr(choice, "_probe", lambda *_: pytest.fail("there is nothing to find out"))
    recurrence, plain = chosen(fold=1)
    assert recurrence == RecurrenceSpec()
    assert plain["method"] == "chain"
    assert plain["reason"] == "there is one segment (fold = 1, time = 1)"
    assert plain["predicted_s"] == {}


def test_a_short_memory_is_for_picard(chosen):
    recurrence, plain = chosen(tolerance=1e-5, burn_in=3)
    assert recurrence == RecurrenceSpec(method="picard", fold=8, tolerance=1e-5, burn_in=3)
    assert plain["segment_steps"] == 512 // 8
    assert 0 < plain["meeting"] < 64
    assert plain["rounds"] == 0
    assert plain["chain_step_s"] == plain["folded_step_s"] == pytest.approx(STEP_S)
    assert plain["predicted_s"] == {
        "chain": pytest.approx(512 * STEP_S),
        "picard": pytest.approx((64 + plain["meeting"]) * STEP_S),
    }
    assert plain["reason"] == (
        f"met after {plain['meeting']} steps; predicted: chain 0.512 s, "
        f"picard {plain['predicted_s']['picard']:.3g} s: picard"
    )


def test_segments_of_time_ranks_count_too(chosen):
    recurrence, plain = chosen(fold=2, grid="time=4", halo_codec="int8")
    assert plain["segment_steps"] == 64
    assert recurrence == RecurrenceSpec(method="picard", fold=2, halo_codec="int8")


def test_chaos_is_for_the_chain(chosen):
    recurrence, plain = chosen(gain=CHAOTIC, max_rounds=5, dtype="float64")
    assert recurrence == RecurrenceSpec()  # whose other keys would be refused
    assert plain["meeting"] == UNMET
    assert plain["rounds"] == 8
    assert plain["predicted_s"] == {"chain": pytest.approx(0.512), "picard": None, "gateprod": None}
    assert plain["reason"] == (
        "trajectories did not meet within the probe's segments; predicted: chain 0.512 s, picard not, gateprod not: "
        "chain"
    )


def test_a_long_memory_of_gates_is_for_gate_products(chosen):
    recurrence, plain = chosen(cell="gru", forget_bias=6.0, seq=256, gain=0.3)
    assert recurrence.method == "gateprod"
    assert plain["meeting"] == UNMET
    assert 1 < plain["rounds"] <= 5
    assert plain["predicted_s"]["gateprod"] == pytest.approx(plain["rounds"] * 32 * STEP_S)
    assert plain["predicted_s"]["picard"] is None
    assert plain["reason"].endswith(": gateprod")


@pytest.mark.parametrize("cell", ["mingru", "minlstm"])
def test_a_linear_cell_is_scanned(chosen, cell):
    recurrence, plain = chosen(cell=cell)
    assert recurrence.method == "scan"
    assert set(plain["predicted_s"]) == {"chain", "scan"}


@pytest.mark.parametrize(("per_folded_step", "method"), [(1.0, "picard"), (4.0, "picard"), (12.0, "chain")])
def test_dear_rows_are_not_worth_it(chosen, per_folded_step, method):
    recurrence, plain = chosen(per_folded_step=per_folded_step)
    assert recurrence.method == method
    assert plain["folded_step_s"] == pytest.approx(per_folded_step * STEP_S)


def test_a_gain_of_less_than_a_tenth_is_not_worth_it(chosen):
    _, plain = chosen()
    even = plain["predicted_s"]["chain"] / plain["predicted_s"]["picard"]
    for share, method in ((0.85, "picard"), (0.95, "chain"), (1.05, "chain")):
        recurrence, found = chosen(per_folded_step=share * even)
        assert found["predicted_s"]["picard"] == pytest.approx(share * found["predicted_s"]["chain"])
        assert recurrence.method == found["method"] == method


def test_the_probe_looks_at_few_rows_steps_and_segments(chosen, monkeypatch):
    """Its cost does not grow with the problem."""
    seen = []
    run = SerialExecutor.__init__

    def watch(self, spec, gain):
        seen.append((spec.problem.seq, spec.problem.batch, spec.recurrence.fold, spec.parallel, spec.training.mode))
        run(self, spec, gain)

    monkeypatch.setattr(SerialExecutor, "__init__", watch)
    chosen(seq=4096, batch=32, fold=64, microbatches=4, hidden=4)
    ((seq, batch, fold, parallel, mode),) = seen
    assert (seq, batch, fold) == (64 * 8, 4, 8)
    assert parallel.grid == Grid()
    assert (parallel.microbatches, mode) == (1, "gradient")
    chosen(mode="forward", hidden=4)
    assert seen[-1][-1] == "forward"


def test_what_was_found_goes_into_a_record_as_plain_values(chosen):
    for options in ({}, {"gain": CHAOTIC, "dtype": "float64"}, {"fold": 1}):
        _, plain = chosen(**options)
        again = json.loads(json.dumps(plain))
        assert again["method"] == plain["method"]
        assert all(value is None or math.isfinite(value) for value in again["predicted_s"].values())
        assert not any(isinstance(value, np.generic) for value in plain.values())


@pytest.mark.parametrize("method", ["chain", "picard"])
def test_a_method_that_was_given_is_not_looked_at(chosen, method):
    recurrence, plain = chosen(method=method, fold=1)
    assert recurrence.method == method
    assert plain == {}
