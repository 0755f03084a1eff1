"""Which jobs a sweep becomes, and the scripts they are submitted as."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slurm_samples import SWEEP, write_done, write_project

from hpcrnn.benchmarks.sweep import load_sweep
from hpcrnn.cli import main
from hpcrnn.errors import HpcrnnError, SpecError
from hpcrnn.slurm.jobs import Job, jobs_of, on_ranks
from hpcrnn.slurm.plan import make_plan
from hpcrnn.slurm.script import Places, render, spans
from hpcrnn.slurm.site import NodeSection, Site, load_site

JOBS = Path(__file__).parents[2] / "jobs"

GOLDEN = """\
#!/usr/bin/env bash
#SBATCH --job-name=hpcrnn-tiny-n8
#SBATCH --account=abc
#SBATCH --partition=main
#SBATCH --nodes=2
#SBATCH --ntasks=8
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=2
#SBATCH --gpus-per-node=4
#SBATCH --hint=nomultithread
#SBATCH --time=01:00:00
#SBATCH --array=0-2,5
#SBATCH --signal=B:USR1@60
#SBATCH --output=results/tiny/%x-%A_%a.out
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --mail-type=END
set -euo pipefail
module load mpich
export UCX_TLS='rc sm'
export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"  # srun does not inherit it
exec hpcrnn sweep tiny.toml -o results/tiny --site site.toml --ranks 8 --point "$SLURM_ARRAY_TASK_ID" --requeue
"""

RICH = """
[queue]
account = "abc"
partition = "main"
time = "01:00:00"
warn_s = 60
flags = ["--mail-type=END"]
[node]
ranks = 4
cpus_per_rank = 2
gpus = 4
[launch]
setup = ["module load mpich"]
variables = { UCX_TLS = "rc sm" }
"""

ODD = [
    "a b",
    "it's",
    'say "hi"',
    "$(touch pwned)",
    "a;touch pwned",
    "`touch pwned`",
    "ü&|*?",
    "100%x",
    "#x",
    "-x",
    "a\\b",
]


def test_a_script_says_what_is_asked_for(tmp_path):
    (tmp_path / "site.toml").write_text(RICH)
    places = Places("hpcrnn", Path("tiny.toml"), Path("site.toml"), Path("results/tiny"))
    assert render(Job("tiny-n8", 8, 2, 4, (0, 1, 2, 5)), load_site(tmp_path / "site.toml"), places) == GOLDEN


def test_what_is_not_asked_for_is_not_in_a_script():
    text = render(Job("t-n1", 1, 1, 1), Site(), Places("hpcrnn", Path("t"), Path("s"), Path("r")))
    for flag in ("account", "partition", "qos", "constraint", "reservation", "gpus", "array"):
        assert f"--{flag}" not in text
    assert "--point" not in text


@pytest.mark.parametrize("shape", ["jobs", "array"])
def test_scripts_are_short_and_clean_to_shellcheck(here, shape):
    (here / "site.toml").write_text(RICH)
    plan = make_plan(Path("tiny.toml"), Path("site.toml"), None, shape)
    assert len(plan.jobs) == 3
    for job in plan.jobs:
        check_script(render(job, plan.site, plan.places))


def check_script(text, *flags):
    assert text.count("\n") < 40
    if shutil.which("shellcheck"):
        done = subprocess.run(
            ["shellcheck", *flags, "-"], input=text, text=True, capture_output=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", sorted([*JOBS.glob("*.sbatch"), *JOBS.glob("mpirun*.sh")]), ids=lambda path: path.name)
def test_the_shipped_scripts_are_short_and_clean_to_shellcheck(path):
    assert os.access(path, os.X_OK) or path.suffix == ".sbatch"
    check_script(path.read_text())


@pytest.mark.parametrize("name", ["strong", "weak", "gpu_strong", "strategies"])
def test_the_shipped_sweeps_expand(name):
    if name.startswith("gpu"):
        pytest.importorskip("cupy", reason="CuPy is not installed")
    assert load_sweep(JOBS / f"{name}.toml", None, launcher=("srun", "-n", "{ranks}")).points


@pytest.mark.parametrize("name", ODD)
def test_odd_paths_reach_hpcrnn_as_they_are(tmp_path, monkeypatch, name):
    folder = tmp_path / name
    folder.mkdir()
    spec, site = write_project(folder)
    results = tmp_path / "results" / name
    if set(name) & set("\"'\\#"):  # what sbatch cannot have in the name of a log
        with pytest.raises(HpcrnnError, match="sbatch cannot name a log"):
            make_plan(spec, site, results, "jobs")
        results = tmp_path / "results"
    plan = make_plan(spec, site, results, "jobs")
    text = render(plan.jobs[0], plan.site, Places("hpcrnn", spec, site, results))
    check_script(text, "--exclude=SC2016")  # that nothing in quotes is expanded is what is meant
    arguments = tmp_path / "arguments"
    fake = tmp_path / "bin" / "hpcrnn"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {shlex.quote(str(arguments))}\n')
    fake.chmod(0o755)
    env = {"PATH": f"{fake.parent}:/usr/bin:/bin", "SLURM_CPUS_PER_TASK": "1"}
    subprocess.run(["bash"], input=text, text=True, cwd=tmp_path, env=env, timeout=20, check=True)
    words = arguments.read_text().splitlines()
    assert words == ["sweep", str(spec), "-o", str(results), "--site", str(site), "--ranks", "1", "--requeue"]
    assert not (tmp_path / "pwned").exists()


def test_a_path_that_ends_a_line_is_refused(here, capsys):
    code = main(["slurm", "render", "tiny.toml", "--site", "site.toml", "-o", "a\nb"])
    assert code == 1
    assert "a script cannot name a path that holds the end of a line" in capsys.readouterr().err


def test_jobs_are_one_for_each_number_of_ranks(here):
    sweep = load_sweep(Path("tiny.toml"), None, ranks=(1, 2, 3, 5, 8))
    jobs = jobs_of(sweep, NodeSection(ranks=4), "jobs")
    assert [(j.n_ranks, j.n_nodes, j.ranks_per_node, j.tasks) for j in jobs] == [
        (1, 1, 1, ()), (2, 1, 2, ()), (3, 1, 3, ()), (5, 2, 3, ()), (8, 2, 4, ()),
    ]  # fmt: skip
    assert [job.name for job in jobs][:2] == ["tiny-n1", "tiny-n2"]


def test_what_is_done_becomes_no_job(here):
    sweep = load_sweep(Path("tiny.toml"), None)
    one, two = on_ranks(sweep.points, 1)[0], on_ranks(sweep.points, 2)
    for point in (one, *two):
        write_done(point)
    jobs = jobs_of(sweep, NodeSection(ranks=2), "array")
    assert [(job.n_ranks, job.tasks) for job in jobs] == [(1, (1,)), (4, (0, 1))]
    assert [job.n_ranks for job in jobs_of(sweep, NodeSection(ranks=2), "jobs")] == [1, 4]


@pytest.mark.parametrize(
    ("found", "done"),
    [
        ({}, True),
        ({"valid": False}, False),
        ({"gradient_error": 0.1}, True),  # APPROXIMATE, as it is meant to be
        ({"n_steps": 1, "stop_reason": "asked"}, False),  # min_repeats = 2
        ({"n_steps": 2, "stop_reason": "asked"}, True),
        ({"n_steps": 1, "stop_reason": "max_time"}, True),
    ],
)
def test_what_counts_as_done(here, found, done):
    point = load_sweep(Path("tiny.toml"), None).points[0]
    assert not point.is_done()
    write_done(point, **found)
    assert point.is_done() is done


def test_a_damaged_file_is_not_done(here):
    point = load_sweep(Path("tiny.toml"), None).points[0]
    write_done(point)
    point.path.write_bytes(point.path.read_bytes()[:-100])
    assert not point.is_done()


def test_more_threads_than_the_site_gives_cores_are_refused(here):
    sweep = load_sweep(Path("tiny.toml"), None)
    jobs_of(sweep, NodeSection(), "jobs")
    (here / "tiny.toml").write_text(SWEEP + "[machine]\nthreads = 4\n")
    with pytest.raises(SpecError, match=r"machine\.threads = 4: allowed is at most node\.cpus_per_rank = 2"):
        jobs_of(load_sweep(Path("tiny.toml"), None), NodeSection(cpus_per_rank=2), "jobs")


@given(st.sets(st.integers(0, 60)).map(sorted))
def test_spans_name_every_number_once(numbers):
    text = spans(numbers)
    found = []
    for span in filter(None, text.split(",")):
        low, _, high = span.partition("-")
        found += range(int(low), int(high or low) + 1)
    assert found == numbers
    assert spans([0, 1, 2, 3, 8]) == "0-3,8"


groups = st.lists(
    st.fixed_dictionaries(
        {"hidden": st.integers(2, 5)}, optional={"ranks": st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=3)}
    ),
    max_size=4,
)


@settings(max_examples=12, deadline=None)
@given(
    ranks=st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=4),
    scaling=st.sampled_from([["strong"], ["weak"], ["weak", "strong"]]),
    cells=st.sampled_from([["lstm"], ["gru", "lstm"], ["lstm", "lstm"]]),
    each=groups,
)
def test_a_job_counts_points_as_the_submission_does(tmp_path_factory, ranks, scaling, cells, each):
    """``--ranks N --point K`` in a job is the point K of N ranks of the whole sweep."""
    each = [
        {**group, **({"ranks": sorted(set(group["ranks"]) & set(ranks)) or ranks} if "ranks" in group else {})}
        for group in each
    ]
    inline = ", ".join("{ " + ", ".join(f"{key} = {value}" for key, value in group.items()) + " }" for group in each)
    path = tmp_path_factory.getbasetemp() / "counted.toml"
    path.write_text(
        f"""[sweep]
name = "counted"
ranks = {ranks}
scaling = {scaling}
vary = {{ cell = {cells} }}
each = [{inline}]
[problem]
batch = 8
seq = 4
"""
    )
    whole = load_sweep(path, None)
    for n_ranks in {point.ranks for point in whole.points}:
        alone = load_sweep(path, None, ranks=(n_ranks,))
        assert list(alone.points) == on_ranks(whole.points, n_ranks)
        for number, point in enumerate(alone.points):
            assert alone.only(number).points == (point,)
