"""Energy counters: what they say, how they begin anew, and that an unknown part makes the whole unknown."""

import sys
from math import isnan
from types import SimpleNamespace

import pytest

from hpcrnn.execution.energy import node_meter, package_counters


def make_package(root, name, energy_uj, range_uj=1_000_000):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return folder / "energy_uj"


def test_packages_are_counted_and_their_parts_are_not(tmp_path):
    first = make_package(tmp_path, "intel-rapl:0", 100_000)
    second = make_package(tmp_path, "intel-rapl:1", 900_000)
    make_package(tmp_path, "intel-rapl:0:0", 5)
    (tmp_path / "intel-rapl").mkdir()
    meter = node_meter((), tmp_path)
    assert meter.joules() == 0
    first.write_text("600000\n")
    second.write_text("200000\n")  # it was full, and began anew
    assert meter.joules() == pytest.approx(0.5 + 0.3)
    first.write_text("600001\n")
    assert meter.joules() == pytest.approx(0.8 + 1e-6)


def test_what_cannot_be_read_is_unknown(tmp_path):
    assert isnan(node_meter((), tmp_path / "none").joules())
    assert isnan(node_meter((), tmp_path).joules())
    energy = make_package(tmp_path, "intel-rapl:0", 1)
    meter = node_meter((), tmp_path)
    assert meter.joules() == 0
    energy.unlink()
    assert isnan(meter.joules())
    assert isnan(meter.joules())
    (tmp_path / "intel-rapl:0" / "max_energy_range_uj").write_text("none\n")
    energy.write_text("1\n")
    assert package_counters(tmp_path) == []


def test_a_gpu_counts_with_the_processors_or_makes_them_unknown(tmp_path, monkeypatch):
    make_package(tmp_path, "intel-rapl:0", 0)
    used_mj = {"GPU-1": [500, 500, 2500]}
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: used_mj[uuid],
        nvmlDeviceGetTotalEnergyConsumption=lambda readings: readings.pop(0),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    meter = node_meter(["GPU-1"], tmp_path)
    assert meter.joules() == 0
    assert meter.joules() == 2.0
    assert isnan(node_meter(["GPU-2"], tmp_path).joules())
