"""Launches that go wrong without a word, provoked for real: each is refused with exit code 4 and one line."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from launching import SMALL, TIMEOUT_S, start

import hpcrnn
from hpcrnn.benchmarks.launch import default_launcher
from hpcrnn.records.hdf5 import read_record

pytestmark = pytest.mark.mpi

RUN = (sys.executable, "-m", "hpcrnn", "run", *map(str, SMALL))

ORTE = {"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_RANK": "{rank}"}
SINGLETONS = {
    "Open MPI's mpirun": (ORTE, "Open MPI's mpirun started 3 ranks and each believes to be alone"),
    "Open MPI's mpirun, of which MPICH dies": (
        ORTE | {"PMIX_NAMESPACE": "prterun@1", "PMIX_RANK": "{rank}"},
        "Open MPI's mpirun speaks PMIx alone",
    ),
    "a PMI of which nobody answers": (
        {"PMI_SIZE": "3", "PMI_RANK": "{rank}"},
        "an mpirun of MPICH's kind started 3 ranks and each believes to be alone",
    ),
    "srun --mpi=none": (
        {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "3", "SLURM_PROCID": "{rank}"},
        "start with: srun --mpi=pmi2 -n 3 hpcrnn run",
    ),
}


def alone(variables, rank, folder, *flags):
    """Start one process that was told to be a rank of three, as its launcher tells it."""
    told = [f"{name}={value.format(rank=rank)}" for name, value in variables.items()]
    return start(["env", *told, *RUN, *flags], cwd=folder, timeout=TIMEOUT_S)


@pytest.mark.parametrize("case", SINGLETONS)
def test_ranks_that_never_meet_are_refused_and_one_of_them_says_so(case, tmp_path):
    variables, words = SINGLETONS[case]
    with ThreadPoolExecutor() as pool:
        first, last = pool.map(lambda rank: alone(variables, rank, tmp_path), (0, 2))
    assert (first.code, last.code) == (4, 4), first.err + last.err
    assert last.err == ""
    (line,) = first.err.splitlines()
    assert line.startswith("hpcrnn: error: ")
    assert words in line
    assert "start with: " in line
    assert first.out == last.out == ""
    assert not list(tmp_path.iterdir())


def test_measuring_scripts_refuse_ranks_that_never_met_too(tmp_path):
    told = ("env", "OMPI_COMM_WORLD_SIZE=3", "OMPI_COMM_WORLD_RANK=0")
    ended = start([*told, sys.executable, "-m", "hpcrnn.benchmarks.halo"], cwd=tmp_path, timeout=TIMEOUT_S)
    assert ended.code == 4
    assert "Open MPI's mpirun started 3 ranks and each believes to be alone" in ended.error_lines[0]
    assert len(ended.error_lines) == 1


def test_ranks_that_are_alone_on_purpose_run(tmp_path):
    variables, _ = SINGLETONS["srun --mpi=none"]
    ended = alone(variables, 2, tmp_path, "--expect-ranks", "1")
    assert ended.code == 0, ended.err
    assert read_record(tmp_path / "r.h5").environment["launcher"]["claimed"] == 3


def test_an_mpirun_inside_a_job_is_right_whatever_slurm_says_of_its_proxies(tmp_path):
    proxy = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}
    ranks = [default_launcher()[0], "-launcher", "fork", "-n", "2", "env", *[f"{k}={v}" for k, v in proxy.items()]]
    ended = start([*ranks, *RUN], cwd=tmp_path, timeout=TIMEOUT_S)
    assert ended.code == 0, ended.err
    facts = read_record(tmp_path / "r.h5").environment["launcher"]
    assert (facts["kind"], facts["claimed"], facts["n_ranks"], facts["warnings"]) == ("mpirun", 2, 2, [])
    assert len(facts["code"]) == 12


def apart(folder, first, second):
    """Start two ranks of one world, each by a command of its own."""
    return start([default_launcher()[0], "-n", "1", *first, ":", "-n", "1", *second], cwd=folder, timeout=TIMEOUT_S)


def only_line(ended):
    assert ended.code == 4, ended.err
    assert len(ended.error_lines) == 1, ended.err
    assert "Traceback" not in ended.err
    return ended.error_lines[0]


def test_ranks_of_different_settings_are_refused(tmp_path):
    line = only_line(apart(tmp_path, RUN, ("env", "OMP_NUM_THREADS=2", *RUN)))
    assert "rank(s) 1 on host" in line
    assert "have OMP_NUM_THREADS = 2, the others 1; hand it to all ranks" in line


def test_ranks_of_different_code_are_refused(tmp_path):
    copy = tmp_path / "copy" / "hpcrnn"
    shutil.copytree(Path(hpcrnn.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "errors.py").open("a") as source:
        source.write("# edited on one node only\n")
    line = only_line(apart(tmp_path, RUN, ("env", f"PYTHONPATH={copy.parent}", *RUN)))
    assert "rank(s) 1 on host" in line
    assert "have code = " in line
    assert "start the same Python environment on all nodes" in line


@pytest.fixture
def core():
    """A core of several, to which this mpirun binds a rank where it is told to."""
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core")
    first = min(os.sched_getaffinity(0))
    program = "import os; print(os.sched_getaffinity(0))"
    words = [default_launcher()[0], "-n", "1", "-bind-to", f"user:{first}", sys.executable, "-c", program]
    asked = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if asked.stdout.strip() != f"{{{first}}}":
        pytest.skip("this mpirun does not bind ranks to a core that one names")
    return first


def test_ranks_bound_to_one_core_of_several_are_refused(core, tmp_path):
    bound = [default_launcher()[0], "-n", "2", "-bind-to", f"user:{core},{core}"]
    line = only_line(start([*bound, *RUN], cwd=tmp_path, timeout=TIMEOUT_S))
    assert "2 rank(s) of 1 thread on 1 core(s)" in line
    assert "bind each to its own: mpirun -bind-to core:1" in line


@pytest.mark.skipif(shutil.which("taskset") is None, reason="no taskset here")
def test_ranks_that_share_the_one_core_they_were_given_run_with_a_warning(tmp_path):
    core = str(min(os.sched_getaffinity(0)))
    ended = start(["taskset", "-c", core, default_launcher()[0], "-n", "2", *RUN], cwd=tmp_path, timeout=TIMEOUT_S)
    assert ended.code == 0, ended.err
    (line,) = [line for line in ended.err.splitlines() if "warning" in line]
    assert "2 ranks share 1 core(s) of host" in line
    (warning,) = read_record(tmp_path / "r.h5").environment["launcher"]["warnings"]
    assert warning in line
