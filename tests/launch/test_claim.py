"""What a launcher told a process: whose variables count where several spoke, and which library that fits."""

import pytest

from hpcrnn.records.claim import Claim, claim_of
from hpcrnn.records.mpi_library import MpiLibrary, how_to_start, loaded_library

STEP = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2"}
PROXY = {**STEP, "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}  # one task a node: mpirun's own
PMI2 = {"PMI_SIZE": "4", "PMI_RANK": "2", "PMI_FD": "11"}
HYDRA = {**PMI2, "MPI_LOCALNRANKS": "2", "MPI_LOCALRANKID": "0", "PMI_HOSTNAME": "n1"}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2", "PMIX_NAMESPACE": "a", "PMIX_RANK": "2"}
BATCH = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_NPROCS": "4"}


@pytest.mark.parametrize(
    ("variables", "family"),
    [
        (STEP, "srun"),
        (STEP | PMI2, "srun"),
        (HYDRA, "mpich"),
        (PROXY | HYDRA, "mpich"),  # mpirun in a job: srun started its proxies
        (BATCH | HYDRA, "mpich"),
        (OPEN_MPI, "openmpi"),
        (PROXY | OPEN_MPI, "openmpi"),
        (PROXY | {"PMI_SIZE": "2", "PMI_RANK": "1"} | OPEN_MPI, "openmpi"),  # proxies started by srun --mpi=pmi2
        ({"MV2_COMM_WORLD_SIZE": "4", "MV2_COMM_WORLD_RANK": "2"}, "mpich"),
        ({"FLUX_JOB_SIZE": "4", "FLUX_TASK_RANK": "2"}, "other"),
        ({"JSM_NAMESPACE_SIZE": "4", "JSM_NAMESPACE_RANK": "2"}, "other"),
    ],
)
def test_the_launcher_that_came_last_is_heard(variables, family):
    claim = claim_of(variables)
    assert (claim.family, claim.size, claim.rank) == (family, 4, 2)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        BATCH,  # a script of sbatch, or a command of salloc, is one process by right
        STEP | {"SLURM_PTY_PORT": "40000"},  # a shell of srun --pty
        {"PMI_SIZE": "4"},
        {"PMI_RANK": "1"},
        {"PMI_SIZE": "four", "PMI_RANK": "1"},
        {"PMI_SIZE": "²", "PMI_RANK": "1"},
        {"PMI_SIZE": "", "PMI_RANK": ""},
        {"PMI_SIZE": "2", "PMI_RANK": "2"},
        {"PMI_SIZE": "-4", "PMI_RANK": "-1"},
    ],
)
def test_what_says_nothing_is_no_claim(variables):
    assert claim_of(variables) is None


MPICH = "MPICH Version:      5.0.2\nMPICH configure:    --with-pm=hydra\n"
OPEN = "Open MPI v5.0.11, package: Open MPI user@host Distribution, ident: 5.0.11\0"


@pytest.mark.parametrize(
    ("version", "name", "kind", "plugin"),
    [
        (MPICH, "MPICH 5.0.2", "mpich", "pmi2"),
        (MPICH.replace("hydra", "hydra --with-pmix=/opt"), "MPICH 5.0.2", "mpich", "pmix"),
        (OPEN, "Open MPI v5.0.11", "openmpi", "pmix"),
        ("Intel(R) MPI Library 2021.13 for Linux* OS\n", "Intel(R) MPI Library 2021.13 for Linux* OS", "mpich", "pmi2"),
        ("MPI VERSION    : CRAY MPICH version 8.1\n", "MPI VERSION : CRAY MPICH version 8.1", "mpich", "cray_shasta"),
        ("Microsoft MPI 10", "Microsoft MPI 10", "other", "pmi2"),
    ],
)
def test_a_library_is_known_by_its_version(version, name, kind, plugin):
    library = MpiLibrary(version)
    assert (library.name, library.kind, library.plugin) == (name, kind, plugin)


def test_its_own_mpirun_lies_beside_a_library(tmp_path):
    program = tmp_path / "bin" / "mpirun"
    program.parent.mkdir()
    program.touch(mode=0o755)
    for folder in ("lib", "lib64", "lib/x86_64-linux-gnu", "lib/release"):
        assert MpiLibrary(MPICH, tmp_path / folder / "libmpi.so.12").mpirun == program
    named = tmp_path / "bin" / "mpirun.openmpi"  # as Debian has it, where the plain name is an alternative
    named.touch(mode=0o755)
    assert MpiLibrary(OPEN, tmp_path / "lib" / "libmpi.so.40").mpirun == named
    program.chmod(0o644)
    assert MpiLibrary(MPICH, tmp_path / "lib" / "libmpi.so.12").mpirun is None
    assert MpiLibrary(MPICH).mpirun is None


def test_the_library_of_a_process_is_read_from_its_memory_map():
    line = "7f00-7f01 r-xp 0000 08:01 12   {}\n"
    files = ("/e/mpi4py/MPI.openmpi.cpython-311.so", "/opt/ompi/lib/libmpi.so.40", "/opt/ompi/lib/libpmix.so.2")
    library = loaded_library(OPEN, "".join(line.format(name) for name in files))
    assert (str(library.path), library.has_pmix) == ("/opt/ompi/lib/libmpi.so.40", True)
    assert loaded_library(MPICH, "unknown") == MpiLibrary(MPICH)


def test_what_to_start_with_leaves_out_the_plugin_that_was_used_in_vain():
    library = MpiLibrary(MPICH)
    assert how_to_start(library, 4, {}, under_slurm=True).startswith(
        "srun --mpi=pmi2 -n 4 hpcrnn run ..., or the mpirun"
    )
    in_vain = {"SLURM_MPI_TYPE": "pmi2"}
    assert how_to_start(library, 4, in_vain, under_slurm=True) == "the mpirun of MPICH 5.0.2 -n 4 hpcrnn run ..."
    assert how_to_start(library, 4, {}, under_slurm=False) == "the mpirun of MPICH 5.0.2 -n 4 hpcrnn run ..."


def test_a_claim_is_a_plain_value():
    assert claim_of({"PMI_SIZE": "2", "PMI_RANK": "1"}) == Claim("mpich", "an mpirun of MPICH's kind", 2, 1)
