"""Ceilings: measured before the steps, by all ranks of a way at once; never the reason that a run fails."""

import re
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from launching import SMALL, case_script, hpcrnn, mpirun

from hpcrnn.backends.numpy.probe import NumpyProbe
from hpcrnn.backends.probe import touched_arrays
from hpcrnn.benchmarks import ceilings
from hpcrnn.benchmarks.ceilings import MOST_SAMPLES, climb, repeat
from hpcrnn.cells.products import NumpyProducts
from hpcrnn.records.hdf5 import read_record
from hpcrnn.reporting.analysis.entries import make_entries
from hpcrnn.reporting.analysis.roofline import rooflines

DOCUMENT = (Path(__file__).parents[2] / "docs" / "file_format.md").read_text(encoding="utf-8")
QUICK = (
    "from hpcrnn.benchmarks import ceilings\nceilings.GEMM_S = ceilings.TOUCH_S = ceilings.BANDWIDTH_S = 0.01\n"
    "ceilings.LEAST_FOOTPRINT = 1 << 20\n"
)
MAIN = "from hpcrnn.cli import main\nraise SystemExit(main())\n"


def run(folder, n_ranks, *flags, before=""):
    script = case_script(folder, before + QUICK + MAIN)
    flags = [str(flag) for flag in (*SMALL, "--ceilings", *flags)]
    return mpirun(n_ranks, script, "run", *flags, cwd=folder)


def documented_keys():
    """Keys of an entry and of a rank, as docs/file_format.md has them."""
    section = re.search(r"^## What the machine can do\n(.*?)^## ", DOCUMENT, re.DOTALL | re.MULTILINE)[1]
    names = re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE)
    return {name for name in names if "." not in name}, {name[6:] for name in names if name.startswith("ranks.")}


# --- in a run ---------------------------------------------------------------------------------------


@pytest.mark.mpi
def test_every_rank_of_every_way_measures_and_the_file_holds_what_the_document_says(tmp_path):
    ended = run(tmp_path, 2)
    assert ended.code == 0, ended.err
    record = read_record(tmp_path / "r.h5")
    found = record.environment["ceilings"]
    assert [(f["backend"], f["n_ranks"], f["threads"], f["precision"], len(f["ranks"])) for f in found] == [
        ("numpy", 1, 1, "float32", 1),
        ("numpy", 2, 1, "float32", 2),
    ]
    of_entry, of_rank = documented_keys()
    for facts in found:
        assert set(facts) == of_entry
        for rank in facts["ranks"]:
            assert set(rank) == of_rank - {"problem"}
            assert 0 < len(rank["gemm_sample_s"]) <= MOST_SAMPLES
            n = rank["gemm_n"]
            assert rank["gemm_flop_per_s"] == pytest.approx(2 * n**3 / min(rank["gemm_sample_s"]))
            footprint = rank["bandwidth_footprint_bytes"]
            assert rank["bandwidth_bytes_per_s"] == pytest.approx(footprint / min(rank["bandwidth_sample_s"]))
    # What the report needs is all there.
    reached = rooflines(make_entries([record]))
    assert [one.ceilings.n_ranks for one in reached.reached] == [1, 2]
    assert reached.left_out == {}


