from __future__ import annotations

import pytest
from factory import make_case, make_record

from hpcrnn.reporting.tables.peers import geometric_means, peer_markdown, peer_table

STEPS = [4.0, 4.1, 4.2, 4.3, 4.5, 4.6, 4.7, 4.8]


def pair(ours, theirs, batch=64, n_ranks=1, **changes):
    """A numpy and a torch case, their times STEPS times a factor."""
    return [
        make_case(n_ranks, batch, samples=[s * factor for s in STEPS], backend=backend, **changes)
        for factor, backend in ((ours, "numpy"), (theirs, "torch"))
    ]


def test_ours_over_theirs_by_hand():
    (row,) = peer_table([make_record(pair(1.0, 1.5))])
    assert row.ratio.median == pytest.approx(1.5)
    assert row.ratio.low == pytest.approx(6.0 / 4.8)
    assert row.ratio.high == pytest.approx(7.2 / 4.0)
    assert row.finding == "faster"
    assert row.way == "serial, 1 rank"


@pytest.mark.parametrize(("theirs", "finding"), [(1.05, "undecided"), (0.5, "slower"), (2.0, "faster")])
def test_findings(theirs, finding):
    (row,) = peer_table([make_record(pair(1.0, theirs))])
    assert row.finding == finding


def test_only_the_same_file_problem_and_way_are_paired():
    ours, theirs = pair(1.0, 1.5)
    assert peer_table([make_record([ours]), make_record([theirs], seed=1)]) == []
    assert peer_table([make_record([ours, pair(1.0, 1.5, batch=32)[1]])]) == []
    assert peer_table([make_record([ours, pair(1.0, 1.5, threads=2)[1]])]) == []
    assert peer_table([make_record([ours, pair(1.0, 1.5, n_ranks=2)[1]])]) == []
    assert peer_table([make_record([ours, pair(1.0, 1.5, valid=False)[1]])]) == []


def test_the_geometric_mean_weighs_every_problem_once():
    records = [
        make_record([*pair(1.0, 2.0), *pair(1.0, 8.0, batch=32), *pair(1.0, 3.0, n_ranks=2)]),
        make_record(pair(1.0, 2.0), seed=1),
    ]
    means = geometric_means(peer_table(records))
    # One problem on two ranks is nothing to summarise.
    assert means == [("serial, 1 rank · MKL packed sgemm", 2, pytest.approx(4.0))]


def test_markdown():
    text = peer_markdown(peer_table([make_record([*pair(1.0, 2.0), *pair(1.0, 8.0, batch=32)])]))
    lines = text.splitlines()
    assert lines[0].startswith("| Problem | Run as |")
    assert len({line.count("|") for line in lines[:4]}) == 1
    assert "| 2.00× | 1.67–2.40× | faster |" in lines[2]
    assert "Geometric mean over 2 problems (serial, 1 rank · MKL packed sgemm): 4.00×." in lines[-1]
    assert peer_markdown([]) == ""


def test_too_few_samples_decide_nothing():
    cases = [make_case(1, samples=[f * s for s in STEPS[:5]], backend=b) for f, b in ((1, "numpy"), (9, "torch"))]
    (row,) = peer_table([make_record(cases)])
    assert row.finding == "undecided"
    assert "n too small" in peer_markdown([row])
