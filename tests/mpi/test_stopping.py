"""When measuring ends: rank 0 decides by the slowest rank's steps, and all ranks stop after the same round."""

import math

import numpy as np
import pytest
from launching import case_script, mpirun

from hpcrnn.execution.measurement import Samples, _reason_to_stop
from hpcrnn.records.record import PHASES
from hpcrnn.spec import MeasureSpec

LIMITS = MeasureSpec(ci_width=0.05, max_time=60.0, min_repeats=10, max_repeats=1000)

# The clocks of the ranks disagree, and so do their steps: only one of them may decide.
CASE = """
import sys
from types import SimpleNamespace
import numpy as np
from hpcrnn.execution import measurement
from hpcrnn.execution.measurement import Variant, measure
from hpcrnn.execution.world import World
from hpcrnn.records.record import PHASES
from hpcrnn.spec import MeasureSpec

world = World.start()
me, how = world.rank, sys.argv[1]
step = 0


class Executor:
    stamps_ns = np.zeros(1, dtype=np.int64)
    gradient_norm = 1.0
    cpu_s = np.zeros(len(PHASES))
    sent_bytes = 0
    staleness = None
    engine = SimpleNamespace(load_batch=lambda batch: None, device_seconds={}, loss=1.0)

    def run(self):
        global step
        step += 1
        times = np.zeros(len(PHASES))
        # The last rank is the slowest. Where it is not steady, or has not been for long, no interval is narrow.
        steady = how == "steady" or (how == "late" and step > 15) or me != world.size - 1
        times[0] = (1.0 + me) * (1.0 if steady else 1.0 + step % 7)
        return times


if how == "clock":  # only rank 0's clock moves
    now = [0.0]
    real = measurement.time
    def monotonic():
        now[0] += me == 0
        return now[0]
    measurement.time = SimpleNamespace(monotonic=monotonic, perf_counter=real.perf_counter)

limits = MeasureSpec(warmup=1, min_repeats=10, max_repeats=50, max_time=20.0 if how == "clock" else 1e6)
variant = Variant("v", world.size, Executor(), lambda step: None)
keeper = SimpleNamespace(is_due=lambda: False, keep=lambda samples: None)
(samples,) = measure([variant], world, limits, lambda *_: None, keeper)
ends = world.comm.allgather((step, samples.stop_reason))
assert len(set(ends)) == 1, ends
if me == 0:
    assert len(samples.time_s) == step - 1
    print("stopped", *ends[0])
"""


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("how", "steps", "reason"),
    [
        ("steady", 11, "ci_width"),
        ("unsteady", 51, "max_repeats"),
        ("late", None, "ci_width"),
        ("clock", 20, "max_time"),
    ],
)
def test_all_ranks_stop_after_the_same_step_for_the_same_reason(how, steps, reason, tmp_path):
    ended = mpirun(2, case_script(tmp_path, CASE), how, cwd=tmp_path)
    assert ended.code == 0, ended.err
    _, found, why = ended.out.split()
    assert why == reason
    if steps is not None:
        assert int(found) == steps
    else:  # once more of the slowest rank's steps are steady than not, and not before
        assert 31 <= int(found) < 51


def samples_of(*steps_s):
    """Samples of two ranks, of which the second is the slower."""
    found = Samples()
    for step_s in steps_s:
        times = np.zeros((2, len(PHASES)))
        times[:, 0] = 0.5, step_s
        found.time_s.append(times)
    return found


@pytest.mark.parametrize(
    ("steps_s", "elapsed_s", "reason"),
    [
        ([1.0] * 9, 0.0, ""),  # fewer than min_repeats
        ([1.0] * 10, 0.0, "ci_width"),
        ([1.0] * 10, 99.0, "ci_width"),
        ([1.0] * 3, 60.0, "max_time"),
        ([1.0, 2.0] * 10, 59.9, ""),
        ([1.0, 2.0] * 500, 59.9, "max_repeats"),
    ],
)
def test_the_reason_to_stop(steps_s, elapsed_s, reason):
    assert _reason_to_stop([samples_of(*steps_s)], elapsed_s, LIMITS) == reason


def test_every_case_must_be_narrow():
    narrow, wide = samples_of(*[1.0] * 20), samples_of(*[1.0, 2.0] * 10)
    assert _reason_to_stop([narrow, wide], 0.0, LIMITS) == ""
    assert _reason_to_stop([narrow, narrow], 0.0, LIMITS) == "ci_width"


def test_without_an_interval_nothing_is_narrow():
    few = samples_of(*[1.0] * 5)
    assert math.isnan(few.interval().relative_width)
    assert _reason_to_stop([few], 0.0, MeasureSpec(min_repeats=1)) == ""
