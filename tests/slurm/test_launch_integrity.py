"""``srun`` with the wrong plugin, and ``mpirun`` inside a job: what never met is refused, what is right is not."""

import json
import sys

import open_mpi
import pytest
from launching import SMALL

from hpcrnn.benchmarks.launch import default_launcher
from hpcrnn.records.hdf5 import read_record

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(180)]

DEFAULTS = ({}, {"SLURM_MPI_TYPE": "none"})
RUN = ("-m", "hpcrnn", "run", *map(str, SMALL))
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def only_line(done):
    lines = [line for line in done.stderr.splitlines() if line.startswith("hpcrnn: ")]
    assert done.returncode == 4, done.stderr
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_without_a_plugin_ranks_never_meet_and_one_says_so(work):
    """Four tasks on two nodes, each of which MPICH takes for a world of its own."""
    done = work.command("srun", "--mpi=none", "--nodes=2", "--ntasks=4", sys.executable, *RUN, **ONE_THREAD)
    line = only_line(done)
    assert "srun started 4 ranks and each believes to be alone: mpi4py has loaded MPICH" in line
    assert "start with: srun --mpi=pmi2 -n 4 hpcrnn run" in line
    assert not (work.folder / "r.h5").exists()
    # The line is right.
    done = work.command("srun", "--mpi=pmi2", "--nodes=2", "--ntasks=4", sys.executable, *RUN, **ONE_THREAD)
    assert done.returncode == 0, done.stderr
    facts = read_record(work.folder / "r.h5").environment["launcher"]
    assert (facts["kind"], facts["claimed"], facts["n_ranks"]) == ("srun", 4, 4)


def test_an_mpirun_inside_a_job_is_not_refused(work):
    """Slurm's variables speak of the mpirun's own processes there, one a node, and in the script of one task."""
    mpirun = f"{default_launcher()[0]} -n 4 {sys.executable} {' '.join(RUN)}"
    (work.folder / "job.sh").write_text(f"#!/bin/sh\n{mpirun} &&\n{sys.executable} {' '.join(RUN)} --out alone.h5\n")
    number = work.sbatch("--nodes=2", "--ntasks=4", "job.sh", **ONE_THREAD)
    work.cluster.wait_for_jobs(number)
    log = (work.folder / f"slurm-{number}.out").read_text()
    assert read_record(work.folder / "r.h5").environment["launcher"]["claimed"] == 4, log
    assert read_record(work.folder / "alone.h5").environment["launcher"]["claimed"] is None, log
    # Both nodes of the cluster are this machine, which MPI cannot know and a user may have made so by mistake.
    assert "MPI takes 2 nodes for different that are one machine: n1, n2" in log


def test_the_doctor_finds_what_srun_makes_of_two_ranks(work):
    """In a job of one task; with the default plugin, and where that is the wrong one."""
    doctor = ("salloc", "--ntasks=1", sys.executable, "-m", "hpcrnn", "doctor", "--json")
    right, wrong = (
        {f["topic"]: f for f in json.loads(work.command(*doctor, **default).stdout)} for default in DEFAULTS
    )
    assert right["srun"]["level"] == "ok"
    assert right["srun"]["text"].startswith("two ranks met; plugins ")
    assert "pmi2" in right["srun"]["text"]
    assert right["Slurm"]["level"] == "ok"
    assert "main up" in right["Slurm"]["text"]
    assert "inside job" in right["Slurm"]["text"]
    assert wrong["srun"]["text"] == "without --mpi it starts ranks that never meet; two ranks met by --mpi=pmi2"
    assert wrong["srun"]["remedy"] == "srun --mpi=pmi2, or export SLURM_MPI_TYPE=pmi2"
    assert wrong["mpirun"]["level"] == "ok"


@pytest.mark.skipif(not open_mpi.WANTED, reason=open_mpi.REASON)
@pytest.mark.parametrize("plugin", ["pmi2", "none"])
def test_open_mpi_under_a_plugin_it_does_not_know_is_refused(plugin, work, tmp_path_factory):
    other = open_mpi.install(tmp_path_factory.mktemp("openmpi"))
    line = only_line(work.command("srun", f"--mpi={plugin}", "-n", "3", other.python, *RUN, **ONE_THREAD))
    assert "srun started 3 ranks and each believes to be alone: mpi4py has loaded Open MPI" in line
    assert f"start with: srun --mpi=pmix -n 3 hpcrnn run ..., or {other.folder}/bin/mpirun -n 3" in line
