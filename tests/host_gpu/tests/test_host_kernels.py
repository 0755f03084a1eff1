"""Kernels and matrix products of the stand-in: what runs, and what is refused."""

import numpy as np
import pytest
from stand_in import cp

CUDADriverError, Refused = cp.cuda.driver.CUDADriverError, cp.cuda.runtime.CUDARuntimeError

CODE = """
#ifdef MORE
constexpr int STEP = MORE;
#else
constexpr int STEP = 1;
#endif
extern "C" __global__ void add(const float* a, double* to, float b, long long n) {
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x)
        to[i] = a[i] + b * STEP;
}
// The sum of each block's part, by halves.
extern "C" __global__ void __launch_bounds__(64) sums(const float* a, float* to) {
    __shared__ float half[64];
    const int me = threadIdx.x;
    half[me] = a[blockIdx.x * 64 + me];
    for (int n = 32; n > 0; n /= 2) {
        __syncthreads();
        if (me < n) half[me] += half[me + n];
    }
    if (me == 0) to[blockIdx.x] = half[0];
}
// Every block waits for all the others.
extern "C" __global__ void gather(uint32* counter, int wanted) {
    extern __shared__ float memory[];
    if (threadIdx.x == 0) add_release(counter, 1);
    while (load_acquire(counter) < wanted) {}
    memory[threadIdx.x] = 0.0f;
}
#ifdef BESIDE
extern "C" __global__ void beside(float* a, int n) { a[n + 1] = 1.0f; }
#endif
"""


def kernel(name, *options, cooperative=False):
    return cp.RawModule(code=CODE, options=options, enable_cooperative_groups=cooperative).get_function(name)


@pytest.mark.parametrize("grid", [1, 3, 1 << 16])
def test_a_strided_loop_over_all_elements(grid):
    a, to = cp.asarray(np.arange(100, dtype=np.float32)), cp.empty(100, np.float64)
    kernel("add", "-std=c++17", "-DMORE=2")((grid, 1, 1), (64, 1, 1), (a, to, np.float32(0.5), np.int64(100)))
    np.testing.assert_array_equal(to.get(), np.arange(100) + 1.0)


def test_threads_of_a_block_meet():
    a, to = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32), cp.empty(5, np.float32)
    kernel("sums")((5,), (64,), (cp.asarray(a), to))
    np.testing.assert_allclose(to.get(), a.sum(axis=1), rtol=1e-5)


def test_blocks_of_a_cooperative_launch_are_there_at_once():
    counter = cp.zeros(1, np.uint32)
    gather = kernel("gather", cooperative=True)
    gather((4, 2), (32,), (counter, np.int32(8)), shared_mem=128)
    assert counter.item() == 8
    with pytest.raises(CUDADriverError, match="COOPERATIVE_LAUNCH_TOO_LARGE"):
        gather((9,), (32,), (counter, np.int32(9)), shared_mem=128)


def test_a_kernel_that_waits_for_good_is_an_error_and_no_hang():
    counter = cp.zeros(1, np.uint32)
    with pytest.raises(CUDADriverError, match="LAUNCH_FAILED: the kernel gather hangs"):
        kernel("gather")((2,), (32,), (counter, np.int32(2)), shared_mem=128)  # one block after the other
    kernel("gather")((1,), (32,), (cp.zeros(1, np.uint32), np.int32(1)), shared_mem=128)


