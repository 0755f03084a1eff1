"""Results for other programs: CSV, JSON, Extra-P; and the command that writes them."""

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from factory import make_case, make_record, many_cases, on_device, quick_cases
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcrnn.cli import main
from hpcrnn.errors import HpcrnnError
from hpcrnn.records.compression import Compression
from hpcrnn.records.hdf5 import write_record
from hpcrnn.records.statistics import is_outlier, median_interval
from hpcrnn.records.work import Work
from hpcrnn.reporting.analysis.entries import make_entries
from hpcrnn.reporting.analysis.scaling import find_base, make_point
from hpcrnn.reporting.export.as_csv import FORMULA_STARTS, to_csv
from hpcrnn.reporting.export.export import export


def table(records, **options):
    text = export(records, "csv", **options).content.decode()
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def as_json(records, **options):
    return json.loads(export(records, "json", **options).content, parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def records():
    outlying = make_case(2, 64, samples=[0.2, 0.21, 0.22, 0.2, 0.21, 0.9, 0.2], n_warmup=1, seed=5)
    bad = make_case(4, 64, valid=False, n=3)
    gpu = on_device(make_case(1, 64, 0.03, backend="cupy", n=4))
    serial, *others = quick_cases()
    serial = replace(serial, cpu_time_s=0.9 * serial.time_s)
    return [make_record([serial, *others]), make_record([outlying, bad, gpu], seed=1, source="other.h5")]


# --- CSV --------------------------------------------------------------------------------------------


def test_every_raw_sample_is_a_row_that_reads_back_as_the_same_bits(records):
    rows = table(records)
    cases = [case for record in records for case in record.cases]
    n_device = sum(np.isfinite(c.device_time_s).sum() for c in cases if c.device_time_s is not None)
    n_cpu = sum(c.cpu_time_s.size for c in cases if c.cpu_time_s is not None)
    assert n_device > 0
    assert n_cpu > 0
    assert len(rows) == sum(c.time_s.size + c.warmup_s.size for c in cases) + n_device + n_cpu
    for number, case in enumerate(cases, 1):
        mine = [row for row in rows if row["number"] == str(number)]
        again = {"false": np.full_like(case.time_s, np.nan), "true": np.full_like(case.warmup_s, np.nan)}
        for row in mine:
            if row["clock"] == "host":
                place = int(row["repetition"]), int(row["rank"]), case.phases.index(row["phase"])
                again[row["warm_up"]][place] = float(row["seconds"])
        np.testing.assert_array_equal(again["false"], case.time_s)
        np.testing.assert_array_equal(again["true"], case.warmup_s)
        marked = {int(r["repetition"]) for r in mine if r["outlier"] == "true"}
        assert marked == set(np.flatnonzero(is_outlier(case.step_s())))
        assert all((row["outlier"] == "") == (row["warm_up"] == "true") for row in mine)
        assert {row["case_id"] for row in mine} == {case.id}


def test_cpu_time_is_a_clock_of_its_own(records):
    serial = records[0].cases[0]
    steps = [row for row in table(records) if (row["number"], row["clock"], row["phase"]) == ("1", "cpu", "step")]
    np.testing.assert_array_equal([float(row["seconds"]) for row in steps], serial.cpu_time_s[:, 0, 0])
    assert {row["warm_up"] for row in steps} == {"false"}


def test_a_device_has_a_clock_of_its_own(records):
    device = [row for row in table(records) if row["clock"] == "device"]
    assert {row["phase"] for row in device} == {"forward", "backward", "weight_gradient", "update"}
    assert {row["backend"] for row in device} == {"cupy"}


def test_the_summary_says_what_the_report_says(records):
    rows, entries = table(records, summary=True), make_entries(records)
    assert [int(row["number"]) for row in rows] == [e.number for e in entries]
    for row, entry in zip(rows, entries, strict=True):
        assert float(row["seconds"]) == entry.step.median
        assert row["verdict"] == entry.case.verdict.status
        assert row["excluded"] == entry.exclusion
        point = make_point(entry, find_base(entry, entries) if entry.included else None)
        if point.speedup is None:
            assert row["speedup"] == row["base_number"] == row["efficiency_low"] == row["against_base"] == ""
        else:
            assert float(row["speedup"]) == point.speedup.median
            assert float(row["speedup_low"] or "nan") == pytest.approx(point.speedup.low, abs=0, rel=0, nan_ok=True)
            assert float(row["efficiency_high"] or "nan") == pytest.approx(point.efficiency.high, abs=0, nan_ok=True)
    assert rows[0]["against_base"] == "base"
    assert rows[1]["against_base"] == "faster"
    assert [row["excluded"] != "" for row in rows] == [False, False, False, False, True, False]


@pytest.mark.parametrize(
    ("times", "finding"),
    [([0.1] * 3, "undecided"), ([0.1] * 8, "faster"), ([0.4] * 8, "undecided"), ([1.0] * 8, "slower")],
)
def test_what_too_few_samples_cannot_say_is_empty_and_undecided(times, finding):
    base = make_case(1, samples=[0.4 + 0.001 * k for k in range(8)])
    (_, row) = table([make_record([base, make_case(2, samples=times)])], summary=True)
    assert row["against_base"] == finding
    assert (row["seconds_low"] == "") == (len(times) < 6)


def test_it_is_rfc_4180(records):
    odd = replace(quick_cases()[0], kernel='say "hi", \u2603', stop_reason="two\r\nlines")
    content = export([make_record([odd])], "csv", summary=True).content
    assert content.endswith(b"\r\n")
    assert content.count(b"\r\n") == content.count(b"\n") == 2
    assert b'"say ""hi"", \xe2\x98\x83"' in content
    assert {len(row) for row in csv.reader(io.StringIO(content.decode(), newline=""))} == {52}


@pytest.mark.parametrize("start", FORMULA_STARTS)
def test_no_text_is_a_formula(start):
    text = f'{start}HYPERLINK("http://example.org")'
    (_, cell) = csv.reader(io.StringIO(to_csv([{"text": text}]).decode(), newline=""))
    assert cell == [f"'{text}"]


@settings(deadline=None)
@given(text=st.text(), number=st.floats(), count=st.integers(), truth=st.booleans())
def test_any_cell_comes_back(text, number, count, truth):
    content = to_csv([{"a": text, "b": number, "c": count, "d": truth, "e": None}])
    (_, row) = csv.reader(io.StringIO(content.decode(), newline=""))
    shown = text.encode("utf-8", "backslashreplace").decode()
    assert row[0] == (f"'{shown}" if text.startswith(FORMULA_STARTS) else shown)
    assert not row[0].startswith(FORMULA_STARTS)
    np.testing.assert_equal(float(row[1]), number)
    assert row[2:] == [str(count), "true" if truth else "false", ""]


def test_a_kernel_that_looks_like_a_formula_is_safe_in_both_tables():
    record = make_record([replace(make_case(1, n=2), kernel="=cmd|'/c calc'!A0")])
    for summary in (False, True):
        assert {row["kernel"] for row in table([record], summary=summary)} == {"'=cmd|'/c calc'!A0"}


def test_no_case_is_an_empty_table_and_a_run_given_twice_counts_once(records):
    assert export([make_record([])], "csv").content == b""
    assert len(table([records[0], records[0]], summary=True)) == len(records[0].cases)


# --- JSON -------------------------------------------------------------------------------------------


def test_json_holds_medians_intervals_verdicts_and_environments(records):
    found = as_json(records)
    assert (found["schema"], found["version"], found["confidence"]) == ("hpcrnn-export", 1, 0.95)
    assert [run["file"] for run in found["runs"]] == ["results/quick.h5", "other.h5"]
    assert found["runs"][0]["environment"]["packages"]["h5py"] == "3.16.0"
    assert found["runs"][0]["merged_from"] is None
    for case, entry in zip(found["cases"], make_entries(records), strict=True):
        assert case["run"] == entry.file - 1
        assert case["step_s"]["median"] == entry.step.median
        assert case["step_s"]["low"] == (entry.step.low if np.isfinite(entry.step.low) else None)
        assert case["verdict"]["checks"][0]["quantity"] == "loss"
        assert case["spec"] == json.loads(json.dumps(entry.case.spec))
        mean = median_interval(entry.case.phase_s("backward").mean(axis=1))
        assert case["mean_rank_s"]["backward"]["median"] == mean.median
        assert (case["base"] is None) == (entry.number in (3, 5))  # a problem without a serial run, and an INVALID case
        assert "raw" not in case
    assert found["cases"][1]["base"]["finding"] == "faster"
    assert found["cases"][4]["excluded"].startswith("INVALID: ")


def test_json_has_unequal_work_and_codecs(records):
    work = Work(np.array([[5, 3], [4, 4]]), np.array([[6, 6], [4, 8]]), np.array([0, 2, 1]))
    watched = np.array([0.5, 0.25])
    codec = Compression(4096, 1024, 4096.0, 1024.0, np.array([0, 1]), watched, watched, np.stack([watched] * 2, axis=1))
    plain = records[0].cases[0]
    with_work, with_codec, without = as_json(
        [make_record([replace(plain, work=work), replace(plain, compression=codec), plain])]
    )["cases"]
    assert with_work["work"] == {"tokens": [[5, 3], [4, 4]], "slots": [[6, 6], [4, 8]], "n_sequences": [0, 2, 1]}
    assert with_codec["compression"]["coded_bytes"] == 1024
    assert with_codec["compression"]["held_back"] == [[0.5, 0.5], [0.25, 0.25]]
    assert without["work"] is without["compression"] is with_codec["work"] is None


def test_json_with_every_sample_and_without_what_is_not_a_number(records):
    strange = replace(make_case(2, n=3), loss=np.array([1.0, np.nan, np.inf, 2.0, 3.0]))
    raw = as_json([make_record([strange])], raw=True)["cases"][0]["raw"]
    np.testing.assert_array_equal(raw["time_s"], strange.time_s)
    np.testing.assert_array_equal(raw["warmup_s"], strange.warmup_s)
    assert raw["loss"] == [1.0, None, None, 2.0, 3.0]
    assert raw["phases"] == list(strange.phases)
    assert raw["device_time_s"] is None
    assert raw["cpu_time_s"] is None
    cpu = as_json(records, raw=True)["cases"][0]["raw"]["cpu_time_s"]
    np.testing.assert_array_equal(cpu, records[0].cases[0].cpu_time_s)
    device = as_json(records, raw=True)["cases"][5]["raw"]["device_time_s"]
    assert device[0][0][0] is None  # the step is nothing a device is busy in
    assert device[0][0][1] > 0


def test_a_command_line_that_is_no_text_comes_back():
    record = make_record([], argv=("hpcrnn", "run", "file:\udcff \u2603"))
    assert as_json([record])["runs"][0]["argv"] == ["hpcrnn", "run", "file:\udcff \u2603"]


# --- Extra-P ----------------------------------------------------------------------------------------


def extrap(cases, **options):
    exported = export([make_record(cases)], "extrap", **options)
    return json.loads(exported.content, parse_constant=pytest.fail), exported.notes


def check_extrap(found):
    """What Extra-P 4 checks when it reads a file (JsonFileReader, validate_experiment)."""
    assert set(found) == {"parameters", "measurements"}
    assert all(isinstance(name, str) for name in found["parameters"])
    points = []
    for by_metric in found["measurements"].values():
        for measurements in by_metric.values():
            points.append([tuple(m["point"]) for m in measurements])
            assert all(m["values"] and all(isinstance(v, float) for v in m["values"]) for m in measurements)
    assert all(len(set(mine)) == len(mine) for mine in points)
    assert all(mine == points[0] for mine in points)
    assert {len(point) for point in points[0]} == {len(found["parameters"])}
    return points[0]


def test_times_over_ranks():
    cases = [make_case(n, 64, 0.4 / n, seed=n) for n in (8, 1, 2, 4, 16)]
    found, notes = extrap(cases)
    assert found["parameters"] == ["ranks"]
    assert check_extrap(found) == [(1,), (2,), (4,), (8,), (16,)]
    assert list(found["measurements"])[:2] == ["step", "forward"]
    two = found["measurements"]["backward"]["time"][1]["values"]
    assert two == cases[2].phase_s("backward").max(axis=1).tolist()
    cost = found["measurements"]["step"]["rank-seconds"][4]["values"]
    assert cost == cases[4].phase_s("step").sum(axis=1).tolist()
    assert len(notes) == 1


def test_a_batch_that_grows_with_the_ranks_is_no_parameter_and_another_is():
    weak = [make_case(n, 64 * n, 0.4, seed=n) for n in (1, 2, 4)]
    assert check_extrap(extrap(weak)[0]) == [(1,), (2,), (4,)]
    both = [make_case(n, b, 0.4 * b / n, seed=n) for n in (1, 2) for b in (64, 128)]
    found, notes = extrap(both)
    assert found["parameters"] == ["ranks", "batch"]
    assert check_extrap(found) == [(1, 64), (1, 128), (2, 64), (2, 128)]
    assert "ranks and batch has fewer" in notes[1]


def test_repeated_points_lie_together_and_excluded_cases_are_told():
    cases = [make_case(1, 64), make_case(2, 64, n=5), make_case(2, 64, n=7, seed=3), make_case(4, 64, valid=False)]
    found, notes = extrap(cases)
    assert check_extrap(found) == [(1,), (2,)]
    assert len(found["measurements"]["step"]["time"][1]["values"]) == 12
    assert notes[0].startswith("1 case left out: no. 4 (INVALID")
    assert notes[-1] == "1 case beside another at the same point: their repetitions lie together"


def test_a_phase_that_a_case_does_not_name_took_no_time():
    found, _ = extrap([make_case(1, 64), make_case(2, grid={"pipeline": 2}, chunks=2)])
    check_extrap(found)
    assert set(found["measurements"]["wait_recv"]["time"][0]["values"]) == {0.0}


def test_which_of_several_series():
    cases = many_cases()
    with pytest.raises(
        HpcrnnError, match=r"hold 5 series, and Extra-P takes one: give --series N \(1: data · numpy on"
    ):
        extrap(cases)
    assert check_extrap(extrap(cases, series=5)[0])[-1] == (128,)
    for number in (0, 6):
        with pytest.raises(HpcrnnError, match=f"--series = {number}: allowed is an integer from 1 to 5"):
            extrap(cases, series=number)


@pytest.mark.parametrize("cases", [[], [make_case(1)], [make_case(2)], [make_case(1), make_case(2, hidden=31)]])
def test_what_is_no_series(cases):
    with pytest.raises(HpcrnnError, match="no series for Extra-P"):
        extrap(cases)


def test_extrap_itself_reads_it(tmp_path):
    reader = pytest.importorskip("extrap.fileio.file_reader.json_file_reader").JsonFileReader()
    cases = [make_case(n, 64, 0.4 / n, seed=n) for n in (1, 2, 4, 8, 16)]
    (tmp_path / "a.json").write_bytes(export([make_record(cases)], "extrap").content)
    experiment = reader.read_experiment(tmp_path / "a.json")
    assert [str(p) for p in experiment.parameters] == ["ranks"]
    assert len(experiment.coordinates) == 5


# --- the command ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("export") / "a.h5"
    write_record(records[0], path)
    return path


@pytest.mark.parametrize("to", ["csv", "json", "extrap"])
def test_the_command_writes_to_standard_output_or_a_file(result, tmp_path, capsysbinary, to):
    assert main(["export", str(result), "--to", to]) == 0
    printed = capsysbinary.readouterr().out
    other = tmp_path / "new" / "out"
    command = ["export", str(result), "--to", to, "-o", str(other)]
    assert main(command) == 0
    assert capsysbinary.readouterr().out == f"written: {other}\n".encode()
    assert other.read_bytes() == printed
    other.write_bytes(b"precious")
    assert main(command) == 1
    assert b"is there already: choose another name, or give --overwrite" in capsysbinary.readouterr().err
    assert other.read_bytes() == b"precious"
    assert main([*command, "--overwrite"]) == 0
    assert other.read_bytes() == printed


def test_the_command_never_replaces_its_input(result, capsys):
    before = result.read_bytes()
    assert main(["export", str(result), "--to", "csv", "-o", str(result), "--overwrite"]) == 1
    assert "is an input, which is never overwritten" in capsys.readouterr().err
    assert result.read_bytes() == before


@pytest.mark.parametrize(
    ("to", "flags", "message"),
    [
        ("json", ["--summary"], "--summary belongs to --to csv, not to --to json"),
        ("csv", ["--raw"], "--raw belongs to --to json"),
        ("csv", ["--series", "1"], "--series belongs to --to extrap"),
        ("extrap", ["--series", "x"], "invalid int value"),
    ],
)
def test_options_that_do_not_belong(result, capsys, to, flags, message):
    assert main(["export", str(result), "--to", to, *flags]) == 1
    output = capsys.readouterr()
    assert message in output.err
    assert output.err.count("\n") == 1
    assert output.out == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_standard_output_that_is_full_or_closed(result):
    command = [sys.executable, "-m", "hpcrnn", "export", str(result), "--to", "csv"]
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        ended = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr == "hpcrnn: error: standard output: cannot be written: No space left on device\n"
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(command, check=False, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, "")
