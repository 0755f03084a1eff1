"""Bad words on the command line and bad TOML: one line that says what is allowed, exit code 1, no traceback."""

import os

import pytest
from damage import STORED, assert_plain, call
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

GOOD = STORED[2]

VALUES = st.recursive(
    st.sampled_from(['"x"', "1", "-1", "nan", "inf", "1e300", "true", "1979-05-27", '"\\u001b[2J"', '""', "9" * 25]),
    lambda inner: (
        st.lists(inner, max_size=2).map(lambda items: f"[{', '.join(items)}]")
        | inner.map(lambda value: f"{{ hidden = {value} }}")
    ),
    max_leaves=3,
)
SWEEP_KEYS = ["name", "ranks", "scaling", "vary", "each", "launcher", "timeout", "later", '"\\u001b"']
EXPECT_KEYS = ["name", "case", "verdict", "step_s", "speedup", "later", "case.ranks", "case.kernel", "step_s.at_most"]


def assert_told(words):
    ended = call(*words)
    assert_plain(ended, words)
    if ended.code == 1:
        assert len(ended.err.splitlines()) == 1, ended.err
        assert ended.err.startswith("hpcrnn: error: ")
    return ended


@settings(deadline=None, derandomize=True, database=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(keys=st.dictionaries(st.sampled_from(SWEEP_KEYS), VALUES, max_size=4), named=st.booleans())
def test_any_sweep(tmp_path_factory, keys, named):
    path = tmp_path_factory.mktemp("sweep") / "s.toml"
    keys = {"name": '"a"', **keys} if named else keys
    path.write_text("[sweep]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()))
    ended = assert_told(["sweep", path, "--dry-run", "-o", path.parent])
    assert ended.code in (0, 1)


@settings(deadline=None, derandomize=True, database=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(keys=st.dictionaries(st.sampled_from(EXPECT_KEYS), VALUES, max_size=4))
def test_any_reference(tmp_path_factory, keys):
    path = tmp_path_factory.mktemp("reference") / "r.toml"
    path.write_text("[[expect]]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()))
    assert assert_told(["gate", GOOD, "--ref", path]).code in (0, 1, 3)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"a = " + b"[" * 3000 + b"]" * 3000, b"a = " + b"9" * 5000, b"\0", b"[", b"a = 1\na = 2"]
)
@pytest.mark.parametrize("words", [["sweep"], ["gate", GOOD, "--ref"]])
def test_what_is_no_toml(words, content, tmp_path):
    (tmp_path / "bad.toml").write_bytes(content)
    ended = assert_told([*words, tmp_path / "bad.toml"])
    assert ended.code == 1
    assert f"{tmp_path / 'bad.toml'}: cannot be read as TOML: " in ended.err


def test_a_pipe_is_not_waited_for_and_a_device_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    for name in ("pipe.toml", "zero.toml"):
        for words in (["sweep"], ["gate", GOOD, "--ref"]):
            assert assert_told([*words, tmp_path / name]).err.endswith("cannot be read as TOML: it is not a file\n")


ODD = ["", "=", "x", "x=", "=x", "\x1b[2J=1", "\udcff=1", "a\0b=1", "9" * 5000]


@settings(deadline=None, derandomize=True, database=None, max_examples=30)
@given(
    key=st.sampled_from(["ranks", "grid", "kernel", "lr", "simulated", "id", "workload", "later", "\x1b"]),
    value=st.sampled_from(
        ["", "1", "-1", "nan", "1e999", "[", "*", "data=", "data=9999999999", "\udcff", "\x1b", "maybe"]
    ),
)
def test_any_choice_of_cases(key, value):
    assert assert_told(["compare", GOOD, GOOD, "--a", f"{key}={value}", "--b", "ranks=1"]).code in (0, 1)


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_odd_words(odd, tmp_path):
    """Wherever they stand."""
    for words in (
        ["show", odd], ["verify", odd], ["report", odd, "-o", tmp_path / "r"], ["export", odd, "--to", "perfetto"],
        ["compare", GOOD, GOOD, "--a", odd], ["gate", GOOD, "--ref", odd, "--tolerance", "1"], [odd],
        ["show", f"--{odd}"],
        ["gate", GOOD, "--ref", GOOD, "--tolerance", odd], ["export", GOOD, "--to", "extrap", "--series", odd],
        ["export", GOOD, "--to", odd], ["report", GOOD, "--figures", odd], ["gate", GOOD, "--write-ref", odd],
        ["sweep", odd], ["export", ".", "--to", "perfetto"], ["export", "/", "--to", "perfetto"],
    ):  # fmt: skip
        assert assert_told(words).code == 1, words
