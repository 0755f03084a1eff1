"""What is no record, or no longer: always one line that names the file, and never other numbers."""

import hashlib
import json
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from record_samples import (
    EXCHANGE,
    assert_same,
    cpu_facts,
    device_facts,
    make_case,
    make_certificate,
    make_compression,
    make_record,
    make_timeline,
    make_work,
)

from hpcrnn.errors import FileError
from hpcrnn.records.hdf5 import read_array, read_record, read_records, write_record

CASE_OF_ALL = make_case(
    2, 3, 1, timeline=make_timeline(EXCHANGE, 2), bubble_bound=0.25, certificate=make_certificate(4),
    **device_facts(2, 3),
    **cpu_facts(2, 3),
    compression=make_compression(),
    work=make_work(),
)  # fmt: skip
RECORD = make_record(CASE_OF_ALL)
CASE = f"cases/{RECORD.cases[0].id}"
CERTIFICATE = f"{CASE}/certificate"


@cache
def content():
    """The bytes of the whole file; no fixture, which a failing test would print."""
    with TemporaryDirectory() as folder:
        write_record(RECORD, Path(folder) / "a.h5")
        return (Path(folder) / "a.h5").read_bytes()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "a.h5"


def refusal(path):
    with pytest.raises(FileError) as caught:
        read_record(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message.removeprefix(f"{path}: ")


def record_or_refusal(path):
    try:
        return read_record(path)
    except FileError as error:
        message = str(error)
    assert message.isprintable()
    return message


def edit(path, change):
    """Change a record as another program could, and give it the checksum that belongs to it."""
    path.write_bytes(content())
    with h5py.File(path, "r+") as file:
        change(file)
    body = path.read_bytes()[512:]
    head = f"hpcrnn-record\nsha256 {hashlib.sha256(body).hexdigest()}\nbytes {len(body)}\n".encode()
    path.write_bytes(head.ljust(512, b"\0") + body)


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_any_flipped_bit_is_noticed(path, data):
    position = data.draw(st.integers(0, len(content()) - 1))
    damaged = bytearray(content())
    damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged)
    record = record_or_refusal(path)
    if not isinstance(record, str):
        assert position < 512, "a flip behind the user block was not noticed"
        assert_same(record, RECORD)


def test_bytes_all_over_the_user_block(path):
    for position in range(0, 200, 3):
        damaged = bytearray(content())
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        record = record_or_refusal(path)
        if not isinstance(record, str):
            assert_same(record, RECORD)


@settings(deadline=None, max_examples=60)
@given(share=st.floats(0, 1, exclude_max=True))
@example(share=0.0)
def test_truncated_anywhere(path, share):
    path.write_bytes(content()[: int(share * len(content()))])
    assert refusal(path).startswith(("is truncated: ", "is empty", "is not an hpcrnn record", "is damaged: "))


def test_the_last_byte_counts(path):
    path.write_bytes(content()[:-1])
    assert refusal(path) == f"is truncated: {len(content()) - 513} of {len(content()) - 512} bytes are left"
    path.write_bytes(content() + b"\0")
    assert refusal(path) == "is damaged, or was edited: its checksum does not match"


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"", "is empty"),
        (b"x", "is not an hpcrnn record"),
        (b"\x89PNG\r\n\x1a\n" + bytes(900), "is not an hpcrnn record"),
        (b"hpcrnn-record\n", "is damaged: its user block cannot be read"),
        (b"hpcrnn-record\nsha256 \xff\xfe\nbytes -1\n", "is damaged: its user block cannot be read"),
        (b"hpcrnn-record\nsha256 " + b"0" * 64 + b"\nbytes 9" + b"9" * 17 + b"\n", "is truncated: "),
    ],
)
def test_other_files(path, start, message):
    path.write_bytes(start)
    assert refusal(path).startswith(message)


def test_other_hdf5(path):
    with h5py.File(path, "w") as file:
        file["x"] = 1
    assert refusal(path) == "is HDF5, but not an hpcrnn record"


def test_no_file(tmp_path):
    assert refusal(tmp_path / "none.h5") == "is not there"
    assert refusal(tmp_path) == "is not a file"
    assert refusal(Path("/dev/zero")) == "is not a file"
    assert refusal(tmp_path / ("x" * 300)) == "cannot be read: File name too long"


def test_unreadable(path, monkeypatch):
    path.write_bytes(content())

    def refuse(self, *_args, **_options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)  # chmod stops no root
    assert refusal(path) == "cannot be read: Permission denied"


def test_a_name_of_two_lines(tmp_path):
    with pytest.raises(FileError) as caught:
        read_record(tmp_path / "two\nlines.h5")
    assert str(caught.value).endswith(r"two\nlines.h5: is not there")


