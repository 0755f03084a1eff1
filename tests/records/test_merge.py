"""Several files as one: nothing is lost, nothing is mixed, and what does not belong together is refused."""

import hashlib
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
from record_samples import (
    EXCHANGE,
    assert_same,
    cpu_facts,
    device_facts,
    make_case,
    make_certificate,
    make_compression,
    make_record,
    make_timeline,
    make_work,
)

from hpcrnn.cli import main
from hpcrnn.errors import FileError
from hpcrnn.records.hdf5 import read_file, read_record, read_records, write_record
from hpcrnn.records.merge import merge_files, unite
from hpcrnn.records.statistics import median_interval

REFERENCE = Path(__file__).parents[2] / "results" / "reference"


def written(folder, *records):
    """Write records to 0.h5, 1.h5, ..."""
    paths = [folder / f"{k}.h5" for k in range(len(records))]
    for record, path in zip(records, paths, strict=True):
        write_record(record, path)
    return paths


def merge(paths, output, **options):
    return merge_files(paths, output, **({"skip_damaged": False, "overwrite": False} | options))


def environment(host):
    return {"hosts": [{"hostname": host}], "git": {"commit": host * 8}}


def rich_record():
    full = make_case(
        2, 3, 1, timeline=make_timeline(EXCHANGE, 2), bubble_bound=0.25, certificate=make_certificate(4),
        **device_facts(2, 3),
        **cpu_facts(2, 3),
        compression=make_compression(),
        work=make_work(),
    )  # fmt: skip
    return make_record(full, make_case(1), environment=environment("b"))


def test_every_run_comes_back_to_the_last_bit_with_its_environment(tmp_path):
    records = [make_record(make_case(1), environment=environment("a")), rich_record(), make_record(cases=())]
    paths = written(tmp_path, *records)
    merger = merge(paths, tmp_path / "all.h5")
    again = read_file(tmp_path / "all.h5")
    for record, other, path in zip(records, again, paths, strict=True):
        assert_same(record, other)
        assert (other.source, other.origin) == (str(tmp_path / "all.h5"), str(path))
    assert merger.damaged == merger.repeated == ()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.h5", "1.h5", "2.h5", "all.h5"]


def test_files_of_every_version_can_be_merged(tmp_path):
    paths = sorted(REFERENCE.glob("quick/*.h5")) + sorted(REFERENCE.glob("time_parallel/*-n?-*.h5*"))[:2]
    merge(paths, tmp_path / "all.h5")
    for record, other in zip(read_records(paths), read_file(tmp_path / "all.h5"), strict=True):
        assert_same(record, other)


@pytest.mark.parametrize("bracket", [0, 1, 2])
def test_merging_in_steps_is_merging_at_once(tmp_path, bracket):
    folder, cuts = tmp_path, (1, 0, 2)
    records = [make_record(*(make_case(1, 2, 1, seed=k) for k in range(n)), argv=(str(n),)) for n in cuts]
    paths = written(folder, *records)
    merge(paths, folder / "once.h5")
    first, rest = paths[: bracket + 1], paths[bracket + 1 :]
    merge(first, folder / "part.h5")
    merge([folder / "part.h5", *rest], folder / "steps.h5")
    for one, other in zip(read_file(folder / "once.h5"), read_file(folder / "steps.h5"), strict=True):
        assert_same(one, other)
        assert one.origin == other.origin


def test_a_case_measured_by_two_runs_is_there_twice(tmp_path):
    records = [make_record(make_case(1, seed=seed)) for seed in (1, 2)]
    merge(written(tmp_path, *records), tmp_path / "all.h5")
    again = read_records([tmp_path / "all.h5"])
    assert again[0].cases[0].id == again[1].cases[0].id
    assert [median_interval(r.cases[0].step_s()) for r in again] == [
        median_interval(r.cases[0].step_s()) for r in records
    ]


def test_a_run_given_twice_is_there_once(tmp_path):
    path, other = written(tmp_path, make_record(), make_record())
    merge([path, other], tmp_path / "both.h5")
    merger = merge([tmp_path / "both.h5", other, other], tmp_path / "all.h5")
    assert len(read_file(tmp_path / "all.h5")) == 2
    assert len(merger.repeated) == 2
    assert merger.repeated[0] == f"{other}: the run that is in {tmp_path / 'both.h5'} ({other}) too: kept once"


@pytest.mark.parametrize("finished_first", [True, False])
def test_of_two_states_of_a_run_the_finished_one_is_kept(finished_first):
    done = make_record(make_case(1), make_case(2), source="done.h5")
    state = replace(done, cases=done.cases[:1], complete=False, source="state.h5")
    kept, repeated = unite([done, state] if finished_first else [state, done])
    assert kept == (done,)
    assert repeated == ("state.h5: an unfinished state of the run in done.h5: left out",)


def test_two_results_under_one_uuid_are_refused(tmp_path):
    first = make_record(make_case(1, seed=1))
    paths = written(tmp_path, first, replace(first, cases=(make_case(1, seed=2),)))
    with pytest.raises(FileError, match="hold different results under the uuid of one run"):
        merge(paths, tmp_path / "all.h5")
    assert not (tmp_path / "all.h5").exists()