@pytest.mark.mpi
def test_none_are_measured_where_they_are_not_wanted(tmp_path):
    ended = hpcrnn("run", *SMALL, cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "ceilings" not in read_record(tmp_path / "r.h5").environment


BROKEN = """
from mpi4py import MPI
from hpcrnn.backends.numpy import probe

def product(self, n):
    raise MemoryError("no room\\nfor a matrix")

if MPI.COMM_WORLD.Get_rank() == 1:
    probe.NumpyProbe.product = product
"""


@pytest.mark.mpi
def test_a_rank_that_cannot_measure_says_why_and_the_run_goes_on(tmp_path):
    ended = run(tmp_path, 2, before=BROKEN)
    assert ended.code == 0, ended.err
    record = read_record(tmp_path / "r.h5")
    _, both = record.environment["ceilings"]
    good, bad = both["ranks"]
    assert "problem" not in good
    assert bad["problem"] == "MemoryError: no room"
    assert "gemm_flop_per_s" not in bad
    assert "bandwidth_bytes_per_s" in bad
    found = rooflines(make_entries([record]))
    assert [one.entry.number for one in found.reached] == [1], "half of a ceiling is none"
    assert found.left_out == {"no ceilings recorded": (2,)}


UNLIKE = """
from hpcrnn.backends.numpy.engine import NumpyEngine

weight_gradient = NumpyEngine.weight_gradient

def wrong(self, block, microbatch, chunk):
    weight_gradient(self, block, microbatch, chunk)
    self.gradient_range(block, block + 1)[...] += 1

NumpyEngine.weight_gradient = wrong
"""


@pytest.mark.mpi
def test_an_invalid_run_measures_nothing(tmp_path):
    ended = run(tmp_path, 1, before=UNLIKE)
    assert ended.code == 2, ended.err
    assert "ceilings" not in read_record(tmp_path / "r.h5").environment


# --- how it is measured -----------------------------------------------------------------------------


class Clock:
    """A clock that only work moves on."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(ceilings.time, "perf_counter", lambda: self.now)

    def product(self, rate):
        """A product whose rate is a function of its size."""

        def make(n):
            seconds = 2.0 * n**3 / rate(n)

            def run():
                self.now += seconds
                return seconds

            return run

        return make


def test_a_product_grows_until_its_rate_does_not(monkeypatch):
    clock = Clock(monkeypatch)
    n, samples = climb(clock.product(lambda n: 1e12 * min(n, 1024)), 100.0, 16384)
    assert n == 1024
    assert 2.0 * n**3 / min(samples) == pytest.approx(1024e12)
    assert len(samples) == MOST_SAMPLES


def test_one_slow_size_does_not_end_the_search(monkeypatch):
    clock = Clock(monkeypatch)
    n, _ = climb(clock.product(lambda n: 1e12 * (100 if n == 512 else n)), 100.0, 4096)
    assert n == 4096


@pytest.mark.parametrize("limit_s", [0.01, 0.1, 1.0])
def test_a_search_ends_in_time_on_a_slow_machine(limit_s, monkeypatch):
    clock = Clock(monkeypatch)
    smallest = 2.0 * 256**3 / 1e10
    climb(clock.product(lambda n: 1e10), limit_s, 16384)
    # What is begun is done, and of the smallest size three are made however long they take.
    assert clock.now <= 1.1 * limit_s + 4 * smallest


def test_little_memory_makes_small_products(monkeypatch):
    sizes = []

    def product(n):
        sizes.append(n)
        return Clock(monkeypatch).product(lambda n: 1e12 * n)(n)

    n, _ = climb(product, 1.0, 100)
    assert (n, sizes) == (100, [100])


def test_repeating_ends_by_time_or_by_number(monkeypatch):
    clock = Clock(monkeypatch)
    ticks = count()

    def run():
        clock.now += 1.0
        return float(next(ticks))

    assert repeat(run, 2.5) == [0.0, 1.0, 2.0]
    assert len(repeat(run, 1e9, most=5)) == 5
    assert len(repeat(run, 0.0, least=2)) == 2


def test_arrays_are_as_long_as_there_is_time_to_touch():
    whole = touched_arrays(3, 48 << 20, 1e9)
    assert [a.nbytes for a in whole] == [16 << 20] * 3
    short = touched_arrays(3, 48 << 20, 0.0)
    assert [a.nbytes for a in short] == [4 << 20] * 3, "one piece at the least"
    assert all((a == 1.0).all() for a in (*whole, *short))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_pass_of_any_number_of_threads_adds_all_of_the_arrays(threads, monkeypatch):
    arrays = [np.arange(1001.0), np.ones(1001), np.zeros(1001)]
    monkeypatch.setattr("hpcrnn.backends.numpy.probe.touched_arrays", lambda *_: arrays)
    stream = NumpyProbe(NumpyProducts(), "float32", threads, None).stream(1, 1.0)
    assert stream.run() > 0
    np.testing.assert_array_equal(arrays[2], np.arange(1001.0) + 1)
    assert stream.footprint_bytes == 3 * 8008


def test_the_peer_measures_with_its_own_library_and_keeps_its_threads():
    torch = pytest.importorskip("torch")
    from hpcrnn.backends.torch.probe import TorchProbe

    before = torch.get_num_threads()
    probe = TorchProbe("float64", before + 1, None)
    assert probe.product(8)() > 0
    stream = probe.stream(1 << 20, 1.0)
    assert stream.run() > 0
    assert (probe.library.split()[0], stream.kind, torch.get_num_threads()) == ("torch", "add", before)
    assert abs(stream.footprint_bytes - (1 << 20)) < 24
