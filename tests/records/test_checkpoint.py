"""A checkpoint comes back exactly, is replaced in one step, and is refused where it is not whole."""

import numpy as np
import pytest
from sound_samples import make_learning, sound_record

from hpcrnn.errors import FileError
from hpcrnn.records import whole_file
from hpcrnn.records.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from hpcrnn.records.hdf5 import read_record, write_record


def make_checkpoint(n_ranks=2, seed=0):
    random = np.random.default_rng(seed)
    ranks = tuple(
        {
            "engine.parameters": random.standard_normal(50).astype(np.float32),
            "engine.optimizer.steps": np.array(7 + rank),
            "engine.carried.0.layer0.h": random.standard_normal((3, 4)),
        }
        for rank in range(n_ranks)
    )
    samples = {"time_s": random.random((5, n_ranks, 3)), "n_steps": np.full(5, 20), "loss": np.array([1.0, np.nan])}
    identity = {"model.hidden": 16, "parallel.grid": {"data": 2}, "measure.x": None}
    return Checkpoint(identity, 1, make_learning(), samples, ranks)


def assert_same(a, b):
    assert (a.identity, a.seed_index, len(a.ranks)) == (b.identity, b.seed_index, len(b.ranks))
    for one, other in zip((a.samples, *a.ranks), (b.samples, *b.ranks), strict=True):
        assert one.keys() == other.keys()
        for name, array in one.items():
            assert array.dtype == other[name].dtype
            np.testing.assert_array_equal(array, other[name])
    assert [c.seed for c in a.learning.curves] == [c.seed for c in b.learning.curves]


@pytest.mark.parametrize("n_ranks", [0, 1, 3])
def test_it_comes_back_exactly(tmp_path, n_ranks):
    checkpoint = make_checkpoint(n_ranks)
    write_checkpoint(checkpoint, tmp_path / "deep" / "c.h5")
    assert_same(read_checkpoint(tmp_path / "deep" / "c.h5"), checkpoint)


def test_the_one_before_is_as_it_was_where_the_next_cannot_be_written(tmp_path, monkeypatch):
    path, first = tmp_path / "c.h5", make_checkpoint()
    write_checkpoint(first, path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(whole_file.os, "fsync", full)
    with pytest.raises(FileError, match="No space left on device; the checkpoint before is as it was"):
        write_checkpoint(make_checkpoint(seed=1), path)
    assert_same(read_checkpoint(path), first)
    assert [found.name for found in tmp_path.iterdir()] == ["c.h5"]


def test_a_damaged_one_is_refused_at_every_byte(tmp_path):
    path = tmp_path / "c.h5"
    write_checkpoint(make_checkpoint(), path)
    content = path.read_bytes()
    for cut in (0, 1, 100, 511, 600, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(FileError):
            read_checkpoint(path)
    for at in range(513, len(content), max(1, len(content) // 40)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        with pytest.raises(FileError, match="checksum"):
            read_checkpoint(path)


def test_neither_is_taken_for_the_other(tmp_path):
    write_checkpoint(make_checkpoint(), tmp_path / "c.h5")
    write_record(sound_record(), tmp_path / "r.h5")
    with pytest.raises(FileError, match="no attribute schema_name = hpcrnn-record"):
        read_record(tmp_path / "c.h5")
    with pytest.raises(FileError, match="cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "r.h5")
    with pytest.raises(FileError, match="is not there"):
        read_checkpoint(tmp_path / "none.h5")
