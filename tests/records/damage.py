"""Ways to damage a result file: its bytes, and what HDF5 makes of them; and commands run in this process."""

import hashlib
import io
import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import h5py
import numpy as np
from hypothesis import strategies as st
from record_samples import (
    EXCHANGE,
    cpu_facts,
    device_facts,
    make_case,
    make_certificate,
    make_compression,
    make_record,
    make_timeline,
    make_work,
)

from hpcrnn.cli import main
from hpcrnn.records.hdf5 import write_merged, write_record
from hpcrnn.records.layers import read_layer_record, write_layer_record
from hpcrnn.records.study import StudyRecord, StudyTable, write_study_record

STORED = sorted((Path(__file__).parent / "stored").glob("*.h5"))
LAYERS = Path(__file__).parents[2] / "results" / "reference" / "h200" / "layers.h5"
USER_BLOCK = 512


@cache
def good_files():
    """The bytes of a good file of every kind and version, by its name."""
    found = {path.stem: path.read_bytes() for path in STORED}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.h5"
        case = make_case(
            2, 3, 1, timeline=make_timeline(EXCHANGE, 2), bubble_bound=0.25, certificate=make_certificate(4),
            **device_facts(2, 3),
            **cpu_facts(2, 3),
            compression=make_compression(),
            work=make_work(),
        )  # fmt: skip
        write_record(make_record(case, make_case(1)), path)
        found["device"] = path.read_bytes()
        write_merged([make_record(case), make_record(make_case(1))], path, inputs=[], overwrite=True)
        found["merged"] = path.read_bytes()
    return found


