"""What the doctor says of a machine on which something is missing, broken, of another kind, or hangs."""

import json
import os
import stat
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from launching import hpcrnn

from hpcrnn.doctor import CHECKS, asking, devices, examine, host, ranks, slurm
from hpcrnn.doctor.asking import Answer, ask
from hpcrnn.doctor.finding import Finding, render
from hpcrnn.records.mpi_library import MpiLibrary

MPICH = MpiLibrary("MPICH Version: 5.0.2\nMPICH configure: --with-pm=hydra")
OPEN_MPI = MpiLibrary("Open MPI v5.0.11, package: x")
PLUGINS = r'printf "MPI plugin types are...\n\tpmix\n\tnone\n\tpmi2\nspecific pmix plugin versions available: v4\n" >&2'


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A PATH of stand-ins only, and a Python beside which there is no mpirun; returns how one is made."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_NTASKS", "SLURM_JOB_NUM_NODES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ranks.sys, "executable", str(tmp_path / "nowhere" / "python"))

    def program(name, body, where=folder):
        where.mkdir(parents=True, exist_ok=True)
        path = where / name
        path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return program


@pytest.fixture
def in_a_job(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")


# --- the machine as it is


def test_a_healthy_machine_has_no_problem_and_two_ranks_met(tmp_path):
    ended = hpcrnn("doctor", "--json", cwd=tmp_path)
    findings = {f["topic"]: f for f in json.loads(ended.out)}
    assert ended.code == 0, ended.out
    assert not any(f["level"] == "problem" for f in findings.values())
    assert "two ranks met" in findings["mpirun"]["text"]
    assert "found by mpi4py" in findings["MPI library"]["text"]
    assert "CUDA-aware" in findings["MPI and GPU"]["text"]
    assert {"Python", "cores", "memory", "BLAS", "HDF5", "GPUs", "Slurm", "results"} <= set(findings)


def test_within_ranks_the_doctor_asks_as_from_outside(tmp_path, monkeypatch):
    """What an mpirun told the doctor itself would make its own tries ranks of nobody."""
    for name, value in {"PMI_RANK": "1", "PMI_SIZE": "4", "PMIX_NAMESPACE": "a@1", "OMPI_COMM_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    findings = {f.topic: f for f in ranks.ranks()}
    assert findings["mpirun"].level == "ok", findings


def test_problems_end_with_1_and_each_has_a_remedy(tmp_path, monkeypatch):
    (tmp_path / "results").touch()
    monkeypatch.setattr(host.os, "access", lambda *_: False)
    monkeypatch.chdir(tmp_path)
    (finding,) = host.results()
    assert (finding.level, finding.remedy) == ("problem", "hpcrnn run --out DIR/NAME.h5")


# --- mpirun


@pytest.mark.parametrize(
    ("body", "level", "words", "remedy"),
    [
        ("echo 'ranks: 2'", "ok", "two ranks met", ""),
        ("echo noise; echo 'ranks: 2'", "ok", "two ranks met", ""),
        (
            "echo 'ranks: 1'; echo 'ranks: 1'",
            "problem",
            "ranks that never meet",
            "the mpirun that belongs to MPICH 5.0.2",
        ),
        ("echo 'ranks: 1'", "problem", "ranks that never meet", "belongs to MPICH"),
        ("echo nothing", "problem", "failed: nothing", "belongs to MPICH"),
        ("exit 3", "problem", "failed: it said nothing", "belongs to MPICH"),
        ("echo first; echo 'lost connection' >&2; exit 1", "problem", "failed: lost connection", "belongs to MPICH"),
        ("echo 'use --allow-run-as-root' >&2; echo --- >&2; exit 1", "problem", "failed", "OMPI_ALLOW_RUN_AS_ROOT=1"),
        ("echo 'There are not enough slots available' >&2; exit 1", "problem", "enough slots", "--oversubscribe"),
    ],
)
def test_mpirun_is_judged_by_what_two_ranks_say(programs, body, level, words, remedy):
    path = programs("mpirun", body)
    (finding,) = ranks._mpirun(MPICH)
    assert finding.level == level, finding
    assert words in finding.text
    assert str(path) in finding.text
    assert remedy in finding.remedy
    assert bool(finding.remedy) == (level == "problem")


def test_within_a_step_of_srun_an_mpirun_that_would_wait_for_ever_is_not_tried(programs, tmp_path, monkeypatch):
    programs("mpirun", f"touch {tmp_path}/started; sleep 600")
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    (finding,) = ranks._mpirun(MPICH)
    assert (finding.level, finding.remedy) == ("note", "salloc -n 2 hpcrnn doctor, without srun")
    assert not (tmp_path / "started").exists()


def test_a_missing_mpirun_is_a_problem_where_there_is_no_srun(programs):
    (finding,) = ranks._mpirun(MPICH)
    assert (finding.level, finding.text) == ("problem", "not found")
    assert "pip install mpich" in finding.remedy
    programs("srun", PLUGINS)
    (finding,) = ranks._mpirun(MPICH)
    assert (finding.level, finding.text) == ("note", "not found: srun has to start the ranks")


def test_an_mpirun_that_cannot_be_executed_is_a_problem(programs):
    programs("mpirun", "").write_text("#!/no/such/interpreter\n")
    (finding,) = ranks._mpirun(MPICH)
    assert finding.level == "problem"
    assert "cannot be started: No such file" in finding.text


def test_of_two_mpiruns_the_one_that_the_plain_word_means_is_tried_too(programs, tmp_path):
    own = programs("mpirun", "echo 'ranks: 2'", tmp_path / "nowhere")
    programs("mpirun", "echo 'ranks: 1'")
    library = MpiLibrary(MPICH.version, tmp_path / "nowhere" / "lib" / "libmpi.so.12")
    (tmp_path / "nowhere" / "bin").mkdir()
    beside = tmp_path / "nowhere" / "bin" / "mpirun"
    beside.symlink_to(own)
    first, second = ranks._mpirun(library)
    assert (first.topic, first.level) == ("mpirun", "ok")
    assert (second.topic, second.level) == ("mpirun on PATH", "problem")
    assert second.remedy == f"{beside} -n 2 hpcrnn run ..."


def test_a_hanging_mpirun_is_ended_with_all_it_started(programs, tmp_path, monkeypatch):
    monkeypatch.setattr(asking, "TIMEOUT_S", 0.3)
    children = tmp_path / "children"
    programs("mpirun", f"trap '' TERM\nsleep 600 & echo $! > {children}\nsleep 600")
    (finding,) = ranks._mpirun(MPICH)
    assert finding.level == "problem"
    assert "no answer within 0.3 s" in finding.text
    assert "-n 2 hostname" in finding.remedy
    child = Path("/proc") / children.read_text().strip()
    end = time.monotonic() + 10  # whoever inherits it must collect it
    while not gone(child) and time.monotonic() < end:
        os.sched_yield()
    assert gone(child)


def gone(process):
    """Whether a process has ended, collected or not."""
    try:
        return "State:\tZ" in (process / "status").read_text()
    except OSError:
        return True


# --- the library


def test_a_library_that_cannot_be_loaded_is_one_problem_and_no_launcher_is_tried(programs, monkeypatch, tmp_path):
    python = programs("python", "echo 'RuntimeError: cannot load MPI library' >&2; exit 1", tmp_path / "nowhere")
    monkeypatch.setattr(ranks.sys, "executable", str(python))
    programs("mpirun", "echo 'ranks: 2'")
    (finding,) = ranks.ranks()
    assert (finding.topic, finding.level) == ("MPI library", "problem")
    assert finding.text == "cannot be loaded: RuntimeError: cannot load MPI library"
    assert "pip install mpich" in finding.remedy


# --- srun


def srun(programs, default, flagged="exit 1"):
    """Stand in for srun: its list, what it does without --mpi, and with it."""
    programs("srun", f'case "$*" in *--mpi=list*) {PLUGINS} ;; *--mpi=*) {flagged} ;; *) {default} ;; esac')


def test_without_srun_nothing_is_said_of_it(programs):
    assert ranks._srun(MPICH, mpirun_works=True) == []


def test_outside_a_job_srun_is_not_tried_and_the_plugin_that_fits_is_named(programs, tmp_path):
    srun(programs, f"touch {tmp_path}/queued")
    (finding,) = ranks._srun(MPICH, mpirun_works=True)
    assert finding.level == "ok"
    assert finding.text.startswith("plugins pmix, pmi2; MPICH 5.0.2 wants --mpi=pmi2; not tried")
    assert finding.text.endswith("salloc -n 2 hpcrnn doctor does")
    assert finding.remedy == ""
    assert "--mpi=pmix" in ranks._srun(OPEN_MPI, mpirun_works=True)[0].text
    assert not (tmp_path / "queued").exists()


def test_a_slurm_with_no_plugin_for_the_library_needs_mpirun(programs):
    programs("srun", 'printf "MPI plugin types are...\\n\\tnone\\n\\tpmi2\\n"')
    (finding,) = ranks._srun(OPEN_MPI, mpirun_works=True)
    assert (finding.level, finding.remedy) == ("note", "mpirun inside the job")
    assert finding.text == "plugins pmi2: none for Open MPI v5.0.11, which wants pmix"


@pytest.mark.parametrize(
    ("default", "flagged", "works", "level", "words", "remedy"),
    [
        ("echo 'ranks: 2'", "exit 1", True, "ok", "two ranks met", ""),
        (
            "echo 'ranks: 1'; echo 'ranks: 1'",
            "echo 'ranks: 2'",
            True,
            "note",
            "without --mpi it starts ranks that never meet; two ranks met by --mpi=pmi2",
            "srun --mpi=pmi2, or export SLURM_MPI_TYPE=pmi2",
        ),
        ("echo no >&2; exit 1", "echo 'ranks: 2'", True, "note", "without --mpi it failed: no", "srun --mpi=pmi2"),
        ("echo 'ranks: 1'", "echo 'ranks: 1'", True, "note", "by --mpi=pmi2 too", "mpirun inside the job"),
        (
            "echo 'ranks: 1'",
            "exit 1",
            False,
            "problem",
            "never meet, by --mpi=pmi2 too",
            "an MPI built for one of pmix",
        ),
    ],
)
def test_in_a_job_srun_is_tried_for_real(programs, in_a_job, default, flagged, works, level, words, remedy):
    srun(programs, default, flagged)
    (finding,) = ranks._srun(MPICH, mpirun_works=works)
    assert finding.level == level, finding
    assert words in finding.text
    assert remedy in finding.remedy
    assert bool(finding.remedy) == (level != "ok")


def test_a_hanging_srun_is_given_up(programs, in_a_job, monkeypatch):
    monkeypatch.setattr(asking, "TIMEOUT_S", 0.3)
    srun(programs, "exec sleep 600", "exec sleep 600")
    (finding,) = ranks._srun(MPICH, mpirun_works=True)
    assert "no answer within 0.3 s" in finding.text


def test_an_srun_of_no_cluster_is_told_what_it_lacks(programs):
    programs("srun", "echo 'srun: fatal: Could not establish a configuration source' >&2; exit 1")
    (finding,) = ranks._srun(MPICH, mpirun_works=True)
    assert (finding.level, finding.remedy.split("=")[0]) == ("note", "export SLURM_CONF")
    programs("sinfo", "echo 'sinfo: fatal: Could not establish a configuration source' >&2; exit 1")
    assert ranks._srun(MPICH, mpirun_works=True) == []  # told once
    assert slurm.slurm()[0].remedy == finding.remedy


# --- Slurm


def sinfo(programs, lines, code=0):
    listed = "".join(f"{line}\\n" for line in lines)
    programs("sinfo", f'case "$1" in --version) echo "slurm 24.05.1" ;; *) printf "{listed}"; exit {code} ;; esac')


def test_partitions_and_nodes_that_are_up(programs, monkeypatch):
    assert slurm.slurm() == [Finding("Slurm", "note", "not here: use mpirun")]
    sinfo(programs, ["main|up|0/2/0/2"])
    (finding,) = slurm.slurm()
    assert finding == Finding("Slurm", "ok", "slurm 24.05.1; partition main up, 2 of 2 nodes idle; no allocation here")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    sinfo(programs, [f"p{n}|down|0/1/0/1" for n in range(5)] + ["works|up|8/0/0/8"])
    (finding,) = slurm.slurm()
    assert "partitions works up, 0 of 8 nodes idle; p0 down" in finding.text
    assert finding.text.endswith("; 2 more; inside job 7 of 4 task(s) on 2 node(s)")


@pytest.mark.parametrize("lines", [["main|up|0/0/2/2"], ["main|down|0/2/0/2"], [], ["odd"]])
def test_a_slurm_on_which_nothing_starts_is_noted_with_a_way_to_the_cause(programs, lines):
    sinfo(programs, lines)
    (finding,) = slurm.slurm()
    assert (finding.level, "sinfo --list-reasons" in finding.remedy) == ("note", True)


def test_a_slurm_that_does_not_answer_is_noted(programs, monkeypatch):
    programs("sinfo", "echo 'slurm_load_partitions: Unable to contact slurm controller' >&2; exit 1")
    (finding,) = slurm.slurm()
    assert finding.text.endswith("does not answer: slurm_load_partitions: Unable to contact slurm controller")
    assert finding.remedy == "scontrol ping"
    (Path(os.environ["PATH"]) / "sinfo").unlink()
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert "its commands are not on PATH" in slurm.slurm()[0].text


# --- the host


@pytest.mark.parametrize(
    ("mask", "quota", "level", "words"),
    [
        ({0, 1, 2, 3}, None, "ok", "4 of 4 usable (0-3)"),
        ({0, 2, 3}, None, "ok", "3 of 4 usable (0,2-3)"),
        ({2}, None, "note", "this process is bound to one"),
        ({0, 1, 2, 3}, 1.5, "note", "leaves the time of 1.5 of them"),
    ],
)
def test_cores_that_are_there_and_not_to_be_had_are_noted(mask, quota, level, words, monkeypatch):
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda _: mask)
    monkeypatch.setattr(host.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(host, "host_facts", lambda: {"n_physical_cores": len(mask)})
    monkeypatch.setattr(host, "cpu_quota", lambda: quota)
    (finding,) = host.cores()
    assert finding.level == level
    assert words in finding.text
    assert bool(finding.remedy) == (level == "note")


@pytest.mark.parametrize(
    ("free", "limit", "level", "words"),
    [
        (8 << 30, -1, "ok", "8.0 GiB of 16.0 GiB are free"),
        (8 << 20, -1, "note", "0.0 GiB of 16.0 GiB"),
        (8 << 30, 2 << 30, "note", "a process may have 2.0 GiB"),
        ("unknown", -1, "ok", "does not say"),
    ],
)
def test_memory_and_its_limits(free, limit, level, words, monkeypatch):
    monkeypatch.setattr(host, "host_facts", lambda: {"memory_bytes": 16 << 30, "available_memory_bytes": free})
    monkeypatch.setattr(host.resource, "getrlimit", lambda _: (limit, limit))
    (finding,) = host.memory()
    assert (finding.level, words in finding.text) == (level, True)


@pytest.mark.parametrize(
    ("gpus", "visible", "cupy", "level", "words"),
    [
        ([], None, True, "note", "none visible"),
        ([{"name": "A"}, {"name": "A"}], None, True, "ok", "2 on this host: A"),
        ([{"name": "A"}, {"name": "B"}], "1", True, "ok", "A and B; CUDA_VISIBLE_DEVICES is '1'"),
        ([{"name": "A"}], "", True, "note", "all are hidden"),
        ([{"name": "A"}], None, False, "note", "CuPy is not installed"),
    ],
)
def test_gpus_that_are_there_and_cannot_be_used_are_noted(gpus, visible, cupy, level, words, monkeypatch):
    monkeypatch.setattr(devices, "gpu_facts", lambda: gpus)
    found = SimpleNamespace(util=SimpleNamespace(find_spec=lambda _: object() if cupy else None))
    monkeypatch.setattr(devices, "importlib", found)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    (finding,) = devices.gpus()
    assert (finding.level, words in finding.text) == (level, True), finding


@pytest.mark.parametrize(
    ("answer", "gpus", "level", "words"),
    [
        (Answer(0, "1 the library says yes"), [{"name": "GPU"}], "ok", "CUDA-aware: the library says yes"),
        (Answer(0, "0 the library says no"), [], "ok", "matters on GPUs only: the library says no"),
        (Answer(0, "0 the library says no"), [{"name": "GPU"}], "note", "pinned host memory: the library says no"),
        (Answer(1, "", "no MPI"), [{"name": "GPU"}], "note", "MPI could not be asked: no MPI"),
    ],
)
def test_whether_mpi_takes_arrays_on_a_gpu(answer, gpus, level, words, monkeypatch):
    monkeypatch.setattr(devices, "ask", lambda *_, **__: answer)
    monkeypatch.setattr(devices, "gpu_facts", lambda: gpus)
    (finding,) = devices.mpi_and_gpus()
    assert (finding.level, words in finding.text) == (level, True)
    assert bool(finding.remedy) == (level == "note")


# --- how it is written


def test_findings_are_lines_with_their_remedies_below_or_json():
    findings = [Finding("A", "ok", "fine"), Finding("longer", "problem", "broken", "mend"), Finding("C", "note", "hm")]
    assert render(findings, as_json=False) == (
        "A       ok       fine\n"
        "longer  PROBLEM  broken\n"
        "                 mend it with: mend\n"
        "C       note     hm\n"
        "1 problem(s)\n"
    )
    narrow = render([Finding("A", "note", "word " * 20, "run --this-long-flag /and/a/path")], as_json=False, columns=50)
    assert max(map(len, narrow.splitlines()[:-1])) <= 50
    assert " ".join(narrow.split()).startswith("A note word word")
    assert "mend it with: run --this-long-flag\n         /and/a/path\n" in narrow
    assert render(findings[:1], as_json=False) == "A  ok  fine\neverything hpcrnn run needs is here\n"
    assert [Finding(**f) for f in json.loads(render(findings, as_json=True))] == findings


def test_a_check_that_breaks_is_a_finding_and_the_others_are_told(monkeypatch):
    def memory():
        raise OSError("the disk is on fire")

    monkeypatch.setattr("hpcrnn.doctor.CHECKS", (memory, host.python, host.hdf5))
    broken, *others = examine()
    assert broken == Finding("memory", "problem", "could not be looked at: OSError: the disk is on fire")
    assert [finding.topic for finding in others] == ["Python", "HDF5"]
    assert len(CHECKS) > 8


def test_an_answer_is_its_last_line_and_of_a_failure_what_was_complained_of():
    assert ask(["/no/such/program"]).last_line == "/no/such/program cannot be started: No such file or directory"
    assert ask([sys.executable, "-c", "print('a'); print('b')"]) == Answer(0, "a\nb\n", "")
    assert Answer(1, "out", "").last_line == "out"
    assert Answer(1, "", "--------\n  the cause\n--------\n").last_line == "the cause"
    assert Answer(0, "", "complaint").last_line == "it said nothing"
