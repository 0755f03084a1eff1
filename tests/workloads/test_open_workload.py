"""What holds for every workload, and how wrong ones are refused."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload_samples import B, F, H, T, make_spec, make_specs

from hpcrnn.errors import SpecError
from hpcrnn.workloads import open_workload

KINDS = ("stdlib", "file", "series", "adding", "synthetic")


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    return make_specs(tmp_path_factory.mktemp("workloads"))


@pytest.fixture(scope="module")
def workloads(specs):
    return {kind: open_workload(spec) for kind, spec in specs.items()}


def arrays(batch):
    return [array for array in (batch.inputs, batch.targets, batch.weights) if array is not None]


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_types_are_what_the_interface_says(workloads, kind):
    workload = workloads[kind]
    batch, interface = workload.batch(0), workload.interface
    if interface.inputs == "tokens":
        assert batch.inputs.shape == batch.targets.shape == (T, B)
        assert batch.inputs.dtype == batch.targets.dtype == np.int32
        assert batch.inputs.min() >= 0
        assert batch.inputs.max() < interface.input_size
    else:
        assert batch.inputs.shape == (T, B, interface.input_size)
        assert batch.targets.shape == (T, B, interface.output_size)
        assert batch.inputs.dtype == batch.targets.dtype == np.float32
    assert all(array.flags.c_contiguous for array in arrays(batch))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("stdlib", ("tokens", 256, "cross_entropy", 256)),
        ("file", ("tokens", 256, "cross_entropy", 256)),
        ("series", ("features", F, "squared_error", F)),
        ("adding", ("features", 2, "squared_error", 1)),
        ("synthetic", ("features", F, "linear", H)),
    ],
)
def test_interface(workloads, kind, expected):
    interface = workloads[kind].interface
    assert (interface.inputs, interface.input_size, interface.loss, interface.output_size) == expected


@pytest.mark.parametrize("kind", ["series", "adding", "synthetic"])
def test_float64_models_get_float64(specs, kind):
    spec = make_spec(specs[kind].problem.workload, dtype="float64")
    assert {array.dtype for array in arrays(open_workload(spec).batch(0))} == {np.dtype(np.float64)}


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=25)
@given(step=st.integers(0, 10**6), cut=st.slices(B).filter(lambda cut: (cut.step or 1) > 0))
def test_any_rows_are_those_of_the_global_batch(workloads, kind, step, cut):
    whole, part = workloads[kind].batch(step), workloads[kind].batch(step, cut)
    for all_rows, rows in zip(arrays(whole), arrays(part), strict=True):
        np.testing.assert_array_equal(all_rows[:, cut], rows)
        assert rows.flags.c_contiguous


@pytest.mark.parametrize("kind", KINDS)
def test_another_process_sees_the_same(specs, workloads, kind):
    again = open_workload(specs[kind])
    for step in (3, 0, 3):
        for here, there in zip(arrays(workloads[kind].batch(step)), arrays(again.batch(step)), strict=True):
            np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_and_seeds_differ(specs, workloads, kind):
    other_seed = open_workload(make_spec(specs[kind].problem.workload, seed=1))
    batches = [workloads[kind].batch(step).inputs for step in range(3)] + [other_seed.batch(0).inputs]
    different = {array.tobytes() for array in batches}
    assert len(different) == len(batches)


@pytest.mark.parametrize("kind", KINDS)
def test_description_is_plain(specs, workloads, kind):
    facts = workloads[kind].describe()
    assert facts["name"] == workloads[kind].name == specs[kind].problem.workload
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


@pytest.mark.parametrize("name", ["imagenet", "stdlib:", "file", "file:", "series:", "adding:x", "Synthetic", ":"])
def test_unknown_names_are_refused(name):
    with pytest.raises(SpecError) as caught:
        open_workload(make_spec(name))
    assert str(caught.value) == (
        f"problem.workload = '{name}': allowed is stdlib, file:PATH, series:PATH, adding or synthetic"
    )


@pytest.mark.parametrize("kind", ["stdlib", "adding"])
def test_features_belong_to_synthetic(kind):
    with pytest.raises(SpecError, match=r"problem\.features = 4: allowed is left out with workload"):
        open_workload(make_spec(kind, features=4))


def test_importing_workloads_loads_no_h5py():
    code = "import sys, hpcrnn.workloads; sys.exit(bool({'h5py', 'mpi4py', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
