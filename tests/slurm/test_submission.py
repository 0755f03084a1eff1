"""``hpcrnn slurm`` against stand-ins for Slurm: all jobs or none, nothing twice, and clear words for what is wrong."""

import json
from pathlib import Path

import pytest
from slurm_samples import SITE, SWEEP, state_line, write_done, write_project

from hpcrnn.benchmarks.sweep import load_sweep
from hpcrnn.cli import main
from hpcrnn.records.hdf5 import read_records
from hpcrnn.slurm import collection, follow, queue

NOTE = Path("results/tiny/submission.json")


@pytest.fixture(autouse=True)
def no_report(request, monkeypatch):
    """Write no report, which takes seconds, but where that is what is looked at."""
    if "report" not in request.node.name:
        monkeypatch.setattr(collection, "write_report", lambda records, folder: [])


@pytest.fixture
def run(here, slurm, capsys):
    """Run ``hpcrnn slurm ACTION``; returns exit code, output, errors."""

    def run(action, *flags):
        code = main(["slurm", action, "tiny.toml", "--site", "site.toml", *flags])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_all_jobs_are_held_noted_and_released(run, slurm):
    code, out, err = run("submit")
    assert (code, err) == (0, "")
    asked = [" ".join(call.split()[:3]) for call in slurm.calls() if not call.startswith("sinfo")]
    assert asked == ["sbatch --parsable --hold"] * 3 + ["scontrol release 17"]
    assert slurm.calls()[-1] == "scontrol release 17 18 19"
    assert "submitted: 18 tiny-n2 (results/tiny/jobs/tiny-n2.sbatch)" in out
    note = json.loads(NOTE.read_text())
    assert [(job["id"], job["n_ranks"], job["tasks"]) for job in note["jobs"]] == [
        ("17", 1, []),
        ("18", 2, []),
        ("19", 4, []),
    ]
    assert note["ranks"] == [1, 2, 4]
    assert Path(note["jobs"][2]["script"]).read_text() in out


def test_an_array_has_a_task_for_each_point(run):
    code, out, _ = run("submit", "--as", "array")
    assert code == 0
    assert out.count("#SBATCH --array=0-1\n") == 3
    assert [job["tasks"] for job in json.loads(NOTE.read_text())["jobs"]] == [[0, 1]] * 3


@pytest.mark.parametrize("action", [("render",), ("submit", "--dry-run")])
def test_looking_submits_nothing(run, slurm, action):
    code, out, _ = run(*action)
    assert code == 0
    assert out.count("#!/usr/bin/env bash") == 3
    assert not slurm.calls("sbatch")
    assert not Path("results").exists()


def test_rendering_needs_no_slurm(here, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["slurm", "render", "tiny.toml", "--site", "site.toml"]) == 0
    assert "#SBATCH --ntasks=4" in capsys.readouterr().out


def test_without_slurm_it_says_so_on_one_line(here, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["slurm", "submit", "tiny.toml", "--site", "site.toml"]) == 4
    err = capsys.readouterr().err
    assert err == "hpcrnn: error: sinfo is not installed here: hpcrnn slurm works where Slurm's commands are\n"
    assert not Path("results").exists()


REFUSE_THIRD = 'if [ "$n" = 19 ]; then echo "sbatch: error: Invalid account" >&2; exit 1; fi'


def test_where_one_is_refused_none_is_left(run, slurm):
    slurm.install(special=REFUSE_THIRD)
    code, _, err = run("submit")
    assert code == 4
    assert err == "hpcrnn: error: sbatch: sbatch: error: Invalid account\n"
    assert slurm.calls("scancel") == ["scancel 17 18"]
    assert not slurm.calls("scontrol release")
    assert not NOTE.exists()


def test_where_one_is_refused_the_note_stays_as_it_was(run, slurm):
    assert run("submit")[0] == 0
    before = NOTE.read_bytes()
    (slurm.folder / "number").write_text("16")
    slurm.install(special=REFUSE_THIRD)
    assert run("submit")[0] == 4
    assert NOTE.read_bytes() == before


