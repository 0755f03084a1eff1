"""A file of every version of the schema, as that version wrote it: it is read, verified, shown and reported for ever.

They are real results; none of them is ever written again. A new version brings its own file, and its row below.
"""

import io
from dataclasses import dataclass
from math import isnan
from pathlib import Path

import h5py
import numpy as np
import pytest
from rich.console import Console

from hpcrnn.records.hdf5 import read_record, read_records, read_stored, write_merged
from hpcrnn.records.invariants import CASE_CHECKS, RUN_CHECKS, examine
from hpcrnn.records.record import SCHEMA_VERSION
from hpcrnn.records.statistics import median_interval
from hpcrnn.reporting.report.write import write_report
from hpcrnn.reporting.terminal.show import show

FOLDER = Path(__file__).parent / "stored"
PATHS = [FOLDER / f"version_{version}.h5" for version in range(1, SCHEMA_VERSION + 1)]
REFERENCE = Path(__file__).parents[2] / "results" / "reference"


@dataclass(frozen=True)
class Known:
    """What is known of a case of a stored file."""

    id: str
    label: str
    n: int
    median_s: float
    interval_s: tuple[float, float] | None
    last_loss: float
    bytes_sent: int
    memory_bytes: int
    bubble_bound: float | None
    n_events: int = 0
    speedup: str = "base"


KNOWN = {
    1: (
        "7e6d205056ea",
        Known("ea3ea0694ef5", "serial · numpy", 13, 0.613996088, (0.580344085, 0.671668194), 3.11994268, 0, 0, None),
        Known(
            "e7cde08e70af", "data 2 · numpy", 13, 0.35015879, (0.33785396, 0.364943082), 3.11994263,
            2 * 4727816, 0, None, speedup="1.75×",
        ),
    ),
    2: (
        "b7b7d0e557c8",
        Known(
            "00d638001bb3", "serial · numpy", 6, 0.6612179705, (0.642593439, 0.838642818), 3.44725247,
            0, 254709760, 0.0, n_events=19,
        ),
        Known(
            "02d39347aec9", "pipeline 2 · 1f1b M4 · numpy", 6, 0.6096428135, (0.493751727, 0.660207312), 3.44725246,
            2 * 4194320, 71852032 + 48705536, 0.1574468085106383, n_events=114, speedup="1.08×",
        ),
    ),
    3: (
        "434ef2a04006",
        Known("7e9e786bb52d", "serial · numpy", 5, 0.409767872, None, 0.04710964, 0, 117871616, 0.0),
        Known(
            "2721a931d018", "scan 128 · numpy", 5, 0.11116695, None, 0.04710967, 0, 118001664, 0.0, speedup="3.69×"
        ),
    ),
}  # fmt: skip


def shown(records):
    stream = io.StringIO()
    show(records, Console(file=stream, width=120))
    return stream.getvalue()


def test_there_is_a_file_of_every_version_and_something_is_known_of_it():
    assert set(KNOWN) == set(range(1, SCHEMA_VERSION + 1))
    for version, path in enumerate(PATHS, 1):
        with h5py.File(path) as file:
            assert file.attrs["schema_version"] == version
        assert path.stat().st_size < 100_000


@pytest.mark.parametrize("version", KNOWN)
def test_its_numbers_are_what_they_were(version):
    problem, *known_cases = KNOWN[version]
    record = read_record(PATHS[version - 1])
    assert record.complete
    assert record.environment["mpi"]["library"] == "MPICH 5.0.2"
    for case, known in zip(record.cases, known_cases, strict=True):
        step = median_interval(case.step_s())
        assert (case.id, case.problem_id, case.label) == (known.id, problem, known.label)
        assert (step.n, case.verdict.status) == (known.n, "VALID")
        assert step.median == pytest.approx(known.median_s, rel=1e-12)
        assert (step.low, step.high) == pytest.approx(known.interval_s or (np.nan, np.nan), rel=1e-12, nan_ok=True)
        assert case.loss[-1] == pytest.approx(known.last_loss, rel=1e-7)
        assert (case.bytes_sent.sum(), case.memory_bytes.sum()) == (known.bytes_sent, known.memory_bytes)
        assert isnan(case.bubble_bound) if known.bubble_bound is None else case.bubble_bound == known.bubble_bound
        assert (len(case.timeline) if case.timeline else 0) == known.n_events


def test_the_certificate_of_version_3_is_what_it_was():
    chain, scan = read_record(PATHS[2]).cases
    assert chain.certificate is None
    certificate = scan.certificate
    assert (certificate.n_segments, certificate.directions) == (128, ("forward", "backward"))
    assert certificate.critical_steps[-1].tolist() == [[537, 535]]
    assert certificate.rounds.max() == 2
    assert certificate.converged.all()
    assert certificate.meeting_quantiles[-1, 0, :, -1].tolist() == [25.0, 23.0]


@pytest.mark.parametrize("version", KNOWN)
def test_it_is_verified(version):
    examination = examine(read_stored(PATHS[version - 1]))
    assert examination.violations == ()
    assert (examination.n_cases, examination.n_checks) == (2, 1 + 2 * len(CASE_CHECKS) + len(RUN_CHECKS))


@pytest.mark.parametrize("version", KNOWN)
def test_it_is_shown(version):
    text = shown([read_record(PATHS[version - 1])])
    for known in KNOWN[version][1:]:
        row = next(line for line in text.splitlines() if line.startswith(f"{known.label}  "))
        assert "VALID" in row
        assert known.speedup in row
    if version == 1:  # what it lacks is unknown, not zero
        assert not any(word in text for word in ("memory", "MiB a rank", "bubble"))


def test_they_are_reported_beside_one_another(tmp_path):
    written = {path.name for path in write_report(read_records(PATHS), tmp_path)}
    assert {"report.html", "report.md"} <= written
    assert any(name.startswith("timeline") for name in written), "of version 2"
    text = (tmp_path / "report.md").read_text()
    for known in (case for _, *cases in KNOWN.values() for case in cases):
        assert known.label in text.replace("\\", "")


def test_they_become_one_file_in_which_everything_holds(tmp_path):
    """Merged, every run is written in the newest version, and is what it was."""
    records = read_records(PATHS)
    write_merged(records, tmp_path / "m.h5", inputs=PATHS, overwrite=False)
    examination = examine(read_stored(tmp_path / "m.h5"))
    assert examination.violations == ()
    assert examination.n_cases == 6
    again = read_records([tmp_path / "m.h5"])
    ids = [[(case.id, case.problem_id) for case in record.cases] for record in (*records, *again)]
    assert ids[:3] == ids[3:]


def test_in_every_committed_result_everything_holds():
    paths = sorted(REFERENCE.rglob("*-n?-*.h5*"))
    assert len(paths) > 50
    wrong = {path.name: found for path in paths if (found := examine(read_stored(path)).violations)}
    assert not wrong
