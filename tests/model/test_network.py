"""Networks: which blocks a specification and a workload make, their parameters, and what is refused."""

import numpy as np
import pytest

from hpcrnn.cells import LSTM
from hpcrnn.errors import SpecError
from hpcrnn.model.network import build_network, initial_parameters
from hpcrnn.spec import build_spec
from hpcrnn.workloads import Interface

V, F, D, H, O = 11, 3, 7, 5, 2  # noqa: E741 - the field's name for the width of an output

TOKENS = Interface("tokens", V, "cross_entropy", V)
FEATURES = Interface("features", F, "squared_error", O)
COTANGENT = Interface("features", F, "linear", H)


def make_network(interface=TOKENS, **overrides):
    return build_network(build_spec({}, {"hidden": H, "embed": D, "layers": 2, **overrides}), interface)


def described(network):
    return [(block.name, block.kind, block.inputs, block.outputs) for block in network.blocks]


LAYERS = [("layer0", "recurrent", D, H), ("layer1", "recurrent", H, H)]
DIRECT = [("layer0", "recurrent", F, H), ("layer1", "recurrent", H, H)]


@pytest.mark.parametrize(
    ("interface", "options", "expected"),
    [
        (TOKENS, {}, [("input", "embedding", V, D), *LAYERS, ("head", "head", H, V)]),
        (TOKENS, {"input": "embedding"}, [("input", "embedding", V, D), *LAYERS, ("head", "head", H, V)]),
        (FEATURES, {}, [("input", "linear", F, D), *LAYERS, ("head", "head", H, O)]),
        (FEATURES, {"input": "linear"}, [("input", "linear", F, D), *LAYERS, ("head", "head", H, O)]),
        (FEATURES, {"input": "direct", "embed": None}, [*DIRECT, ("head", "head", H, O)]),
        (FEATURES, {"input": "direct", "embed": F}, [*DIRECT, ("head", "head", H, O)]),
        (COTANGENT, {}, [("input", "linear", F, D), *LAYERS, ("head", "cotangent", H, H)]),
        (COTANGENT, {"input": "direct", "embed": None}, [*DIRECT, ("head", "cotangent", H, H)]),
    ],
)
def test_blocks_are_input_layers_head(interface, options, expected):
    assert described(make_network(interface, **options)) == expected


@pytest.mark.parametrize(
    ("interface", "options", "message"),
    [
        (TOKENS, {"input": "linear"}, "model.input = 'linear': allowed is embedding, as stdlib gives tokens"),
        (TOKENS, {"input": "direct"}, "model.input = 'direct': allowed is embedding, as stdlib gives tokens"),
        (
            FEATURES,
            {"input": "embedding", "workload": "synthetic"},
            "model.input = 'embedding': allowed is linear or direct, as synthetic gives features",
        ),
        (FEATURES, {"input": "direct"}, "model.embed = 7: allowed is the feature count, 3, with input = direct"),
    ],
)
def test_an_input_layer_that_does_not_fit_the_workload_is_refused(interface, options, message):
    with pytest.raises(SpecError) as raised:
        make_network(interface, **options)
    assert str(raised.value) == message


def test_embed_is_hidden_unless_it_is_given():
    assert make_network(embed=None).blocks[0].outputs == H


def test_only_recurrent_blocks_carry_a_state():
    network = make_network()
    assert network.recurrent == (False, True, True, False)
    assert [block.cell for block in network.blocks] == [None, LSTM(), LSTM(), None]


def test_parameters_are_counted():
    gates = 4 * H
    blocks = [V * D, (D + H + 1) * gates, (H + H + 1) * gates, (H + 1) * V]
    network = make_network()
    assert [block.n_parameters for block in network.blocks] == blocks
    assert network.n_parameters == sum(blocks)


@pytest.mark.parametrize(
    ("interface", "options", "expected"),
    [
        (TOKENS, {"mode": "train"}, [False, True, True, True]),
        (TOKENS, {"mode": "gradient"}, [False, True, True, True]),
        (FEATURES, {"mode": "train"}, [False, True, True, True]),
        (FEATURES, {"mode": "gradient"}, [True, True, True, True]),
        (FEATURES, {"mode": "gradient", "input": "direct", "embed": None}, [True, True, True]),
        (FEATURES, {"mode": "train", "input": "direct", "embed": None}, [False, True, True]),
    ],
)
def test_the_input_has_a_gradient_only_where_the_run_asks_for_it(interface, options, expected):
    network = make_network(interface, **options)
    assert [network.gives_dx(index) for index in range(len(network.blocks))] == expected


def test_initial_parameters_have_the_shapes_of_the_blocks_in_float64():
    network = make_network()
    drawn = initial_parameters(network, 0)
    shapes = {f"{block.name}.{name}": shape for block in network.blocks for name, shape in block.shapes.items()}
    assert {name: a.shape for name, a in drawn.items()} == shapes
    assert {a.dtype for a in drawn.values()} == {np.dtype(np.float64)}


def test_initial_parameters_depend_on_the_seed_and_on_nothing_else():
    first, again = (initial_parameters(make_network(), 3) for _ in range(2))
    narrow = initial_parameters(make_network(dtype="float32"), 3)
    other = initial_parameters(make_network(), 4)
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
        np.testing.assert_array_equal(value, narrow[name])
        assert (value != other[name]).all()


def test_a_blocks_parameters_do_not_depend_on_the_other_blocks():
    shallow = initial_parameters(make_network(layers=1), 0)
    deep = initial_parameters(make_network(layers=3), 0)
    for name in ("input.E", "layer0.W", "layer0.R", "layer0.b"):
        np.testing.assert_array_equal(shallow[name], deep[name])
    # layer1 has the inputs of layer0 where D = H, and is still another draw.
    square = initial_parameters(make_network(embed=H), 0)
    assert (square["layer0.R"] != square["layer1.R"]).all()


def test_recurrent_and_linear_parameters_fill_torchs_ranges():
    network = make_network(FEATURES, hidden=25, embed=36, layers=2)
    for name, value in initial_parameters(network, 0).items():
        block, _ = name.split(".")
        bound = {"input": F**-0.5, "head": 25**-0.5}.get(block, 25**-0.5)
        assert np.abs(value).max() <= bound, name
        if value.size > 20:
            # The largest of n uniform draws is below 1 - 10/n of the bound one time in e^10.
            assert np.abs(value).max() > bound * (1 - 10 / value.size), name


def test_embeddings_are_normal():
    network = build_network(build_spec({}, {"hidden": 50}), Interface("tokens", 256, "cross_entropy", 256))
    table = initial_parameters(network, 0)["input.E"]
    # Of 12 800 draws: mean within 5 / sqrt(n), variance within 5 sqrt(2 / n).
    assert abs(table.mean()) < 5 / table.size**0.5
    assert abs(table.var() - 1) < 5 * (2 / table.size) ** 0.5


def test_the_forget_bias_reaches_every_layer():
    plain = initial_parameters(make_network(), 0)
    biased = initial_parameters(make_network(forget_bias=2.0), 0)
    for layer in ("layer0", "layer1"):
        np.testing.assert_allclose(biased[f"{layer}.b"] - plain[f"{layer}.b"], [0.0] * H + [2.0] * H + [0.0] * 2 * H)