@pytest.mark.parametrize("earlier", [False, True])
def test_where_the_release_fails_none_is_left(run, slurm, earlier):
    if earlier:
        assert run("submit")[0] == 0
    before = NOTE.read_bytes() if earlier else None
    slurm.install(release='echo "Access denied" >&2; exit 1')
    code, _, err = run("submit")
    assert code == 4
    assert "scontrol: Access denied" in err
    assert slurm.calls("scancel") == ["scancel 17 18 19"]
    assert (NOTE.read_bytes() if NOTE.exists() else None) == before


def test_where_nothing_can_be_taken_back_it_says_which(run, slurm):
    slurm.install(special=REFUSE_THIRD)
    slurm.program("scancel", 'echo "scancel: error: no" >&2; exit 1')
    code, _, err = run("submit")
    assert code == 4
    assert "warning: held jobs could not be taken back" in err
    assert "scancel 17 18\n" in err


@pytest.mark.parametrize(
    ("special", "answer", "words"), [("exec sleep 60", "", "no answer"), (":", "hello", "it said 'hello'")]
)
def test_where_sbatch_hangs_or_rambles_nothing_is_left(run, slurm, monkeypatch, special, answer, words):
    monkeypatch.setattr(queue, "_TIMEOUT_S", 0.3)
    slurm.install(special=special if answer else f'[ "$n" = 18 ] && {special}', answer=answer or "$n")
    code, _, err = run("submit")
    assert code == 4
    assert words in err
    assert slurm.calls("scancel") == ([] if answer else ["scancel 17"])
    assert not NOTE.exists()


def test_while_earlier_jobs_are_queued_nothing_is_submitted(run, slurm):
    assert run("submit")[0] == 0
    before = NOTE.read_bytes()
    slurm.job(17, state_line(17, "COMPLETED"))
    slurm.job(18, state_line(18, "RUNNING"))
    slurm.job(19, state_line(19, "PENDING"))
    code, _, err = run("submit")
    assert code == 4
    assert "jobs 18, 19 of this sweep are still in the queue" in err
    assert "scancel 18 19" in err
    assert len(slurm.calls("sbatch")) == 3
    assert NOTE.read_bytes() == before


def test_only_what_is_left_is_submitted_again(run, slurm):
    assert run("submit")[0] == 0
    points = load_sweep(Path("tiny.toml"), None).points
    for point in points[:-1]:
        write_done(point)
    code, out, _ = run("submit", "--as", "array")
    assert code == 0
    assert out.count("#SBATCH --array=1\n") == out.count("#!/usr") == 1
    assert len(slurm.calls("sbatch")) == 4
    write_done(points[-1])
    assert run("submit") == (0, "nothing to submit: all 6 points are done\n", "")
    assert run("render") == (0, "nothing to submit: all 6 points are done\n", "")
    assert len(slurm.calls("sbatch")) == 4


@pytest.mark.parametrize(
    ("site", "sweep", "words"),
    [
        ('[queue]\npartition = "lagre"', SWEEP, ["queue.partition = 'lagre'", "one of large, main"]),
        ('[queue]\npartition = "main,none"', SWEEP, ["queue.partition = 'none'"]),
        ("", SWEEP, ["sweep.ranks = 4", "at most 2", "partition main has 2 nodes", "node.ranks = 1"]),
        (
            "[node]\nranks = 8",
            SWEEP.replace("1, 2, 4", "8"),
            ["node.ranks x node.cpus_per_rank = '8 x 1'", "at most 4"],
        ),
        ("[node]\ncpus_per_rank = 5", SWEEP, ["'1 x 5'", "at most 4", "partition main have so many cores"]),
    ],
)
def test_what_no_partition_could_start_is_refused(run, slurm, here, site, sweep, words):
    write_project(here, sweep, site)
    code, _, err = run("submit")
    assert code == 1
    assert err.count("\n") == 1
    for word in words:
        assert word in err
    assert not slurm.calls("sbatch")
    assert not NOTE.exists()