def test_the_first_bad_one_is_named(path):
    path.write_bytes(content())
    with pytest.raises(FileError, match=r"^none\.h5: is not there"):
        read_records([path, Path("none.h5")])


def set_attribute(where, name, value):
    def change(file):
        file[where].attrs[name] = value

    return change


def replace(name, value):
    def change(file):
        del file[name]
        file[name] = value

    return change


def remove(name):
    def change(file):
        del file[name]

    return change


def drop_attribute(where, name):
    def change(file):
        del file[where].attrs[name]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            set_attribute("/", "schema_version", 4),
            "/ has schema version 4, and this hpcrnn reads up to 3: update hpcrnn",
        ),
        (
            set_attribute("/", "schema_version", "one"),
            "/ has an attribute schema_version that is not of type int",
        ),
        (drop_attribute("/", "schema_version"), "/ has no attribute schema_version"),
        (set_attribute("/", "schema_name", "x"), "/ has no attribute schema_name = hpcrnn-record"),
        (drop_attribute("/", "uuid"), "/ has no attribute uuid"),
        (set_attribute("/", "complete", 2.5), "/ has an attribute complete that is not of type bool"),
        (remove("cases"), "/ has no cases"),
        (remove("environment"), "/ has no environment"),
        (remove(f"{CASE}/time"), f"/{CASE} has no time"),
        (remove(f"{CASE}/phase"), f"/{CASE} has no phase"),
        (remove(f"{CASE}/validation"), f"/{CASE} has no validation"),
        (drop_attribute(CASE, "kernel"), f"/{CASE} has no attribute kernel"),
        (drop_attribute(CASE, "index"), f"/{CASE} has no attribute index"),
        (set_attribute(CASE, "verdict", "FINE"), f"/{CASE} has verdict = 'FINE', not VALID or INVALID or "),
        (
            set_attribute(CASE, "n_ranks", 3),
            f"/{CASE} is not consistent: time has shape (3, 2, 5), not (3, 3, 5)",
        ),
        (set_attribute(CASE, "backend", "torch"), f"/{CASE} holds another case, "),
        (set_attribute(CASE, "params_json", "[]"), f"/{CASE} has a params_json without the sections "),
        (
            replace(f"{CASE}/time", np.zeros((3, 2))),
            f"/{CASE} is not consistent: time has shape (3, 2), not (3, 2, 5)",
        ),
        (replace(f"{CASE}/loss", np.zeros(9)), f"/{CASE} is not consistent: loss has shape (9,), not (4,)"),
        (replace(f"{CASE}/loss", np.zeros(4, np.int8)), f"/{CASE}/loss has type int8, not float64"),
        (remove(f"{CASE}/memory_bytes"), f"/{CASE} has no memory_bytes"),
        (
            replace(f"{CASE}/kernel_details", ["a"]),
            f"/{CASE} is not consistent: kernel_details has shape (1,), not (2,)",
        ),
        (
            replace(f"{CASE}/device_time", np.zeros((3, 2))),
            f"/{CASE} is not consistent: device_time has shape (3, 2), not (3, 2, 5)",
        ),
        (
            replace(f"{CASE}/cpu_time", np.zeros((4, 2, 5))),
            f"/{CASE} is not consistent: cpu_time has shape (4, 2, 5), not (3, 2, 5)",
        ),
        (
            replace(f"{CASE}/compression/held_back", np.zeros((3, 1))),
            f"/{CASE} is not consistent: compression: held_back has shape (3, 1), not (3, 2)",
        ),
        (replace(f"{CASE}/compression/error", np.zeros(3, np.int8)), f"/{CASE}/compression/error has type int8, not "),
        (
            replace(f"{CASE}/work/slots", np.zeros((3, 3), np.int64)),
            f"/{CASE} is not consistent: work: slots has shape (3, 3), not (3, 2)",
        ),
        (replace(f"{CASE}/work/tokens", np.zeros((3, 2))), f"/{CASE}/work/tokens has type float64, not int64"),
        (remove(f"{CASE}/work/n_sequences"), f"/{CASE}/work has no n_sequences"),
        (drop_attribute(f"{CASE}/compression", "coded_bytes"), f"/{CASE}/compression has no attribute coded_bytes"),
        (replace(f"{CASE}/device_peak_bytes", np.zeros(2)), f"/{CASE}/device_peak_bytes has type float64, not int64"),
        (drop_attribute(CASE, "bubble_bound"), f"/{CASE} has no attribute bubble_bound"),
        (remove(f"{CASE}/timeline/instruction"), f"/{CASE}/timeline has no instruction"),
        (drop_attribute(f"{CASE}/timeline", "repetition"), f"/{CASE}/timeline has no attribute repetition"),
        (replace(f"{CASE}/timeline/rank", np.zeros(13)), f"/{CASE}/timeline/rank has type float64, not int64"),
        (
            replace(f"{CASE}/timeline/start", np.zeros(9)),
            f"/{CASE} is not consistent: timeline: its columns are of several lengths",
        ),
        (
            replace(f"{CASE}/timeline/rank", np.full(13, 2)),
            f"/{CASE} is not consistent: timeline: it names ranks beyond the 2 there are",
        ),
        (
            replace(f"{CASE}/timeline/end", np.full(13, np.nan)),
            f"/{CASE} is not consistent: timeline: it holds times that are not finite",
        ),
        (
            replace(f"{CASE}/timeline/end", np.full(13, -1.0)),
            f"/{CASE} is not consistent: timeline: an instruction ends before it starts",
        ),
        (
            replace(f"{CASE}/timeline/start", -np.arange(13.0)),
            f"/{CASE} is not consistent: timeline: a rank's instructions are not in order",
        ),
        (
            set_attribute(f"{CASE}/timeline", "repetition", 3),
            f"/{CASE} is not consistent: timeline shows repetition 3 of 3",
        ),
        (
            set_attribute(f"{CASE}/timeline", "repetition", -1),
            f"/{CASE} is not consistent: timeline: its repetition is -1",
        ),
        (
            replace(f"{CASE}/validation/error", np.zeros(9)),
            f"/{CASE}/validation has columns of several lengths",
        ),
        (remove(f"{CERTIFICATE}/rounds"), f"/{CERTIFICATE} has no rounds"),
        (remove(f"{CERTIFICATE}/layer"), f"/{CERTIFICATE} has no layer"),
        (remove(f"{CERTIFICATE}/choice"), f"/{CERTIFICATE} has no choice"),
        (drop_attribute(CERTIFICATE, "n_segments"), f"/{CERTIFICATE} has no attribute n_segments"),
        (replace(f"{CERTIFICATE}/choice", "[1]"), f"/{CERTIFICATE} has a choice that is no JSON object"),
        (
            replace(f"{CERTIFICATE}/direction", ["forward", "up"]),
            f"/{CERTIFICATE} has a direction that is not forward or backward",
        ),
        (
            replace(f"{CERTIFICATE}/quantile", np.zeros(6)),
            f"/{CERTIFICATE} has other quantiles than this hpcrnn knows",
        ),
        (
            replace(f"{CERTIFICATE}/converged", np.zeros((4, 2, 2))),
            f"/{CERTIFICATE}/converged has type float64, not int8",
        ),
        (
            replace(f"{CERTIFICATE}/residual", np.zeros((3, 2, 2))),
            f"/{CASE} is not consistent: certificate: residual has shape (3, 2, 2), not (4, 2, 2)",
        ),
        (
            replace(f"{CERTIFICATE}/meeting", np.zeros((2, 2, 5), np.int64)),
            f"/{CASE} is not consistent: certificate: meeting has shape (2, 2, 5), not (2, 2, 5, 1)",
        ),
        (
            set_attribute(CERTIFICATE, "n_segments", 6),
            f"/{CASE} is not consistent: certificate: meeting has shape (2, 2, 5, 3), not (2, 2, 6, 3)",
        ),
        (
            set_attribute(CASE, "params_json", json.dumps({**CASE_OF_ALL.spec, "recurrence": "chain"})),
            f"/{CASE} has a params_json whose recurrence is no section",
        ),
    ],
)
def test_a_layout_that_is_not_ours(path, change, message):
    edit(path, change)
    assert refusal(path).startswith(f"in this record, {message}")


