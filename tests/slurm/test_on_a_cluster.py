"""``hpcrnn slurm`` on a real Slurm of two nodes: submitted, followed, collected, refused."""

import json
from pathlib import Path

import pytest
from slurm_samples import SWEEP
from slurm_work import BIN, MPIRUN, SITE, SRUN

from hpcrnn.records.hdf5 import read_record, read_records

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(180)]

ONE_CELL = SWEEP.replace('["lstm", "gru"]', '["gru"]')


def nodes_of(record):
    return {host["slurm_node"] for host in record.environment["hosts"]}


def test_a_sweep_as_jobs_from_submission_to_report(work):
    work.write(ONE_CELL)
    done = work.slurm("submit", "--follow")
    assert done.returncode == 0, work.log()
    assert done.stdout.count("#!/usr/bin/env bash") == 3
    said = done.stderr.splitlines()
    assert said[0].startswith("hpcrnn: 0 of 3 points done; 3 ") or "running" in said[0]
    assert said[-1] == "hpcrnn: 3 of 3 points done"
    collected = work.slurm("collect")
    assert collected.returncode == 0, collected.stderr
    assert "written: results/tiny.h5" in collected.stdout
    records = read_records([work.folder / "results/tiny.h5"])
    assert sorted(len(record.environment["hosts"]) for record in records) == [1, 2, 4]
    wide = max(records, key=lambda record: len(record.environment["hosts"]))
    assert nodes_of(wide) == {"n1", "n2"}  # the ranks met across them
    assert wide.environment["launcher"]["kind"] == "srun"
    assert {case.n_ranks for case in wide.cases} == {1, 4}
    assert "tiny" in (work.folder / "plots/tiny/report.md").read_text()
    again = work.slurm("submit")
    assert (again.returncode, again.stdout) == (0, "nothing to submit: all 3 points are done\n")


def test_a_sweep_as_arrays_and_only_what_is_left_again(work):
    work.write(SWEEP.replace("1, 2, 4", "2"))
    first = work.slurm("submit", "--as", "array", "--follow")
    assert first.returncode == 0, work.log()
    files = sorted(work.folder.glob("results/tiny/*.h5"))
    assert len(files) == 2
    lost = files[1]
    before = {path: path.stat().st_mtime_ns for path in files if path != lost}
    lost.unlink()
    assert work.slurm("collect", "--report", "shown").returncode == 1  # a point is not done, and no job is left
    (number,) = work.submit("--as", "array")
    work.cluster.wait_for_jobs(number)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert lost.exists()
    note = json.loads((work.folder / "results/tiny/submission.json").read_text())
    assert [len(job["tasks"]) for job in note["jobs"]] == [1]
    assert work.slurm("submit").stdout.startswith("nothing to submit")


def test_where_the_site_has_mpirun_ranks_meet_across_nodes(work):
    work.write(ONE_CELL.replace("1, 2, 4", "4"), command=MPIRUN)
    assert work.slurm("submit", "--follow").returncode == 0, work.log()
    (record,) = [read_record(path) for path in work.folder.glob("results/tiny/*.h5")]
    assert record.environment["launcher"]["kind"] == "mpirun"
    assert record.cases[-1].n_ranks == 4


def test_while_jobs_are_queued_nothing_is_submitted_and_cancelled_ones_are_named(work):
    work.write(ONE_CELL)
    blocker = work.sbatch("--exclusive", "--nodes=2", "--wrap", "sleep 300")
    work.wait_for_state(blocker, "RUNNING")
    numbers = work.submit()
    refused = work.slurm("submit")
    assert refused.returncode == 4
    assert f"jobs {', '.join(numbers)} of this sweep are still in the queue" in refused.stderr
    asked = work.slurm("collect")
    assert asked.returncode == 0
    assert "0 of 3 points done; 3 pending" in asked.stderr  # Slurm says why some time later
    work.command("scancel", *numbers[1:])
    work.command("scancel", blocker)
    work.cluster.wait_for_jobs(*numbers)
    collected = work.slurm("collect", "--report", "shown")
    assert collected.returncode == 1
    for number in numbers[1:]:
        assert f"hpcrnn: job {number}: cancelled" in collected.stderr
    assert "1 of 3 points done, and no job is left; hpcrnn slurm submit submits the rest" in collected.stderr
    assert len(read_records([work.folder / "results/tiny.h5"])) == 1


