"""The certificate of a method that runs segments of time at once, in memory and on disk."""

import h5py
import numpy as np
import pytest
from record_samples import assert_same, make_case, make_certificate, make_record

from hpcrnn.records.certificate import QUANTILES
from hpcrnn.records.hdf5 import read_record, write_record


def round_trip(case, path):
    record = make_record(case, make_case(1))
    write_record(record, path)
    again = read_record(path)
    assert_same(record, again)
    return again


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"directions": ("forward",)},
        {"n_layers": 1, "n_segments": 1, "n_rows": 1},
        {"n_segments": 400, "n_rows": 2},
        {"choice": {}},
    ],
)
def test_it_comes_back_exactly(tmp_path, changes):
    again = round_trip(make_case(2, certificate=make_certificate(**changes)), tmp_path / "a.h5")
    certificate = again.cases[0].certificate
    assert (certificate.rounds.dtype, certificate.converged.dtype) == (np.int64, np.bool_)
    assert again.cases[1].certificate is None


def test_a_case_without_a_step_and_a_long_choice(tmp_path):
    choice = {"probe": ["met"] * 30_000}  # more than an attribute of HDF5 can hold
    round_trip(make_case(2, 0, 0, certificate=make_certificate(0, choice=choice)), tmp_path / "a.h5")


def test_a_large_one_is_compressed(tmp_path):
    certificate = make_certificate(n_layers=1, n_segments=512, n_rows=64)
    path = tmp_path / "a.h5"
    round_trip(make_case(2, certificate=certificate), path)
    assert path.stat().st_size < certificate.meeting.nbytes / 4


def test_one_of_other_steps_than_its_case_is_a_bug(tmp_path):
    with pytest.raises(ValueError, match=r"certificate: rounds has shape \(9, 2, 2\), not \(10, 2, 2\)"):
        write_record(make_record(make_case(2, certificate=make_certificate(9))), tmp_path / "a.h5")
    flat = make_certificate(meeting=np.zeros((2, 2, 5), dtype=np.int64))
    assert flat.fault(10) == "certificate: meeting has shape (2, 2, 5), not (2, 2, 5, 1)"
    assert make_certificate().fault(10) == ""


def test_the_group_is_the_documented_one(tmp_path):
    case = make_case(2, certificate=make_certificate())
    round_trip(case, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        group = file["cases"][case.id]["certificate"]
        assert group.attrs["n_segments"] == 5
        for name, dimensions in {
            "rounds": ["training_step", "layer", "direction"],
            "meeting_quantiles": ["training_step", "layer", "direction", "quantile"],
            "meeting": ["layer", "direction", "segment", "row"],
            "lyapunov": ["trajectory", "layer"],
        }.items():
            assert [axis[0].name.rpartition("/")[2] for axis in group[name].dims] == dimensions
        assert group["meeting"].attrs["units"] == "time steps"
        assert group["lyapunov"].attrs["units"] == "1 / time step"
        assert "\\u2603" in group["choice"].asstr()[()]


@pytest.mark.filterwarnings("error")
def test_xarray_opens_the_certificate(tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    case = make_case(2, certificate=make_certificate())
    round_trip(case, tmp_path / "a.h5")
    where = f"/cases/{case.id}/certificate"
    with xarray.open_dataset(tmp_path / "a.h5", group=where, engine="h5netcdf", phony_dims="sort") as data:
        assert dict(data.sizes) == {
            "training_step": 10, "layer": 2, "direction": 2, "quantile": len(QUANTILES),
            "trajectory": 2, "segment": 5, "row": 3,
        }  # fmt: skip
        assert data["converged"].dtype == bool
        np.testing.assert_array_equal(
            data["rounds"].sel(layer="layer1", direction="backward"), case.certificate.rounds[:, 1, 1]
        )
        assert float(data["lyapunov"].sel(trajectory="first", layer="layer0")) == -0.25
