"""The scripts in jobs/, as they are, handed to ``sbatch`` of a real Slurm; only their problems are made small."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from slurm_samples import SWEEP
from slurm_work import BIN, SITE, SRUN

from hpcrnn.records.hdf5 import read_record, read_records

JOBS = Path(__file__).parents[2] / "jobs"
HOST_GPU = Path(__file__).parents[1] / "host_gpu"

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(180)]

STRONG = SWEEP.replace('"tiny"', '"strong"').replace('["lstm", "gru"]', '["gru"]')
ON_GPUS = (
    STRONG.replace('"strong"', '"gpu_strong"').replace("hidden = 8", "hidden = 16") + '[machine]\nbackend = "cupy"\n'
)
SMALL = {
    "strong.toml": STRONG,
    "weak.toml": STRONG.replace('"strong"', '"weak"\nscaling = ["weak"]'),
    "strategies.toml": SWEEP.replace('"tiny"', '"strategies"'),
    "gpu_strong.toml": ON_GPUS,
    # Long enough a step that a share of the processor is felt in every one.
    "node_screen.toml": """
[model]
hidden = 128
[problem]
batch = 16
seq = 64
[measure]
warmup = 1
min_repeats = 12
max_repeats = 16
max_time = 20
ceilings = false
""",
}


def copy_jobs(folder):
    shutil.copytree(JOBS, folder / "jobs")
    for name, text in SMALL.items():
        (folder / "jobs" / name).write_text(text)


@pytest.fixture
def shipped(work):
    copy_jobs(work.folder)
    work.write(exclusive="true")
    for path in (work.folder / "jobs").glob("*.sbatch"):
        assert path.read_bytes() == (JOBS / path.name).read_bytes()
    return work


def sbatch(work, *words, **variables):
    return work.sbatch(*words, HPCRNN_SITE="site.toml", **variables)


def test_scaling_arrays_and_the_report_of_them(shipped):
    strong = [sbatch(shipped, f"--nodes={n}", "jobs/strong.sbatch") for n in (1, 2)]
    weak = sbatch(shipped, "--nodes=2", "jobs/weak.sbatch")
    array = sbatch(shipped, "--ntasks=2", "--array=0-1", "jobs/array_sweep.sbatch", "jobs/strategies.toml")
    after = f"--dependency=afterany:{':'.join(strong)}"
    report = sbatch(shipped, after, "jobs/merge_report.sbatch", "strong")
    shipped.cluster.wait_for_jobs(*strong, weak, array, report)
    log = shipped.log("*.out")
    for job in (*strong, weak, array, report):
        assert shipped.state(job) == "COMPLETED", log
    found = {
        name: sorted(read_record(path).cases[-1].n_ranks for path in (shipped.folder / "results" / name).glob("*.h5"))
        for name in ("strong", "weak", "strategies")
    }
    assert found == {"strong": [2, 4], "weak": [4], "strategies": [2, 2]}
    assert len(read_records([shipped.folder / "results/strong.h5"])) == 2
    assert (shipped.folder / "plots/strong/report.html").stat().st_size > 1000


@contextlib.contextmanager
def slow_node(cluster, node, share):
    """Leave a node and what it starts a share of one processor."""
    mount = cluster.folder / "cgroup"
    mount.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "cgroup", "-o", "cpu", "none", mount], capture_output=True, text=True, timeout=20, check=False
    )
    if done.returncode:
        pytest.skip(f"no processor time can be taken from a node here: {done.stderr.strip()}")
    group = mount / f"slow-{os.getpid()}"
    try:
        group.mkdir()
        (group / "cpu.cfs_period_us").write_text("20000")
        (group / "cpu.cfs_quota_us").write_text(str(int(20000 * share)))
        for task in (Path("/proc") / str(cluster.processes[node].pid) / "task").iterdir():
            (group / "tasks").write_text(task.name)
        yield
    finally:
        for task in (group / "tasks").read_text().split():
            with contextlib.suppress(OSError):
                (mount / "tasks").write_text(task)
        with contextlib.suppress(OSError):
            group.rmdir()
        subprocess.run(["umount", mount], capture_output=True, timeout=20, check=False)


def test_the_screening_names_a_slow_node(shipped):
    with slow_node(shipped.cluster, "n2", share=0.1):
        job = sbatch(shipped, "jobs/node_screen.sbatch")
        shipped.cluster.wait_for_jobs(job)
    log = shipped.log(f"*-{job}.out")
    assert "2 nodes, 5.0 % allowed; slow: n2" in log, log
    assert shipped.state(job) == "FAILED"
    assert "ExitCode=3:0" in shipped.command("scontrol", "show", "job", "-o", job).stdout


def test_the_screening_names_a_node_whose_run_failed(shipped):
    (shipped.folder / "site.toml").write_text(
        SITE.format(command=SRUN, queue="", exclusive="true", bin=BIN).replace(
            "setup = [", f'setup = ["export PATH={shipped.folder}/fails:$PATH", '
        )
    )
    fails = shipped.folder / "fails" / "hpcrnn"
    fails.parent.mkdir()
    program = f'{BIN / "hpcrnn"} "$@"'
    fails.write_text(f'#!/bin/sh\n[ "$1 $SLURMD_NODENAME" = "run n2" ] && {{ echo broken; exit 1; }}\nexec {program}\n')
    fails.chmod(0o755)
    # Found first on the node, whatever else setup puts there.
    text = (shipped.folder / "site.toml").read_text()
    first, second = f'"export PATH={shipped.folder}/fails:$PATH"', f'"export PATH={BIN}:$PATH"'
    (shipped.folder / "site.toml").write_text(text.replace(f"{first}, {second}", f"{second}, {first}"))
    job = sbatch(shipped, "jobs/node_screen.sbatch")
    shipped.cluster.wait_for_jobs(job)
    log = shipped.log(f"*-{job}.out")
    assert f"n2: its run failed: results/screen-{job}/n2.log" in log, log
    assert "broken" in shipped.log(f"results/screen-{job}/n2.log")
    assert shipped.state(job) == "FAILED"


WHICH_GPU = """
import os, sys
from pathlib import Path
from hpcrnn.backends.cupy import device
right = device.index_of_gpu
def index_of_gpu(**given):
    index = right(**given)
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    Path(f"gpu-{os.environ['SLURM_PROCID']}").write_text(f"{os.environ['SLURMD_NODENAME']} {index} {seen}")
    return index
