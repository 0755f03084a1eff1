"""Every invariant, each with a file in which it, and nothing else, does not hold."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_samples import make_compression
from sound_samples import (
    BATCH,
    FOLD,
    LAYERS,
    N_WARMUP,
    SEQ,
    N,
    edit_file,
    from_the_median,
    make_case,
    make_certificate,
    make_learning,
    make_timeline,
    sound_cases,
    sound_record,
)

from hpcrnn.records.hdf5 import read_stored, write_merged, write_record
from hpcrnn.records.invariants import CASE_CHECKS, MERGED_CHECKS, RUN_CHECKS, examine
from hpcrnn.records.layout_stored import Stored, StoredCase, StoredFile
from hpcrnn.records.record import PHASES, RANKS_AGREE, Check
from hpcrnn.records.work import Work

SERIAL, PIPELINE, AT_ONCE, GPU, INVALID, TO_TARGET, COMPRESSED, RAGGED = range(8)
CASES = sound_cases()
STEP, FORWARD, OTHER = PHASES.index("step"), PHASES.index("forward"), PHASES.index("other")


@cache
def content():
    """The bytes of a sound file; no fixture, which a failing test would print."""
    with TemporaryDirectory() as folder:
        write_record(sound_record(), Path(folder) / "a.h5")
        return (Path(folder) / "a.h5").read_bytes()


def found_in(path):
    return examine(read_stored(path))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.h5"


def test_in_a_sound_file_everything_holds(path):
    path.write_bytes(content())
    examination = found_in(path)
    assert examination.violations == ()
    assert examination.n_cases == len(CASES)
    assert examination.n_checks == 1 + len(CASES) * len(CASE_CHECKS) + len(RUN_CHECKS)


def test_without_a_case_or_a_repetition_everything_holds(path):
    for record in (sound_record(make_case(n=0, status="INVALID")), replace(sound_record(), cases=())):
        write_record(record, path)
        assert found_in(path).violations == ()


def test_an_approximate_case_is_sound_where_its_errors_are_known(path):
    case = make_case(method="tbptt_zero", fold=4, status="APPROXIMATE")
    record = sound_record(replace(case, certificate=make_certificate(len(case.loss))))
    write_record(record, path)
    assert found_in(path).violations == ()


# --- what a record can hold -------------------------------------------------------------------------


def changed(which, **changes):
    """Replace fields of one case; a callable makes a field from the case."""

    def change(cases):
        case = cases[which]
        cases[which] = replace(case, **{k: v(case) if callable(v) else v for k, v in changes.items()})

    return change


def at(field, place, value, of=None):
    """Change one number of an array of a case, or of its certificate or timeline."""

    def new(case):
        array = getattr(getattr(case, of) if of else case, field).copy()
        array[place] = value(array[place]) if callable(value) else value
        return replace(getattr(case, of), **{field: array}) if of else array

    return {of or field: new}


def exchanged(field, place, amount):
    """Move time from one phase of a step to another: their sum stays."""

    def new(case):
        times = getattr(case, field).copy()
        times[(*place, FORWARD)] -= amount
        times[(*place, OTHER)] += amount
        return times

    return {field: new}


def verdict(**changes):
    return {"verdict": lambda case: replace(case.verdict, **changes)}


def made(**sizes):
    return lambda case: make_certificate(len(case.loss), **sizes)


def one_direction(certificate):
    """Leave out the backward solves."""
    of_solves = ("rounds", "critical_steps", "row_steps", "residual", "converged", "truncated", "n_unmet")
    arrays = {name: getattr(certificate, name)[:, :, :1] for name in (*of_solves, "meeting_quantiles")}
    return replace(certificate, directions=("forward",), meeting=certificate.meeting[:, :1], **arrays)


def one_token_each(case):
    """Work of a case in which every rank has one token a step."""
    ones = np.ones((len(case.time_s), case.n_ranks), np.int64)
    return Work(ones, ones, np.ones(SEQ, np.int64))


def of_rank_0(timeline):
    kept = timeline.rows_of(0)
    columns = {name: getattr(timeline, name)[kept] for name in ("rank", "start_s", "end_s")}
    return replace(timeline, instruction=tuple(timeline.instruction[k] for k in kept), **columns)


PASSED, FAILED = Check("loss", 1e-9, 1e-9, 1e-7), Check("loss", 1e-3, 1e-9, 1e-7)
UNKNOWN, APART = Check("loss", np.nan, 1e-9, 1e-7), Check(RANKS_AGREE, 1e-3, 0.0, 1e-7)
SPLIT_OF = {"spec": lambda case: case.spec | {"parallel": case.spec["parallel"] | {"grid": {"data": 3, "time": 1}}}}

PLANTED = {
    "times": [
        changed(GPU, **exchanged("time_s", (3, 1), 10.0)),
        changed(SERIAL, **exchanged("warmup_s", (1, 0), 10.0)),
        changed(SERIAL, **at("time_s", (N - 1, 0, FORWARD), np.nan)),
    ],
    "phase sums": [
        changed(SERIAL, **at("time_s", (3, 0, OTHER), lambda x: x + 1e-6)),
        changed(SERIAL, **at("time_s", (3, 0, FORWARD), lambda x: x * 0.9)),
        changed(GPU, **at("warmup_s", (1, 1, STEP), lambda x: 2 * x)),
    ],
    "losses": [
        changed(PIPELINE, **at("loss", -1, np.nan)),
        changed(PIPELINE, **at("gradient_norm", 0, np.inf)),
        changed(SERIAL, **at("gradient_norm", 0, -1.0)),
    ],
    "counts": [
        changed(SERIAL, flops=-1.0),
        changed(SERIAL, flops=np.nan),
        *(changed(GPU, **at(name, 1, -1)) for name in ("bytes_sent", "peak_memory_bytes", "memory_bytes")),
    ],
    "verdict": [
        changed(SERIAL, **verdict(checks=(PASSED, FAILED))),
        changed(SERIAL, **verdict(checks=(UNKNOWN,))),
        changed(SERIAL, **verdict(checks=())),
        changed(INVALID, **verdict(checks=(PASSED,))),
        changed(PIPELINE, **verdict(status="APPROXIMATE")),
        changed(AT_ONCE, **verdict(status="APPROXIMATE", checks=(UNKNOWN,))),
        changed(COMPRESSED, **verdict(status="VALID", checks=(PASSED,))),
        changed(AT_ONCE, **verdict(status="APPROXIMATE", checks=(APART,))),
    ],
    "untimed": [changed(PIPELINE, **verdict(status="INVALID", checks=(FAILED,)))],
    "split": [changed(PIPELINE, strategy="time"), changed(SERIAL, **SPLIT_OF, strategy="data")],
    "bubble bound": [changed(PIPELINE, bubble_bound=bound) for bound in (1.0, -0.1, np.inf)],
    "device": [
        changed(GPU, **at("device_time_s", (3, 1, FORWARD), -1e-3)),
        changed(GPU, **at("device_time_s", (3, 1, OTHER), 1e-3)),
        changed(GPU, **at("device_time_s", (3, 1, FORWARD), np.inf)),
        changed(GPU, **at("device_peak_bytes", 0, -1)),
    ],
    "cpu times": [
        changed(SERIAL, **at("cpu_time_s", (3, 0, FORWARD), -1e-3)),
        changed(SERIAL, **at("cpu_time_s", (3, 0, FORWARD), np.inf)),
        changed(SERIAL, **at("cpu_time_s", (3, 0, FORWARD), lambda s: s + 1e-6)),
        changed(SERIAL, **at("cpu_time_s", (3, 0, 0), 0.0)),
    ],
    "timeline repetition": [
        changed(PIPELINE, timeline=lambda case: make_timeline(case, int(from_the_median(case).argmax()))),
    ],
    "timeline times": [
        *(changed(PIPELINE, **at("end_s", k, lambda end: end + 1e-6, of="timeline")) for k in range(16)),
        changed(PIPELINE, **at("end_s", -1, lambda end: end + 10.0, of="timeline")),
        changed(PIPELINE, timeline=lambda case: of_rank_0(case.timeline)),
    ],
    "compression presence": [
        changed(COMPRESSED, compression=None),
        changed(PIPELINE, compression=lambda _: make_compression()),
    ],
    "compression numbers": [
        changed(COMPRESSED, **at("error", 1, np.nan, of="compression")),
        changed(COMPRESSED, **at("backlog", 1, -1.0, of="compression")),
        changed(COMPRESSED, **at("held_back", (1, 1), np.inf, of="compression")),
        changed(COMPRESSED, **at("training_step", 1, 0, of="compression")),
        changed(COMPRESSED, **at("training_step", -1, N + N_WARMUP, of="compression")),
        changed(COMPRESSED, compression=lambda case: replace(case.compression, coded_bytes=0)),
        changed(COMPRESSED, compression=lambda case: replace(case.compression, plain_wire_bytes=np.nan)),
    ],
    "work presence": [
        changed(RAGGED, work=None),
        changed(PIPELINE, work=one_token_each),
    ],
    "work numbers": [
        changed(RAGGED, **at("tokens", (0, 1), -1, of="work")),
        changed(RAGGED, **at("slots", (3, 0), lambda slots: slots - SEQ - 1, of="work")),
        changed(RAGGED, **at("slots", (3, 0), SEQ * BATCH, of="work")),
        changed(RAGGED, **at("n_sequences", 3, -1, of="work")),
        changed(RAGGED, work=lambda case: replace(case.work, n_sequences=np.zeros(SEQ, np.int64))),
        changed(RAGGED, work=lambda case: replace(case.work, n_sequences=np.ones(SEQ - 1, np.int64))),
    ],
    "learning presence": [
        changed(TO_TARGET, learning=None),
        changed(SERIAL, learning=make_learning()),
    ],
    "learning curves": [changed(TO_TARGET, learning=make_learning(legs=(4, N - 3)))],
    "certificate presence": [
        changed(AT_ONCE, certificate=None),
        changed(SERIAL, certificate=made(segments=1)),
    ],
    "certificate shape": [
        changed(AT_ONCE, certificate=made(layers=LAYERS + 1)),
        changed(AT_ONCE, certificate=made(segments=2 * FOLD)),
        changed(AT_ONCE, certificate=made(rows=BATCH + 1)),
        changed(AT_ONCE, certificate=lambda case: one_direction(case.certificate)),
    ],
    "certificate numbers": [
        changed(AT_ONCE, **at("rounds", (0, 0, 0), -1, of="certificate")),
        changed(AT_ONCE, **at("residual", (0, 0, 0), -1e-9, of="certificate")),
        changed(AT_ONCE, **at("residual", (2, 1, 1), 2e-6, of="certificate")),
        changed(AT_ONCE, **at("row_steps", (2, 1, 1), 29, of="certificate")),
    ],
    "meeting": [
        changed(AT_ONCE, **at("n_unmet", (-1, 1, 0), 2, of="certificate")),
        changed(AT_ONCE, **at("meeting_quantiles", (-1, 1, 0, 2), lambda x: x + 1, of="certificate")),
        changed(AT_ONCE, **at("meeting_quantiles", (-1, 0, 0, 5), np.nan, of="certificate")),
        changed(AT_ONCE, **at("meeting", (0, 0, 0, 0), -2, of="certificate")),
    ],
}


@pytest.mark.parametrize(
    ("check", "number"), [(check, k) for check, plants in PLANTED.items() for k in range(len(plants))]
)
def test_what_is_planted_in_a_record_is_found_and_nothing_else(check, number, path):
    cases = list(CASES)
    PLANTED[check][number](cases)
    write_record(sound_record(*(case for case in cases if case not in CASES)), path)
    violations = found_in(path).violations
    assert {violation.check for violation in violations} == {check}
    assert all(v.wrong.quantity and v.wrong.found and v.wrong.expected for v in violations)
    assert all(v.case_id and v.label for v in violations)


def test_a_verdict_of_an_inexact_method_is_never_valid(path):
    case = make_case(method="tbptt_zero", fold=4)
    write_record(sound_record(replace(case, certificate=make_certificate(len(case.loss)))), path)
    assert [v.check for v in found_in(path).violations] == ["verdict"]


# --- what only a file can hold ----------------------------------------------------------------------


def of_case(which, change):
    return lambda file: change(file["cases"][CASES[which].id])


def set_attribute(name, value):
    return lambda group: group.attrs.__setitem__(name, value)


def set_numbers(name, place, value):
    def change(group):
        group[name][place] = value

    return change


def replace_dataset(name, values):
    """Write a dataset anew, without its scales."""

    def change(group):
        del group[name]
        group[name] = values

    return change


def renamed(file):
    file.move(f"cases/{CASES[PIPELINE].id}", "cases/0123456789ab")


def scale_detached(name, axis, scale):
    return lambda group: group[name].dims[axis].detach_scale(group[scale])


def scale_exchanged(name, axis, old, new):
    def change(group):
        group[name].dims[axis].detach_scale(group[old])
        group[name].dims[axis].attach_scale(group[new])

    return change


def base(change):
    return lambda file: change(file["baseline"][CASES[SERIAL].problem_id])


def without_bases(file):
    del file[f"baseline/{CASES[SERIAL].problem_id}"]


def another_base(file):
    file.create_group(f"baseline/{CASES[INVALID].problem_id}").attrs.update(
        kind="best_serial", case_id=CASES[INVALID].id, time_s=1.0
    )


def marks_removed(group):
    del group["is_outlier"]


def two_marked(group):
    marks = group["is_outlier"][()]
    marks[[2, 4]] = 1
    group["is_outlier"][...] = marks


EDITED = [
    ("id", renamed),
    ("shapes", of_case(GPU, replace_dataset("time", np.ones((N, 1, len(PHASES)))))),
    ("shapes", of_case(SERIAL, replace_dataset("loss", np.ones(3)))),
    ("shapes", of_case(SERIAL, replace_dataset("time", 1.5))),
    ("shapes", of_case(SERIAL, replace_dataset("warmup", np.ones(3)))),
    ("shapes", of_case(PIPELINE, set_numbers("timeline/start", 0, 1e9))),
    ("scales", of_case(GPU, scale_detached("time", 1, "rank"))),
    ("scales", of_case(SERIAL, scale_exchanged("loss", 0, "training_step", "rep"))),
    ("scales", of_case(SERIAL, lambda group: group["time"].dims[0].attach_scale(group["training_step"]))),
    ("units", lambda file: set_attribute("units", "ms")(file["cases"][CASES[SERIAL].id]["time"])),
    ("units", lambda file: file["cases"][CASES[SERIAL].id]["bytes_sent"].attrs.pop("units")),
    ("units", of_case(SERIAL, set_attribute("metric_kind", "rate"))),
    ("outliers", of_case(SERIAL, two_marked)),
    ("outliers", of_case(SERIAL, marks_removed)),
    ("bases", base(set_attribute("time_s", 0.39))),
    ("bases", base(set_attribute("case_id", CASES[PIPELINE].id))),
    ("bases", base(set_attribute("kind", "worst_serial"))),
    ("bases", without_bases),
    ("bases", another_base),
    ("order", of_case(SERIAL, set_attribute("index", 1))),
]


@pytest.mark.parametrize(("check", "change"), EDITED, ids=range(len(EDITED)))
def test_what_is_planted_in_a_file_is_found_and_nothing_else(check, change, path):
    path.write_bytes(content())
    edit_file(path, change)
    violations = found_in(path).violations
    assert {violation.check for violation in violations} == {check}
    assert all(v.wrong.quantity and v.wrong.found and v.wrong.expected for v in violations)


def test_every_check_has_a_violation_planted():
    assert {*PLANTED, *(check for check, _ in EDITED)} >= {*CASE_CHECKS, *RUN_CHECKS} - {
        "derived"
    }  # which has a test of its own


def test_derived_numbers_are_looked_at(path):
    """A negative step is caught by its times too: what follows from it cannot be wrong alone."""
    case = make_case()
    times = -case.time_s
    write_record(sound_record(replace(case, time_s=times)), path)
    checks = {violation.check for violation in found_in(path).violations}
    assert {"derived", "times"} <= checks


def test_a_line_names_the_place_what_was_found_and_what_was_expected(path):
    cases = list(sound_cases())
    changed(GPU, **at("loss", [4, 6], np.inf))(cases)
    write_record(sound_record(*cases), path)
    (violation,) = found_in(path).violations
    assert violation.case_id == cases[GPU].id
    assert violation.label == "data 2 · cupy"
    assert violation.wrong.quantity == "loss[training_step 4]"
    assert violation.wrong.found == "inf (and 1 more like it)"


@settings(deadline=None, max_examples=100)
@given(
    place=st.tuples(st.integers(0, N - 1), st.integers(0, 1), st.integers(0, len(PHASES) - 1)),
    factor=st.floats(-2, 3).filter(lambda f: abs(f - 1) > 1e-3),
)
def test_no_time_can_be_changed_unnoticed(place, factor):
    """Whichever time is changed, the sum of its step gives it away."""
    cases = list(CASES)
    changed(PIPELINE, **at("time_s", place, lambda x: factor * x))(cases)
    (wrong,) = CASE_CHECKS["phase sums"](cases[PIPELINE], None)
    assert wrong.quantity == f"sum of phases of time[rep {place[0]}, rank {place[1]}]"


ODD = st.sampled_from([None, True, -1, 0, 1.5, float("nan"), "", "x", [], [1], {}, {"a": 1}, {"data": "x"}, 10**30])
KEYS = sorted((section, key) for section, keys in CASES[AT_ONCE].spec.items() for key in keys)


@settings(deadline=None, max_examples=150)
@given(key=st.sampled_from(KEYS), value=ODD, removed=st.booleans())
def test_whatever_a_specification_holds_is_at_most_wrong(key, value, removed):
    case, (section, name) = CASES[AT_ONCE], key
    changed_section = {k: v for k, v in case.spec[section].items() if k != name} | ({} if removed else {name: value})
    odd = replace(case, spec=case.spec | {section: changed_section})
    beside = StoredCase(case.id, 0, "cost", np.zeros(N, dtype=bool), {})
    file = StoredFile(((sound_record(odd), Stored(3, (beside,), {})),), None)
    for violation in examine(file).violations:
        assert violation.wrong.found
        assert "\n" not in violation.wrong.found


def test_datasets_of_a_later_hpcrnn_are_passed_over(path):
    def add(group):
        group["joules"] = np.ones((3, 4))
        group["joules"].attrs["units"] = "J"

    path.write_bytes(content())
    edit_file(path, of_case(GPU, add))
    assert found_in(path).violations == ()


# --- merged files -----------------------------------------------------------------------------------


@pytest.fixture
def merged(path):
    slow, fast = make_case(median_s=0.5, seed=1), make_case(median_s=0.4, seed=2)
    pipeline = make_case({"pipeline": 2}, 0.24, seed=3)
    write_merged([sound_record(slow, pipeline), sound_record(fast)], path, inputs=(), overwrite=False)
    return path


def test_in_a_sound_merged_file_everything_holds(merged):
    examination = found_in(merged)
    assert examination.violations == ()
    assert examination.n_cases == 3
    assert examination.n_checks == 1 + 3 * len(CASE_CHECKS) + 2 * len(RUN_CHECKS) + len(MERGED_CHECKS)


def the_base(change):
    return lambda file: change(next(iter(file["baseline"].values())))


def no_base(file):
    del file[f"baseline/{next(iter(file['baseline']))}"]


@pytest.mark.parametrize(
    "change",
    [
        the_base(set_attribute("time_s", 0.5)),
        the_base(set_attribute("run", 0)),
        the_base(set_attribute("run", 7)),
        no_base,
    ],
)
def test_a_merged_base_that_is_not_the_best_is_found(change, merged):
    edit_file(merged, change)
    (violation,) = found_in(merged).violations
    assert (violation.check, violation.run, violation.case_id) == ("merged bases", None, "")


def test_what_is_wrong_in_a_run_of_a_merged_file_names_the_run(merged):
    edit_file(merged, lambda file: two_marked(next(iter(file["runs/1/cases"].values()))))
    (violation,) = found_in(merged).violations
    assert (violation.check, violation.run) == ("outliers", 1)