@pytest.mark.parametrize(
    "change",
    [
        set_attribute(CASE, "params_json", "{"),
        set_attribute("/", "argv", "{"),
        set_attribute(
            CASE,
            "params_json",
            json.dumps({name: {} for name in ("model", "problem", "training", "parallel", "machine")}),
        ),
        replace("cases", np.zeros(3)),
        replace("environment", 1.0),
        replace(f"{CASE}/time", "a text"),
        replace(f"{CASE}/phase", np.zeros((2, 2))),
        replace(f"{CASE}/timeline", np.arange(3)),
        replace(f"{CASE}/timeline/instruction", np.arange(13)),
        replace(CERTIFICATE, np.arange(3)),
        replace(f"{CERTIFICATE}/choice", "{"),
        replace(f"{CERTIFICATE}/choice", np.zeros(3)),
        replace("environment/mpi", np.zeros(2)),
    ],
)
def test_a_layout_that_h5py_or_json_stumbles_over(path, change):
    edit(path, change)
    refusal(path)


def test_what_a_later_version_adds_is_ignored(path):
    def add(file):
        file["later"] = 1
        file[f"{CASE}/later"] = np.arange(3)
        file[f"{CASE}/timeline/later"] = np.arange(3)
        file[f"{CERTIFICATE}/later"] = np.arange(3)
        file.attrs["note"] = "hello"

    edit(path, add)
    assert_same(read_record(path), RECORD)


