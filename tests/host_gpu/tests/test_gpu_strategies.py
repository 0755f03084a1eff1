"""Every strategy the GPU has: verified as a run verifies it, by ranks that share one GPU.

Executed by the stand-in for CuPy, or by a GPU where there is one.
"""

import json

import pytest
from launching import case_script, mpirun

pytestmark = pytest.mark.mpi

# 3 ranks divide neither rows nor steps; 24 units are what persistent kernels can take.
SIZES = {"hidden": 24, "embed": 8, "layers": 4, "batch": 7, "seq": 11, "backend": "cupy", "allow_shared_gpu": True}

PROGRAM = """
import json, sys
import msgspec
from hpcrnn.benchmarks.verification import verify
from hpcrnn.benchmarks.ways import Way
from hpcrnn.execution.world import World, fail
from hpcrnn.grid import resolve_grid
from hpcrnn.spec import build_spec
from hpcrnn.workloads import open_workload

def way_of(overrides, size):
    spec = build_spec({}, overrides)
    parallel = msgspec.structs.replace(spec.parallel, grid=resolve_grid(spec, size))
    return Way("cupy", msgspec.structs.replace(spec, parallel=parallel))

def check(overrides):
    ways = [way_of({**overrides, **parallel}, world.size) for parallel in overrides.pop("parallels")]
    found = verify(ways, open_workload(ways[0].spec), world)
    return [(str(way.spec.parallel), found[way].status, str(found[way].worst)) for way in ways]

world = World.start()
try:
    found = [(case, check(dict(case))) for case in json.loads(sys.argv[1])]
except BaseException as error:
    fail(world, error)
if world.is_root:
    print("found " + json.dumps(found))
"""


def verdicts(n_ranks, cases, tmp_path):
    cases = [{**SIZES, **case} for case in cases]
    ended = mpirun(n_ranks, case_script(tmp_path, PROGRAM), json.dumps(cases), cwd=tmp_path, timeout=150)
    assert ended.code == 0, ended.err[-3000:]
    (line,) = (text for text in ended.out.splitlines() if text.startswith("found "))
    return [(problem, *verdict) for problem, found in json.loads(line.removeprefix("found ")) for verdict in found]


def every_order(grid):
    names = ["fill_drain", "1f1b", "seq_1f1b", "zb_h1"]
    return [{"grid": grid, "order": name, "microbatches": 2, "chunks": 2} for name in names]


TWO = [
    {"grid": "data=2"},
    {"grid": "tensor=2", "microbatches": 2, "chunks": 2},
    *every_order("pipeline=2"),
    *every_order("time=2"),
    {"grid": "pipeline=2", "order": "interleaved", "virtual_stages": 2, "microbatches": 2},
]


@pytest.mark.parametrize("cell", ["lstm", "gru", "elman"])
def test_two_ranks(cell, tmp_path):
    parallels = [{"microbatches": 1, "chunks": 1, **parallel} for parallel in TWO]
    found = verdicts(2, [{"cell": cell, "kernel": "stepwise", "parallels": parallels}], tmp_path)
    assert not [verdict for verdict in found if verdict[2] != "VALID"]


def test_persistent_kernels_in_a_pipeline_of_two_byte_numbers(tmp_path):
    parallels = [{"grid": "pipeline=2", "order": "1f1b", "microbatches": 2}, {"grid": "time=2", "microbatches": 1}]
    cases = [{"cell": "lstm", "precision": precision, "parallels": parallels} for precision in ("bfloat16", "float16")]
    found = verdicts(2, cases, tmp_path)
    assert not [verdict for verdict in found if verdict[2] != "VALID"]


def test_units_of_one_slot_may_have_other_shapes_of_the_same_size(tmp_path):
    given = {"workload": "synthetic", "seq": 7, "batch": 5, "hidden": 16, "layers": 2, "cell": "elman"}
    parallels = [{"grid": "pipeline=2", "microbatches": 2, "chunks": 3, "order": way} for way in ("fill_drain", "1f1b")]
    assert not [v for v in verdicts(2, [{**given, "parallels": parallels}], tmp_path) if v[2] != "VALID"]