device.index_of_gpu = index_of_gpu
from hpcrnn.cli import main
sys.exit(main(sys.argv[sys.argv.index("run"):]))
"""


def test_ranks_of_a_node_take_different_gpus(gpu_cluster, shipped):
    """Every rank sees both, and takes its own. On one node: the other one is the same host, with the same GPUs."""
    (shipped.folder / "which_gpu.py").write_text(WHICH_GPU)
    command = SRUN.replace('"{ranks}"', f'"{{ranks}}", "{sys.executable}", "which_gpu.py"')
    shipped.write(exclusive="true", command=command)
    own = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    path = os.pathsep.join([str(HOST_GPU), *(str(Path(part).resolve()) for part in own)])
    variables = {"PYTHONPATH": path, "HPCRNN_HOST_GPU_COUNT": "2"}
    job = sbatch(shipped, "--nodes=1", "--gpus-per-node=2", "--ntasks-per-node=2", "jobs/gpu.sbatch", **variables)
    shipped.cluster.wait_for_jobs(job, timeout=170)
    assert shipped.state(job) == "COMPLETED", shipped.log("*.out") + shipped.log("results/*/*.log")
    taken = sorted(path.read_text() for path in shipped.folder.glob("gpu-*"))
    assert taken == ["n1 0 0,1", "n1 1 0,1"]
    (record,) = [read_record(path) for path in shipped.folder.glob("results/gpu_strong/*.h5")]
    assert {case.backend for case in record.cases} == {"cupy"}
    assert {case.verdict.status for case in record.cases} == {"VALID"}


@pytest.mark.mpi
def test_without_a_scheduler(tmp_path):
    copy_jobs(tmp_path)
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    command = ["bash", "jobs/mpirun_local.sh", "jobs/strong.toml", "2"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(read_record(path).cases[-1].n_ranks for path in tmp_path.glob("results/strong/*.h5")) == [1, 2]
    assert (tmp_path / "plots/strong/report.html").exists()


REFRAME = shutil.which("reframe") or next((str(path) for path in [BIN / "reframe"] if path.exists()), None)
BROKEN = """#!{python}
import sys
from hpcrnn.cells import LSTM
right = LSTM.weight_gradient
def wrong(self, x, tape, into, work, *, accumulate=False):
    right(self, x, tape, into, work, accumulate=accumulate)
    into["R"][0, 0] *= 1.5
LSTM.weight_gradient = wrong
from hpcrnn.cli import main
sys.exit(main())
"""


@pytest.mark.mpi
@pytest.mark.skipif(REFRAME is None, reason="reframe is not installed (pip install reframe-hpc)")
@pytest.mark.parametrize(
    ("reference", "broken", "words"),
    [
        ({"here:main": {"step_s": [1000, -0.99999999, None], "speedup": [1e-6, None, 1e9]}}, False, "(0 failure(s)"),
        ({"here:main": {"step_s": [1e-9, None, 0.1]}}, False, "failed to meet reference(s): step_s"),
        (None, True, "sanity error: INVALID != VALID"),
    ],
    ids=["within", "too slow", "invalid"],
)
def test_as_a_reframe_test(tmp_path, reference, broken, words):
    settings = {
        "systems": [
            {
                "name": "here",
                "hostnames": [".*"],
                "partitions": [{"name": "main", "scheduler": "local", "launcher": "mpirun", "environs": ["builtin"]}],
            }
        ],
        "environments": [{"name": "builtin", "cc": "", "cxx": "", "ftn": ""}],
    }
    (tmp_path / "settings.py").write_text(f"site_configuration = {settings}\n")
    flags = ["-S", "hidden=16", "-S", "max_time=2"]
    if reference:
        (tmp_path / "references.json").write_text(json.dumps(reference))
        flags += ["-S", f"references={tmp_path / 'references.json'}"]
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    if broken:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "hpcrnn").write_text(BROKEN.format(python=sys.executable))
        (tmp_path / "bin" / "hpcrnn").chmod(0o755)
        env["PATH"] = f"{tmp_path / 'bin'}:{env['PATH']}"
    command = [REFRAME, "-C", "settings.py", "-c", str(JOBS / "reframe_hpcrnn.py"), "-r", "-n", "lstm", *flags]
    done = subprocess.run(
        [*command, "--performance-report"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stdout + done.stderr
    assert words in said, said
    assert (done.returncode == 0) is ("(0 failure(s)" in words), said
    if not broken:
        assert "step_s" in said
