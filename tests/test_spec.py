"""The specification: TOML, flags, defaults; and what is said about everything that is not allowed."""

import datetime as dt
import math
import pickle

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcrnn.errors import FileError, SpecError
from hpcrnn.spec import Grid, RunSpec, build_spec, option, options, parse_grid, read_toml, to_dict

fixed_examples = settings(derandomize=True, deadline=None, max_examples=60)

LEAVES = list(options())
SECTIONS = {leaf.section for leaf in LEAVES}

# Values that differ from every default.
CHANGED = {
    "cell": "gru",
    "hidden": 7,
    "layers": 3,
    "embed": 5,
    "input": "linear",
    "activation": "relu",
    "reset": "before",
    "forget_bias": 1.5,
    "forget_init": "chrono",
    "chrono_span": 30,
    "dtype": "float64",
    "workload": "adding",
    "batch": 9,
    "seq": 11,
    "features": 4,
    "seed": 13,
    "sequences": "lines",
    "batching": "packed",
    "spread": "skewed:0.5",
    "mode": "gradient",
    "optimizer": "sgd",
    "lr": 0.25,
    "momentum": 0.5,
    "clip": 2.0,
    "carry": True,
    "target_loss": 2.5,
    "seeds": 2,
    "max_steps": 70,
    "eval_every": 35,
    "eval_rows": 12,
    "grid": "data=2",
    "order": "zb_h1",
    "virtual_stages": 3,
    "microbatches": 2,
    "chunks": 3,
    "data_method": "allreduce_flat",
    "sync_every": 3,
    "outer_lr": 0.5,
    "outer_momentum": 0.25,
    "staleness": 0,
    "node_size": 2,
    "grad_codec": "topk:0.05",
    "balance": "weights:2,1",
    "method": "picard",
    "fold": 4,
    "tolerance": 1e-4,
    "max_rounds": 5,
    "burn_in": 6,
    "halo_codec": "int8",
    "backend": "numpy,torch",
    "gemm": "numpy",
    "precision": "bfloat16",
    "kernel": "stepwise",
    "allow_shared_gpu": True,
    "transport": "staged",
    "gradient_sum": "nccl",
    "threads": 2,
    "rank_backends": "numpy,cupy",
    "handicap": "1:0.5@40",
    "peer_threads": 2,
    "expect_ranks": 2,
    "ci_width": 0.1,
    "max_time": 5.0,
    "warmup": 0,
    "min_repeats": 4,
    "max_repeats": 60,
    "baseline": False,
    "trace": True,
    "ceilings": False,
    "out": "results/x.h5",
    "overwrite": True,
    "checkpoint": "results/x.checkpoint.h5",
    "checkpoint_every": 3,
    "resume": True,
}

# What some of them become.
DECODED = {**CHANGED, "grid": Grid(data=2), "backend": ("numpy", "torch"), "rank_backends": ("numpy", "cupy")}


def changed_toml():
    """A TOML text that sets every key."""
    lines = []
    for section in RunSpec.__struct_fields__:
        lines.append(f"[{section}]")
        for leaf in LEAVES:
            if leaf.section == section and leaf.name in CHANGED:
                value = CHANGED[leaf.name]
                shown = str(value).lower() if isinstance(value, bool) else repr(value)
                lines.append(f"{leaf.name} = {shown}")
    return "\n".join(lines)


def leaf_values(spec):
    return {leaf.name: getattr(getattr(spec, leaf.section), leaf.name) for leaf in LEAVES}


def refusal(raw=None, **overrides):
    with pytest.raises(SpecError) as raised:
        build_spec(raw or {}, overrides)
    return str(raised.value)


# Leaves, defaults, TOML and flags


def test_leaf_names_are_unique_over_the_sections():
    names = [leaf.name for leaf in LEAVES]
    assert len(set(names)) == len(names)
    assert not set(names) & SECTIONS


def test_every_leaf_has_a_description_and_a_default():
    assert all(leaf.description for leaf in LEAVES)
    assert leaf_values(build_spec({})) == {leaf.name: leaf.default for leaf in LEAVES}


