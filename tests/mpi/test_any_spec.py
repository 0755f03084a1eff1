"""Whatever a specification says, ranks end together: with a valid record, or with one line."""

import pytest
from launching import case_script, mpirun

pytestmark = pytest.mark.mpi

# Every rank draws the same specifications: hypothesis is derandomised, and nothing drawn depends on the rank.
PROGRAM = """
import sys
from typing import get_args
from hypothesis import given, settings, strategies as st
from hpcrnn.benchmarks.run import run
from hpcrnn.errors import HpcrnnError
from hpcrnn.execution.world import World
from hpcrnn.data_methods import EXACT
from hpcrnn.spec import DataMethodName, build_spec

world = World.start()
# Drawn so that about half of the specifications are right.
sizes = st.sampled_from([*range(2, 10)] * 4 + [-1, 0, 1])
drawn = st.fixed_dictionaries(
    {
        "hidden": sizes, "batch": sizes, "seq": sizes,
        "layers": st.sampled_from([1, 2, 3, 1, 2, 3, 1, 2, 0]),
        "cell": st.sampled_from(["elman", "lstm", "gru"]),
        "input": st.sampled_from(["auto"] * 8 + ["embedding", "linear", "direct"]),
        "activation": st.sampled_from(["tanh", "relu"]),
        "reset": st.sampled_from(["after", "before"]),
        "dtype": st.sampled_from(["float32", "float64"]),
        "workload": st.sampled_from(["stdlib", "adding", "synthetic"] * 4 + ["file:gone", "series:gone.npy"]),
        "mode": st.sampled_from(["train", "gradient", "forward"]),
        "optimizer": st.sampled_from(["sgd", "adam"]),
        "chunks": st.integers(1, 3), "microbatches": st.sampled_from([1, 1, 1, 2, 3]),
        "data_method": st.sampled_from(["allreduce_bucketed", "allreduce_flat"] * 6 + list(get_args(DataMethodName))),
    },
    optional={
        "embed": sizes, "clip": st.sampled_from([1e-3, 1.0]), "forget_bias": st.floats(-2, 3),
        "grid": st.sampled_from(["data=2", "pipeline=2", "time=2", "tensor=2"] * 2 + ["data=1", "data=3"]),
        "order": st.sampled_from(["fill_drain", "1f1b", "seq_1f1b", "zb_h1", "interleaved"]),
        "virtual_stages": st.sampled_from([1, 1, 2]), "carry": st.booleans(),
        "sync_every": st.sampled_from([8, 8, 1, 2]), "node_size": st.sampled_from([None, None, 1, 3]),
        "balance": st.sampled_from(["even", "weights:2,1", "weights:1,5", "weights:1,1,1"]),
        "handicap": st.sampled_from(["1:0.5", "0:0.9@1", "2:0.5"]),
        "expect_ranks": st.sampled_from([2, 2, 2, 2, 3]),
    },
)
codecs = [{"grad_codec": codec, "grid": "data=2"} for codec in ("int8", "topk:.1", "powersgd:1")]
ragged = [
    {"workload": "stdlib", "grid": "data=2", "carry": False, **more}
    for more in (
        {"sequences": "lines", "batching": "packed"},
        {"sequences": "lines", "spread": "skewed:0.5"},
        {"sequences": "files", "batching": "sorted"},
    )
]
extra = st.sampled_from([{}, {}, {}, {"features": 5}, *codecs, *ragged])
counts = {"valid": 0, "refused": 0}

@settings(derandomize=True, deadline=None, max_examples=40, database=None)
@given(drawn, extra)
def any_spec(overrides, more):
    fixed = {"warmup": 0, "min_repeats": 1, "max_repeats": 1, "ceilings": False}
    fixed |= {"out": "any.h5", "overwrite": True}
    try:
        record = run(build_spec({}, {**overrides, **more, **fixed}), world, [])
    except HpcrnnError as error:
        assert len(str(error).splitlines()) == 1, str(error)
        counts["refused"] += 1
        return
    if record is not None:
        for case in record.cases:
            exact = case.split.data_method in ("", *EXACT) and case.grad_codec == "none"
            expected = "VALID" if exact else "APPROXIMATE"
            assert case.verdict.status == expected, (overrides, case.verdict.worst)
    counts["valid"] += 1

try:
    any_spec()
except BaseException:
    import traceback
    traceback.print_exc()
    world.comm.Abort(1)
if world.is_root:
    print(counts["valid"], "valid,", counts["refused"], "refused")
"""


def test_any_specification_ends_with_a_valid_record_or_one_line(tmp_path):
    ended = mpirun(2, case_script(tmp_path, PROGRAM), cwd=tmp_path, timeout=100)
    assert ended.code == 0, ended.err[-3000:]
    valid, refused = (int(word) for word in ended.out.split() if word.isdigit())
    # Both kinds must really occur, or the test says nothing.
    assert valid >= 10
    assert refused >= 10
