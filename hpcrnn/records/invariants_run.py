"""What must hold of a run, and of a merged file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import isclose, isfinite
from typing import TypeVar

from hpcrnn.records.baseline import best_serial, by_problem
from hpcrnn.records.layout_stored import Stored, StoredFile
from hpcrnn.records.record import Baseline, Case, Record
from hpcrnn.records.statistics import median_interval, ratio_interval
from hpcrnn.records.wrong import CLOSE, Wrong, listed, named

Named = TypeVar("Named")


def check_order(_: Record, stored: Stored) -> Iterator[Wrong]:
    """Cases are numbered from 0, each number once."""
    indexes = [case.index for case in stored.cases]
    if indexes != list(range(len(indexes))):
        yield Wrong("cases/*/@index", listed(indexes), f"0 to {len(indexes) - 1}, each once")


def check_bases(record: Record, stored: Stored) -> Iterator[Wrong]:
    """The base of each problem is its best serial run, and the speedups over it are positive numbers."""
    problems = by_problem(record.cases)
    bases = _by_problem_now(stored.baselines, record.cases)
    for problem in dict.fromkeys([*problems, *bases]):
        cases = problems.get(problem, [])
        found, wanted = bases.get(problem), best_serial(cases)
        if not _same(found, wanted):
            yield Wrong(f"baseline/{problem}", named(found), named(wanted))
        if wanted is not None:
            yield from _faults_of_speedups(cases, wanted.case_id)


def _by_problem_now(stored: Mapping[str, Named], cases: Iterable[Case]) -> dict[str, Named]:
    """Name bases as problems are named today: an older file tells problems apart by the words they were asked in."""
    now = {case.problem_id_as_asked: case.problem_id for case in cases}
    # Of two that are one today, the one under today's name comes last, and stays.
    return {
        now.get(name, name): base for name, base in sorted(stored.items(), key=lambda item: item[0] in now.values())
    }


def _faults_of_speedups(cases: Iterable[Case], base_id: str) -> Iterator[Wrong]:
    timed = [(case, median_interval(case.step_s())) for case in cases if len(case.time_s)]
    base = min((step for case, step in timed if case.id == base_id), key=lambda step: step.median)
    for case, step in timed:
        speedup = ratio_interval(base, step)
        if case.verdict.status != "INVALID" and not (isfinite(speedup.median) and speedup.median > 0):
            yield Wrong(f"speedup of {case.label} ({case.id})", f"{speedup.median:g}", "a finite number > 0")


def check_merged_bases(file: StoredFile) -> Iterator[Wrong]:
    """The base of each problem of a merged file is the best serial run of all its runs, and the run named has it."""
    every = [case for record, _ in file.runs for case in record.cases]
    problems = by_problem(every)
    stored = _by_problem_now(file.merged_baselines or {}, every)
    for problem in dict.fromkeys([*problems, *stored]):
        found, run = stored.get(problem, (None, -1))
        wanted = best_serial(problems.get(problem, []))
        quantity = f"baseline/{problem}"
        if not _same(found, wanted):
            yield Wrong(quantity, named(found), named(wanted))
        elif found is not None:
            own = best_serial(_cases_of(file, run, problem))
            if not _same(own, found):
                yield Wrong(f"{quantity}/@run", f"run {run}, which has {named(own)}", f"the run of {named(found)}")


def _cases_of(file: StoredFile, run: int, problem: str) -> list[Case]:
    """Return the cases of a problem in a run; none where there is no such run."""
    records = [record for number, (record, _) in enumerate(file.runs) if number == run]
    return [case for record in records for case in record.cases if case.problem_id == problem]


def _same(one: Baseline | None, other: Baseline | None) -> bool:
    if one is None or other is None:
        return one is other
    same = (one.case_id, one.kind) == (other.case_id, other.kind)
    return same and isclose(one.time_s, other.time_s, rel_tol=CLOSE)
