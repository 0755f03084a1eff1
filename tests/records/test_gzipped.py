"""Packed result files: read wherever others are, bounded, and refused where they are damaged."""

import gzip

import pytest
from record_samples import assert_same, make_case, make_record
from sound_samples import sound_record

from hpcrnn.cli import main
from hpcrnn.errors import FileError
from hpcrnn.records import gzipped
from hpcrnn.records.hdf5 import encode_record, read_file, read_record
from hpcrnn.records.layers import read_layer_record


@pytest.fixture
def record():
    return make_record(make_case(1), make_case(2))


@pytest.mark.parametrize("name", ["r.h5.gz", "r.h5", "r"])
def test_it_is_the_record_that_was_packed_under_any_name(tmp_path, record, name):
    (tmp_path / name).write_bytes(gzip.compress(encode_record(record)))
    assert_same(read_record(tmp_path / name), record)


def test_every_command_takes_it(tmp_path, capsys):
    path = tmp_path / "r.h5.gz"
    path.write_bytes(gzip.compress(encode_record(sound_record())))
    assert main(["show", str(path)]) == 0
    assert main(["verify", str(path)]) == 0
    assert "r.h5.gz" in capsys.readouterr().out


def test_a_merge_is_packed_where_its_name_says_so_and_is_the_same_bytes_as_unpacked(tmp_path, record, capsys):
    source = tmp_path / "r.h5"
    source.write_bytes(encode_record(record))
    assert main(["merge", str(source), "-o", str(tmp_path / "m.h5.gz")]) == 0
    assert (tmp_path / "m.h5.gz").stat().st_size < source.stat().st_size
    assert_same(*read_file(tmp_path / "m.h5.gz"), record)
    assert main(["merge", str(source), "-o", str(tmp_path / "m.h5.gz")]) == 1  # never replaced unasked
    assert "m.h5.gz" in capsys.readouterr().err


def test_damage_is_told_at_every_byte(tmp_path, record):
    content, path = gzip.compress(encode_record(record), mtime=0), tmp_path / "r.h5.gz"
    # Time and system in the head of gzip, bytes 4 to 9, have no checksum.
    for place in [2, 3, *range(10, len(content), 997), *range(len(content) - 8, len(content))]:
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(FileError, match=r"^[^\n]*$"):
            read_record(path)


@pytest.mark.parametrize("n_bytes", [2, 10, 500, -1])
def test_one_that_was_cut_is_refused(tmp_path, record, n_bytes):
    path = tmp_path / "r.h5.gz"
    path.write_bytes(gzip.compress(encode_record(record))[:n_bytes])
    with pytest.raises(FileError, match="is damaged"):
        read_record(path)


def test_no_small_file_asks_for_much_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(gzipped, "MOST_BYTES", 2**20)
    path = tmp_path / "bomb.h5"
    path.write_bytes(gzip.compress(bytes(2**20 + 1)))
    for read in (read_record, read_layer_record):
        with pytest.raises(FileError, match="holds more than 1 MiB, packed: gunzip it first"):
            read(path)


def test_what_is_packed_in_it_must_be_a_record(tmp_path):
    path = tmp_path / "r.h5.gz"
    path.write_bytes(gzip.compress(b"text"))
    with pytest.raises(FileError, match="is not an hpcrnn record"):
        read_record(path)
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(FileError, match="is empty"):
        read_record(path)
