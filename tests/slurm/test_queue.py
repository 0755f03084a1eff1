"""Slurm's commands: what they are asked, and what is made of their answers, right and wrong ones."""

import pytest
from slurm_samples import state_line

from hpcrnn.errors import LaunchError
from hpcrnn.slurm import queue
from hpcrnn.slurm.queue import Nodes, Partition, State


def test_partitions_of_nodes_that_differ(slurm):
    slurm.install(partitions="main|main*|2|4|4|1\\nmixed|mixed|3|64|2|32\\nmixed|mixed|1|256|2|64\\n")
    assert queue.partitions() == (
        Partition("main", True, (Nodes(2, 4, 4),)),
        Partition("mixed", False, (Nodes(3, 64, 64), Nodes(1, 256, 128))),
    )
    (asked,) = slurm.calls("sinfo")
    for flag in ("--all", "--exact", "--noconvert"):
        assert flag in asked


@pytest.mark.parametrize("answer", ["rubbish", "main|main*|4K|4|4|1", "main|main*|2|4+|4|1", "a|b|1|2|3"])
def test_an_answer_that_cannot_be_read_is_shown(slurm, answer):
    slurm.install(partitions=answer)
    with pytest.raises(LaunchError) as error:
        queue.partitions()
    assert answer in str(error.value)


def test_states_of_jobs_and_tasks(slurm):
    slurm.job(17, state_line(17, "PENDING", reason="Resources"))
    slurm.job(
        18,
        state_line(18, "RUNNING", task=3),
        state_line(18, "FAILED", task=0, code="1:0", reason="NonZeroExitCode"),
        state_line(18, "PENDING", task="4-7%2", reason="Priority"),
    )
    slurm.job(19, state_line(19, "TIMEOUT", code="0:15", more="Comment=a JobState=COMPLETED WorkDir=/x Reason=none"))
    assert queue.states(["17", "18", "404", "19"]) == (
        State("17", "PENDING", "Resources"),
        State("18_3", "RUNNING", ""),
        State("18_0", "FAILED", "exit code 1"),
        State("18_4-7%2", "PENDING", "Priority"),
        State("19", "TIMEOUT", "signal 15"),
    )


def test_accounting_knows_what_the_controller_forgot(slurm):
    slurm.program(
        "sacct", 'echo "17_0|COMPLETED|0:0"; echo "17_1|CANCELLED by 1000|0:15"; echo "17_2|OUT_OF_MEMORY|0:125"'
    )
    assert queue.states(["17"]) == (
        State("17_0", "COMPLETED", ""),
        State("17_1", "CANCELLED", "signal 15"),
        State("17_2", "OUT_OF_MEMORY", "signal 125"),
    )


def test_without_sacct_a_forgotten_job_is_unknown(slurm, monkeypatch):
    (slurm.folder / "sacct").unlink()
    monkeypatch.setenv("PATH", str(slurm.folder) + ":/bin-of-nothing")
    slurm.program("scontrol", 'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1')
    assert queue.states(["17"]) == ()


@pytest.mark.parametrize(
    "word", ["PENDING", "REQUEUED", "REQUEUE_HOLD", "RUNNING", "COMPLETING", "SUSPENDED", "CONFIGURING"]
)
def test_what_is_not_over(word):
    assert not State("1", word).over


@pytest.mark.parametrize(
    "word", ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"]
)
def test_what_is_over(word):
    assert State("1", word).over


def test_a_controller_that_is_down_is_no_job_that_is_gone(slurm):
    slurm.program(
        "scontrol", 'echo "slurm_load_jobs error: Unable to contact slurm controller (connect failure)" >&2; exit 1'
    )
    with pytest.raises(LaunchError, match="Unable to contact slurm controller"):
        queue.states(["17"])


@pytest.mark.parametrize("answer", ["17", "17;cluster", "sbatch: a plugin greets you\n17"])
def test_the_number_of_a_job(slurm, answer, tmp_path):
    slurm.install(answer=answer)
    assert queue.submit(tmp_path / "s.sbatch") == "17"
    assert slurm.calls("sbatch") == [f"sbatch --parsable --hold {tmp_path / 's.sbatch'}"]


@pytest.mark.parametrize("answer", ["", "Submitted batch job 17", "17 18", "job"])
def test_no_number_of_a_job(slurm, answer, tmp_path):
    slurm.install(answer=answer)
    with pytest.raises(LaunchError, match="expected the number of a job"):
        queue.submit(tmp_path / "s.sbatch")


def test_a_command_that_hangs_is_given_up(slurm, monkeypatch, tmp_path):
    monkeypatch.setattr(queue, "_TIMEOUT_S", 0.2)
    slurm.install(special="exec sleep 60")
    with pytest.raises(LaunchError, match=r"sbatch: no answer within 0\.2 s; squeue --me says"):
        queue.submit(tmp_path / "s.sbatch")


def test_a_program_that_cannot_be_started(slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(slurm.folder))  # or the next one of the name is taken
    (slurm.folder / "sbatch").write_text("#!/nowhere/interpreter\n")
    with pytest.raises(LaunchError, match="sbatch: cannot be started"):
        queue.submit(tmp_path / "s.sbatch")


def test_no_limit_of_arrays_where_slurm_does_not_say(slurm):
    assert queue.most_tasks() == 1001
    slurm.program("scontrol", "true")
    assert queue.most_tasks() is None
