"""The probe of a GPU on the stand-in: what it runs, and what a run records of it; its rates mean nothing there."""

import pytest
from launching import SMALL, hpcrnn
from stand_in import cp

from hpcrnn.backends.cupy.probe import CupyProbe
from hpcrnn.records.hdf5 import read_record
from hpcrnn.reporting.analysis.entries import make_entries
from hpcrnn.reporting.analysis.roofline import rooflines
from hpcrnn.spec import MachineSpec


@pytest.mark.parametrize(("precision", "itemsize"), [("float32", 4), ("bfloat16", 2)])
def test_a_probe_multiplies_in_the_precision_and_copies_all_of_an_array(precision, itemsize):
    probe = CupyProbe(MachineSpec(precision=precision), 0)
    assert (probe.library, probe.itemsize) == (f"cuBLAS {precision}", itemsize)
    assert probe.product(32)() > 0
    stream = probe.stream(1 << 16, 1.0)
    assert stream.run() > 0
    assert (stream.kind, stream.footprint_bytes) == ("copy", 1 << 16)
    assert probe.free_bytes() > 0


def test_the_peak_that_is_recorded_of_the_cases_is_without_what_ceilings_took():
    pool = cp.get_default_memory_pool()
    probe = CupyProbe(MachineSpec(), 0)
    probe.release()
    before = pool.total_bytes()
    stream = probe.stream(1 << 20, 1.0)
    stream.run()
    assert pool.total_bytes() >= before + (1 << 20)
    del stream
    probe.release()
    assert pool.total_bytes() <= before


@pytest.mark.mpi
def test_a_run_records_the_ceilings_of_its_gpu(tmp_path):
    flags = (*SMALL, "--ceilings", "--backend", "cupy", "--hidden", 16, "--precision", "bfloat16")
    ended = hpcrnn("run", *flags, cwd=tmp_path)
    assert ended.code == 0, ended.err
    record = read_record(tmp_path / "r.h5")
    (found,) = record.environment["ceilings"]
    assert (found["backend"], found["precision"], len(found["ranks"])) == ("cupy", "bfloat16", 1)
    assert found["ranks"][0]["bandwidth_kind"] == "copy"
    (one,) = rooflines(make_entries([record])).reached
    assert one.ceilings.library == "cuBLAS bfloat16"
