"""Sequences of unequal length on real ranks: right, the same whatever their number, and said what they cost."""

import numpy as np
import pytest
from launching import SMALL, hpcrnn_run

from hpcrnn.records.hdf5 import read_record

pytestmark = pytest.mark.mpi

PROBLEM = (*SMALL, "--workload", "file:text", "--sequences", "lines", "--batch", 7, "--seq", 12)


@pytest.fixture(autouse=True)
def _text(tmp_path):
    lengths = np.random.default_rng(0).integers(0, 20, 200)
    (tmp_path / "text").write_bytes(b"\n".join(bytes([97 + k % 26]) * n for k, n in enumerate(lengths.tolist())))


@pytest.mark.parametrize(
    ("batching", "spread", "n_ranks", "more"),
    [
        pytest.param("naive", "even", 3, ("--microbatches", 2, "--chunks", 3), marks=pytest.mark.thorough),
        pytest.param("sorted", "even", 2, ("--cell", "gru", "--reset", "before"), marks=pytest.mark.thorough),
        ("packed", "skewed:1", 3, ("--chunks", 5, "--cell", "mingru", "--data-method", "allreduce_flat")),
    ],
)
def test_every_batching_is_right_on_any_number_of_ranks(batching, spread, n_ranks, more, tmp_path):
    ways = ("--batching", batching, "--spread", spread, *more)
    ended = hpcrnn_run(
        n_ranks, *PROBLEM, *ways, "--dtype", "float64", "--max-repeats", 8, "--min-repeats", 8, cwd=tmp_path
    )
    assert ended.code == 0, ended.err
    serial, data = read_record(tmp_path / "r.h5").cases
    assert (serial.verdict.status, data.verdict.status) == ("VALID", "VALID")
    checked = {check.quantity for check in data.verdict.checks}
    assert checked >= {"loss", "gradient input.E", "gradient layer0.W", "state layer1.h"}
    # The loss is a mean over all tokens, however they are spread over ranks.
    np.testing.assert_allclose(data.loss, serial.loss, rtol=1e-12)
    np.testing.assert_allclose(data.gradient_norm, serial.gradient_norm, rtol=1e-11)
    assert data.work.tokens.shape == (8, n_ranks)
    np.testing.assert_array_equal(data.work.step_tokens, serial.work.step_tokens)
    # Ranks run no more steps than their own rows need.
    assert (data.work.slots.sum(axis=1) <= serial.work.slots[:, 0]).all()
    if batching == "packed":
        assert (data.work.slots.max(axis=1) <= 12 * -(-7 // n_ranks)).all()
        assert data.work.waste < 0.25


def test_what_has_rows_of_one_length_only_is_refused(tmp_path):
    ended = hpcrnn_run(2, *PROBLEM, "--backend", "numpy,torch", cwd=tmp_path)
    assert ended.code == 1
    assert "machine.backend = 'torch': allowed is numpy, with sequences = lines" in ended.err
