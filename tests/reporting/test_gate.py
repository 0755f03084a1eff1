"""What a gate asks, decides and prints; references that are refused."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from factory import make_case, make_record, quick_cases, strategy_cases, time_parallel_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from hpcrnn.errors import FileError, HpcrnnError, SpecError
from hpcrnn.records.hdf5 import write_record
from hpcrnn.records.statistics import Interval, median_interval
from hpcrnn.reporting.comparison.gate import decide, judge, to_json
from hpcrnn.reporting.comparison.gate_reference import (
    Limit,
    load_reference,
    read_reference,
    reference_of,
    write_reference,
    write_text,
)
from hpcrnn.reporting.terminal.gate import show_outcome


def reference(tmp_path, text):
    path = tmp_path / "ref.toml"
    path.write_text(text, encoding="utf-8")
    return load_reference(path)


def expecting(tmp_path, line, case='strategy = "data"'):
    return reference(tmp_path, f"[[expect]]\n{line}\n[expect.case]\n{case}\n")


def shown(outcome, width=80, *, terminal=False, encoding="utf-8"):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    colors = {"color_system": "standard"} if terminal else {}
    show_outcome(outcome, Console(file=stream, width=width, force_terminal=terminal, **colors))
    return raw.getvalue().decode(encoding)


QUICK = quick_cases()[:2]
"""Serial 412 ms, data 2 219 ms: speedup 1.88, efficiency 0.94."""


@pytest.mark.parametrize(
    ("line", "result"),
    [
        ("step_s = { at_most = 0.3 }", "pass"),
        ("step_s = { at_most = 0.2 }", "fail"),
        ("step_s = { at_most = 0.219 }", "undecided"),
        ("step_s = { reference = 0.19, tolerance = 0.05 }", "fail"),
        ("step_s = { reference = 0.19, tolerance = 0.25 }", "pass"),
        ("step_s = { reference = 0.19, interval = [0.1, 0.23], tolerance = 0 }", "undecided"),
        ("speedup = { at_least = 1.7 }", "pass"),
        ("speedup = { at_least = 1.99 }", "fail"),
        ("efficiency = { at_least = 0.9 }", "pass"),
        ("efficiency = { reference = 0.99, tolerance = 0.1 }", "pass"),
        ("efficiency = { at_least = 0.99 }", "fail"),
        ("gflops = { at_least = 100 }", "pass"),
        ("gflops = { at_least = 1e6 }", "fail"),
        ('verdict = "VALID"', "pass"),
        ('verdict = "APPROXIMATE"', "fail"),
    ],
)
def test_a_limit_holds_is_broken_or_cannot_be_told(line, result, tmp_path):
    outcome = judge([make_record(QUICK)], expecting(tmp_path, line))
    assert [check.result for check in outcome.checks] == [result]
    assert outcome.exit_code == (3 if result == "fail" else 0)
    assert outcome.last_line == ("FAIL 1 of 1" if result == "fail" else "PASS")
    strict = judge([make_record(QUICK)], expecting(tmp_path, line), strict=True)
    assert strict.exit_code == (0 if result == "pass" else 3)


def test_samples_that_drift_are_noted_of_what_is_judged():
    drifting = make_case(1, samples=[0.1 * (1 + 0.02 * step) for step in range(30)])
    outcome = judge([make_record([drifting])], reference_of([make_record([make_case(1)])], 0.5))
    (note,) = [note for note in outcome.notes if "samples drift" in note]
    assert note.startswith("serial · numpy: ")


def test_a_missing_case_fails_and_the_nearest_is_named(tmp_path):
    outcome = judge([make_record(QUICK)], expecting(tmp_path, "step_s = { at_most = 9 }", "ranks = 2\nbatch = 128"))
    assert outcome.exit_code == 3
    assert "the case is missing; the nearest has batch = 64 where 128 is asked" in shown(outcome, 120)
    nothing = judge([make_record([])], expecting(tmp_path, 'verdict = "VALID"'))
    assert nothing.last_line == "FAIL 1 of 1"


def test_an_invalid_case_fails_whether_it_is_named_or_not(tmp_path):
    cases = [*QUICK, make_case(2, valid=False, hidden=512, grid={"tensor": 2})]
    asked = expecting(tmp_path, "step_s = { at_most = 9 }")
    outcome = judge([make_record(cases)], asked)
    assert outcome.last_line == "FAIL 1 of 2"
    assert "INVALID: gradient layer0.R" in shown(outcome, 120)
    named = expecting(tmp_path, "step_s = { at_most = 9 }", 'strategy = "tensor"')
    assert judge([make_record(cases)], named).last_line == "FAIL 1 of 1"


def test_a_speedup_without_a_base_fails(tmp_path):
    outcome = judge([make_record(QUICK[1:])], expecting(tmp_path, "speedup = { at_least = 0.1 }"))
    assert outcome.failed[0].reason == "no VALID serial run to compare with"


def test_too_few_samples_fail_under_strict_only(tmp_path):
    record = make_record([make_case(2, samples=[9.0] * 5)])
    asked = expecting(tmp_path, "step_s = { at_most = 0.1 }")
    assert judge([record], asked).exit_code == 0
    assert judge([record], asked, strict=True).exit_code == 3
    assert "n = 5 is too small for an interval" in shown(judge([record], asked))


def test_every_case_that_agrees_is_checked(tmp_path):
    outcome = judge(
        [make_record(quick_cases())], expecting(tmp_path, "step_s = { at_most = 0.3 }", "hidden = [128, 512]")
    )
    assert [c.result for c in outcome.checks] == ["fail", "pass", "fail"]


def test_a_file_given_twice_counts_once(tmp_path):
    record = make_record(QUICK)
    outcome = judge([record, record], expecting(tmp_path, 'verdict = "VALID"'))
    assert len(outcome.checks) == 1


def test_an_earlier_result_is_a_reference_with_its_own_uncertainty():
    before = [make_record([*QUICK, make_case(4, valid=False)], seed=3)]
    slower = [make_case(1, 64, 0.412, hidden=512, seed=8), make_case(2, 64, 0.25, seed=8, hidden=512)]
    outcome = judge([make_record(slower)], reference_of(before, 0.05))
    assert [c.result for c in outcome.checks] == ["pass", "fail"]
    assert outcome.notes[0].startswith("no reference: data 4 · numpy: INVALID")
    assert judge([make_record(slower)], reference_of(before, 0.3)).last_line == "PASS"
    itself = judge(before[:1], reference_of([make_record(QUICK)], 0.0))
    assert {c.result for c in itself.checks[:2]} == {"undecided"}
    elsewhere = make_record(slower, environment={})
    assert any("differs: CPU" in note for note in judge([elsewhere], reference_of(before, 1)).notes)
    with pytest.raises(SpecError, match="VALID case"):
        reference_of([make_record([make_case(valid=False)])], 0.1)


def test_of_repeated_measurements_the_slowest_is_the_reference(tmp_path):
    runs = [make_record([make_case(1, 64, s, seed=k), make_case(2, 64, 0.6 * s**0.5, seed=k)], seed=k)
            for k, s in enumerate((0.2, 0.5, 0.3))]  # fmt: skip
    text = write_text(runs, 0.05)
    assert text.count("[[expect]]") == 2
    assert "# measured 3 times, 200 ms to 500 ms: the slowest is the reference" in text
    outcome = judge(runs, reference(tmp_path, text))
    assert outcome.last_line == "PASS"
    taken = {c.limit.reference.median for c in outcome.checks if c.entry.case.n_ranks == 1}
    assert taken == {median_interval(runs[1].cases[0].step_s()).median}
    taken = reference_of(runs, 0.1)
    assert judge(runs, taken).last_line == "PASS"
    assert "serial · numpy: measured 3 times" in taken.notes[0]
    named = make_record(runs[0].cases, source="other.h5", seed=9)
    text = shown(judge([*runs, named], taken), 120)
    assert "2  other.h5" in text
    assert "serial · numpy · file 2" in text


def test_a_new_kernel_is_held_against_the_old_one():
    renewed = [replace(case, kernel="new") for case in QUICK]
    outcome = judge([make_record(renewed)], reference_of([make_record(QUICK)], 0.5))
    assert outcome.last_line == "PASS"


@pytest.mark.parametrize("cases", [quick_cases(), strategy_cases((2, 4)), time_parallel_cases(), [make_case(n=3)]])
def test_a_written_reference_is_passed_by_its_own_file_and_names_each_case_alone(cases, tmp_path):
    path = tmp_path / "ref.toml"
    records = [make_record(cases)]
    write_reference(records, path, None, inputs=(), overwrite=False)
    read = read_reference(path)
    outcome = judge(records, read)
    assert outcome.last_line == "PASS"
    steps = [c for c in outcome.checks if c.metric == "step_s"]
    assert [c.entry.number for c in steps] == list(range(1, len(cases) + 1))
    for check, case in zip(steps, cases, strict=True):
        assert check.limit.reference.median == median_interval(case.step_s()).median
        assert check.limit.tolerance == 0.05


def test_a_written_reference_knows_a_case_that_came_later(tmp_path):
    cases = strategy_cases((2,))
    text = write_text([make_record(cases[1:4])], 0.05)
    outcome = judge([make_record(cases)], reference(tmp_path, text))
    assert len([c for c in outcome.checks if c.metric == "step_s"]) == 3


def test_names_cannot_break_out_of_a_written_reference(tmp_path):
    case = make_case(workload='file:a"b\\c\n[[expect]]\nö.txt')
    text = write_text([make_record([case], source='x\ny".h5')], 0.05)
    assert len(reference(tmp_path, text).expectations) == 1


def test_a_reference_replaces_nothing_it_was_not_told_to(tmp_path):
    records, path = [make_record(QUICK)], tmp_path / "ref.toml"
    path.write_text("mine")
    with pytest.raises(FileError, match="--overwrite"):
        write_reference(records, path, None, inputs=(), overwrite=False)
    assert path.read_text() == "mine"
    with pytest.raises(FileError, match="input"):
        write_reference(records, path, None, inputs=[path], overwrite=True)
    write_reference(records, path, 0.2, inputs=(), overwrite=True)
    assert "tolerance = 0.2" in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["ref.toml"]
    with pytest.raises(SpecError, match=r"\.toml"):
        write_reference(records, tmp_path / "ref.txt", None, inputs=(), overwrite=False)
    with pytest.raises(SpecError, match="VALID case"):
        write_reference([make_record([make_case(valid=False)])], path, None, inputs=(), overwrite=True)


CASE = "[expect.case]\nranks = 2\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expect = None: allowed is one table [[expect]] or more"),
        ("expect = []", "expect = []"),
        ("expect = 3", "expect = 3"),
        ("tolerence = 1\n[[expect]]\n" + CASE, "tolerence = 1: allowed is one of the keys tolerance, expect"),
        ("tolerance = -1\n[[expect]]\n" + CASE, "tolerance = -1: allowed is a number >= 0"),
        ("tolerance = nan\n[[expect]]\n" + CASE, "tolerance = nan: allowed is"),
        ("[[expect]]\n" + CASE, "at least one of step_s, speedup"),
        ('[[expect]]\nverdict = "VALID"', "expect 1: case = {}: allowed is keys that name the cases"),
        ('[[expect]]\nverdict = "INVALID"\n' + CASE, "expect 1: verdict = 'INVALID': allowed is VALID or APPROXIMATE"),
        ("[[expect]]\nstep = 3\n" + CASE, "expect 1: step = 3: allowed is one of the keys"),
        ("[[expect]]\nstep_s = 3\n" + CASE, "expect 1: step_s = 3"),
        ("[[expect]]\nstep_s = {}\n" + CASE, "expect 1: step_s = 'nothing': allowed is either at_most or reference"),
        (
            "[[expect]]\nstep_s = { at_least = 1 }\n" + CASE,
            "step_s.at_least = 1.0: allowed is at_most: lower is better",
        ),
        ("[[expect]]\nspeedup = { at_most = 1 }\n" + CASE, "speedup.at_most = 1.0: allowed is at_least: higher is"),
        ("[[expect]]\nstep_s = { at_most = 0 }\n" + CASE, "expect 1: step_s.at_most = 0: allowed is a number > 0"),
        ("[[expect]]\nstep_s = { at_most = nan }\n" + CASE, "step_s.at_most = nan: allowed is"),
        ("[[expect]]\nstep_s = { at_most = 1, tolerance = 1 }\n" + CASE, "step_s.tolerance = 1.0: allowed is nothing"),
        ("[[expect]]\nstep_s = { at_most = 1, reference = 1 }\n" + CASE, "either at_most or reference"),
        ("[[expect]]\nstep_s = { reference = 1 }\n" + CASE, "step_s.tolerance = None: allowed is a number >= 0"),
        ("tolerance=1\n[[expect]]\nstep_s = { reference = 1, interval = [2, 3] }\n" + CASE, "step_s.interval"),
        ("tolerance=1\n[[expect]]\nstep_s = { reference = 1, interval = [1] }\n" + CASE, "step_s.interval"),
        (
            '[[expect]]\nverdict = "VALID"\n[expect.case]\nrank = 2',
            "expect 1: case.rank = 2: allowed is one of the keys",
        ),
        (
            '[[expect]]\nverdict = "VALID"\n[expect.case]\nranks = "2"',
            "expect 1: case.ranks = '2': allowed is an integer",
        ),
        ('[[expect]]\nverdict = "VALID"\n[expect.case]\nranks = [1, 0]', "expect 1: case.ranks = 0"),
        ("[[expect]]\nverdict = 'VALID'\n" + CASE + "[[expect]]\nverdict = 2", "expect 2: verdict = 2"),
        ("[[expect]\n", "cannot be read as TOML"),
    ],
)
def test_a_bad_reference_is_one_line_with_key_value_and_what_is_allowed(text, words, tmp_path):
    with pytest.raises(HpcrnnError) as caught:
        reference(tmp_path, text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("tolerance", [None, -0.1, float("nan"), float("inf")])
def test_a_tolerance_that_is_none_is_refused(tolerance):
    with pytest.raises(SpecError, match="--tolerance"):
        reference_of([make_record(QUICK)], tolerance)


def test_the_command_lines_tolerance_wins_over_the_general_one(tmp_path):
    path = tmp_path / "ref.toml"
    one = f"[[expect]]\nstep_s = {{ reference = 1 }}\nspeedup = {{ reference = 1, tolerance = 0.5 }}\n{CASE}"
    path.write_text("tolerance = 0.1\n" + one)
    (expected,) = read_reference(path, 0.2).expectations
    assert [limit.tolerance for limit in expected.limits.values()] == [0.2, 0.5]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("terminal", [False, True])
def test_every_line_fits(width, terminal):
    records = [make_record([*strategy_cases((2, 4)), make_case(hidden=96, valid=False)])]
    outcome = judge(records, reference_of([make_record([*strategy_cases((2, 4)), *quick_cases()])], 0.02))
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown(outcome, width, terminal=terminal))
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    assert "…" not in text.split("FAIL")[0]
    assert re.fullmatch(r"FAIL \d+ of \d+", text.splitlines()[-1])
    assert shown(outcome, width, encoding="ascii").isascii()


def test_the_json_is_strict_and_says_the_same(tmp_path):
    text = write_text([make_record(QUICK)], 0.05) + "[[expect]]\nverdict = 'VALID'\n[expect.case]\nranks = 7\n"
    outcome = judge([make_record([*QUICK, make_case(4, n=3)])], reference(tmp_path, text))
    plain = json.loads(json.dumps(to_json(outcome), allow_nan=False))
    assert (plain["schema"], plain["passed"], plain["n_failed"]) == ("hpcrnn-gate", False, 1)
    assert plain["n_checks"] == len(plain["checks"]) == len(outcome.checks)
    step = next(c for c in plain["checks"] if c["metric"] == "step_s")
    assert step["limit"] == pytest.approx(1.05 * step["reference"]["median"])
    assert step["better"] == "lower"
    assert plain["checks"][-1]["case"] is None


BOUNDS = st.tuples(*[st.floats(1e-3, 1e3)] * 3).map(sorted)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(BOUNDS, BOUNDS, st.floats(0, 2), st.sampled_from(["lower", "higher"]))
def test_a_decision_mirrors_and_never_contradicts_the_median(measured, asked, tolerance, better):
    of = Interval(9, measured[1], measured[0], measured[2])
    to = Limit(Interval(9, asked[1], asked[0], asked[2]), tolerance)
    result = decide(of, to, better)
    # A rate is one over a time: the same question the other way round.
    inverse = Interval(9, 1 / of.median, 1 / of.high, 1 / of.low)
    other = Limit(Interval(9, 1 / asked[1], 1 / asked[2], 1 / asked[0]), tolerance)
    mirrored = decide(inverse, other, "higher" if better == "lower" else "lower")
    edges = [factor * end for end in asked for factor in (1 + tolerance, 1 / (1 + tolerance))]
    near = any(x == pytest.approx(edge, rel=1e-9) for x in measured for edge in edges)
    assert near or mirrored == result
    limit = to.bounds(better).median
    worse = of.median > limit if better == "lower" else of.median < limit
    assert not (result == "fail" and not worse)
    assert not (result == "pass" and worse)
    assert decide(of, Limit(to.reference, tolerance + 1), better) != "fail" or result == "fail"


TEXT = st.text("expct[]=.{}\"'\n#_s 0123nai", max_size=60)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(text=TEXT)
def test_any_text_is_a_reference_or_an_error_of_ours(text, tmp_path_factory):
    path = Path(tmp_path_factory.getbasetemp()) / "any.toml"
    path.write_text("[[expect]]\nverdict = 'VALID'\n" + text, encoding="utf-8")
    refusal = ""
    try:
        read_reference(path)
    except HpcrnnError as error:
        refusal = str(error)
    assert len(refusal.splitlines()) <= 1


def test_a_result_file_is_told_by_its_name(tmp_path):
    path = tmp_path / "earlier.h5"
    write_record(make_record(QUICK), path)
    assert len(load_reference(path, 0.1).expectations) == 2
    (tmp_path / "x.h5").write_text("[[expect]]" * 99)
    with pytest.raises(FileError, match="not an hpcrnn record"):
        load_reference(tmp_path / "x.h5", 0.1)