def test_a_job_that_slurm_no_longer_knows(work):
    work.write(ONE_CELL.replace("1, 2, 4", "1"))
    (number,) = work.submit("--follow")
    note = work.folder / "results/tiny/submission.json"
    note.write_text(note.read_text().replace(f'"{number}"', '"66000001"'))
    assert work.slurm("collect").returncode == 0  # forgotten, and done
    next(work.folder.glob("results/tiny/*.h5")).unlink()
    collected = work.slurm("collect")
    assert collected.returncode == 4
    assert "error: job 66000001 (tiny-n1): Slurm no longer knows it, and points of it are not done" in collected.stderr
    assert "hpcrnn slurm submit submits what is left" in collected.stderr
    assert work.slurm("submit", "--dry-run").stdout.count("#!/usr") == 1


@pytest.mark.parametrize(
    ("queue", "sweep", "code", "words"),
    [
        ('partition = "mian"', ONE_CELL, 1, "queue.partition = 'mian': allowed is one of main, short"),
        ("", ONE_CELL.replace("2, 4", "8"), 1, "sweep.ranks = 8: allowed is at most 4: partition main has 2 nodes"),
        ('reservation = "none"', ONE_CELL, 4, "sbatch: error: Batch job submission failed: Requested reservation"),
        ('partition = "short"', ONE_CELL.replace("1, 2, 4", "1"), 4, "Requested time limit is invalid"),
        ('constraint = "gold"', ONE_CELL, 4, "Invalid feature specification"),
        ('flags = ["--no-such-flag"]', ONE_CELL, 4, "no-such-flag"),
    ],
)
def test_what_cannot_be_is_refused_in_plain_words(work, queue, sweep, code, words):
    work.write(sweep, queue=queue)
    done = work.slurm("submit")
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not work.command("squeue", "-h").stdout
    assert not (work.folder / "results/tiny/submission.json").exists()


def test_more_cores_than_a_node_has_are_refused(work):
    work.write(ONE_CELL, site=SITE.format(command=SRUN, queue="", exclusive="true", bin=BIN) + "", queue="")
    text = (work.folder / "site.toml").read_text()
    (work.folder / "site.toml").write_text(text.replace("ranks = 2\n", "ranks = 2\ncpus_per_rank = 3\n"))
    done = work.slurm("submit")
    assert done.returncode == 1
    assert "node.ranks x node.cpus_per_rank = '2 x 3': allowed is at most 4" in done.stderr


def test_a_folder_with_an_odd_name(work):
    """Its log lies where the script says: blanks and % are Slurm's to read."""
    work.write(ONE_CELL.replace("1, 2, 4", "1"))
    done = work.slurm("submit", "--follow", "-o", "results/a b %x $(touch pwned)")
    assert done.returncode == 0, done.stderr
    (log,) = work.folder.glob("results/a b*/*.out")
    assert log.parent.name == "a b %x $(touch pwned)"
    assert "done in" in log.read_text()
    assert not (work.folder / "pwned").exists()


def test_ranks_that_never_met_are_told(work):
    """Started without PMI every rank is alone: the sweep expects two, and says so instead of measuring."""
    work.write(ONE_CELL.replace("1, 2, 4", "2"), command=SRUN.replace("pmi2", "none"))
    done = work.slurm("submit", "--follow")
    assert done.returncode == 1
    assert "FAILED with exit code 4" in work.log()
    assert not list(Path(work.folder).glob("results/tiny/*.h5"))