WRONG = {
    "too few": lambda a, to: (a, to, np.float32(0)),
    "an int for a long long": lambda a, to: (a, to, np.float32(0), np.int32(1)),
    "a double for a float": lambda a, to: (a, to, np.float64(0), np.int64(1)),
    "Python's float": lambda a, to: (a, to, 0.0, np.int64(1)),
    "Python's int": lambda a, to: (a, to, np.float32(0), 1),
    "floats for doubles": lambda a, to: (a, a, np.float32(0), np.int64(1)),
    "integers for floats": lambda a, to: (a.view(np.int32), to, np.float32(0), np.int64(1)),
    "a number for a pointer": lambda a, to: (np.intp(8), to, np.float32(0), np.int64(1)),
    "a host array": lambda a, to: (np.zeros(1, np.float32), to, np.float32(0), np.int64(1)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_arguments_must_be_what_the_kernel_declares(wrong):
    arguments = WRONG[wrong](cp.zeros(1, np.float32), cp.zeros(1, np.float64))
    with pytest.raises(TypeError, match="add: "):
        kernel("add")((1,), (1,), arguments)


def test_a_null_pointer_is_passed():
    kernel("add")((1,), (1,), (np.intp(0), np.intp(0), np.float32(0), np.int64(0)))


def test_launches_beyond_the_limits_are_refused():
    a, to = cp.zeros(128, np.float32), cp.zeros(2, np.float32)
    sums, gather = kernel("sums"), kernel("gather", cooperative=True)
    assert sums.max_threads_per_block == 64
    with pytest.raises(CUDADriverError, match="INVALID_VALUE"):
        sums((1,), (128,), (a, to))
    arguments = (cp.zeros(1, np.uint32), np.int32(1))
    with pytest.raises(CUDADriverError, match="max_dynamic_shared_size_bytes"):
        gather((1,), (32,), arguments, shared_mem=100_000)
    gather.max_dynamic_shared_size_bytes = 100_000
    gather((1,), (32,), arguments, shared_mem=100_000)


def test_writing_beside_an_array_is_seen():
    with pytest.raises(CUDADriverError, match="ILLEGAL_ADDRESS: the kernel beside"):
        kernel("beside", "-DBESIDE=1")((1,), (1,), (cp.zeros(10, np.float32), np.int32(10)))


def test_a_macro_leaves_a_kernel_out_and_what_does_not_compile_is_said():
    with pytest.raises(CUDADriverError, match="NOT_FOUND"):
        kernel("beside")
    with pytest.raises(cp.cuda.compiler.CompileException, match="error"):
        cp.RawModule(code='extern "C" __global__ void bad(int a) { b = a; }').get_function("bad")


def test_kernels_are_recorded_in_a_capture():
    stream = cp.cuda.Stream(non_blocking=True)
    a, to, add = cp.ones(4, np.float32), cp.zeros(4, np.float64), kernel("add")
    with stream:
        stream.begin_capture()
        with pytest.raises(Refused, match="the kernel add would be loaded"):
            add((1,), (4,), (a, to, np.float32(1), np.int64(4)))
        stream.end_capture()
        add((1,), (4,), (a, to, np.float32(-1), np.int64(4)))
        stream.begin_capture()
        add((1,), (4,), (a, to, np.float32(1), np.int64(4)))
        graph = stream.end_capture()
        assert to.sum().item() == 0
        a.fill(2)
        graph.launch(stream)
        assert to.sum().item() == 12


def make_arithmetic(precision):
    from hpcrnn.backends.cupy.arithmetic import Arithmetic

    return Arithmetic(precision)


@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)], ids=str)
@pytest.mark.parametrize("precision", ["float32", "tf32", "float16", "bfloat16"])
def test_products_by_cublas_are_those_of_numpy(precision, transposed):
    arithmetic, rng = make_arithmetic(precision), np.random.default_rng(0)
    m, n, k = 3, 5, 7
    shapes = [(k, m) if transposed[0] else (m, k), (n, k) if transposed[1] else (k, n)]
    # Whole numbers: nothing is rounded in any precision. Each lies in a wider array, as parts of gates do.
    hosts = [rng.integers(-4, 5, shape).astype(np.float32) for shape in shapes]
    operands = []
    for host in hosts:
        wide = arithmetic.round(
            cp.asarray(np.pad(host, ((0, 0), (0, 4)))), arithmetic.empty(len(host), host.shape[1] + 4)
        )
        operands.append(wide[:, : host.shape[1]])
    exact = (hosts[0].T if transposed[0] else hosts[0]) @ (hosts[1].T if transposed[1] else hosts[1])
    flags = {"transpose_a": transposed[0], "transpose_b": transposed[1]}
    out = cp.empty((m, n), np.float32)  # poison: with beta 0 it is not read
    arithmetic.gemm(*operands, out, **flags)
    np.testing.assert_array_equal(out.get(), exact)
    arithmetic.gemm(*operands, out, **flags, alpha=0.5, beta=2.0)
    np.testing.assert_array_equal(out.get(), 2.5 * exact)
    stored = arithmetic.empty(m, n)
    arithmetic.gemm(*operands, stored, **flags)
    np.testing.assert_array_equal(arithmetic.widen(stored).get(), exact)


def test_tf32_rounds_its_factors():
    a, out = cp.full((1, 1), 1 + 2.0**-12, np.float32), cp.empty((1, 1), np.float32)
    for precision, expected in (("tf32", 1.0), ("float32", 1 + 2.0**-11)):
        make_arithmetic(precision).gemm(a, a, out)
        assert out.item() == pytest.approx(expected, abs=1e-7)


def test_a_product_that_leaves_its_arrays_fails(capfd):
    from hpcrnn.backends.cupy.cublas import Cublas

    a, out = cp.ones((2, 2), np.float32), cp.empty((2, 2), np.float32)
    operand = (a.data.ptr, 0, 4)  # rows that lie further apart than they do
    with pytest.raises(RuntimeError, match="status 13"):
        Cublas().gemm((False, False), (2, 2, 2), (1.0, 0.0), operand, operand, (out.data.ptr, 0, 2), 68)
    assert "not in one piece of device memory" in capfd.readouterr().err


def test_products_are_recorded_in_a_capture():
    stream, arithmetic = cp.cuda.Stream(non_blocking=True), make_arithmetic("float32")
    a, out = cp.ones((2, 2), np.float32), cp.zeros((2, 2), np.float32)
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="status 13"):
            arithmetic.gemm(a, a, out)
        stream.end_capture()
        arithmetic.gemm(a, a, out)
        stream.begin_capture()
        arithmetic.gemm(a, a, out, beta=1.0)
        graph = stream.end_capture()
        assert out.sum().item() == 8
        graph.launch(stream)
        assert out.sum().item() == 16
