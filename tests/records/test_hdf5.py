"""Records on disk: the round trip, what other tools see, and what happens when the disk says no."""

import errno
import hashlib
import os
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_samples import (
    EXCHANGE,
    assert_same,
    cpu_facts,
    device_facts,
    make_case,
    make_compression,
    make_record,
    make_timeline,
    make_work,
)

from hpcrnn.errors import FileError, SpecError
from hpcrnn.records.hdf5 import read_record, read_records, write_record
from hpcrnn.records.output import check_writable
from hpcrnn.records.record import Verdict

REFERENCE = Path(__file__).parents[2] / "results" / "reference"


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_round_trip_is_exact(tmp_path):
    record = make_record()
    write_record(record, tmp_path / "a.h5")
    again = read_record(tmp_path / "a.h5")
    assert_same(record, again)
    assert again.source == str(tmp_path / "a.h5")
    assert names_in(tmp_path) == ["a.h5"]


def test_what_a_device_says_comes_back_exactly_and_is_written_only_then(tmp_path):
    record = make_record(make_case(2, **device_facts()), make_case(1))
    write_record(record, tmp_path / "a.h5")
    assert_same(record, read_record(tmp_path / "a.h5"))
    written = ("kernel_details", "device_time", "device_peak_bytes")
    with h5py.File(tmp_path / "a.h5") as file:
        on_gpu, on_host = (file["cases"][case.id] for case in record.cases)
        assert set(written) <= set(on_gpu)
        assert not set(written) & set(on_host)
        assert [on_gpu["device_time"].dims[k][0].name.rpartition("/")[2] for k in range(3)] == ["rep", "rank", "phase"]
        assert [on_gpu[name].attrs.get("units") for name in written] == [None, "s", "bytes"]


def test_cpu_times_come_back_exactly_and_are_written_only_where_they_were_measured(tmp_path):
    record = make_record(make_case(2, **cpu_facts()), make_case(1))
    write_record(record, tmp_path / "a.h5")
    assert_same(record, read_record(tmp_path / "a.h5"))
    with h5py.File(tmp_path / "a.h5") as file:
        measured, not_measured = (file["cases"][case.id] for case in record.cases)
        assert "cpu_time" not in not_measured
        assert [measured["cpu_time"].dims[k][0].name.rpartition("/")[2] for k in range(3)] == ["rep", "rank", "phase"]
        assert measured["cpu_time"].attrs["units"] == "s"


def test_what_a_codec_did_comes_back_exactly_and_is_written_only_where_there_was_one(tmp_path):
    record = make_record(make_case(2, compression=make_compression()), make_case(1))
    write_record(record, tmp_path / "a.h5")
    assert_same(record, read_record(tmp_path / "a.h5"))
    with h5py.File(tmp_path / "a.h5") as file:
        compressed, plain = (file["cases"][case.id] for case in record.cases)
        assert "compression" not in plain
        dimensions = [dim[0].name.rpartition("/")[2] for dim in compressed["compression/held_back"].dims]
        assert dimensions == ["watched_step", "rank"]


def test_what_ranks_worked_on_comes_back_exactly_and_is_written_only_where_rows_are_not_full(tmp_path):
    record = make_record(make_case(2, 3, work=make_work()), make_case(1))
    write_record(record, tmp_path / "a.h5")
    assert_same(record, read_record(tmp_path / "a.h5"))
    with h5py.File(tmp_path / "a.h5") as file:
        ragged, full = (file["cases"][case.id] for case in record.cases)
        assert "work" not in full
        assert [dim[0].name.rpartition("/")[2] for dim in ragged["work/slots"].dims] == ["rep", "rank"]
        assert ragged["work/n_sequences"].dims[0][0][:].tolist() == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("rows", [EXCHANGE, EXCHANGE[:1], (), ((0, "Wait \u2603", 0.1, 0.1 + 0.2), (0, "", 0.3, 0.3))])
def test_a_timeline_comes_back_exactly(tmp_path, rows):
    record = make_record(make_case(2, timeline=make_timeline(rows, 4), bubble_bound=0.2), make_case(1))
    write_record(record, tmp_path / "a.h5")
    again = read_record(tmp_path / "a.h5")
    assert_same(record, again)
    assert np.isnan(again.cases[1].bubble_bound)
    assert again.cases[1].timeline is None


def test_a_long_timeline_is_small(tmp_path):
    rows = [(0, f"Wait recv dhalo({k % 7},{k % 5},{k % 3})", k * 1e-3, k * 1e-3 + 1e-4) for k in range(20_000)]
    write_record(make_record(make_case(2, timeline=make_timeline(rows))), tmp_path / "a.h5")
    assert (tmp_path / "a.h5").stat().st_size < 10 * len(rows)


