"""The record in memory: identity, yardsticks, views."""

import math

import h5py
import numpy as np
import pytest
from record_samples import device_facts, make_case, make_record

from hpcrnn.records.hdf5 import read_record, write_record
from hpcrnn.records.invariants import examine
from hpcrnn.records.layout_stored import parse_stored_file
from hpcrnn.records.record import Check, Verdict, strategy_of


def test_the_id_names_what_was_run_and_how():
    base = make_case(seed=1)
    assert base.id == make_case(seed=2).id
    assert len(base.id) == 12
    changes = [
        {"overrides": {"hidden": 128}},
        {"overrides": {"microbatches": 2}},
        {"overrides": {"threads": 2}},
        {"backend": "torch"},
        {"kernel": "other"},
        {"n_ranks": 3},
        {"strategy": "serial"},
    ]
    assert len({base.id, *(make_case(**change).id for change in changes)}) == len(changes) + 1


def test_the_recurrence_is_part_of_the_identity_where_it_is_no_chain():
    chain = make_case()
    assert chain.how.keys() == {"parallel", "threads"}
    # What a chain has no use for does not set it apart, nor does a file that does not have the section.
    assert make_case(overrides={"fold": 4, "tolerance": 1e-5}).id == chain.id
    older = {name: keys for name, keys in chain.spec.items() if name != "recurrence"}
    assert make_case(spec=older).id == chain.id
    picard = {"method": "picard", "fold": 4}
    changes = [{}, {"fold": 8}, {"tolerance": 1e-5}, {"halo_codec": "int8"}, {"method": "gateprod"}]
    cases = [make_case(overrides={**picard, **change}) for change in changes]
    assert len({chain.id, *(case.id for case in cases)}) == len(cases) + 1
    assert {case.problem_id for case in cases} == {chain.problem_id}
    assert (cases[1].method, cases[1].fold) == ("picard", 8)


def test_one_rank_is_a_base_only_as_a_chain():
    assert make_case(1).is_serial_base
    assert not make_case(1, overrides={"method": "picard", "fold": 8}).is_serial_base
    assert not make_case(2).is_serial_base


def test_how_long_to_measure_does_not_change_the_case():
    assert make_case(overrides={"max_time": 3.0, "out": "x.h5"}).id == make_case().id


def test_nor_does_what_a_device_says_of_itself():
    case = make_case(2, backend="cupy", **device_facts())
    assert case.id == make_case(2, backend="cupy").id
    assert case.on_gpu
    assert not make_case().on_gpu


def test_the_problem_is_the_same_however_it_is_run():
    same = [make_case(), make_case(3), make_case(overrides={"threads": 2}), make_case(backend="torch")]
    assert len({case.problem_id for case in same}) == 1
    assert make_case(overrides={"seed": 1}).problem_id != make_case().problem_id


def test_keys_that_older_files_lack_do_not_set_a_problem_apart():
    case = make_case()
    added = [("model", "forget_init"), ("model", "chrono_span"), ("training", "carry")]
    older = {name: {k: v for k, v in keys.items() if (name, k) not in added} for name, keys in case.spec.items()}
    assert make_case(spec=older).problem_id == case.problem_id
    chrono = {"forget_init": "chrono"}
    changes = [{}, {"carry": True}, chrono, chrono | {"chrono_span": 50}]
    assert len({make_case(overrides=change).problem_id for change in changes}) == len(changes)


def test_the_step_is_the_slowest_ranks():
    case = make_case(3)
    np.testing.assert_array_equal(case.step_s(), case.time_s[:, :, 0].max(axis=1))
    np.testing.assert_array_equal(case.phase_s("allreduce"), case.time_s[:, :, 3])
    with pytest.raises(ValueError):
        case.phase_s("none")


def test_a_check_of_nan_never_passes():
    assert Check("loss", 1.0, 1.0, 1.0).passed
    assert not Check("loss", math.nan, 1.0, 1.0).passed
    assert not Check("loss", 1.0, 1.0, math.nan).passed


def test_the_worst_check():
    good, bad, nan = Check("a", 1.0, 1.0, 8.0), Check("b", 9.0, 1.0, 8.0), Check("c", math.nan, 1.0, 8.0)
    assert Verdict("INVALID", "", 8.0, (good, bad)).worst is bad
    assert Verdict("INVALID", "", 8.0, (good, nan, bad)).worst is nan


def test_the_worst_gradient_is_beside_what_the_serial_run_loses_in_it():
    def verdict(*rows):
        return Verdict("APPROXIMATE", "", 8.0, tuple(Check(name, *errors, 1.0) for name, *errors in rows))

    found = verdict(
        ("loss", 0.5, 0.1),
        ("gradient layer0.R", 2e-3, 3e-7),
        ("gradient layer0.W", 1e-3, 9e-7),
        ("gradient agreement of ranks", 0.9, 0.0),
    )
    assert (found.gradient_error, found.serial_gradient_error) == (2e-3, 3e-7)
    nan = verdict(("gradient a", math.nan, 1e-7), ("gradient b", 1.0, 2e-7))
    assert math.isnan(nan.gradient_error)
    assert nan.serial_gradient_error == 1e-7
    none = verdict(("loss", 0.5, 0.1))
    assert math.isnan(none.gradient_error)
    assert math.isnan(none.serial_gradient_error)


def test_names():
    assert make_case(4).label == "data 4 · numpy"
    assert make_case(1).label == "serial · numpy"
    assert strategy_of({"data": 4}) == "data"
    assert strategy_of({"data": 1}) == strategy_of({}) == "serial"
    assert strategy_of({"data": 2, "time": 2}) == "hybrid"


def test_the_name_of_a_case_says_how_it_is_split():
    way = {"grid": {"data": 1, "pipeline": 2}, "order": "1f1b", "microbatches": 4, "chunks": 2}
    assert make_case(2, strategy="pipeline", overrides=way).label == "pipeline 2 · 1f1b M4 C2 · numpy"
    folded = {"grid": {"data": 1, "time": 4}, "method": "picard", "fold": 16}
    assert make_case(4, strategy="time", overrides=folded).label == "time 4 · picard 16 · numpy"
    assert make_case(1, overrides={"method": "picard", "fold": 128}).label == "picard 128 · numpy"
    assert make_case(2).memory_known
    assert not make_case(2, memory_bytes=np.zeros(2, dtype=np.int64)).memory_known


def test_an_input_size_that_is_the_default_makes_no_other_problem(tmp_path):
    plain, said, other = (make_case(1, overrides={"hidden": 16, "embed": embed}) for embed in (None, 16, 17))
    assert plain.problem_id == said.problem_id == plain.problem_id_as_asked != other.problem_id
    assert len({plain.id, said.id, other.id}) == 3  # ids that were given once stay
    record = make_record(plain, said)
    write_record(record, tmp_path / "a.h5")
    assert [case.id for case in read_record(tmp_path / "a.h5").cases] == [plain.id, said.id]
    # A file from before names the base by the words the problem was asked in.
    write_record(make_record(said), tmp_path / "old.h5")
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        file.move(f"baseline/{said.problem_id}", f"baseline/{said.problem_id_as_asked}")
        stored = parse_stored_file(file, "old.h5")
        assert said.problem_id_as_asked in stored.runs[0][1].baselines
    assert [v for v in examine(stored).violations if v.check == "bases"] == []
