"""What started the ranks: on other machines' ``/proc``, under a real launcher, and never with a secret in it."""

import json
import shlex
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from launching import case_script, mpirun, start
from record_samples import make_record

from hpcrnn.records.launcher import MAX_ANCESTORS, find_launcher, launcher_facts, masked
from hpcrnn.records.variables import may_be_shown
from hpcrnn.reporting.describe import command_line

ME = 4000


def proc(root, *processes, name="a (strange) name"):
    """Make a ``/proc`` of processes, each the parent of the one before; the first is :data:`ME`."""
    for n, command in enumerate(processes):
        folder = root / "proc" / str(ME - n)
        folder.mkdir(parents=True)
        parent = ME - n - 1 if n + 1 < len(processes) else 0
        (folder / "stat").write_text(f"{ME - n} ({name}) S {parent} 1 1 0 -1 4194304 0")
        (folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in shlex.split(command)))
    return root


def facts(root, *, n_ranks=2, **variables):
    found = launcher_facts(n_ranks, root, ME, variables)
    assert json.loads(json.dumps(found)) == found
    return found


@pytest.mark.parametrize(
    ("processes", "kind", "command"),
    [
        (
            ["python -m hpcrnn run", "/x/hydra_pmi_proxy --pgid 0", "/x/mpirun -n 2 hpcrnn run", "-bash"],
            "mpirun",
            "/x/mpirun -n 2 hpcrnn run",
        ),
        (["hpcrnn run", "/opt/ompi/bin/prterun --np 2 hpcrnn run", "bash"], "mpirun", None),
        (["hpcrnn run", "/opt/ompi/bin/mpirun --np 2 hpcrnn run", "bash"], "mpirun", None),
        (["hpcrnn run", "orterun -np 2 hpcrnn run"], "mpirun", None),
        (["hpcrnn run", "bash job.sh", "srun -n 2 bash job.sh", "sshd"], "srun", None),
        (["hpcrnn run", "jsrun -n 2 hpcrnn run"], "jsrun", None),
        (["hpcrnn run", "/usr/bin/python3.11 /opt/mpich/mpiexec -n 2 x"], "mpirun", "/opt/mpich/mpiexec -n 2 x"),
        # The nearest one: a sweep under srun starts an mpirun of its own.
        (["hpcrnn run", "mpirun -n 2 a", "python -m hpcrnn sweep", "srun -n 1 b"], "mpirun", "mpirun -n 2 a"),
    ],
)
def test_a_launcher_above(tmp_path, processes, kind, command):
    expected = command or next(line for line in processes if "-n" in line)
    found = facts(proc(tmp_path, *processes))
    assert found == {"kind": kind, "command": shlex.split(expected), "found": "process", "n_ranks": 2}


@pytest.mark.parametrize(
    ("seen", "command"),
    [
        ("mpiexec -hosts n1 n2 n3 -ppn 1 -n 3 hpcrnn run", "mpiexec -hosts n1,n2,n3 -ppn 1 -n 3 hpcrnn run"),
        ("mpiexec -n 1 -hosts n1 hpcrnn run --batch 2", "mpiexec -n 1 -hosts n1 hpcrnn run --batch 2"),
        ("mpiexec -n 2 -hosts n1 n2 python -m hpcrnn run", "mpiexec -n 2 -hosts n1 n2 python -m hpcrnn run"),
    ],
)
def test_a_list_of_hosts_that_hydra_has_cut_is_one_word_again(tmp_path, seen, command):
    assert facts(proc(tmp_path, "hpcrnn run", seen))["command"] == shlex.split(command)


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}, "srun"),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "OMPI_COMM_WORLD_SIZE": "2"}, "mpirun"),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "MPI_LOCALNRANKS": "1"}, "mpirun"),
        ({"ALPS_APP_ID": "3"}, "aprun"),
        ({"JSM_NAMESPACE_SIZE": "3"}, "jsrun"),
        ({}, "unknown"),
    ],
)
def test_a_launcher_on_another_node(tmp_path, variables, kind):
    found = facts(proc(tmp_path, "hpcrnn run", "slurmstepd: [7.0]"), **variables)
    assert (found["kind"], found["command"]) == (kind, "unknown")
    assert found["found"] == ("variables" if variables else "nothing")
    job = {"job_id": "7", "step_id": "0"} if "SLURM_JOB_ID" in variables else None
    assert found.get("slurm") == job


def test_no_launcher(tmp_path):
    none = {"kind": "none", "command": None, "found": "nothing", "n_ranks": 1}
    assert facts(proc(tmp_path, "hpcrnn run", "bash", "vim srun"), n_ranks=1) == none
    assert facts(tmp_path / "no proc", n_ranks=1) == none
    inside = facts(tmp_path / "no proc", n_ranks=1, SLURM_JOB_ID="9")
    assert inside == none | {"slurm": {"job_id": "9"}}


@pytest.mark.parametrize("stat", ["", "4000 (x", "4000 (x) S", "4000 (x) S x", "4000 (x) S -1", "4000 (x) S 4000"])
def test_a_proc_that_makes_no_sense(tmp_path, stat):
    proc(tmp_path, "hpcrnn run", "bash")
    (tmp_path / "proc" / str(ME) / "stat").write_text(stat)
    assert find_launcher(tmp_path, ME) is None