def test_a_timeline_that_does_not_fit_is_a_bug(tmp_path):
    beyond = make_timeline([(2, "Update", 0.0, 1.0)])
    with pytest.raises(ValueError, match="timeline: it names ranks beyond the 2 there are"):
        write_record(make_record(make_case(2, timeline=beyond)), tmp_path / "a.h5")


# Single layers on a GPU, in layers.h5, have a record of their own.
@pytest.mark.parametrize("path", sorted(REFERENCE.rglob("*-n?-*.h5*")), ids=lambda path: path.name)
def test_the_committed_results_can_still_be_read(path):
    for case in read_record(path).cases:
        assert case.memory_bytes.shape == (case.n_ranks,)
        assert case.label


@settings(deadline=None, max_examples=20)
@given(
    sizes=st.tuples(st.integers(1, 4), st.integers(0, 5), st.integers(0, 2)),
    n_phases=st.integers(1, 3),
    number=st.floats(),
    flags=st.tuples(st.booleans(), st.booleans()),
    argv=st.lists(st.text(), max_size=3),
)
def test_round_trip_of_any_sizes(tmp_path_factory, *, sizes, n_phases, number, flags, argv):
    phases = ("step", "forward", "other")[:n_phases]
    case = make_case(*sizes, phases=phases, simulated=flags[0], flops=number)
    case.time_s[...] = number
    record = make_record(case, complete=flags[1], argv=tuple(argv))
    path = tmp_path_factory.mktemp("records") / "a.h5"
    write_record(record, path)
    assert_same(record, read_record(path))


def test_no_cases_and_no_checks(tmp_path):
    unchecked = make_case(verdict=Verdict("VALID", "", 1.0, ()))
    for record in (make_record(cases=()), make_record(unchecked)):
        write_record(record, tmp_path / "a.h5")
        assert_same(record, read_record(tmp_path / "a.h5"))


def test_cases_keep_their_order_and_twins_their_own_group(tmp_path):
    cases = [make_case(1 + seed % 3, seed=seed) for seed in range(12)]
    record = make_record(*cases)
    write_record(record, tmp_path / "a.h5")
    assert_same(record, read_record(tmp_path / "a.h5"))
    with h5py.File(tmp_path / "a.h5") as file:
        expected = {f"{case.id}{suffix}" for case in cases[:3] for suffix in ("", "-2", "-3", "-4")}
        assert set(file["cases"]) == expected


def test_types_json_has_no_form_for_are_not_the_end(tmp_path):
    record = make_record(environment={"odd": {"a": np.float32(0.5), "b": np.arange(3), "c": Path("x"), "d": (1, 2)}})
    write_record(record, tmp_path / "a.h5")
    assert read_record(tmp_path / "a.h5").environment == {"odd": {"a": 0.5, "b": [0, 1, 2], "c": "x", "d": [1, 2]}}


def test_times_of_another_type_are_brought_to_float64(tmp_path):
    case = make_case()
    record = make_record(make_case(time_s=case.time_s.astype(np.float32), bytes_sent=case.bytes_sent.astype(np.int32)))
    write_record(record, tmp_path / "a.h5")
    assert read_record(tmp_path / "a.h5").cases[0].time_s.dtype == np.float64


def test_arrays_that_do_not_fit_are_a_bug(tmp_path):
    with pytest.raises(ValueError, match=r"loss has shape \(2,\), not \(10,\)"):
        write_record(make_record(make_case(loss=np.zeros(2))), tmp_path / "a.h5")
    assert names_in(tmp_path) == []


def test_reading_several(tmp_path):
    records = [make_record(), make_record()]
    paths = [tmp_path / "b.h5", tmp_path / "a.h5"]
    for record, path in zip(records, paths, strict=True):
        write_record(record, path)
    assert [record.uuid for record in read_records(paths)] == [record.uuid for record in records]


def test_layout_is_the_documented_one(tmp_path):
    path = tmp_path / "a.h5"
    slow, fast = (make_case(1, seed=seed, backend=f"b{seed}") for seed in (1, 2))
    fast.time_s[...] = 1e-3
    slow.time_s[2, 0, 0] = 99.0
    record = make_record(slow, fast)
    write_record(record, path)
    with h5py.File(path) as file:
        assert dict(file.attrs)["schema_name"] == "hpcrnn-record"
        assert file.attrs["schema_version"] == 3
        assert file.attrs["uuid"] == record.uuid
        assert '"MPICH \\u2603"' in file["environment/mpi"].asstr()[()]
        base = file["baseline"][slow.problem_id].attrs
        assert (base["kind"], base["case_id"], base["time_s"]) == ("best_serial", fast.id, 1e-3)
        group = file["cases"][slow.id]
        assert group["time"].attrs["units"] == "s"
        assert [axis[0].name.rpartition("/")[2] for axis in group["time"].dims] == ["rep", "rank", "phase"]
        assert list(group["phase"].asstr()) == list(slow.phases)
        np.testing.assert_array_equal(group["is_outlier"], np.arange(7) == 2)
        assert group.attrs["verdict"] == "VALID"
        assert group.attrs["metric_kind"] == "cost"
        assert bool(group.attrs["measured"])
        assert set(group["validation"]) == {"quantity", "error", "serial_error", "tolerance"}


