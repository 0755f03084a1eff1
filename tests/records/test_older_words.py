"""What was stored in the words of before is the same case as what is stored in those of today."""

import copy
import io
import json
from dataclasses import replace

import h5py
import pytest
from damage import USER_BLOCK, seal
from record_samples import make_case, make_record

from hpcrnn.errors import FileError
from hpcrnn.records.hdf5 import encode_record, read_record
from hpcrnn.records.older_words import in_first_words, in_todays_words
from hpcrnn.reporting.comparison.matching import facts


def stored_with(path, case, change):
    """Write a case whose stored parallel section was changed."""
    stream = io.BytesIO(bytes(encode_record(make_record(case))))
    with h5py.File(stream, "r+") as file:
        attributes = file["cases"][case.id].attrs
        spec = json.loads(attributes["params_json"])
        change(spec["parallel"])
        attributes["params_json"] = json.dumps(spec)
    path.write_bytes(seal(stream.getvalue()[USER_BLOCK:]))
    return path


@pytest.mark.parametrize("word", ["bucketed", "flat"])
def test_a_stored_allreduce_is_its_data_method_and_keeps_its_id(word, tmp_path):
    def in_older_words(parallel):
        assert parallel.pop("data_method") == f"allreduce_{word}"
        parallel["allreduce"] = word

    case = make_case(overrides={"data_method": f"allreduce_{word}"})
    (read,) = read_record(stored_with(tmp_path / "r.h5", case, in_older_words)).cases
    assert (read.id, read.spec) == (case.id, case.spec)
    assert facts(read) == facts(case)


def test_two_methods_are_two_cases():
    case = make_case()
    other = copy.deepcopy(case.spec)
    other["parallel"]["data_method"] = "allreduce_flat"
    assert replace(case, spec=other).id != case.id


@pytest.mark.parametrize("parallel", [{"allreduce": "ring"}, {"allreduce": 1}, {"allreduce": ["flat"]}])
def test_a_value_it_never_had_is_refused_by_name(parallel):
    with pytest.raises(ValueError, match=r"parallel.allreduce = .*: allowed is bucketed or flat"):
        in_todays_words(parallel)


def test_both_words_at_once_are_refused(tmp_path):
    path = stored_with(tmp_path / "r.h5", make_case(), lambda parallel: parallel.update(allreduce="flat"))
    with pytest.raises(FileError, match=r"parallel.allreduce = 'flat' beside parallel.data_method"):
        read_record(path)


def test_words_of_before_and_of_today_are_one_another():
    for method in ("allreduce_flat", "allreduce_bucketed"):
        parallel = {"chunks": 2, "data_method": method}
        assert in_todays_words(in_first_words(parallel)) == parallel
    assert in_todays_words({"chunks": 2}) == {"chunks": 2}
