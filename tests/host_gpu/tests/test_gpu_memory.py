"""What an engine says it will take of a GPU's memory is what it takes."""

import msgspec
import pytest

from hpcrnn.backends.cupy.engine import CupyEngine
from hpcrnn.backends.cupy.memory import device_bytes
from hpcrnn.benchmarks.planning import make_plan
from hpcrnn.grid import resolve_grid
from hpcrnn.spec import build_spec
from hpcrnn.workloads import open_workload


@pytest.mark.parametrize(
    "given",
    [
        {"cell": "lstm"},
        {"cell": "gru", "precision": "bfloat16", "mode": "forward"},
        {"cell": "elman", "precision": "float16", "microbatches": 4},
        {"cell": "lstm", "method": "picard", "fold": 4},
        {"cell": "gru", "reset": "before"},
        {"cell": "lstm", "grid": "pipeline=2", "order": "1f1b", "microbatches": 8},
        {"cell": "gru", "grid": "tensor=2", "chunks": 2},
        {"cell": "lstm", "workload": "synthetic", "order": "1f1b", "microbatches": 8},
    ],
    ids=str,
)
def test_the_estimate_is_near(given):
    sizes = {"hidden": 96, "layers": 2, "batch": 64, "seq": 256, "kernel": "stepwise", "backend": "cupy"}
    spec = build_spec({}, sizes | given)
    grid = resolve_grid(spec, 2 if "grid" in given else 1)
    spec = msgspec.structs.replace(spec, parallel=msgspec.structs.replace(spec.parallel, grid=grid))
    plan = make_plan(spec, open_workload(spec), grid)
    extent = plan.extent(0)
    itemsize = 2 if "precision" in given else 4
    engine = CupyEngine(plan.network, extent, spec.training, spec.machine, _Shards(grid.tensor))
    transient = device_bytes(plan.network, extent, itemsize) - engine.memory_bytes
    scores = 12 * 256 * 64 * 256  # of the head, in float32 and float64
    assert 0 < transient < (36 << 20) + scores + 0.15 * engine.memory_bytes


class _Shards:
    """An exchange that is only asked for its size."""

    rank = 0

    def __init__(self, size):
        self.size = size