def test_the_user_block_is_text_with_the_checksum(tmp_path):
    write_record(make_record(), tmp_path / "a.h5")
    content = (tmp_path / "a.h5").read_bytes()
    lines = content[:512].rstrip(b"\0").decode().splitlines()
    assert lines[0] == "hpcrnn-record"
    assert lines[1] == f"sha256 {hashlib.sha256(content[512:]).hexdigest()}"
    assert h5py.is_hdf5(tmp_path / "a.h5")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n_warmup", [0, 3])
def test_xarray_opens_it(tmp_path, n_warmup):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    case = make_case(2, n_warmup=n_warmup, timeline=make_timeline(EXCHANGE))
    write_record(make_record(case), tmp_path / "a.h5")
    options = {"engine": "h5netcdf", "phony_dims": "sort"}
    with xarray.open_dataset(tmp_path / "a.h5", group=f"/cases/{case.id}", **options) as data:
        assert data["time"].dims == ("rep", "rank", "phase")
        assert dict(data.sizes) == {
            "rep": 7, "warmup_rep": n_warmup, "rank": 2, "phase": 5, "training_step": 7 + n_warmup
        }  # fmt: skip
        np.testing.assert_array_equal(data["time"].sel(phase="allreduce"), case.phase_s("allreduce"))
        assert data["is_outlier"].dtype == bool
        assert data.attrs["verdict"] == "VALID"
    with xarray.open_dataset(tmp_path / "a.h5", group=f"/cases/{case.id}/validation", **options) as data:
        assert float(data["tolerance"].sel(quantity="loss")) == 1.6e-7
    with xarray.open_dataset(tmp_path / "a.h5", group=f"/cases/{case.id}/timeline", **options) as data:
        assert dict(data.sizes) == {"event": len(EXCHANGE)}
        assert data["start"].attrs["units"] == "s"
        assert data["instruction"].astype(str).values.tolist() == [row[1] for row in EXCHANGE]


def test_importing_loads_no_h5py():
    code = "import sys, hpcrnn.records.hdf5; sys.exit('h5py' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- when writing fails -----------------------------------------------------------------------------


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    old = make_record()
    write_record(old, path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=r"a\.h5: cannot be written: No space left on device$"):
        write_record(make_record(), path)
    assert names_in(tmp_path) == ["a.h5"]
    assert_same(read_record(path), old)


@pytest.mark.parametrize(("there", "overwrite"), [(False, False), (False, True), (True, True)])
def test_a_write_that_stops_half_way(tmp_path, there, overwrite):
    old = make_record()
    if there:
        write_record(old, tmp_path / "a.h5")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(FileError, match=r"a\.h5: cannot be written: File too large$"):
            write_record(make_record(), tmp_path / "a.h5", overwrite=overwrite)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names_in(tmp_path) == ["a.h5"] * there
    if there:
        assert_same(read_record(tmp_path / "a.h5"), old)


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_record(make_record(), tmp_path / "a.h5")
    assert names_in(tmp_path) == []


def test_a_directory_where_nothing_can_be_made():
    with pytest.raises(FileError, match=r"^/proc/none/a\.h5: cannot be written: "):
        write_record(make_record(), Path("/proc/none/a.h5"))


@pytest.fixture
def read_only():
    """A directory this process may read but not write; root, who may write anywhere, is nobody meanwhile."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(user)
            Path(folder).chmod(0o755)


def test_a_read_only_directory(read_only):
    with pytest.raises(FileError, match="cannot be written: Permission denied"):
        write_record(make_record(), read_only / "a.h5")
    with pytest.raises(SpecError, match="Permission denied"):
        check_writable(read_only / "a.h5", overwrite=False)
    with pytest.raises(SpecError, match="Permission denied"):
        check_writable(read_only / "deeper" / "a.h5", overwrite=False)


def test_a_directory_of_the_name(tmp_path):
    with pytest.raises(FileError, match="cannot be written: Is a directory"):
        write_record(make_record(), tmp_path)


def test_a_directory_that_went_away_is_made_again(tmp_path):
    write_record(make_record(), tmp_path / "gone" / "a.h5")
    assert read_record(tmp_path / "gone" / "a.h5")