@cache
def other_files():
    """The bytes of a good file of the two other schemas."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.h5"
        record = read_layer_record(LAYERS)
        write_layer_record(type(record)(**{**vars(record), "cases": record.cases[:2] + record.cases[-1:]}), path)
        layers = path.read_bytes()
        columns = {"cell": ["gru", "lstm"], "tolerance": [1e-3, 1e-6], "gradient_error": [1e-3, 1e-6]}
        columns |= {"serial_error": [1e-7, 1e-7], "critical_steps": [10, 20]}
        arrays = {name: np.array(values) for name, values in columns.items()}
        table = StudyTable("tolerance", arrays, {"critical_steps": "time steps"}, {"segments": 16})
        write_study_record(StudyRecord("2026-01-01", {"hosts": []}, (table,)), path)
        return {"layers": layers, "study": path.read_bytes()}


def all_files():
    """The bytes of a good file of every schema."""
    return good_files() | other_files()


def seal(body):
    """Give what follows a user block the checksum that belongs to it."""
    head = f"hpcrnn-record\nsha256 {hashlib.sha256(body).hexdigest()}\nbytes {len(body)}\n".encode()
    return head.ljust(USER_BLOCK, b"\0") + body


# --- bytes -----------------------------------------------------------------------------------------------------------


@st.composite
def damaged_bytes(draw, name, *, sealed=False):
    """Flip, cut, zero, append or swap; sealed: with the checksum that belongs to what is left."""
    content = all_files()[name]
    if sealed:
        return seal(_damage(draw, content[USER_BLOCK:]))
    return _damage(draw, content)


def _damage(draw, content):
    n = len(content)
    a, b = sorted((draw(st.integers(0, n - 1)), draw(st.integers(0, n - 1))))
    return draw(
        st.sampled_from(
            [
                content[:a] + bytes([content[a] ^ (1 << draw(st.integers(0, 7)))]) + content[a + 1 :],
                content[:a],
                content[:a] + bytes(b - a) + content[b:],
                content + draw(st.binary(min_size=1, max_size=600)),
                content[:a] + content[b : b + 64] + content[a + 64 : b] + content[a : a + 64] + content[b + 64 :],
                content[:a] + draw(st.binary(min_size=8, max_size=64)) + content[a:],
            ]
        )
    )


# --- structure -------------------------------------------------------------------------------------------------------

NUMBERS = [np.nan, np.inf, -np.inf, -1.0, 0.0, 1e300, -1e300, 1e-300, 2.0**63]
INTEGERS = [-1, 0, 2**31, 2**62, -(2**63), 2**63 - 1]
DEEP = "[" * 5000 + "]" * 5000
TEXTS = [
    "", "a\0b", "\x1b[31mred\x1b[0m\x07", "a\nb\rc", "x" * 200_000, "\u202e\u2028", "\ud800",
    b"\xff\xfe".decode("latin1"), "[red]markup[/red]", "<script>alert(1)</script>",
    "$\\frac{1}$", "{", "[]", "{}", "null", "1", '"text"', "NaN",
    DEEP,
    "[" * 40 + "]" * 40, "9" * 5000, '{"a": 1, "a": 2}', '{"a": NaN, "b": Infinity}', json.dumps({"hosts": [1, None]}),
    "[" + "9" * 30 + "]", "../../etc/passwd", "| a | b |", "=cmd()", "%s%n{0}",
]  # fmt: skip
JSON_VALUES = [
    None, True, False, -1, 0, 2**70, 10**400, 1.5, float("nan"), float("inf"), -1e300, "", "a\x1b[2J\n", "\ud800",
    "x" * 5000, [], [1], [[[]]], {}, {"a": {"b": []}}, {"": None}, ["a", 2, None, {}], {"data": -1}, {"data": 2**40},
    {"time": "2"},
]  # fmt: skip


def places(file):
    """All objects of a file, and all attributes, as (path, attribute or None)."""
    found = [("/", None)]
    file.visit(lambda name: found.append((name, None)))
    hidden = {"CLASS", "NAME", "REFERENCE_LIST", "DIMENSION_LIST"}
    return found + [(path, name) for path, _ in found for name in file[path].attrs if name not in hidden]


@st.composite
def damaged_structure(draw, name):
    """Change one or two things of a file as another program could, and seal it where it was sealed."""
    stream = io.BytesIO(all_files()[name])
    with h5py.File(stream, "r+") as file:
        for _ in range(draw(st.integers(1, 2))):
            path, attribute = draw(st.sampled_from(places(file)))
            change = draw(st.sampled_from(ATTRIBUTE_CHANGES if attribute else OBJECT_CHANGES))
            # What h5py itself refuses to write is no damage.
            with suppress(TypeError, ValueError, OSError, RuntimeError, KeyError, AttributeError, OverflowError):
                change(draw, file, path, attribute)
    content = stream.getvalue()
    return seal(content[USER_BLOCK:]) if name in good_files() else content


def _drop_attribute(draw, file, path, name):
    del file[path].attrs[name]


def _set_attribute(draw, file, path, name):
    kinds = [st.sampled_from(NUMBERS), st.sampled_from(INTEGERS), st.sampled_from(TEXTS), st.booleans()]
    value = draw(st.one_of(*kinds, st.just(np.zeros(3)), st.just(h5py.Empty("f8")), st.just(np.bytes_(b"\xff\xfe"))))
    file[path].attrs[name] = value


def _set_same_kind(draw, file, path, name):
    """Keep the type, so that the value gets past the first look."""
    old = file[path].attrs[name]
    kinds = {str: TEXTS, float: NUMBERS, int: INTEGERS, bool: [True, False]}
    plain = old.item() if isinstance(old, np.generic) else old
    file[path].attrs[name] = type(old)(draw(st.sampled_from(kinds[type(plain)])))


def _edit_json(draw, file, path, name):
    """Put a strange value somewhere into a JSON text."""
    item = file[path]
    text = item.attrs[name] if name else item.asstr()[()]
    value = json.loads(text)
    item_of, key = _somewhere(draw, value)
    if key is not None:
        if draw(st.booleans()):
            item_of[key] = draw(st.sampled_from(JSON_VALUES))
        else:
            del item_of[key]
    if name:
        item.attrs[name] = json.dumps(value)
    else:
        del file[path]
        file[path] = json.dumps(value)


def _somewhere(draw, value):
    """A container within a JSON value, and a key of it."""
    parent, key = None, None
    for _ in range(draw(st.integers(1, 4))):
        inside = value if parent is None else parent[key]
        keys = (
            list(inside) if isinstance(inside, dict) else list(range(len(inside))) if isinstance(inside, list) else []
        )
        if not keys:
            break
        parent, key = inside, draw(st.sampled_from(keys))
    return parent, key


def _drop(draw, file, path, _):
    del file[path]


def _retype(draw, file, path, _):
    old = file[path]
    shape = old.shape if isinstance(old, h5py.Dataset) else (2,)
    del file[path]
    kind = draw(
        st.sampled_from(["i8", "f8", "f4", "u1", "S3", "bool", "O", "enum", "compound", "vlen", "ref", "complex128"])
    )
    dtypes = {
        "O": h5py.string_dtype(), "enum": h5py.enum_dtype({"A": 1}), "compound": np.dtype([("a", "f8"), ("b", "i4")]),
        "vlen": h5py.vlen_dtype(np.float64), "ref": h5py.ref_dtype,
    }  # fmt: skip
    file.create_dataset(path, shape, dtype=dtypes.get(kind, kind))


def _reshape(draw, file, path, _):
    dtype = file[path].dtype
    del file[path]
    shape = draw(st.sampled_from([(), (0,), (1,), (3,), (2, 2), (3, 2, 6), (0, 0, 0), (1, 1, 1, 1, 1), None]))
    file.create_dataset(path, data=h5py.Empty(dtype)) if shape is None else file.create_dataset(path, shape, dtype)


def _set_values(draw, file, path, _):
    dataset = file[path]
    if not dataset.size:
        return
    values = dataset[()]
    flat = np.asarray(values).ravel()
    choices = {"f": NUMBERS, "i": INTEGERS, "O": TEXTS}[dataset.dtype.kind]
    everywhere = draw(st.booleans())
    new = draw(st.sampled_from(choices))
    if everywhere:
        flat[:] = new
    else:
        flat[draw(st.integers(0, flat.size - 1))] = new
    dataset[...] = flat.reshape(dataset.shape)


def _make_huge(draw, file, path, _):
    del file[path]
    shape = draw(st.sampled_from([(2**40,), (2**20, 2**20), (2**34, 2, 6)]))
    file.create_dataset(
        path, shape, dtype=draw(st.sampled_from(["f8", "i8", h5py.string_dtype(), "S1000"])), chunks=True
    )


def _make_bomb(draw, file, path, _):
    del file[path]
    file.create_dataset(path, data=np.zeros((2**17, 2**7)), compression="gzip", compression_opts=1)


def _link_outside(draw, file, path, _):
    del file[path]
    file[path] = draw(
        st.sampled_from(
            [h5py.ExternalLink("/etc/passwd", "/"), h5py.ExternalLink(str(STORED[0]), "/"), h5py.SoftLink("/"),
             h5py.SoftLink("/" + path), h5py.SoftLink("/nowhere")]
        )
    )  # fmt: skip


def _link_in_a_cycle(draw, file, path, _):
    group = file[path] if isinstance(file[path], h5py.Group) else file[path].parent
    group["again"] = file["/"]


def _make_virtual(draw, file, path, _):
    layout = h5py.VirtualLayout(shape=(3,), dtype="f8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(3,))
    del file[path]
    file.create_virtual_dataset(path, layout)


def _keep_outside(draw, file, path, _):
    del file[path]
    file.create_dataset(path, (3,), dtype="f8", external=[("/etc/passwd", 0, 24)])


def _rename(draw, file, path, _):
    name = draw(st.sampled_from(["later", "x\x1b[2J", "a\nb", "é", "\u202e", "0", "000000000000"]))
    file.move(path, path.rpartition("/")[0] + "/" + name)


def _make_group(draw, file, path, _):
    del file[path]
    file.create_group(path)


def _make_type(draw, file, path, _):
    del file[path]
    file[path] = np.dtype("f8")


OBJECT_CHANGES = [
    _drop, _retype, _reshape, _set_values, _set_values, _make_huge, _make_bomb, _link_outside, _link_in_a_cycle,
    _make_virtual, _keep_outside, _rename, _make_group, _make_type, _edit_json,
]  # fmt: skip
ATTRIBUTE_CHANGES = [_drop_attribute, _set_attribute, _set_same_kind, _edit_json, _edit_json, _edit_json]


# --- commands --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def call(*words, command=main):
    """Run a command in this process, as a terminal without colours would show it."""
    out, err = (
        io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors) for errors in ("strict", "backslashreplace")
    )
    with mock.patch.object(sys, "stdout", out), mock.patch.object(sys, "stderr", err):
        try:
            code = command([str(word) for word in words])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        texts = []
        for stream in (out, err):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode("utf-8"))
    return Ended(code, *texts)


def shown(path):
    """A path as an error names it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(path))


def assert_plain(ended, words=()):
    """Whatever it says is text without control characters, a line an error, and no traceback."""
    for text in (ended.out if words and words[0] != "export" else "", ended.err):  # an export is data
        strange = {c for c in text.replace("\r\n", "\n") if not c.isprintable()} - {"\n", "\xa0"}
        assert not strange, (words, strange)
    for line in ended.err.splitlines():
        assert line.startswith("hpcrnn: "), (words, line)
    assert "Traceback" not in ended.err
    assert ended.code in (0, 1, 2, 3)