@pytest.mark.parametrize(
    "site",
    [
        '[queue]\npartition = "main,large"\n[node]\nranks = 128',
        '[queue]\npartition="large"\n[node]\nranks = 256\nhint="multithread"',
    ],
)
def test_what_one_partition_could_start_is_submitted(run, here, site):
    write_project(here, SWEEP.replace("1, 2, 4", "128, 256").replace("batch = 8", "batch = 256"), site)
    assert run("submit")[0] == 0


def test_nodes_that_are_too_small_do_not_count(run, slurm, here):
    slurm.install(partitions="main|main*|3|4|4|1\\nmain|main*|1|64|2|32\\n")
    write_project(here, SWEEP.replace("1, 2, 4", "64").replace("batch = 8", "batch = 64"), "[node]\nranks = 32")
    code, _, err = run("submit")
    assert code == 1
    assert "at most 32: partition main has 1 nodes of 32 cores" in err


def test_without_a_default_partition_slurm_decides(run, slurm):
    slurm.install(partitions="a|a|1|4|4|1\\n")
    assert run("submit")[0] == 0


def test_an_array_longer_than_slurm_allows_is_refused(run, slurm):
    slurm.install(most_tasks=1)
    code, _, err = run("submit", "--as", "array")
    assert code == 1
    assert "at most 1 tasks, and this 2" in err
    assert run("submit")[0] == 0


def test_a_note_that_cannot_be_read_is_named(run):
    NOTE.parent.mkdir(parents=True)
    for text in ("{", '{"jobs": []}', "\xff"):
        NOTE.write_text(text)
        for action in ("submit", "collect"):
            code, _, err = run(action)
            assert code == 1
            assert f"{NOTE}: cannot be read as the note of a submission" in err


def test_nothing_to_collect(run):
    code, _, err = run("collect")
    assert code == 1
    assert f"{NOTE}: is not there: nothing was submitted" in err


def test_what_is_done_is_merged_and_a_report_written(run, slurm, here):
    assert run("submit", "--ranks", "1")[0] == 0
    for point in load_sweep(Path("tiny.toml"), None, ranks=(1,)).points:
        write_done(point)
    slurm.job(17, state_line(17, "COMPLETED"))
    code, out, _ = run("collect", "--report", "shown")
    assert code == 0
    for name in ("results/tiny.h5", "shown/report.html", "shown/report.md"):
        assert f"written: {name}\n" in out
        assert (here / name).stat().st_size > 1000
    assert len(read_records([here / "results/tiny.h5"])) == 2


def test_a_collection_is_of_all_ranks_that_were_submitted(run, slurm):
    """Those of ``--ranks`` that the sweep does not name too, and earlier ones."""
    assert run("submit", "--ranks", "1,3")[0] == 0
    for point in load_sweep(Path("tiny.toml"), None, ranks=(1, 3)).points:
        write_done(point)
    slurm.job(17, state_line(17, "COMPLETED"))
    slurm.job(18, state_line(18, "COMPLETED"))
    code, out, err = run("collect")
    assert (code, err) == (0, "hpcrnn: 4 of 4 points done\n")
    assert "written: results/tiny.h5" in out
    assert run("submit", "--ranks", "2")[0] == 0
    assert json.loads(NOTE.read_text())["ranks"] == [1, 2, 3]
    slurm.job(19, state_line(19, "PENDING", reason="Priority"))
    code, _, err = run("collect")
    assert (code, err) == (0, "hpcrnn: 4 of 6 points done; 1 pending (Priority)\n")


def test_a_job_that_slurm_forgot_is_an_error_with_the_way_out(run, slurm):
    assert run("submit", "--ranks", "1,2")[0] == 0
    points = load_sweep(Path("tiny.toml"), None, ranks=(1, 2)).points
    write_done(points[0])
    slurm.job(17, state_line(17, "COMPLETED"))
    code, out, err = run("collect")
    assert code == 4
    assert "error: job 18 (tiny-n2): Slurm no longer knows it" in err
    assert "hpcrnn slurm submit submits what is left" in err
    assert "written: results/tiny.h5" in out
    for point in points[1:]:
        write_done(point)
    assert run("collect")[0] == 0  # forgotten, and done