def test_keys_and_flags_are_the_same_names():
    leaf = option("ci_width")
    assert (leaf.key, leaf.flag) == ("measure.ci_width", "--ci-width")
    assert option("measure.ci_width") == leaf


def test_the_changed_values_cover_every_leaf():
    assert set(CHANGED) == {leaf.name for leaf in LEAVES}
    assert all(DECODED[leaf.name] != leaf.default for leaf in LEAVES)


def test_a_toml_file_sets_every_key(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(changed_toml(), encoding="utf-8")
    assert leaf_values(build_spec(read_toml(path))) == DECODED


@pytest.mark.parametrize("name", CHANGED)
def test_an_override_wins_over_the_file_and_leaves_the_rest(name):
    section = option(name).section
    raw = {section: {name: option(name).default}} if option(name).default is not None else {}
    expected = {**leaf_values(build_spec({})), name: DECODED[name]}
    assert leaf_values(build_spec(raw, {name: CHANGED[name]})) == expected
    assert leaf_values(build_spec(raw, {f"{section}.{name}": CHANGED[name]})) == expected


def test_the_mappings_given_are_left_as_they_were():
    raw = {"model": {"hidden": 3}, "parallel": {"grid": "data=2"}}
    build_spec(raw, {"hidden": 4, "cell": "gru"})
    assert raw == {"model": {"hidden": 3}, "parallel": {"grid": "data=2"}}


def test_an_integer_is_a_number():
    assert build_spec({"training": {"lr": 1}}).training.lr == 1.0


@pytest.mark.parametrize("text", ["numpy,torch", " numpy , torch "])
def test_backends_are_a_list_or_a_text_with_commas(text):
    as_list = build_spec({"machine": {"backend": ["numpy", "torch"]}})
    assert build_spec({}, {"backend": text}) == as_list


def test_the_first_layers_input_is_hidden_unless_embed_is_given():
    assert build_spec({}, {"hidden": 7}).embed == 7
    assert build_spec({}, {"hidden": 7, "embed": 5}).embed == 5


# Round trips


@pytest.mark.parametrize("overrides", [{}, CHANGED], ids=["defaults", "all changed"])
def test_a_specification_survives_being_stored_as_plain_values(overrides):
    spec = build_spec({}, overrides)
    plain = to_dict(spec)
    assert build_spec(plain) == spec
    assert build_spec(msgspec.json.decode(msgspec.json.encode(plain))) == spec


def is_plain(value):
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    return value is None or type(value) in (str, int, float, bool)


def test_plain_values_are_plain():
    assert is_plain(to_dict(build_spec({}, CHANGED)))


def test_a_path_that_is_not_utf_8_survives_being_stored():
    """Python gives such a path with lone surrogates, from the command line as from a listing."""
    spec = build_spec({}, {"workload": "file:corpus-\udcff", "out": "results/\udcff.h5"})
    assert build_spec(to_dict(spec)) == spec


SIZES = st.integers(1, 2**31 - 1)
VALUES = {
    "hidden": SIZES,
    "embed": st.none() | SIZES,
    "cell": st.sampled_from(["elman", "lstm", "gru", "mingru", "minlstm"]),
    "forget_bias": st.floats(-100, 100),
    "chrono_span": st.integers(2, 2**31 - 1),
    "lr": st.floats(0, 1e12, exclude_min=True),
    "clip": st.none() | st.floats(0, 1e12, exclude_min=True),
    "momentum": st.floats(0, 1, exclude_max=True),
    "ci_width": st.floats(0, 1, exclude_min=True, exclude_max=True),
    "workload": st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    "grid": st.none() | SIZES.map("data={}".format),
    "backend": st.permutations(["numpy", "torch"]) | st.just(["torch"]),
    "baseline": st.booleans(),
    "max_repeats": st.integers(10, 2**31 - 1),
}


@given(st.fixed_dictionaries({}, optional=VALUES))
@fixed_examples
def test_any_allowed_values_are_accepted_and_survive_being_stored(overrides):
    spec = build_spec({}, overrides)
    assert build_spec(to_dict(spec)) == spec


# What is refused, and how that reads

SIZE = "an integer >= 1 and <= 2147483647"
ALL_KEYS = ", ".join(leaf.key for leaf in LEAVES)
MODEL_KEYS = "cell, hidden, layers, embed, input, activation, reset, forget_bias, forget_init, chrono_span, dtype"
GRID_FORM = "axis=count, comma-separated, axes: data, pipeline, time, tensor"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            {"modle": {}},
            "modle = {}: allowed is one of the keys model, problem, training, parallel, recurrence, machine, measure",
        ),
        ({"model": {"hiden": 3}}, f"model.hiden = 3: allowed is one of the keys {MODEL_KEYS}"),
        ({"model": {"batch": 3}}, f"model.batch = 3: allowed is one of the keys {MODEL_KEYS}"),
        ({"model": 3}, f"model = 3: allowed is the keys {MODEL_KEYS}"),
        ({"model": [1, 2]}, f"model = [1, 2]: allowed is the keys {MODEL_KEYS}"),
        ({"model": {"hidden": 0}}, f"model.hidden = 0: allowed is {SIZE}"),
        ({"model": {"hidden": -5}}, f"model.hidden = -5: allowed is {SIZE}"),
        ({"model": {"hidden": 2**31}}, f"model.hidden = 2147483648: allowed is {SIZE}"),
        ({"model": {"hidden": 10**30}}, f"model.hidden = {10**30}: allowed is {SIZE}"),
        ({"model": {"hidden": "3"}}, f"model.hidden = '3': allowed is {SIZE}"),
        ({"model": {"hidden": 2.5}}, f"model.hidden = 2.5: allowed is {SIZE}"),
        ({"model": {"hidden": True}}, f"model.hidden = True: allowed is {SIZE}"),
        ({"model": {"hidden": math.nan}}, f"model.hidden = nan: allowed is {SIZE}"),
        ({"model": {"hidden": {"x": 1}}}, f"model.hidden = {{'x': 1}}: allowed is {SIZE}"),
        ({"model": {"embed": 0}}, f"model.embed = 0: allowed is {SIZE}"),
        ({"model": {"cell": "lstn"}}, "model.cell = 'lstn': allowed is elman or lstm or gru or mingru or minlstm"),
        ({"model": {"cell": 3}}, "model.cell = 3: allowed is elman or lstm or gru or mingru or minlstm"),
        ({"model": {"forget_bias": -101}}, "model.forget_bias = -101: allowed is a number >= -100 and <= 100"),
        ({"model": {"chrono_span": 1}}, "model.chrono_span = 1: allowed is an integer >= 2 and <= 2147483647"),
        ({"problem": {"workload": ""}}, "problem.workload = '': allowed is a text"),
        ({"problem": {"seed": -1}}, "problem.seed = -1: allowed is an integer >= 0 and <= 2147483647"),
        ({"training": {"lr": 0}}, "training.lr = 0: allowed is a number > 0 and <= 1e+12"),
        ({"training": {"lr": "fast"}}, "training.lr = 'fast': allowed is a number > 0 and <= 1e+12"),
        ({"training": {"momentum": 1}}, "training.momentum = 1: allowed is a number >= 0 and < 1"),
        ({"training": {"clip": -1.0}}, "training.clip = -1.0: allowed is a number > 0 and <= 1e+12"),
        ({"measure": {"ci_width": 1}}, "measure.ci_width = 1: allowed is a number > 0 and < 1"),
        ({"measure": {"warmup": 10_001}}, "measure.warmup = 10001: allowed is an integer >= 0 and <= 10000"),
        ({"measure": {"baseline": 1}}, "measure.baseline = 1: allowed is true or false"),
        ({"measure": {"out": dt.date(2025, 1, 2)}}, "measure.out = datetime.date(2025, 1, 2): allowed is a text"),
        ({"machine": {"backend": "jax"}}, "machine.backend = ['jax']: allowed is a list of numpy or torch or cupy"),
        ({"machine": {"backend": []}}, "machine.backend = []: allowed is a list of numpy or torch or cupy"),
        ({"machine": {"backend": 3}}, "machine.backend = 3: allowed is a list of numpy or torch or cupy"),
        ({"machine": {"backend": "numpy,numpy"}}, "machine.backend = 'numpy,numpy': allowed is each backend once"),
        ({"parallel": {"grid": {"data": 0}}}, f"parallel.grid.data = 0: allowed is {SIZE}"),
        (
            {"parallel": {"grid": {"depth": 2}}},
            "parallel.grid.depth = 2: allowed is one of the keys data, pipeline, time, tensor",
        ),
        ({"parallel": {"grid": 2}}, "parallel.grid = 2: allowed is the keys data, pipeline, time, tensor"),
        (
            {"measure": {"min_repeats": 20, "max_repeats": 5}},
            "measure.min_repeats = 20: allowed is at most max_repeats (5)",
        ),
    ],
    ids=str,
)
def test_a_refusal_names_the_key_the_value_and_what_is_allowed(raw, message):
    assert refusal(raw) == message


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize(
    "leaf", [leaf for leaf in LEAVES if isinstance(leaf.default, float)], ids=lambda leaf: leaf.key
)
def test_a_number_that_is_not_finite_is_refused(leaf, value):
    assert refusal({leaf.section: {leaf.name: value}}).startswith(f"{leaf.key} = {value}: allowed is a ")