def test_a_file_from_before_devices_spoke_and_cpu_time_was_read_has_nothing_of_them(path):
    def make_old(file):
        for name in ("kernel_details", "device_time", "device_peak_bytes", "cpu_time"):
            del file[f"{CASE}/{name}"]

    edit(path, make_old)
    (case,) = read_record(path).cases
    assert case.kernel_details == ()
    assert case.device_time_s is None
    assert case.cpu_time_s is None
    assert case.device_peak_bytes is None


def test_a_file_of_version_1_lacks_what_version_2_added(path):
    def make_old(file):
        file.attrs["schema_version"] = 1
        del file[f"{CASE}/timeline"], file[f"{CASE}/memory_bytes"], file[CASE].attrs["bubble_bound"]

    edit(path, make_old)
    (case,) = read_record(path).cases
    assert case.timeline is None
    assert np.isnan(case.bubble_bound)
    assert case.memory_bytes.shape == (2,)
    assert not case.memory_known
    assert case.certificate is None


def test_a_file_of_version_2_lacks_the_certificate_and_the_recurrence(path):
    def make_old(file):
        file.attrs["schema_version"] = 2
        del file[CERTIFICATE]
        spec = {name: keys for name, keys in CASE_OF_ALL.spec.items() if name != "recurrence"}
        file[CASE].attrs["params_json"] = json.dumps(spec)

    edit(path, make_old)
    (case,) = read_record(path).cases
    assert case.certificate is None
    assert (case.method, case.fold) == ("chain", 1)
    assert case.id == CASE_OF_ALL.id


# --- a user's arrays --------------------------------------------------------------------------------


def array_refusal(path, dataset=None):
    with pytest.raises(FileError) as caught:
        read_array(path, dataset)
    assert str(caught.value).isprintable()
    return str(caught.value).removeprefix(f"{path}: ")


def test_arrays_as_they_are(tmp_path):
    matrix = np.arange(6, dtype=">i2").reshape(2, 3)
    with (tmp_path / "a.dat").open("wb") as stream:
        np.save(stream, matrix)
    with h5py.File(tmp_path / "b.dat", "w", userblock_size=1024) as file:
        file["x/y"] = matrix
        file["cube"] = np.zeros((2, 2, 2))
    for array in (
        read_array(tmp_path / "a.dat"),
        read_array(tmp_path / "b.dat"),
        read_array(tmp_path / "b.dat", "x/y"),
    ):
        np.testing.assert_array_equal(array, matrix)
        assert array.dtype == matrix.dtype
    assert read_array(tmp_path / "b.dat", "cube").shape == (2, 2, 2)
    assert array_refusal(tmp_path / "b.dat", "x") == "has no dataset x"
    assert array_refusal(tmp_path / "b.dat", "z") == "has no dataset z"
    assert array_refusal(tmp_path / "a.dat", "z") == "is a .npy file, which has no datasets to name"


def test_several_matrices_must_be_told_apart(tmp_path):
    h5py.File(tmp_path / "a.h5", "w").close()
    assert array_refusal(tmp_path / "a.h5") == "has no two-dimensional dataset"
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = file["y"] = np.zeros((2, 2))
    assert array_refusal(tmp_path / "a.h5") == "has several two-dimensional datasets (x, y): name one, a.h5:x"


def test_what_is_no_array(tmp_path):
    (tmp_path / "text").write_text("1,2,3")
    (tmp_path / "empty").write_bytes(b"")
    assert array_refusal(tmp_path / "text") == "is neither .npy nor HDF5"
    assert array_refusal(tmp_path / "empty") == "is neither .npy nor HDF5"
    assert array_refusal(tmp_path / "none") == "is not there"
    assert array_refusal(tmp_path) == "is not a file"
    np.savez(tmp_path / "zip.npz", x=np.zeros((3, 3)))
    assert array_refusal(tmp_path / "zip.npz") == "is neither .npy nor HDF5"


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_damaged_npy(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("npy") / "a.npy"
    np.save(path, np.zeros((4, 2)))
    damaged = bytearray(path.read_bytes())
    damaged[data.draw(st.integers(0, 127))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    with suppress(FileError):
        read_array(path)