@pytest.mark.parametrize(
    ("word", "code", "told"),
    [
        ("TIMEOUT", "0:0", "timeout"),
        ("CANCELLED", "0:15", "cancelled, signal 15"),
        ("FAILED", "1:0", "failed, exit code 1"),
    ],
)
def test_jobs_that_ended_badly_are_named(run, slurm, word, code, told):
    assert run("submit", "--ranks", "1")[0] == 0
    write_done(load_sweep(Path("tiny.toml"), None, ranks=(1,)).points[0])
    slurm.job(17, state_line(17, word, code=code))
    status, out, err = run("collect")
    assert status == 1
    assert f"hpcrnn: job 17: {told}\n" in err
    assert "1 of 2 points done, and no job is left; hpcrnn slurm submit submits the rest" in err
    assert "written: results/tiny.h5" in out


def test_following_goes_on_while_the_controller_is_started_anew(run, slurm, monkeypatch):
    """The clock is ours: pauses pass at once, and let time go by."""
    assert run("submit", "--ranks", "1")[0] == 0
    now, answers = [0.0], iter(["RUNNING", None, None, "RUNNING", "COMPLETED"])

    def states(_):
        word = next(answers)
        if word is None:
            raise queue.LaunchError("scontrol: Unable to contact slurm controller")
        if word == "COMPLETED":
            for point in load_sweep(Path("tiny.toml"), None, ranks=(1,)).points:
                write_done(point)
        return (queue.State("17", word),)

    def sleep(seconds):
        now[0] += seconds

    monkeypatch.setattr(queue, "states", states)
    monkeypatch.setattr(follow.time, "sleep", sleep)
    monkeypatch.setattr(follow.time, "monotonic", lambda: now[0])
    code, _, err = run("collect", "--follow")
    assert code == 0
    assert err.splitlines() == [
        "hpcrnn: 0 of 2 points done; 1 running",
        "hpcrnn: scontrol: Unable to contact slurm controller; asking again",
        "hpcrnn: 0 of 2 points done; 1 running",
        "hpcrnn: 2 of 2 points done",
    ]


def test_following_gives_up_on_a_controller_that_stays_away(run, slurm, monkeypatch):
    assert run("submit", "--ranks", "1")[0] == 0
    slurm.job(17, state_line(17, "RUNNING"))
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds
        slurm.program("scontrol", 'echo "Unable to contact slurm controller" >&2; exit 1')

    monkeypatch.setattr(follow.time, "sleep", sleep)
    monkeypatch.setattr(follow.time, "monotonic", lambda: now[0])
    code, _, err = run("collect", "--follow")
    assert code == 4
    assert now[0] > 1800
    assert err.count("asking again") == 1


def test_setup_prints_shell(here, capsys):
    (here / "site.toml").write_text(SITE + '[launch]\nsetup = ["module load a"]\nvariables = { A = "it\'s" }')
    assert main(["slurm", "setup", "--site", "site.toml"]) == 0
    assert capsys.readouterr().out == "module load a\nexport A='it'\"'\"'s'\n"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "ACTION"),
        (["submit"], "SPEC.toml"),
        (["submit", "tiny.toml"], "--site"),
        (["submit", "tiny.toml", "--site", "none.toml"], "none.toml: cannot be read"),
        (["submit", "none.toml", "--site", "site.toml"], "none.toml: cannot be read"),
        (["submit", "tiny.toml", "--site", "site.toml", "--as", "heap"], "heap"),
        (["submit", "tiny.toml", "--site", "site.toml", "--ranks", "0"], "--ranks"),
        (["submit", "tiny.toml", "--site", "site.toml", "--ranks", "one"], "--ranks"),
    ],
)
def test_wrong_use_is_one_line(here, slurm, capsys, flags, words):
    assert main(["slurm", *flags]) == 1
    err = capsys.readouterr().err
    assert err.startswith("hpcrnn: error: ")
    assert err.count("\n") == 1
    assert words in err
    assert not slurm.calls()