@pytest.mark.parametrize("name", ["hiden", "model", "", "model.hiden", "model.model.hidden", "--hidden"])
def test_an_unknown_override_is_refused_with_all_there_are(name):
    assert refusal(**{name: 1}) == f"key = {name!r}: allowed is one of {ALL_KEYS}"


@pytest.mark.parametrize(
    "text", ["", "data", "data=", "data=x", "data=2,data=2", "data=1.5", "data=2;", "data==2", ","]
)
def test_a_grid_text_that_cannot_be_read_is_refused(text):
    assert refusal(grid=text) == f"parallel.grid = {text!r}: allowed is {GRID_FORM}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data=0", f"parallel.grid.data = 0: allowed is {SIZE}"),
        ("data=-2", f"parallel.grid.data = -2: allowed is {SIZE}"),
        ("depth=2", "parallel.grid.depth = 2: allowed is one of the keys data, pipeline, time, tensor"),
    ],
)
def test_a_grid_text_of_a_wrong_axis_or_size_is_refused_by_name(text, message):
    assert refusal(grid=text) == message


@pytest.mark.parametrize("text", ["data=2", " data = 2 ", "data=+2"])
def test_a_grid_text_is_read(text):
    assert parse_grid(text) == {"data": 2}
    assert str(Grid(data=2)) == "data=2"
    assert build_spec({}, {"grid": text}).parallel.grid == Grid(data=2)


