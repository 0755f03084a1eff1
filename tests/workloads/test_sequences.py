"""Sequences of unequal length: nothing is dropped, nothing doubled, and every rank sees the same."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload_samples import make_spec

from hpcrnn.errors import SpecError
from hpcrnn.workloads import open_workload
from hpcrnn.workloads.batching import POOL, scattered, shards_by_length
from hpcrnn.workloads.packing import one_by_one, pack, pack_counts
from hpcrnn.workloads.sequences import cut

B, T = 6, 11
BATCHINGS = ("naive", "sorted", "packed")
every_batching = pytest.mark.parametrize("batching", BATCHINGS)
every_spread = pytest.mark.parametrize("spread", ["even", "skewed:0", "skewed:0.5", "skewed:1"])


def corpus_of(folder):
    """Three files, of lines shorter and longer than T; one without a last line break, one empty."""
    rng = np.random.default_rng(0)
    letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", np.uint8)
    lines = [rng.choice(letters, size).tobytes() + b"\n" for size in rng.geometric(0.12, 150)]
    for name, part in (("a", lines[:70]), ("b", []), ("c", lines[70:149]), ("d", [b"no line break here"])):
        (folder / name).write_bytes(b"".join(part))
    return b"".join([*lines[:149], b"no line break here"])


def make(folder, **overrides):
    return open_workload(make_spec(f"file:{folder}", **{"batch": B, "seq": T, "sequences": "lines", **overrides}))


def texts(batch):
    """What the rows of a batch hold, sequence by sequence."""
    for row in range(batch.targets.shape[1]):
        length = int(batch.lengths[row])
        bounds = [*np.flatnonzero(batch.starts[:, row]).tolist(), length]
        for first, last in pairwise(bounds):
            yield batch.targets[first:last, row].astype(np.uint8).tobytes()


def expected_texts(content):
    for line in content.splitlines(keepends=True):
        yield from (line[k : k + T] for k in range(0, len(line), T))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(1, 12), max_size=60), st.integers(12, 15))
def test_packing_is_best_fit_decreasing(lengths, room):
    lengths = np.array(lengths, dtype=np.int64)
    units = pack(np.arange(len(lengths)), lengths, room)
    assert sorted(units.members.tolist()) == list(range(len(lengths)))  # every sequence once
    held = [int(lengths[units.of(k)].sum()) for k in range(len(units))]
    assert held == units.tokens.tolist()
    rows = []
    for length in sorted(lengths.tolist(), reverse=True):
        with_room = [row for row in rows if room - sum(row) >= length]
        if with_room:
            min(with_room, key=lambda row: room - sum(row)).append(length)
        else:
            rows.append([length])
    assert sorted(held) == sorted(map(sum, rows))


def test_packing_takes_no_longer_for_more_sequences():
    few = pack_counts([0, 3, 5, 2, 0, 0, 0, 0], 7)
    many = pack_counts([0, 3 * 10**9, 5 * 10**9, 2 * 10**9, 0, 0, 0, 0], 7)
    assert len(many) <= len(few) + 3
    assert sum(n * len(pattern) for n, pattern in many) == 10**10


@pytest.mark.parametrize("by", ["lines", "files"])
def test_a_text_is_cut_without_a_rest(tmp_path, by):
    corpus = np.frombuffer(corpus_of(tmp_path), np.uint8)
    ends = np.cumsum([(tmp_path / name).stat().st_size for name in "abcd"])
    found = cut(corpus, ends, by, T)
    assert found.starts[0] == 0
    np.testing.assert_array_equal(found.starts[1:], (found.starts + found.lengths)[:-1])
    assert found.starts[-1] + found.lengths[-1] == corpus.size
    assert found.lengths.min() >= 1
    assert found.lengths.max() == T
    whole = [corpus[s : s + n].tobytes() for s, n in zip(found.starts, found.lengths, strict=True)]
    if by == "lines":
        assert whole == list(expected_texts(corpus.tobytes()))
    else:
        files = [(tmp_path / name).read_bytes() for name in "abcd"]
        assert whole == [text[k : k + T] for text in files for k in range(0, len(text), T)]


def test_a_text_that_is_cut_short_has_no_sequence_beyond_it(tmp_path):
    corpus = np.frombuffer(corpus_of(tmp_path), np.uint8)[:100]
    found = cut(corpus, np.array([50, 400, 900]), "files", 64)
    assert (found.starts.tolist(), found.lengths.tolist()) == ([0, 50], [50, 50])


@every_batching
@every_spread
def test_an_epoch_has_every_sequence_once(tmp_path, batching, spread):
    """Of rows that own their sequences each has epochs of its own."""
    content = corpus_of(tmp_path)
    workload = make(tmp_path, batching=batching, spread=spread)
    expected = Counter(expected_texts(content))
    assert sum(expected.values()) == len(workload.sequences)
    n_steps = 16 * POOL
    seen = Counter(text for step in range(n_steps) for text in texts(workload.batch(step)))
    assert seen.keys() == expected.keys()
    if spread == "even":
        units = Counter(int(u) for step in range(n_steps) for u in workload.draws.units(step))
        epochs = n_steps * B / len(workload.units)
        assert {int(np.floor(epochs)), int(np.ceil(epochs))} >= set(units.values())


@every_batching
@every_spread
def test_rows_can_be_had_without_the_others(tmp_path, batching, spread):
    corpus_of(tmp_path)
    workload, again = (make(tmp_path, batching=batching, spread=spread, seed=5) for _ in range(2))
    for step in (7, 0, 3 * POOL + 1):
        whole = workload.batch(step)
        for rows in (slice(0, 1), slice(2, 5), slice(0, 0)):
            part = again.batch(step, rows)
            for name in ("inputs", "targets", "weights", "starts"):
                np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[:, rows], err_msg=name)
            np.testing.assert_array_equal(part.lengths, whole.lengths[rows])
        np.testing.assert_array_equal(whole.lengths, workload.tokens(step))


@every_batching
def test_what_a_batch_says_of_itself(tmp_path, batching):
    content = corpus_of(tmp_path)
    workload = make(tmp_path, batching=batching, dtype="float64")
    for step in range(5):
        batch = workload.batch(step)
        held = np.arange(T)[:, np.newaxis] < batch.lengths
        assert ((batch.weights > 0) == held).all()
        assert len(set(batch.weights[held])) == 1
        assert batch.weights.sum() == pytest.approx(T * B, rel=1e-12)
        assert batch.starts[0].all()
        assert not (batch.starts & ~held).any()
        assert not batch.inputs[~held].any()
        # Inside a sequence an input is the target before; where one starts it is the byte before it in the text.
        inside = held[1:] & ~batch.starts[1:]
        assert (batch.inputs[1:][inside] == batch.targets[:-1][inside]).all()
        for row in range(B):
            first = next(texts(replace_rows(batch, row)))
            before = bytes([batch.inputs[0, row]]) + first
            assert before in content or before == content[-1:] + content[: len(first)]


def replace_rows(batch, row):
    one = slice(row, row + 1)
    return type(batch)(
        batch.inputs[:, one], batch.targets[:, one], batch.weights[:, one], batch.lengths[one], batch.starts[:, one]
    )


def test_packed_rows_are_nearly_full_and_sorted_ones_nearly_equal(tmp_path):
    corpus_of(tmp_path)
    tokens = {b: np.array([make(tmp_path, batching=b).tokens(s) for s in range(2 * POOL)]) for b in BATCHINGS}
    assert tokens["packed"].mean() > 0.97 * T
    spread = {b: np.ptp(t, axis=1).mean() for b, t in tokens.items()}
    assert spread["sorted"] < spread["naive"] / 3
    # Sorting changes which sequences meet, not which there are.
    np.testing.assert_array_equal(np.sort(tokens["sorted"], axis=None), np.sort(tokens["naive"], axis=None))


def test_a_skew_orders_the_rows_by_length(tmp_path):
    corpus_of(tmp_path)
    lengths = make(tmp_path).sequences.lengths
    means = {
        degree: [float(lengths[shard].mean()) for shard in shards_by_length(lengths, B, degree, seed=1)]
        for degree in (0.0, 0.5, 1.0)
    }
    assert means[1.0] == sorted(means[1.0])
    ranges = [max(m) - min(m) for m in means.values()]
    assert ranges == sorted(ranges)
    for degree in means:
        shards = shards_by_length(lengths, B, degree, seed=1)
        assert sorted(np.concatenate(shards).tolist()) == list(range(len(lengths)))
        assert max(map(len, shards)) - min(map(len, shards)) <= 1


@every_batching
def test_rows_of_a_skewed_batch_keep_what_they_own(tmp_path, batching):
    corpus_of(tmp_path)
    workload = make(tmp_path, batching=batching, spread="skewed:0.7")
    owned = [set() for _ in range(B)]
    for step in range(4 * POOL):
        for row, unit in enumerate(workload.draws.units(step)):
            owned[row] |= set(workload.units.of(unit).tolist())
    assert sum(map(len, owned)) == len(set.union(*owned))


@pytest.mark.parametrize("n", [1, 2, 3, 8, 13, 64])
def test_any_run_of_scattered_numbers_reaches_high(n):
    order = scattered(n)
    assert sorted(order.tolist()) == list(range(n))
    for parts in (2, 4):
        if n % parts == 0:
            highest = [run.max() for run in np.split(order, parts)]
            assert max(highest) - min(highest) < parts


def test_units_of_one_sequence():
    units = one_by_one(np.array([4, 2]), np.array([9, 9, 3, 9, 5]))
    assert [units.of(k).tolist() for k in range(len(units))] == [[4], [2]]
    assert units.tokens.tolist() == [5, 3]


def test_the_histogram_counts_every_sequence(tmp_path):
    corpus_of(tmp_path)
    workload = make(tmp_path)
    histogram = workload.histogram()
    assert histogram.shape == (T,)
    assert histogram.sum() == len(workload.sequences)
    assert (histogram * np.arange(1, T + 1)).sum() == workload.describe()["n_bytes"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"batching": "packed"}, "problem.batching = 'packed': allowed is naive, unless sequences are lines or files"),
        ({"spread": "skewed:1"}, "problem.spread = 'skewed:1': allowed is even, unless sequences are lines or files"),
        ({"sequences": "files", "carry": True}, "training.carry = True: allowed is false, with sequences = files"),
        (
            {"sequences": "lines", "workload": "adding"},
            "problem.sequences = 'lines': allowed is windows, with workload",
        ),
        ({"sequences": "lines", "spread": "skewed:1"}, "problem.spread = 'skewed:1': allowed is even where there are"),
        ({"spread": "skewed:1.1"}, "problem.spread = 'skewed:1.1': allowed is even, or skewed:X with X from 0 to 1"),
        ({"spread": "skewed:\n"}, "problem.spread = 'skewed:\\n': allowed is even, or skewed:X"),
        ({"spread": "even\n"}, "problem.spread = 'even\\n': allowed is even, or skewed:X"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, overrides, message):
    (tmp_path / "text").write_bytes(b"two\nlines of text")
    with pytest.raises(SpecError) as caught:
        open_workload(make_spec(**{"workload": f"file:{tmp_path / 'text'}", **overrides}))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_an_empty_text_is_refused(tmp_path):
    (tmp_path / "text").write_bytes(b"")
    with pytest.raises(SpecError, match="at least one byte"):
        make(tmp_path / "text")


def test_fewer_sequences_than_rows(tmp_path):
    (tmp_path / "text").write_bytes(b"a\nbc\n")
    for batching in BATCHINGS:
        batch = make(tmp_path / "text", batching=batching).batch(0)
        assert set(texts(batch)) <= {b"a\n", b"bc\n"}
