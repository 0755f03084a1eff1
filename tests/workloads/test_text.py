"""Text: which bytes it is, and what a model is asked."""

import hashlib
import os
import platform
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from workload_samples import B, T, make_spec

from hpcrnn.errors import FileError, SpecError
from hpcrnn.workloads import open_workload
from hpcrnn.workloads.text import open_stdlib


def refusal(spec):
    with pytest.raises(SpecError) as caught:
        open_workload(spec)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"problem.workload = '{spec.problem.workload}': allowed is ")
    return message


def test_targets_are_the_next_bytes(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(bytes(range(256)))
    batch = open_workload(make_spec(f"file:{path}")).batch(0)
    np.testing.assert_array_equal(batch.targets, batch.inputs + 1)
    np.testing.assert_array_equal(batch.inputs[1:], batch.targets[:-1])
    assert batch.weights is None


def test_a_directory_is_its_files_in_order(tmp_path):
    for name, content in {"b.txt": b"bb", "a/z.txt": b"zzz", "a/c.txt": b"c" * 9, "a.txt": b"aaaa"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    workload = open_workload(make_spec(f"file:{tmp_path}"))
    # By relative POSIX path: "a.txt" < "a/c.txt" < "a/z.txt" < "b.txt", as "." < "/".
    assert workload.corpus.tobytes() == b"aaaa" + b"c" * 9 + b"zzz" + b"bb"
    assert workload.describe()["n_files"] == 4


def test_description(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"x" * 100)
    assert open_workload(make_spec(f"file:{path}")).describe() == {
        "name": f"file:{path}",
        "n_files": 1,
        "n_bytes": 100,
        "sha256": hashlib.sha256(b"x" * 100).hexdigest(),
        "python": platform.python_version(),
    }


def test_exactly_long_enough(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(bytes(range(T + 1)))
    batch = open_workload(make_spec(f"file:{path}")).batch(9)
    np.testing.assert_array_equal(batch.inputs, np.tile(np.arange(T), (B, 1)).T)


@pytest.mark.parametrize("size", [0, 1, T])
def test_too_short(tmp_path, size):
    path = tmp_path / "text"
    path.write_bytes(b"x" * size)
    message = refusal(make_spec(f"file:{path}"))
    assert message.endswith(f"a text of at least seq + 1 = {T + 1} bytes; this has {size}")


def test_missing(tmp_path):
    assert "(No such file or directory)" in refusal(make_spec(f"file:{tmp_path / 'none'}"))


def test_a_directory_with_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    assert refusal(make_spec(f"file:{tmp_path}")).endswith("a directory that holds files")


def test_a_device_has_no_end():
    assert "a device or a pipe" in refusal(make_spec("file:/dev/zero"))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "a device or a pipe" in refusal(make_spec(f"file:{tmp_path / 'pipe'}"))


def test_a_name_too_long():
    with pytest.raises(SpecError, match="File name too long") as caught:
        open_workload(make_spec("file:" + "x" * 5000))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["file:a\0b", "file:~nobody-of-this-name/x", "file:two\nlines"])
def test_odd_names_make_one_line(name):
    with pytest.raises(SpecError) as caught:
        open_workload(make_spec(name))
    assert str(caught.value).isprintable()


def test_unreadable(tmp_path, monkeypatch):
    path = tmp_path / "text"
    path.write_bytes(b"x" * 100)

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)  # chmod stops no root
    assert refusal(make_spec(f"file:{path}")).endswith("that can be read (Permission denied)")


def test_stdlib_is_the_sources_of_this_python():
    workload = open_workload(make_spec("stdlib"))
    facts = workload.describe()
    assert facts["n_bytes"] > 5_000_000
    assert facts["python"] == platform.python_version()
    first = min(path.name for path in Path(sysconfig.get_path("stdlib")).glob("*.py"))
    source = (Path(sysconfig.get_path("stdlib")) / first).read_bytes()
    assert workload.corpus[: len(source)].tobytes() == source


def test_stdlib_leaves_out_what_differs_between_installations(tmp_path):
    kept = {"os.py": b"import os\n" * 9, "json/tool.py": b"tool\n"}
    left_out = (
        "site-packages/a.py",
        "dist-packages/a.py",
        "test/a.py",
        "json/tests/a.py",
        "idlelib/idle_test/a.py",
    )
    for name, content in {
        **kept,
        **dict.fromkeys(left_out, b"no"),
        "os.pyc": b"no",
        "LICENSE": b"no",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    workload = open_stdlib(make_spec("stdlib"), tmp_path)
    assert workload.corpus.tobytes() == kept["json/tool.py"] + kept["os.py"]


@pytest.mark.parametrize("root", ["empty", "missing"])
def test_stdlib_without_sources_names_the_fix(tmp_path, root):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match=r"use --workload file:PATH") as caught:
        open_stdlib(make_spec("stdlib"), tmp_path / root)
    assert str(caught.value).startswith(str(tmp_path / root))


def test_a_sequence_longer_than_the_stdlib():
    assert "a text of at least seq + 1 = 2000000001 bytes" in refusal(make_spec("stdlib", seq=2_000_000_000))
