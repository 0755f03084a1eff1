"""Slurm: none, stand-ins for its commands, or a real one."""

import os
import tempfile
from pathlib import Path

import pytest
from cluster import Cluster, missing
from slurm_samples import FakeSlurm, write_project
from slurm_work import Work


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with ``tiny.toml`` and ``site.toml`` that commands are run in, outside of any job."""
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURMD_NODENAME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Stand-ins for Slurm's commands, before everything else on PATH."""
    folder = tmp_path / "fake"
    folder.mkdir()
    fake = FakeSlurm(folder)
    fake.install()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return fake


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of a real Slurm, started for a module."""
    yield from started_cluster()


@pytest.fixture(scope="module")
def gpu_cluster():
    """The same with two devices on each node that Slurm takes for GPUs."""
    if os.geteuid() != 0:
        pytest.skip("only root may make devices")
    yield from started_cluster(gpus=2)


def started_cluster(**settings):
    if lacking := missing():
        pytest.skip(f"not installed: {', '.join(lacking)} (apt-get install slurm-wlm munge)")
    with tempfile.TemporaryDirectory(prefix="sl-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        one = Cluster(Path(folder), **settings)
        try:
            one.start()
            yield one
        finally:
            one.stop()


@pytest.fixture
def work(request, tmp_path_factory):
    """Start commands on the cluster of a test, in a folder of its own; what it leaves in the queue is cancelled."""
    name = "gpu_cluster" if "gpu_cluster" in request.fixturenames else "cluster"
    cluster = request.getfixturevalue(name)
    folder = Path(tempfile.mkdtemp(prefix="w-", dir=cluster.folder))
    one = Work(cluster, folder)
    yield one
    one.end()
