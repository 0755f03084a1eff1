"""What ``hpcrnn compare`` pairs, decides and prints."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from factory import make_case, make_record, quick_cases, strategy_cases, time_parallel_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from hpcrnn.errors import SpecError
from hpcrnn.records.statistics import Interval, median_interval, ratio_interval
from hpcrnn.reporting.analysis.entries import make_entries
from hpcrnn.reporting.analysis.finding import finding_of
from hpcrnn.reporting.comparison.compare import compare, environment_differences, to_json
from hpcrnn.reporting.comparison.matching import differences, facts, has, match, matchers, read_wanted, read_words
from hpcrnn.reporting.terminal.comparison import show_comparison

SIZE = {"hidden": 512}


def record(cases, seed=0, **changes):
    return make_record(cases, seed=seed, source=f"results/{'ab'[seed % 2]}.h5", **changes)


def compared(a, b, **options):
    return compare([record(a)], [record(b, seed=1)], **options)


def shown(comparison, width=80, *, terminal=False, encoding="utf-8"):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    colors = {"color_system": "standard"} if terminal else {}
    show_comparison(comparison, Console(file=stream, width=width, force_terminal=terminal, **colors))
    return raw.getvalue().decode(encoding)


def step_of(pair):
    return pair.metrics[0]


def test_samples_that_drift_are_said_of_their_side():
    drifting = [0.1 * (1 + 0.02 * step) for step in range(30)]
    found = compared([make_case(1)], [make_case(1, samples=drifting)])
    (pair,) = found.pairs
    assert list(pair.cautions) == ["B"]
    assert "B: samples drift: the second half is" in shown(found, 120)
    assert to_json(found)["pairs"][0]["cautions"] == pair.cautions
    assert compared([make_case(1)], [make_case(1, seed=3)]).pairs[0].cautions == {}


def test_the_same_problem_run_the_same_way_is_paired_and_judged():
    slower = [make_case(1, 64, 0.412, **SIZE), make_case(2, 64, 0.33, seed=5, **SIZE)]
    found = compared(quick_cases(), slower)
    assert [(p.match.a.case.label, step_of(p).finding) for p in found.pairs] == [
        ("serial · numpy", "undecided"),
        ("data 2 · numpy", "slower"),
    ]
    assert step_of(found.pairs[1]).ratio.median == pytest.approx(0.33 / 0.219, rel=0.03)
    (lone,) = found.lone
    assert (lone.side, lone.entry.case.n_ranks) == ("A", 2)
    assert "batch: 128 in A, 64 in B" in lone.reason


def test_every_phase_is_compared_by_its_mean_over_ranks():
    found = compared(quick_cases()[:2], quick_cases()[:2])
    case = found.pairs[1].match.a.case
    by_name = {m.name: m for m in found.pairs[1].metrics}
    assert list(by_name) == list(case.phases)
    assert by_name["backward"].a == median_interval(case.phase_s("backward").mean(axis=1))
    assert by_name["step"].a == median_interval(case.step_s())
    assert all(m.better == "lower" for m in by_name.values())


def test_too_few_samples_decide_nothing_and_it_is_said():
    found = compared([make_case(samples=[0.1] * 5)], [make_case(samples=[9.0] * 5)])
    step = step_of(found.pairs[0])
    assert (step.finding, step.n_too_small) == ("undecided", True)
    assert "n too small" in shown(found)


def test_an_invalid_case_is_named_and_has_no_number():
    found = compared([make_case()], [make_case(valid=False)])
    (pair,) = found.pairs
    assert pair.metrics == ()
    assert pair.reason.startswith("B: INVALID: gradient layer0.R")
    assert "not compared: B: INVALID" in shown(found)
    assert "×" not in shown(found)


def test_a_new_kernel_and_a_new_commit_are_compared_and_named():
    other = replace(make_case(median_s=0.2), kernel="MKL 2027 packed sgemm")
    found = compared([make_case()], [other])
    assert step_of(found.pairs[0]).finding == "faster"
    assert [d.key for d in found.pairs[0].match.differences] == ["kernel"]
    assert "differs: kernel: MKL packed sgemm | MKL 2027 packed sgemm" in shown(found, 120)


def test_of_several_kernels_those_of_one_name_are_paired_and_the_rest_each_with_each():
    named = {k: replace(make_case(), kernel=k) for k in ("old", "same", "new", "newest")}
    a, b = [named["old"], named["same"]], [named["same"], named["new"], named["newest"]]
    found = compared(a, b)
    kernels = [(p.match.a.case.kernel, p.match.b.case.kernel) for p in found.pairs]
    assert kernels == [("old", "new"), ("old", "newest"), ("same", "same")]
    assert found.lone == ()


@pytest.mark.parametrize("change", [{"hidden": 128}, {"dtype": "float64"}, {"seq": 32}, {"lr": 0.1}])
def test_another_problem_is_refused_unless_told(change):
    a, b = [make_case()], [make_case(**change)]
    with pytest.raises(SpecError, match="--across") as caught:
        compared(a, b)
    (key,) = change
    assert f"{key}: " in str(caught.value)
    assert "\n" not in str(caught.value)
    found = compared(a, b, across=True)
    assert key in [d.key for d in found.pairs[0].loud]
    assert "NOT THE SAME PROBLEM" in shown(found)


def test_across_leaves_pairs_of_one_problem_alone_and_compares_rates():
    found = compared(quick_cases(), quick_cases()[1:], across=True)
    assert [(p.match.a.case.n_ranks, bool(p.loud)) for p in found.pairs] == [(2, False), (2, False)]
    found = compared(quick_cases()[1:2], quick_cases()[2:], across=True)
    rate = found.pairs[0].metrics[1]
    assert (rate.name, rate.better, rate.unit) == ("rate", "higher", "FLOP/s")
    assert rate.a.low <= rate.a.median <= rate.a.high
    assert rate.ratio.median == pytest.approx(2 * 0.219 / 0.431, rel=0.03)
    assert "Rates: higher is better" in " ".join(shown(found).split())


def test_another_way_of_running_is_not_paired():
    a = [make_case(2, grid={"pipeline": 2}, order="1f1b", microbatches=4)]
    b = [make_case(2, grid={"pipeline": 2}, order="zb_h1", microbatches=4)]
    with pytest.raises(SpecError, match="order: 1f1b in A, zb_h1 in B; --a KEY=VALUE --b"):
        compared(a, b)
    with pytest.raises(SpecError, match="neither has one"):
        compared([], [])
    with pytest.raises(SpecError, match="A has no other case"):
        compared([], b)
    found = compared(a, b, of_a={"order": "1f1b"}, of_b={"order": "zb_h1"})
    assert [d.key for d in found.pairs[0].match.differences] == ["order"]


def test_a_file_is_compared_with_itself_where_cases_are_chosen():
    one = [record(quick_cases())]
    with pytest.raises(SpecError, match="choose cases"):
        compare(one, one)
    found = compare(one, one, of_a={"strategy": "serial"}, of_b={"strategy": "data", "batch": 64})
    assert step_of(found.pairs[0]).finding == "faster"
    assert found.same_run
    assert "from run to run" not in shown(found)
    with pytest.raises(SpecError, match="--across"):
        compare(one, one, of_a={"batch": 64, "ranks": 2}, of_b={"batch": 128})
    with pytest.raises(SpecError, match="there is serial · numpy; data 2 · numpy"):
        compare(one, one, of_a={"ranks": 3})


def test_of_chosen_ways_every_pair_that_agrees_in_the_rest_is_compared():
    cases = strategy_cases((2, 4))
    found = compare([record(cases)], [record(cases)], of_a={"strategy": "data"}, of_b={"strategy": "tensor"})
    ranks = [(p.match.a.case.n_ranks, p.match.b.case.n_ranks) for p in found.pairs]
    assert ranks == [(2, 2), (4, 4)]
    of = {"of_a": {"strategy": "data", "ranks": 4}, "of_b": {"strategy": "data", "ranks": 2}}
    assert len(compare([record(cases)], [record(cases)], **of).pairs) == 1
    of = {"of_a": {"grid": "data=4", "seed": 0}, "of_b": {"strategy": "tensor"}}
    ranks = [
        (p.match.a.case.n_ranks, p.match.b.case.n_ranks) for p in compare([record(cases)], [record(cases)], **of).pairs
    ]
    assert ranks == [(4, 2), (4, 4)]


def test_machines_that_differ_are_listed_and_not_refused():
    b = record(quick_cases(), seed=1)
    b.environment["hosts"][0]["cpu_model"] = "AMD EPYC"
    b.environment["packages"]["numpy"] = "3.0\x1b[31m"
    b.environment["mpi"]["library"] = "Open MPI 5"
    b.environment["blas"]["libraries"][0]["num_threads"] = 8
    found = compare([record(quick_cases())], [b])
    assert {d.key for d in found.environment} == {"CPU", "numpy", "MPI", "BLAS"}
    text = shown(found)
    assert "differs: numpy: 2.4.6 | 3.0 [31m" in text
    assert "\x1b" not in text


def test_records_without_an_environment_are_compared():
    a, b = (record(quick_cases(), seed=k, environment={"hosts": 3, "gpus": None}) for k in (0, 1))
    assert compare([a], [b]).environment == ()
    assert environment_differences([a], [record(quick_cases())])


def test_a_file_of_an_earlier_version_matches_what_it_meant():
    case = make_case()
    older = replace(case, spec={k: dict(v) for k, v in case.spec.items() if k != "recurrence"})
    for section, key in (("parallel", "order"), ("parallel", "virtual_stages"), ("model", "forget_init")):
        del older.spec[section][key]
    assert differences(case, older) == ()
    assert len(compared([case], [older]).pairs) == 1


def test_a_key_this_version_does_not_know_sets_cases_apart():
    case = make_case()
    newer = replace(case, spec={**case.spec, "model": {**case.spec["model"], "peephole": True}})
    with pytest.raises(SpecError, match="peephole: none in A, yes in B"):
        compared([case], [newer])


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("terminal", [False, True])
def test_every_line_fits(width, terminal):
    a = [*strategy_cases((2,)), *time_parallel_cases()]
    found = compared(a, [*a[2:], make_case(hidden=96, valid=False)], across=True)
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown(found, width, terminal=terminal))
    assert width < 80 or all(len(line.rstrip()) <= width for line in text.splitlines())
    assert "wait recv" in text


def test_a_terminal_without_unicode_gets_ascii():
    text = shown(compared(quick_cases(), quick_cases()[:1]), encoding="ascii")
    assert text.isascii()
    assert "?" not in text


def test_the_json_is_strict_and_complete():
    found = compared([*quick_cases(), make_case(samples=[0.1])], [make_case(samples=[0.2]), make_case(valid=False)])
    plain = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert (plain["schema"], plain["version"]) == ("hpcrnn-compare", 1)
    metrics = [m for pair in plain["pairs"] for m in pair["metrics"]]
    assert {m["better"] for m in metrics} == {"lower"}
    assert metrics[0]["ratio"] == {"n": 1, "median": 2.0, "low": None, "high": None}
    assert metrics[0]["n_too_small"]
    assert {entry["side"] for entry in plain["unmatched"]} == {"A"}


POSITIVE = st.floats(1e-6, 1e6)
SAMPLES = st.lists(POSITIVE, min_size=1, max_size=30)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(SAMPLES, SAMPLES)
def test_what_is_faster_one_way_is_slower_the_other(first, second):
    a, b = median_interval(first), median_interval(second)
    there, back = (finding_of(ratio_interval(*pair), "lower") for pair in ((b, a), (a, b)))
    assert {there, back} in ({"undecided"}, {"faster", "slower"})
    assert finding_of(ratio_interval(b, a), "higher") == back
    if there == "faster":
        assert b.high < a.low * (1 + 1e-9)
    if min(len(first), len(second)) < 6:
        assert there == "undecided"


def test_an_interval_that_touches_one_decides_nothing():
    assert finding_of(Interval(9, 0.9, 0.8, 1.0), "lower") == "undecided"
    assert finding_of(Interval(9, 0.9, 0.8, math.nan), "lower") == "undecided"


KINDS = st.sampled_from([*strategy_cases((2, 4)), *quick_cases(), *time_parallel_cases()])


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(KINDS, max_size=6), st.lists(KINDS, max_size=6))
def test_no_case_is_lost_and_pairs_agree(a, b):
    first, second = record(a), record(b, seed=1)
    entries = make_entries([first, second])
    mine, theirs = [[e for e in entries if e.file == k] for k in (1, 2)]
    matches, lone = match(mine, theirs)
    paired = {m.a.number for m in matches} | {m.b.number for m in matches}
    assert paired | {x.entry.number for x in lone} == {e.number for e in entries}
    assert not paired & {x.entry.number for x in lone}
    assert all(m.a.case.id == m.b.case.id for m in matches)
    assert all(x.reason for x in lone)


def test_a_case_has_its_own_facts_and_every_key_can_be_asked_for():
    for case in (*strategy_cases((2,)), *time_parallel_cases()):
        known = facts(case)
        assert has(case, known)
        assert set(known) <= set(matchers()) | {"transport"}


def test_words_are_read_as_what_the_key_holds():
    words = ["ranks=2", "lr=1e-3", "grid=time=2,data=2", "clip=null", "simulated=true", "kernel=MKL*"]
    expected = {"ranks": 2, "lr": 1e-3, "grid": "data=2,time=2", "clip": None, "simulated": True, "kernel": "MKL*"}
    assert read_words(words, "--a") == expected
    assert has(make_case(), {"kernel": "MKL*", "hidden": [128, 256]})
    assert not has(make_case(), {"kernel": "torch*"})
    assert not has(replace(make_case(), simulated=True), {"hidden": 256})
    assert not has(make_case(), {"tolerance": 1e-6})  # a chain has none


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["ranks"], "--a = 'ranks': allowed is KEY=VALUE"),
        (["ranks=2", "ranks=3"], "each key once"),
        (["rank=2"], "--a rank = '2': allowed is one of the keys"),
        (["ranks=two"], "--a ranks = 'two': allowed is an integer >= 1"),
        (["ranks=0"], "--a ranks = '0'"),
        (["strategy=magic"], "serial or data or pipeline"),
        (["grid=magic"], "axis=count"),
        (["grid=data=0"], "grid.data = 0: allowed is an integer"),
        (["a\nb=1"], "one of the keys"),
    ],
)
def test_words_that_choose_nothing_are_refused(words, text):
    with pytest.raises(SpecError) as caught:
        read_words(words, "--a")
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_of_values_is_read_value_by_value():
    assert read_wanted({"ranks": [1, 2]}, "") == {"ranks": [1, 2]}
    with pytest.raises(SpecError, match="ranks = '2'"):
        read_wanted({"ranks": [1, "2"]}, "")


def test_a_step_without_spread_is_decided():
    found = compared([make_case(samples=[0.1] * 8)], [make_case(samples=[0.1001] * 8)])
    assert step_of(found.pairs[0]).finding == "slower"
    assert np.isfinite(step_of(found.pairs[0]).ratio.low)
