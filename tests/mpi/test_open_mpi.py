"""MPICH and Open MPI, each under the other's ``mpirun``: the launches that start N runs of one rank without a word."""

import sys

import open_mpi
import pytest
from launching import SMALL, TIMEOUT_S, start

from hpcrnn.benchmarks.launch import default_launcher
from hpcrnn.records.hdf5 import read_record

pytestmark = [pytest.mark.mpi, pytest.mark.skipif(not open_mpi.WANTED, reason=open_mpi.REASON)]

RUN = ("-m", "hpcrnn", "run", *map(str, SMALL))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return open_mpi.install(tmp_path_factory.mktemp("openmpi"))


def only_line(ended):
    assert ended.code == 4, ended.err
    assert len(ended.error_lines) == 1, ended.err
    return ended.error_lines[0]


def test_open_mpi_under_its_own_mpirun_runs(other, tmp_path):
    ended = start([*other.mpirun(3), other.python, *RUN], cwd=tmp_path, timeout=TIMEOUT_S)
    assert ended.code == 0, ended.err
    environment = read_record(tmp_path / "r.h5").environment
    assert environment["mpi"]["library"].startswith("Open MPI")
    assert environment["launcher"]["claimed"] == 3


def test_open_mpi_under_mpichs_mpirun_is_refused(other, tmp_path):
    mpirun = default_launcher()[0]
    ended = start([mpirun, "-n", "3", other.python, *RUN], cwd=tmp_path, timeout=TIMEOUT_S)
    line = only_line(ended)
    assert "an mpirun of MPICH's kind started 3 ranks and each believes to be alone: mpi4py has loaded Open MPI" in line
    assert f"start with: {other.folder}/bin/mpirun -n 3" in line
    assert not list(tmp_path.iterdir())


def test_mpich_under_open_mpis_mpirun_is_refused(other, tmp_path):
    line = only_line(start([*other.mpirun(3), sys.executable, *RUN], cwd=tmp_path, timeout=TIMEOUT_S))
    assert "Open MPI's mpirun speaks PMIx alone, and mpi4py has loaded MPICH" in line
    assert not list(tmp_path.iterdir())
