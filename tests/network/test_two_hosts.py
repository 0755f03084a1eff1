"""Ranks on two hosts: addresses of their own, a link between them that costs what it is made to cost."""

import json
import sys

import pytest
from launching import hpcrnn, start
from two_hosts import TwoHosts, why_not

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.network,
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "two hosts can be made"),
]

RUN = (
    "--hidden", 64, "--layers", 2, "--batch", 16, "--seq", 8, "--warmup", 1, "--min-repeats", 7, "--max-repeats", 7,
    "--max-time", 40, "--no-ceilings",
)  # fmt: skip
PARAMETERS = 4 * 64 * 128 * 2
"""Of the recurrent layers alone: what crosses the link at the least, in numbers of four bytes."""


@pytest.mark.timeout(120)
def test_a_slow_link_is_seen_in_the_step_and_in_its_communication(tmp_path):
    steps, waits = {}, {}
    for name, bandwidth in (("fast", None), ("slow", 50e6)):
        with TwoHosts(tmp_path, bandwidth_bit_per_s=bandwidth) as hosts:
            measured = measure(hosts, tmp_path, name, "--grid", "data=2")
        steps[name] = measured["step_s"]["median"]
        waits[name] = measured["mean_rank_s"]["allreduce"]["median"]
    # A ring of two sends everything once: 50 Mbit/s take so long at the least, whatever else the machine does.
    least_s = PARAMETERS * 4 * 8 / 50e6
    assert steps["slow"] >= least_s
    assert waits["slow"] > waits["fast"]


@pytest.mark.timeout(120)
def test_a_long_link_delays_every_message(tmp_path):
    latency_s = 0.02
    with TwoHosts(tmp_path, latency_s=latency_s) as hosts:
        measured = measure(hosts, tmp_path, "far", "--grid", "pipeline=2", "--microbatches", 2, "--order", "1f1b")
    # Down with the first micro-batch and back with its gradient: no schedule hides both.
    assert measured["step_s"]["median"] >= 2 * latency_s


def measure(hosts, folder, name, *flags):
    """Run on both hosts; return what the case on two ranks measured."""
    command = [word.replace("{ranks}", "2") for word in hosts.launcher()]
    out = folder / f"{name}.h5"
    words = [*command, sys.executable, "-m", "hpcrnn", "run", *map(str, (*RUN, *flags, "--out", out))]
    ended = start(words, cwd=folder, timeout=100)
    assert ended.code == 0, ended.err
    exported = json.loads(hpcrnn("export", out, "--to", "json", cwd=folder).out)
    (case,) = [case for case in exported["cases"] if case["n_ranks"] == 2]
    assert case["verdict"]["status"] == "VALID"
    return case