def test_a_long_value_is_shown_in_part():
    message = refusal(cell="x" * 10_000)
    assert message.startswith("model.cell = 'xxx")
    assert len(message) < 300


@pytest.mark.parametrize(
    ("raw", "start"),
    [
        ({"a\nb": 1}, "a"),
        ({"model": {"x\ny": 1}}, "model.x"),
        ({"model": {"x\u2028y": 1}}, "model.x"),
        ({"model": {"cell": "x\ny"}}, "model.cell = 'x\\ny': "),
    ],
    ids=["section", "key", "separator in a key", "value"],
)
def test_a_line_break_of_the_users_makes_no_second_line(raw, start):
    message = refusal(raw)
    assert message.startswith(start)
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("name", ["mo`del", "x - at `$.model", "a.b", "unknown field `cell`"])
def test_an_unknown_key_is_named_as_it_was_written_whatever_it_holds(name):
    assert refusal({name: 1}).startswith(f"{name} = 1: allowed is one of the keys model, ")
    assert refusal({"model": {name: 1}}).startswith(f"model.{name} = 1: allowed is one of the keys cell, ")


@pytest.mark.parametrize("value", ["x - at `$.model.hidden`", "unknown field `cell`", "a\" 'b", "é"])
def test_a_wrong_value_is_shown_beside_its_own_key_whatever_it_holds(value):
    assert refusal(cell=value) == f"model.cell = {value!r}: allowed is elman or lstm or gru or mingru or minlstm"
    assert refusal(backend=[value]) == f"machine.backend = {[value]!r}: allowed is a list of numpy or torch or cupy"


