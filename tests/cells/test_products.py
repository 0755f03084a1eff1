"""Product libraries: the same numbers for every layout their protocol admits."""

import numpy as np
import pytest
from cell_samples import every_cell, every_library, make_problem, product_library, run

ROWS, INNER, COLUMNS = 3, 7, 5
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])

SIZES = [(ROWS, INNER, COLUMNS), (1, 7, 5), (3, 1, 5), (3, 7, 1), (1, 1, 5), (1, 7, 1), (3, 1, 1), (1, 1, 1)]
every_size = pytest.mark.parametrize("sizes", SIZES, ids=str)


def draw(*shape, dtype, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def transposed(a):
    """The same matrix, its columns contiguous."""
    return np.ascontiguousarray(a.T).T


def strided(a):
    """The same matrix as the middle of a wider one, whose other columns are NaN."""
    wide = np.full((a.shape[0], a.shape[1] + 4), np.nan, a.dtype)
    wide[:, 2:-2] = a
    return wide[:, 2:-2]


def assert_near(found, a, m, start=0.0):
    # K products and K additions, each rounded by half a unit, of terms whose sizes add up to |a| |m|.
    exact = start + a.astype(np.float64) @ m.astype(np.float64)
    bound = np.abs(start) + np.abs(a).astype(np.float64) @ np.abs(m).astype(np.float64)
    error = np.abs(found - exact)
    assert np.all(error <= (a.shape[1] + 1) * np.finfo(a.dtype).eps * bound)


def assert_margins_untouched(out):
    wide = out.base
    assert np.isnan(wide[:, :2]).all()
    assert np.isnan(wide[:, -2:]).all()


@pytest.mark.parametrize("layout", [np.ascontiguousarray, transposed, strided])
@every_size
@every_dtype
@every_library
def test_a_matrix_is_loaded_from_any_layout(library_name, dtype, sizes, layout):
    rows, inner, columns = sizes
    product = product_library(library_name).product(rows, inner, columns, dtype)
    a, m = draw(rows, inner, dtype=dtype), draw(inner, columns, dtype=dtype, seed=1)
    out = np.full((rows, columns), np.nan, dtype)
    product.load(layout(m))
    product.multiply(a, out)
    assert_near(out, a, m)


@every_size
@every_dtype
@every_library
def test_operands_may_be_columns_of_wider_arrays(library_name, dtype, sizes):
    rows, inner, columns = sizes
    product = product_library(library_name).product(rows, inner, columns, dtype)
    a, m = strided(draw(rows, inner, dtype=dtype)), draw(inner, columns, dtype=dtype, seed=1)
    out = strided(np.zeros((rows, columns), dtype))
    product.load(m)
    product.multiply(a, out)
    assert_near(out, a, m)
    assert_margins_untouched(out)


@every_dtype
@every_library
def test_accumulate_adds_to_what_is_there(library_name, dtype):
    product = product_library(library_name).product(ROWS, INNER, COLUMNS, dtype)
    a, m = strided(draw(ROWS, INNER, dtype=dtype)), draw(INNER, COLUMNS, dtype=dtype, seed=1)
    start = draw(ROWS, COLUMNS, dtype=dtype, seed=2)
    out = strided(start)
    product.load(m)
    product.accumulate(a, out)
    assert_near(out, a, m, start.astype(np.float64))
    assert_margins_untouched(out)


@every_library
def test_multiply_overwrites_even_nan(library_name):
    product = product_library(library_name).product(2, 3, 4, "float64")
    out = np.full((2, 4), np.nan)
    product.load(np.ones((3, 4)))
    product.multiply(np.ones((2, 3)), out)
    np.testing.assert_array_equal(out, 3)


@every_library
def test_a_loaded_matrix_is_a_copy_until_the_next_load(library_name):
    product = product_library(library_name).product(2, 3, 4, "float64")
    matrix, a, out = np.ones((3, 4)), np.ones((2, 3)), np.empty((2, 4))
    product.load(matrix)
    matrix[...] = 2
    product.multiply(a, out)
    np.testing.assert_array_equal(out, 3)
    product.load(matrix)
    product.multiply(a, out)
    np.testing.assert_array_equal(out, 6)


@pytest.mark.parametrize("b_layout", [np.ascontiguousarray, transposed, strided])
@pytest.mark.parametrize("a_layout", [np.ascontiguousarray, transposed, strided])
@every_size
@every_dtype
@every_library
def test_matmul_takes_any_layout_into_strided_rows(library_name, dtype, sizes, a_layout, b_layout):
    rows, inner, columns = sizes
    a, b = draw(rows, inner, dtype=dtype), draw(inner, columns, dtype=dtype, seed=1)
    out = strided(np.zeros((rows, columns), dtype))
    product_library(library_name).matmul(a_layout(a), b_layout(b), out)
    assert_near(out, a, b)
    assert_margins_untouched(out)


@pytest.mark.parametrize("b_layout", [np.ascontiguousarray, transposed, strided])
@pytest.mark.parametrize("a_layout", [np.ascontiguousarray, transposed, strided])
@every_size
@every_dtype
@every_library
def test_matmul_adds_to_strided_rows_when_asked(library_name, dtype, sizes, a_layout, b_layout):
    rows, inner, columns = sizes
    a, b = draw(rows, inner, dtype=dtype), draw(inner, columns, dtype=dtype, seed=1)
    start = draw(rows, columns, dtype=dtype, seed=2)
    out = strided(start)
    product_library(library_name).matmul(a_layout(a), b_layout(b), out, accumulate=True)
    assert_near(out, a, b, start.astype(np.float64))
    assert_margins_untouched(out)


@every_library
def test_matmul_adds_to_outputs_of_any_size_and_dtype_in_turn(library_name):
    library = product_library(library_name)
    for rows, columns, dtype in ((4, 3, "float32"), (2, 5, "float64"), (6, 7, "float64"), (1, 1, "float32")):
        a, b = draw(rows, INNER, dtype=dtype), draw(INNER, columns, dtype=dtype, seed=1)
        start = draw(rows, columns, dtype=dtype, seed=2)
        out = start.copy()
        library.matmul(a, b, out, accumulate=True)
        assert_near(out, a, b, start.astype(np.float64))


@pytest.mark.parametrize("sizes", [(6, 2, 7, 5), (6, 1, 7, 5), (6, 2, 1, 5), (6, 2, 7, 1), (1, 1, 1, 1)], ids=str)
@every_dtype
@every_cell
def test_a_cell_computes_the_same_with_either_library(cell, dtype, sizes):
    problem = make_problem(cell, *sizes).astype(dtype)
    ours = dict(run(cell, problem, product_library("numpy")).items())
    # Two orders of the same sums: 2 T (D + H + 12) roundings of half a unit, as against torch, on either side.
    steps, _, inputs, hidden = sizes
    tolerance = 2 * steps * (inputs + hidden + 12) * np.finfo(dtype).eps
    for name, value in run(cell, problem, product_library("mkl")).items():
        size = max(1.0, np.abs(ours[name]).max())
        np.testing.assert_allclose(value, ours[name], rtol=0, atol=tolerance * size, err_msg=name)


def test_mkl_refuses_a_matrix_it_did_not_plan_for():
    product = product_library("mkl").product(ROWS, INNER, COLUMNS, "float32")
    with pytest.raises(ValueError, match=r"\(7, 5\) float32 matrix was planned, \(5, 7\) float32 given"):
        product.load(np.zeros((COLUMNS, INNER), np.float32))
    with pytest.raises(ValueError, match=r"\(7, 5\) float32 matrix was planned, \(7, 5\) float64 given"):
        product.load(np.zeros((INNER, COLUMNS)))


def test_libraries_say_what_they_are():
    assert product_library("numpy").name == f"numpy {np.__version__} matmul"
    assert product_library("mkl").name.startswith("MKL 20")
