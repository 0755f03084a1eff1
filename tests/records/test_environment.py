"""The environment: what is recorded unasked, and what never is."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from hpcrnn.records import environment as module
from hpcrnn.records.environment import (
    blas_facts,
    clock_facts,
    environment,
    git_facts,
    host_facts,
    package_facts,
    slurm_facts,
    variable_facts,
)

SECTIONS = ["hosts", "mpi", "blas", "packages", "variables", "git", "slurm", "launcher", "clock"]


def test_the_sections():
    hosts, mpi = [host_facts(), host_facts()], {"library": "MPICH"}
    facts = environment(hosts, mpi)
    assert list(facts) == SECTIONS
    assert facts["hosts"] == hosts
    assert facts["mpi"] == mpi
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_one_that_fails_takes_no_other_with_it(monkeypatch):
    def fail():
        raise SystemError

    monkeypatch.setattr(module, "blas_facts", fail)
    facts = environment([], {})
    assert facts["blas"] == "unknown"
    assert facts["clock"]["name"] == "time.perf_counter_ns"


def test_collecting_imports_nothing_heavy():
    code = (
        "import sys; from hpcrnn.records.environment import environment, host_facts;"
        "environment([host_facts()], {});"
        "sys.exit(bool({'torch', 'cupy', 'h5py', 'mpi4py', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_loads_no_numpy():
    code = "import sys, hpcrnn.records.environment; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_blas_is_named_with_its_threads():
    facts = blas_facts()
    pools = [pool for pool in facts["libraries"] if pool["user_api"] == "blas"]
    assert pools
    assert all(pool["num_threads"] >= 1 for pool in pools)
    assert "filepath" not in pools[0]
    assert facts["numpy_built_with"]["name"]


def test_packages(monkeypatch):
    import numpy as np

    facts = package_facts()
    assert facts["numpy"] == np.__version__
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert all(isinstance(version, str) for version in facts.values())
    monkeypatch.setattr(module, "PACKAGES", ("no-package-of-this-name",))
    assert "no-package-of-this-name" not in package_facts()


def test_where_the_mpi_comes_from(monkeypatch, tmp_path):
    maps = "7f00-7f10 r-xp 00000000 fe:00 1  {}\n7f10-7f20 r--p 00000000 fe:00 2  /usr/lib/libc.so.6\n"
    wheel = tmp_path / "lib" / "libmpi.so.12"
    monkeypatch.setattr(module, "_libraries", lambda name: {wheel} if name == "mpich" else set())
    monkeypatch.setattr(module, "_version", lambda name: "5.0")
    assert module.mpi_origin(maps.format(wheel)) == "wheel mpich 5.0"
    assert module.mpi_origin(maps.format("/usr/lib/x86_64-linux-gnu/libmpi.so.40.30.4")) == "system"
    assert module.mpi_origin(maps.format("/opt/cray/libmpi_gnu_123.so.12")) == "system"
    assert module.mpi_origin(maps.format("/usr/lib/libmpiwrap-amd64.txt")) == "not loaded"


def test_variables_that_matter_are_kept():
    kept = {
        "OMP_NUM_THREADS": "1",
        "MKL_CBWR": "AVX2",
        "OPENBLAS_NUM_THREADS": "2",
        "MPICH_GPU_SUPPORT_ENABLED": "1",
        "MPIR_CVAR_ENABLE_GPU": "1",
        "MV2_USE_CUDA": "1",
        "PSP_CUDA": "1",
        "OMPI_MCA_btl": "^openib",
        "UCX_TLS": "rc,sm",
        "FI_PROVIDER": "cxi",
        "I_MPI_PIN": "1",
        "SLURM_JOB_ID": "77",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "PYTHONHASHSEED": "0",
    }
    others = {"HOME": "/home/me", "PATH": "/bin", "USER": "me", "SLURM_JOB_USER": "me", "AWS_REGION": "x"}
    assert variable_facts(kept | others) == kept


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MPICH_SECRET", "hunter2"),
        ("UCX_AUTH_KEY", "hunter2"),
        ("FI_API_TOKEN", "hunter2"),
        ("I_MPI_HYDRA_PASSWORD", "hunter2"),
        ("OMPI_MCA_orte_credentials", "hunter2"),
        ("OMPI_MCA_proxy", "https://me:hunter2@proxy"),
        ("MPICH_OPTIONS", "user=me,password=hunter2"),
        ("SLURM_JWT", "hunter2"),
        ("GITHUB_TOKEN", "hunter2"),
    ],
)
def test_secrets_are_not(name, value):
    assert variable_facts({name: value}) == {}


def test_homes_and_long_values_are_cut():
    facts = variable_facts({"HOME": "/home/me/", "UCX_LOG_FILE": "/home/me/x", "FI_LOG": "y" * 5000})
    assert facts == {"FI_LOG": "y" * 1000, "UCX_LOG_FILE": "~/x"}


def test_slurm():
    assert slurm_facts({"SLURM_JOB_NAME": "left over"}) == {}
    variables = {
        "SLURM_JOB_ID": "123_4",
        "SLURM_JOB_NAME": "rnn",
        "SLURM_NNODES": "2",
        "SLURM_NTASKS": "many",
        "SLURM_JOB_PARTITION": "gpu",
    }
    expected = {"job_id": "123_4", "job_name": "rnn", "nodes": 2, "tasks": "many", "partition": "gpu"}
    assert slurm_facts(variables) == expected


def test_clock():
    facts = clock_facts()
    assert 0 < facts["resolution_s"] < 1
    assert 0 < facts["overhead_s"] < 1
    assert facts["implementation"]


# --- git --------------------------------------------------------------------------------------------


def git(folder, *words):
    names = {f"GIT_{role}_{field}": "x@y" for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")}
    variables = {**os.environ, **names, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    answer = subprocess.run(
        ["git", "-C", str(folder), *words], check=True, capture_output=True, text=True, env=variables
    )
    return answer.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    (tmp_path / "hpcrnn").mkdir()
    (tmp_path / "hpcrnn" / "a.py").write_text("1\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def test_a_clean_and_a_dirty_checkout(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    assert git_facts(checkout) == {"commit": commit, "dirty": False}
    (checkout / "hpcrnn" / "b.py").write_text("2\n")
    assert git_facts(checkout) == {"commit": commit, "dirty": True}


def test_variables_of_another_repository_are_not_followed(checkout, monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert git_facts(checkout)["dirty"] is False


def test_an_installed_package_inside_somebodys_repository(checkout):
    site = checkout / "venv" / "site-packages"
    (site / "hpcrnn").mkdir(parents=True)
    assert git_facts(site) == {"commit": None, "dirty": None}


def test_git_that_does_not_answer(checkout, monkeypatch):
    def too_late(*_args, timeout, **_options):
        raise subprocess.TimeoutExpired(_args[0], timeout)

    monkeypatch.setattr(subprocess, "run", too_late)
    assert git_facts(checkout) == {"commit": "unknown", "dirty": "unknown"}


def test_no_git(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_facts(checkout) == {"commit": "unknown", "dirty": "unknown"}


def test_a_damaged_repository(checkout):
    (checkout / ".git" / "HEAD").write_text("nonsense")
    assert git_facts(checkout) == {"commit": "unknown", "dirty": "unknown"}