def test_the_way_up_has_an_end(tmp_path):
    proc(tmp_path, *["sh"] * (MAX_ANCESTORS + 1), "mpirun -n 2 x")
    assert find_launcher(tmp_path, ME) is None


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("mpirun -n 2 -env PASSWORD hunter2 hpcrnn run", "mpirun -n 2 -env PASSWORD *** hpcrnn run"),
        ("mpirun -genv EDITOR=hunter2 x", "mpirun -genv EDITOR=*** x"),
        ("mpirun -x TOKEN=hunter2 -x PATH -x UCX_TLS=rc,sm x", "mpirun -x TOKEN=*** -x PATH -x UCX_TLS=rc,sm x"),
        ("mpirun -x UCX_AUTH_KEY=hunter2 x", "mpirun -x UCX_AUTH_KEY=*** x"),
        ("srun --export=ALL,A=hunter2,more,OMP_NUM_THREADS=2 x", "srun --export=ALL,A=***,OMP_NUM_THREADS=2 x"),
        ("srun --export ALL,A=hunter2 x", "srun --export ALL,A=*** x"),
        ("aprun -e A=hunter2,hunter2 x", "aprun -e A=*** x"),
        ("mpirun env DB=hunter2 OMP_PROC_BIND=true x", "mpirun env DB=*** OMP_PROC_BIND=true x"),
        ("mpirun x --proxy https://me:hunter2@host", "mpirun x --proxy ***"),
        ("mpirun x --api-key=hunter2", "mpirun x ***"),
        ("mpirun -env OMP_NUM_THREADS 2 x", "mpirun -env OMP_NUM_THREADS 2 x"),
        ("mpirun -env A", "mpirun -env A"),
        ("mpirun -x", "mpirun -x"),
    ],
)
def test_secrets_are_masked(command, shown):
    assert masked(command.split()) == shown.split()


@given(st.lists(st.text(max_size=8) | st.sampled_from(["-x", "-env", "A=1", "--export=B=2,c", "B", "="]), max_size=8))
def test_masking_takes_any_words_and_changes_nothing_twice(words):
    once = masked(words)
    assert masked(once) == once
    assert len(once) == len(words)
    assert not any("A=1" in word or "B=2" in word for word in once)


@given(
    st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True),
    st.sampled_from(["-x {}={}", "-env {} {}", "--export={}={}"]),
)
def test_no_value_of_a_variable_that_is_not_known_is_kept(name, form):
    shown = "hunter2" in " ".join(masked(form.format(name, "hunter2").split()))
    assert shown == may_be_shown(name, "hunter2")


@pytest.mark.mpi
def test_the_launcher_of_real_ranks(tmp_path):
    script = case_script(
        tmp_path,
        "import json, os\n"
        "from hpcrnn.records.launcher import launcher_facts\n"
        "if os.environ['PMI_RANK'] == '0': print(json.dumps(launcher_facts(2)))\n",
    )
    ended = mpirun(2, str(script), "--workload", "file:a b", cwd=tmp_path)
    found = json.loads(ended.out)
    assert (found["kind"], found["found"], found["n_ranks"]) == ("mpirun", "process", 2)
    assert found["command"][1:3] == ["-n", "2"]
    assert found["command"][-3:] == [str(script), "--workload", "file:a b"]


def test_the_launcher_of_a_program_on_its_own(tmp_path):
    code = "import os; os.environ.clear(); from hpcrnn.records.launcher import launcher_facts; print(launcher_facts(1))"
    ended = start([sys.executable, "-c", code], cwd=tmp_path, timeout=60)
    assert ended.code == 0, ended.err
    assert "'n_ranks': 1" in ended.out


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("/x/mpirun -n 2 /x/python3.11 -m hpcrnn run --cell gru", "mpirun -n 2 hpcrnn run --cell gru"),
        ("mpirun -n 2 /x/hpcrnn run --cell gru", "mpirun -n 2 hpcrnn run --cell gru"),
        ("srun -n 2 /x/python /x/hpcrnn run --cell gru", "srun -n 2 hpcrnn run --cell gru"),
        ("srun numactl -l hpcrnn run --cell gru", "srun numactl -l hpcrnn run --cell gru"),
        ("srun ./job.sh", "srun ./job.sh  # hpcrnn run --cell gru"),
        ("srun ./job.sh run --cell gru", "srun ./job.sh run --cell gru  # hpcrnn run --cell gru"),
        ("mpirun run --cell gru", "mpirun run --cell gru  # hpcrnn run --cell gru"),
        ("mpirun", "mpirun  # hpcrnn run --cell gru"),
        ("unknown", "hpcrnn run --cell gru"),
        (None, "hpcrnn run --cell gru"),
    ],
)
def test_the_command_as_one_would_type_it_again(command, shown):
    words = command.split() if command and command != "unknown" else command
    environment = {"launcher": {"kind": "mpirun", "command": words}}
    record = make_record(argv=("hpcrnn", "run", "--cell", "gru"), environment=environment)
    assert command_line(record) == shown


@pytest.mark.parametrize("environment", [{}, {"launcher": "unknown"}, {"launcher": {}}, {"launcher": {"command": []}}])
def test_the_command_of_an_older_file(environment):
    assert command_line(make_record(argv=("hpcrnn", "run"), environment=environment)) == "hpcrnn run"
