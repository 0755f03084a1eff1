"""Optimizers against ``torch.optim`` and against their formulas; the norm, and clipping by it."""

import warnings

import numpy as np
import pytest

from hpcrnn.errors import NumericsError
from hpcrnn.model.optimizers import SGD, Adam, clip, finite_norm, make_optimizer, norm_square
from hpcrnn.spec import TrainingSpec

SIZE, STEPS, LR = 11, 20, 0.05

# 20 steps of about ten roundings each, of parameters and moments of a few units.
TOLERANCE = 20 * 10 * 4 * np.finfo(np.float64).eps

OPTIMIZERS = {
    "sgd": lambda n: SGD(n, "float64", LR, 0.0),
    "sgd-momentum": lambda n: SGD(n, "float64", LR, 0.9),
    "adam": lambda n: Adam(n, "float64", LR),
}
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def gradients(n=SIZE, steps=STEPS):
    rng = np.random.default_rng(0)
    # Of very different sizes, as those of a network are, and some exactly zero.
    return rng.standard_normal((steps, n)) * 10.0 ** rng.uniform(-6, 2, n) * (rng.random((steps, n)) > 0.2)


def trajectory(optimizer, all_gradients):
    parameters = np.linspace(-1, 1, all_gradients.shape[1])
    visited = []
    for gradient in all_gradients:
        optimizer.update(parameters, gradient.copy())
        visited.append(parameters.copy())
    return np.array(visited)


def sgd_by_definition(all_gradients, momentum):
    parameters = np.linspace(-1, 1, all_gradients.shape[1])
    velocity = np.zeros_like(parameters)
    for gradient in all_gradients:
        velocity = momentum * velocity + gradient
        parameters = parameters - LR * velocity
        yield parameters


def adam_by_definition(all_gradients, beta1=0.9, beta2=0.999, eps=1e-8):
    """Kingma & Ba 2015, algorithm 1, line by line."""
    parameters = np.linspace(-1, 1, all_gradients.shape[1])
    m, v = np.zeros_like(parameters), np.zeros_like(parameters)
    for t, g in enumerate(all_gradients, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        parameters = parameters - LR * m_hat / (np.sqrt(v_hat) + eps)
        yield parameters


def test_sgd_is_its_formula():
    found = trajectory(OPTIMIZERS["sgd-momentum"](SIZE), gradients())
    size = np.abs(found).max()
    np.testing.assert_allclose(found, list(sgd_by_definition(gradients(), 0.9)), rtol=0, atol=TOLERANCE * size)


def test_adam_is_its_algorithm():
    found = trajectory(OPTIMIZERS["adam"](SIZE), gradients())
    np.testing.assert_allclose(found, list(adam_by_definition(gradients())), rtol=0, atol=TOLERANCE)


def test_adams_pieces_do_not_show():
    n = 2 * Adam._PIECE + 3
    found = trajectory(OPTIMIZERS["adam"](n), gradients(n, 3))
    np.testing.assert_allclose(found, list(adam_by_definition(gradients(n, 3))), rtol=0, atol=TOLERANCE)


@pytest.mark.peer
@every_optimizer
def test_twenty_steps_are_torchs(name):
    torch = pytest.importorskip("torch")
    parameter = torch.linspace(-1, 1, SIZE, dtype=torch.float64).requires_grad_()
    peer = {
        "sgd": lambda: torch.optim.SGD([parameter], lr=LR),
        "sgd-momentum": lambda: torch.optim.SGD([parameter], lr=LR, momentum=0.9),
        "adam": lambda: torch.optim.Adam([parameter], lr=LR),
    }[name]()
    expected = []
    for gradient in gradients():
        parameter.grad = torch.from_numpy(gradient.copy())
        peer.step()
        expected.append(parameter.detach().numpy().copy())
    found = trajectory(OPTIMIZERS[name](SIZE), gradients())
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * max(1, np.abs(found).max()))


def test_adams_first_step_is_the_learning_rate_in_the_gradients_direction():
    parameters, gradient = np.zeros(3), np.array([1e-3, -5.0, 2e4])
    Adam(3, "float64", LR).update(parameters, gradient)
    # eps is 1e-8 of a gradient of 1e-3: 1e-5 relatively.
    np.testing.assert_allclose(parameters, -LR * np.sign(gradient), rtol=1.1e-5)


@every_optimizer
def test_a_gradient_of_zero_changes_nothing_at_first(name):
    parameters = np.ones(3)
    OPTIMIZERS[name](3).update(parameters, np.zeros(3))
    np.testing.assert_array_equal(parameters, 1)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_float32_optimizer_stays_float32(name):
    parameters = np.ones(3, np.float32)
    make_optimizer(TrainingSpec(optimizer=name), 3, "float32").update(parameters, np.ones(3, np.float32))
    assert parameters.dtype == np.float32
    assert (parameters < 1).all()


def test_a_training_section_gets_the_optimizer_it_names():
    training = TrainingSpec(optimizer="sgd", lr=0.5, momentum=0.25)
    parameters = np.zeros(1)
    optimizer = make_optimizer(training, 1, "float64")
    optimizer.update(parameters, np.ones(1))
    optimizer.update(parameters, np.ones(1))
    assert parameters[0] == -0.5 - 0.5 * 1.25
    assert isinstance(make_optimizer(TrainingSpec(), 1, "float64"), Adam)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_norm_is_the_2_norm(dtype):
    gradient = np.array([3, 0, -4], dtype)
    assert finite_norm(norm_square(gradient)) == 5
    assert finite_norm(norm_square(np.zeros(4, dtype))) == 0


@pytest.mark.parametrize(
    ("dtype", "size"), [("float32", 1e30), ("float64", 1e150), ("float32", 1e-30), ("float64", 1e-150)]
)
def test_the_norm_survives_squares_that_leave_the_range_of_float32(dtype, size):
    gradient = (size * np.array([3, 0, -4])).astype(dtype)
    with warnings.catch_warnings(action="error"):
        norm = finite_norm(norm_square(gradient))
    np.testing.assert_allclose(norm, 5 * size, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gradient_that_is_not_finite_is_refused_with_what_helps(dtype, value):
    gradient = np.ones(7, dtype)
    gradient[[2, 5]] = value
    with pytest.raises(NumericsError) as raised:
        finite_norm(norm_square(gradient))
    assert str(raised.value) == ("the gradient is not finite; a smaller training.lr or a training.clip usually helps")
    assert raised.value.exit_code == 2


def test_clipping_shrinks_a_gradient_to_the_limit_and_keeps_its_direction():
    gradient = np.array([3.0, -4.0])
    clip(gradient, finite_norm(norm_square(gradient)), 1.0)
    np.testing.assert_allclose(gradient, [0.6, -0.8], rtol=1e-15)


@pytest.mark.parametrize("limit", [None, 5.0, 6.0])
def test_a_gradient_within_the_limit_is_left_as_it_is(limit):
    gradient = np.array([3.0, -4.0])
    clip(gradient, finite_norm(norm_square(gradient)), limit)
    np.testing.assert_array_equal(gradient, [3, -4])


def test_clipping_a_float32_gradient_whose_squares_overflow():
    gradient = np.array([3e30, -4e30], np.float32)
    clip(gradient, finite_norm(norm_square(gradient)), 1.0)
    assert gradient.dtype == np.float32
    np.testing.assert_allclose(gradient, [0.6, -0.8], rtol=4 * np.finfo(np.float32).eps)