@pytest.mark.parametrize("key", ["hidden", "cell", "lr", "grid"])
def test_an_integer_too_long_to_print_is_refused_like_any_other(key):
    """Python prints no integer of more than 4300 digits, but TOML can give one, in hexadecimal."""
    assert refusal(**{key: 16**5000}).startswith(option(key).key)


def test_a_refusal_travels_between_ranks():
    error = SpecError("model.hidden", 0, SIZE)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(copy), copy.key, copy.value, copy.allowed) == (str(error), "model.hidden", 0, SIZE)
    assert copy.exit_code == 1


# Whatever is given, the answer is a specification or one line

TEXT = st.text(max_size=20)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**40), 10**40),
    st.floats(),
    TEXT,
    st.sampled_from(["lstm", "float32", "data=2", "numpy,torch"]),
    st.dates(),
    st.times(),
    st.datetimes(),
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=5
)
NAMES = st.sampled_from([leaf.name for leaf in LEAVES])
RAW = st.dictionaries(
    st.sampled_from(sorted(SECTIONS)) | TEXT,
    ANYTHING | st.dictionaries(NAMES | TEXT, ANYTHING, max_size=4),
    max_size=4,
)


def assert_specification_or_one_line(raw, overrides):
    try:
        answer = build_spec(raw, overrides)
    except SpecError as error:
        answer = str(error)
    assert isinstance(answer, RunSpec) or (": allowed is " in answer and len(answer.splitlines()) == 1)


@given(RAW)
@fixed_examples
def test_any_toml_gives_a_specification_or_one_line(raw):
    assert_specification_or_one_line(raw, {})


@given(st.dictionaries(NAMES | NAMES.map(lambda name: option(name).key), SCALARS, max_size=3))
@fixed_examples
def test_any_overrides_give_a_specification_or_one_line(overrides):
    assert_specification_or_one_line({}, overrides)


@given(st.dictionaries(TEXT, TEXT, max_size=2))
@fixed_examples
def test_any_override_names_give_a_specification_or_one_line(overrides):
    assert_specification_or_one_line({}, overrides)


@given(TEXT | st.from_regex(r"[a-z]*=[0-9]*(,[a-z]*=[0-9]*)?", fullmatch=True))
@fixed_examples
def test_any_grid_text_gives_a_specification_or_one_line(text):
    assert_specification_or_one_line({}, {"grid": text})


# Files


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"hidden = ", "Invalid value"),
        (b"\xff\xfe", "decode"),
        (b"a = 1\na = 2", "overwrite"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "recursion"),
    ],
    ids=["unfinished", "not UTF-8", "a key twice", "too deep"],
)
def test_a_file_that_is_not_toml_is_refused_by_name(tmp_path, content, reason):
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(FileError) as raised:
        read_toml(path)
    assert str(raised.value).startswith(f"{path}: cannot be read as TOML: ")
    assert reason in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(FileError) as raised:
        read_toml(tmp_path / "none.toml")
    assert str(raised.value) == f"{tmp_path / 'none.toml'}: cannot be read as TOML: No such file or directory"


# Measuring


def test_few_repetitions_need_not_say_that_the_least_is_fewer():
    assert build_spec({}, {"max_repeats": 3}).measure.min_repeats == 3
    with pytest.raises(SpecError, match="min_repeats = 5: allowed is at most max_repeats"):
        build_spec({}, {"max_repeats": 3, "min_repeats": 5})
