"""Arrays of the stand-in: CuPy's rules, and what it sees that CuPy does not."""

import gc

import numpy as np
import pytest
from stand_in import cp


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_fresh_memory_is_no_number(dtype):
    assert np.isnan(cp.empty((3, 5), dtype).get()).all()


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int32])
def test_fresh_memory_is_neither_zero_nor_what_kernels_take_for_unwritten(dtype):
    values = cp.empty(7, dtype).get()
    assert not (values == 0).any()
    assert not (values == np.array(-1).astype(dtype)).any()


def test_what_is_computed_is_numpys():
    a, b = np.arange(12.0, dtype=np.float32).reshape(3, 4), np.linspace(-1, 1, 4, dtype=np.float32)
    x, y = cp.asarray(a), cp.asarray(b)
    np.testing.assert_array_equal((np.float32(2) * x[1:] + y).get(), 2 * a[1:] + b)
    np.testing.assert_array_equal(cp.concatenate([x, y[None]]).get(), np.concatenate([a, b[None]]))
    np.testing.assert_array_equal(cp.where(x > 5, x, cp.float32(0)).get(), np.where(a > 5, a, 0))
    assert float(x.astype(np.float64).sum()) == a.sum()
    assert bool((x == x.copy()).all())
    x[:, 1] += np.float32(1)
    a[:, 1] += 1
    x.T[2] = y[:3]
    a.T[2] = b[:3]
    np.testing.assert_array_equal(x.get(), a)


def test_indices_may_be_on_the_device():
    table, rows = cp.asarray(np.arange(6.0).reshape(3, 2)), cp.asarray(np.array([2, 0, 2]))
    np.testing.assert_array_equal(table[rows].get(), [[4, 5], [0, 1], [4, 5]])
    hot = cp.zeros((3, 4), np.float32)
    hot[cp.arange(3), rows] = cp.ones(1, np.float32)[0]
    np.testing.assert_array_equal(hot.get(), np.eye(4)[[2, 0, 2]])


def test_views_share_memory_and_reductions_are_arrays():
    a = cp.zeros((2, 6), np.float32)
    a.reshape(3, 4)[1, 2] = 5
    assert a[1, 0].item() == 5
    assert a[0, 0].shape == a.sum().shape == ()
    assert a[1:].data.ptr == a.data.ptr + 24
    assert a.view(np.uint16).shape == (2, 12)


MIXTURES = {
    "arithmetic": lambda a, host: a + host,
    "arithmetic, the other way round": lambda a, host: host + a,
    "in place": lambda a, host: a.__iadd__(host),
    "an element": lambda a, host: a.__setitem__(0, host),
    "a function": cp.maximum,
    "NumPy's function": np.add,
    "a conversion": lambda a, host: np.asarray(a),
    "a copy to the host": lambda a, host: np.copyto(host, a),
    "a comparison": lambda a, host: np.testing.assert_array_equal(np.ascontiguousarray(a), host),
}


@pytest.mark.parametrize("mixture", MIXTURES)
def test_arrays_of_host_and_device_do_not_mix(mixture):
    with pytest.raises(TypeError):
        MIXTURES[mixture](cp.zeros(3, np.float32), np.zeros(3, np.float32))


def test_copies_between_host_and_device_are_exact_about_type_and_shape():
    a = cp.zeros((2, 3), np.float32)
    for wrong, error in (
        (np.zeros((2, 3)), TypeError),
        (np.zeros((3, 2), np.float32), ValueError),
        (cp.zeros((2, 3), np.float32), TypeError),
    ):
        with pytest.raises(error):
            a.set(wrong)
        with pytest.raises(error):
            a.get(out=wrong)
    with pytest.raises(RuntimeError, match="non-contiguous"):
        a[:, :2].set(np.zeros((2, 2), np.float32))


def test_the_pool_counts_and_refuses_what_does_not_fit(monkeypatch):
    pool = cp.get_default_memory_pool()
    gc.collect()
    pool.free_all_blocks()
    before = pool.used_bytes()
    a = cp.empty(1000, np.float32)
    assert pool.used_bytes() == pool.total_bytes() == before + 4096
    del a
    assert (pool.used_bytes(), pool.total_bytes()) == (before, before + 4096)
    pool.free_all_blocks()
    monkeypatch.setattr("cupy._settings.MEMORY_BYTES", before + (1 << 20))
    assert cp.cuda.runtime.memGetInfo() == (1 << 20, before + (1 << 20))
    with pytest.raises(cp.cuda.memory.OutOfMemoryError, match="Out of memory allocating 1,048,580 bytes"):
        cp.empty((1 << 18) + 1, np.float32)


def test_pinned_memory_is_a_buffer():
    memory = cp.cuda.alloc_pinned_memory(32)
    host = np.frombuffer(memory, np.float32, 8)
    assert np.isnan(host).all()
    host[...] = np.arange(8)
    device = cp.empty(8, np.float32)
    device.set(host)
    assert device.get(out=host) is host
    np.testing.assert_array_equal(host, np.arange(8))


def test_mpi_is_told_where_an_array_lies():
    a = cp.zeros((3, 4), np.float32)
    told = a[1:].__cuda_array_interface__
    assert told["data"] == (a.data.ptr + 16, False)
    assert (told["shape"], told["typestr"], told["strides"]) == ((2, 4), "<f4", None)
    assert a[:, 1].__cuda_array_interface__["strides"] == (16,)


def test_ranges_for_a_profiler_are_closed_as_often_as_opened():
    cp.cuda.nvtx.RangePush("one")
    assert cp.cuda.nvtx.open_ranges() == ("one",)
    cp.cuda.nvtx.RangePop()
    with pytest.raises(RuntimeError):
        cp.cuda.nvtx.RangePop()