def test_the_base_is_the_best_serial_run_of_all(tmp_path):
    slow, fast = make_case(1, seed=1), make_case(1, seed=2)
    slow.time_s[...], fast.time_s[...] = 3e-3, 1e-3
    invalid = make_case(1, seed=3, valid=False)
    invalid.time_s[...] = 1e-6
    elsewhere = make_case(1, seed=4, overrides={"hidden": 31})
    paths = written(tmp_path, make_record(slow), make_record(invalid), make_record(fast), make_record(elsewhere))
    merge(paths, tmp_path / "all.h5")
    with h5py.File(tmp_path / "all.h5") as file:
        assert file.attrs["schema_name"] == "hpcrnn-merged-records"
        base = dict(file["baseline"][slow.problem_id].attrs)
        assert (base["case_id"], base["time_s"], base["run"]) == (fast.id, 1e-3, 2)
        assert file["baseline"][elsewhere.problem_id].attrs["run"] == 3
        assert file["runs/0/baseline"][slow.problem_id].attrs["time_s"] == 3e-3
        assert set(file["runs/1/baseline"]) == set()
        assert file[f"runs/2/cases/{fast.id}/time"].attrs["units"] == "s"


def test_all_damaged_files_are_named_and_nothing_is_written(tmp_path, capsys):
    good, cut = written(tmp_path, make_record(), make_record())
    cut.write_bytes(cut.read_bytes()[:2000])
    (tmp_path / "text.h5").write_text("hello")
    files = [str(good), str(cut), str(tmp_path / "text.h5"), str(tmp_path / "missing.h5")]
    command = ["merge", *files, "-o", str(tmp_path / "all.h5")]
    assert main(command) == 1
    output = capsys.readouterr()
    assert [line.startswith("hpcrnn: error: ") for line in output.err.splitlines()] == [True] * 4
    for text in (f"{cut}: is truncated", "text.h5: is not an hpcrnn record", "missing.h5: is not there"):
        assert text in output.err
    assert "--skip-damaged merges the rest" in output.err
    assert not (tmp_path / "all.h5").exists()

    assert main([*command, "--skip-damaged"]) == 0
    output = capsys.readouterr()
    assert output.err.count("hpcrnn: skipped: ") == 3
    assert output.out.endswith(f"written: {tmp_path / 'all.h5'}\n")
    assert len(read_file(tmp_path / "all.h5")) == 1


def test_nothing_left_to_merge(tmp_path):
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(FileError, match="nothing was merged, for no file can be read"):
        merge([tmp_path / "text.h5"], tmp_path / "all.h5", skip_damaged=True)


def test_neither_an_input_nor_an_older_file_is_overwritten(tmp_path):
    paths = written(tmp_path, make_record(), make_record())
    before = paths[0].read_bytes()
    for options in ({}, {"overwrite": True}):
        with pytest.raises(FileError, match="is an input, which is never overwritten"):
            merge(paths, paths[0], **options)
    assert paths[0].read_bytes() == before
    merge(paths[:1], tmp_path / "all.h5")
    with pytest.raises(FileError, match="is there already"):
        merge(paths, tmp_path / "all.h5")
    assert len(read_file(tmp_path / "all.h5")) == 1
    merge(paths, tmp_path / "all.h5", overwrite=True)
    assert len(read_file(tmp_path / "all.h5")) == 2


def test_where_one_run_is_wanted_several_are_refused(tmp_path):
    paths = written(tmp_path, make_record(), make_record())
    merge(paths, tmp_path / "all.h5")
    with pytest.raises(FileError, match="holds 2 merged runs, where the file of one run is wanted"):
        read_record(tmp_path / "all.h5")


def edited(path, change):
    with h5py.File(path, "r+") as file:
        change(file)
    body = path.read_bytes()[512:]
    head = f"hpcrnn-record\nsha256 {hashlib.sha256(body).hexdigest()}\nbytes {len(body)}\n".encode()
    path.write_bytes(head.ljust(512, b"\0") + body)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.move("runs/1", "runs/7"), "/runs does not hold runs numbered from 0"),
        (lambda file: (file.pop("runs"), file.create_group("runs")), "/runs does not hold runs numbered from 0"),
        (lambda file: file.pop("runs"), "/ has no runs"),
        (lambda file: file.attrs.update(schema_version=2), "reads up to 1: update hpcrnn"),
        (lambda file: file["runs/1"].attrs.pop("origin"), "/runs/1 has no attribute origin"),
        (lambda file: file["runs/1"].attrs.update(schema_version=99), "/runs/1 has schema version 99"),
        (lambda file: file.pop("runs/0/environment"), "/runs/0 has no environment"),
    ],
)
def test_a_merged_file_that_is_not_laid_out_so(tmp_path, change, message):
    merge(written(tmp_path, make_record(make_case(1)), make_record(make_case(1))), tmp_path / "all.h5")
    edited(tmp_path / "all.h5", change)
    with pytest.raises(FileError) as caught:
        read_file(tmp_path / "all.h5")
    assert message in str(caught.value)


def test_show_says_where_each_case_came_from(tmp_path, capsys):
    records = [
        make_record(make_case(1), argv=("hpcrnn", "run", f"--seed={n}"), environment=environment(n)) for n in "ab"
    ]
    paths = written(tmp_path, *records)
    assert main(["merge", *map(str, paths), "-o", str(tmp_path / "all.h5")]) == 0
    table = capsys.readouterr().out
    assert main(["show", str(tmp_path / "all.h5")]) == 0
    shown = capsys.readouterr().out.replace("\n", "")
    for record, path, name in zip(records, paths, "ab", strict=True):
        assert record.uuid[:8] in table
        assert f"from {path}"[:60] in shown
        assert f"run {record.uuid}" in shown
        assert f"git {name * 8}" in shown
        assert f"$ hpcrnn run --seed={name}" in shown


def test_odd_names_of_files(tmp_path):
    folder = tmp_path / "ordner \udcff \u2603\n"
    folder.mkdir()
    write_record(make_record(make_case(1)), folder / "a.h5")
    merge([folder / "a.h5"], tmp_path / "all.h5")
    assert read_file(tmp_path / "all.h5")[0].origin.endswith("ordner \\udcff \u2603\\n/a.h5")
