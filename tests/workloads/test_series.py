"""Series: what is read, how it is standardised, what is refused."""

import hashlib

import h5py
import numpy as np
import pytest
from workload_samples import T, make_spec

from hpcrnn.errors import SpecError
from hpcrnn.workloads import open_workload
from hpcrnn.workloads.series import standardise

RANDOM = np.random.default_rng(1)
MATRIX = RANDOM.normal([3.0, -40.0, 0.5], [2.0, 0.1, 7.0], (60, 3))


def saved(folder, array, name="series.npy"):
    np.save(folder / name, array)
    return f"series:{folder / name}"


def refusal(name):
    with pytest.raises(SpecError) as caught:
        open_workload(make_spec(name))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("problem.workload = ")
    return message


def test_targets_are_the_next_rows(tmp_path):
    batch = open_workload(make_spec(saved(tmp_path, MATRIX), dtype="float64")).batch(0)
    np.testing.assert_array_equal(batch.inputs[1:], batch.targets[:-1])
    assert batch.weights is None


def test_standardisation_can_be_undone(tmp_path):
    workload = open_workload(make_spec(saved(tmp_path, MATRIX), dtype="float64"))
    facts = workload.describe()
    np.testing.assert_allclose(facts["mean"], MATRIX.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(facts["scale"], MATRIX.std(axis=0), rtol=1e-14)
    np.testing.assert_allclose(workload.series * facts["scale"] + facts["mean"], MATRIX, rtol=1e-12)
    assert facts["shape"] == [60, 3]
    assert facts["sha256"] == hashlib.sha256(MATRIX.tobytes()).hexdigest()


@pytest.mark.parametrize("constant", [0.0, 0.1, -7e300, 5e-324, 1e308])
def test_constant_columns_become_zero(constant):
    values, mean, scale = standardise(np.full((1000, 1), constant))
    assert (values == 0).all()
    assert mean == constant
    assert scale == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1e308, 1e-300, 1e-310, 1.0])
def test_sizes_at_the_ends_of_the_doubles(size):
    values, _, scale = standardise(np.array([[-1.0], [1.0], [1.0], [-1.0]]) * size)
    np.testing.assert_allclose(values[:, 0], [-1, 1, 1, -1], rtol=1e-3)
    np.testing.assert_allclose(scale, size, rtol=1e-3)


def test_a_column_that_hardly_varies_stays_finite():
    column = np.zeros((100, 1))
    column[0], column[1] = 1.0, 1e-200
    assert np.isfinite(standardise(column)[0]).all()
    tiny = np.ones((100, 1))
    tiny[3] = np.nextafter(1, 2)
    assert np.isfinite(standardise(tiny)[0]).all()


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.bool_, np.float32, ">f8"])
def test_every_real_type_is_taken(tmp_path, dtype):
    matrix = (RANDOM.random((30, 2)) * 100).astype(dtype)
    batch = open_workload(make_spec(saved(tmp_path, matrix))).batch(0)
    assert batch.inputs.dtype == np.float32
    assert np.isfinite(batch.inputs).all()


def test_column_major_files(tmp_path):
    rows = open_workload(make_spec(saved(tmp_path, MATRIX, "c.npy"))).batch(0)
    columns = open_workload(make_spec(saved(tmp_path, np.asfortranarray(MATRIX), "f.npy"))).batch(0)
    np.testing.assert_array_equal(rows.inputs, columns.inputs)
    assert columns.inputs.flags.c_contiguous


def test_hdf5_by_name_and_alone(tmp_path):
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["group/wanted"] = MATRIX
        file["vector"] = np.arange(5)
    expected = open_workload(make_spec(saved(tmp_path, MATRIX))).batch(0).inputs
    for name in (f"series:{path}", f"series:{path}:group/wanted"):
        np.testing.assert_array_equal(open_workload(make_spec(name)).batch(0).inputs, expected)


def test_a_colon_in_the_name_of_a_file(tmp_path):
    assert open_workload(make_spec(saved(tmp_path, MATRIX, "run:3.npy"))).batch(0)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(50), "of shape (N, D); this has shape (50,)"),
        (np.zeros((50, 2, 2)), "of shape (N, D); this has shape (50, 2, 2)"),
        (np.zeros((50, 0)), "of shape (N, D); this has shape (50, 0)"),
        (np.zeros((T, 2)), f"of at least seq + 1 = {T + 1} rows; this has {T}"),
        (np.zeros((50, 2), dtype=complex), "of real numbers; this has dtype complex128"),
        (np.full((50, 2), "x"), "of real numbers; this has dtype <U1"),
        (np.zeros((50, 2), dtype="M8[s]"), "of real numbers; this has dtype datetime64[s]"),
        (np.full((50, 2), np.nan), "of finite numbers; this holds NaN or infinity"),
        (np.full((50, 2), np.inf), "of finite numbers; this holds NaN or infinity"),
    ],
)
def test_what_is_no_series(tmp_path, array, message):
    assert refusal(saved(tmp_path, array)).endswith(f"allowed is an array {message}")


def test_nothing_is_unpickled(tmp_path):
    np.save(tmp_path / "series.npy", np.array([[open]]), allow_pickle=True)
    assert "Object arrays cannot be loaded" in refusal(f"series:{tmp_path / 'series.npy'}")


@pytest.mark.parametrize("suffix", ["none.npy", "none.h5", "none.h5:x", ""])
def test_missing_files(tmp_path, suffix):
    assert "is not " in refusal(f"series:{tmp_path / suffix}")


@pytest.mark.parametrize("length", [0, 3, 9, 40, 127, 200, 1000])
def test_truncated_files(tmp_path, length):
    np.save(tmp_path / "whole.npy", MATRIX)
    content = (tmp_path / "whole.npy").read_bytes()[:length]
    (tmp_path / "cut.npy").write_bytes(content)
    refusal(f"series:{tmp_path / 'cut.npy'}")


def test_odd_names_make_one_line():
    for name in ("series:a\0b", "series:a\0b:c", "series:" + "x" * 5000, "series:~nobody-of-this-name/x"):
        assert refusal(name).isprintable()
