"""Jobs of a real Slurm that are warned, thrown out, or cut off, and go on where they stopped."""

import pytest
from slurm_work import ENDLESS

from hpcrnn.records.hdf5 import read_record

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(180)]


def test_warned_it_ends_early_and_goes_on_where_it_stopped(work):
    work.write(ENDLESS)
    (job,) = work.submit()
    work.wait_for_log("verifying")
    work.warn(job)
    work.wait_for_log(f"job {job} goes back into the queue")
    assert "asked to end by SIGUSR1: 1 of 2 points are left" in work.log()
    (first,) = work.folder.glob("results/tiny/*.h5")
    before = first.stat().st_mtime_ns
    assert {case.stop_reason for case in read_record(first).cases} == {"asked"}
    waits = work.slurm("collect", "--report", "shown")
    assert waits.returncode == 0
    assert "1 of 2 points done; 1 " in waits.stderr
    work.start_again(job)
    work.wait_for_log("verifying", 2)
    work.warn(job)
    work.cluster.wait_for_jobs(job)
    assert work.state(job) == "COMPLETED", work.log()
    assert work.log().count("[1/2] " + first.stem + ": started") == 1
    assert work.log().count("[1/2] " + first.stem + ": done before") == 1
    assert first.stat().st_mtime_ns == before
    assert work.slurm("submit").stdout == "nothing to submit: all 2 points are done\n"


@pytest.mark.parametrize("how", ["requeued", "node lost"])
def test_thrown_out_in_the_middle_it_goes_on_where_it_stopped(work, how):
    work.write(ENDLESS)
    (job,) = work.submit()
    work.wait_for_log("verifying")
    work.warn(job)  # so that there is a point that is done, and one that runs
    work.wait_for_log("goes back into the queue")
    (first,) = work.folder.glob("results/tiny/*.h5")
    before = first.stat().st_mtime_ns
    work.start_again(job)
    work.wait_for_log("verifying", 2)
    if how == "requeued":
        assert work.command("scontrol", "requeue", job).returncode == 0
    else:
        work.lose_node("n1", job)
        work.wait_for_state(job, "PENDING")
        work.cluster.start_node("n1")
        work.command("scontrol", "update", "nodename=n1", "state=resume")
    work.start_again(job)
    work.wait_for_log("verifying", 3)
    work.warn(job)
    work.cluster.wait_for_jobs(job)
    assert work.state(job) == "COMPLETED", work.log()
    assert first.stat().st_mtime_ns == before
    assert work.log().count("[1/2] " + first.stem + ": started") == 1
    assert work.log().count(": started on 2 ranks") == 3  # the first point once, the second twice
    for path in work.folder.glob("results/tiny/*.h5"):
        assert read_record(path).complete
    assert not list(work.folder.glob("results/tiny/.*.tmp"))
    assert work.slurm("collect", "--report", "shown").returncode == 0


def test_a_job_whose_time_is_up_is_named(work):
    """Its ranks hear no warning. Slurm looks at the clocks of its jobs every 30 s."""
    deaf = """["bash", "-c", "trap '' USR1 TERM; sleep 100; : {ranks}"]"""
    work.write(ENDLESS, command=deaf)
    (job,) = work.submit()
    work.wait_for_log("started on 2 ranks")
    assert work.command("scontrol", "update", f"jobid={job}", "endtime=now+1").returncode == 0
    work.wait_for_state(job, "TIMEOUT", limit_s=70)
    collected = work.slurm("collect")
    assert collected.returncode == 1
    assert f"hpcrnn: job {job}: timeout" in collected.stderr
    assert "0 of 2 points done, and no job is left" in collected.stderr