def test_a_reset_before_the_product(tmp_path):
    parallels = [{"grid": "data=2"}, *every_order("pipeline=2"), *every_order("time=2")]
    parallels = [{"microbatches": 1, "chunks": 1, **parallel} for parallel in parallels]
    given = {"cell": "gru", "reset": "before", "parallels": parallels}
    found = verdicts(2, [given, {**given, "precision": "bfloat16"}], tmp_path)
    assert not [verdict for verdict in found if verdict[2] != "VALID"]


def test_three_ranks_and_two_axes(tmp_path):
    cases = [{"cell": "lstm", "kernel": "stepwise", "parallels": [*every_order("time=3"), *every_order("pipeline=3")]}]
    cases.append({"cell": "lstm", "hidden": 13, "precision": "float16", "parallels": [{"grid": "tensor=3"}]})
    assert not [verdict for verdict in verdicts(3, cases, tmp_path) if verdict[2] != "VALID"]
    crossed = [{"grid": "pipeline=2,time=2", "microbatches": 2}, {"grid": "data=2,time=2", "chunks": 2}]
    crossed += [{"grid": f"tensor=2,{axis}=2", "microbatches": 2} for axis in ("data", "pipeline", "time")]
    cases = [{"cell": "gru", "kernel": "stepwise", "parallels": crossed}]
    assert not [verdict for verdict in verdicts(4, cases, tmp_path) if verdict[2] != "VALID"]


def test_gradients_given_beforehand(tmp_path):
    """They are there for all micro-batches before a step begins, in any order."""
    given = {"cell": "lstm", "workload": "synthetic", "kernel": "stepwise", "mode": "gradient", "batch": 8}
    ways = [{"order": "1f1b", "microbatches": 4, "chunks": 1}, {"order": "seq_1f1b", "microbatches": 4, "chunks": 2}]
    cases = [{**given, "parallels": [{"grid": f"{axis}=2", **way} for axis in ("pipeline", "time") for way in ways]}]
    solved = {"grid": "time=2", "method": "picard", "fold": 2, "tolerance": 1e-6, "microbatches": 4, "order": "1f1b"}
    cases.append({**given, "input": "direct", "layers": 1, "parallels": [solved]})
    assert not [verdict for verdict in verdicts(2, cases, tmp_path) if verdict[2] != "VALID"]


def test_segments_at_once_over_two_ranks(tmp_path):
    way = {"grid": "time=2", "method": "picard", "fold": 2, "tolerance": 1e-6}
    found = verdicts(2, [{"cell": "lstm", "kernel": "stepwise", "parallels": [way]}], tmp_path)
    assert not [verdict for verdict in found if verdict[2] != "VALID"]


def test_arrays_that_mpi_takes_as_they_are(tmp_path):
    """A CUDA-aware MPI is given the arrays themselves; any MPI is one where the device's memory is the host's."""
    parallels = [{"grid": "data=2"}, {"grid": "pipeline=2", "microbatches": 2}, {"grid": "time=2", "chunks": 2}]
    parallels = [{"microbatches": 1, "chunks": 1, **parallel} for parallel in parallels]
    cases = [
        {"cell": "lstm", "precision": p, "transport": "direct", "parallels": parallels} for p in ("float32", "float16")
    ]
    assert not [verdict for verdict in verdicts(2, cases, tmp_path) if verdict[2] != "VALID"]


def test_gradients_are_summed_by_nccl(tmp_path, monkeypatch):
    monkeypatch.setenv("HPCRNN_HOST_GPU_COUNT", "2")
    parallels = [{"grid": "data=2", "data_method": f"allreduce_{way}"} for way in ("bucketed", "flat")] + [
        {"grid": "time=2"}
    ]
    case = {"cell": "lstm", "gradient_sum": "nccl", "allow_shared_gpu": False, "parallels": parallels}
    assert not [verdict for verdict in verdicts(2, [case], tmp_path) if verdict[2] != "VALID"]


def test_two_ranks_of_one_gpu_are_refused_by_nccl(tmp_path):
    cases = [{**SIZES, "cell": "lstm", "gradient_sum": "nccl", "parallels": [{"grid": "data=2"}]}]
    ended = mpirun(2, case_script(tmp_path, PROGRAM), json.dumps(cases), cwd=tmp_path, timeout=60)
    assert ended.code == 4
    assert "machine.gradient_sum = nccl: " in ended.err
    assert ended.err.count("\n") == 1
