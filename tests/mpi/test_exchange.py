"""The exchange between shards over MPI, against what NumPy makes of all ranks' arrays."""

import pytest
from launching import case_script, mpirun

pytestmark = pytest.mark.mpi

# Every rank draws the arrays of all ranks. 7 and 11 columns are no multiple of 2, 3 or 4; 3 columns are too few for 4
# ranks; 40000 rows are several messages.
CASE = """
import tracemalloc
import numpy as np
from mpi4py import MPI
from hpcrnn.execution.exchange import make_exchange
from hpcrnn.model.sharding import Shard, take_units

comm = MPI.COMM_WORLD
exchange = make_exchange(comm)
K, me = comm.size, comm.rank
shard = Shard(me, K)
assert (exchange.rank, exchange.size) == (me, K)


def summed(terms):
    total = terms[0].copy()
    for term in terms[1:]:
        total = total + term  # in the order of the ranks
    return total


def own_of(full):
    # One shard's part is the whole, in the same memory.
    return full if K == 1 else np.ascontiguousarray(take_units(full, shard))


def check(rows, columns, dtype):
    rng = np.random.default_rng([rows, columns])
    everyones = rng.standard_normal((K, rows, columns)).astype(dtype)
    expected = summed(everyones)

    own = own_of(everyones[0].copy())
    full = own if K == 1 else np.full((rows, columns), np.nan, dtype)
    exchange.gather(own, full)
    np.testing.assert_array_equal(full, everyones[0])

    partial = everyones[me].copy()
    own = partial if K == 1 else np.full((rows, shard.count(columns)), np.nan, dtype)
    exchange.reduce_scatter(partial, own)
    np.testing.assert_array_equal(own, take_units(expected, shard))
    np.testing.assert_array_equal(partial, everyones[me] if K > 1 else expected)

    for shape in ((rows, columns), (rows * columns,)):
        array = everyones[me].reshape(shape).copy()
        exchange.sum(array)
        np.testing.assert_array_equal(array, expected.reshape(shape))


for dtype in ("float32", "float64"):
    for rows, columns in ((5, 11), (1, 7), (6, 3), (1, 1), (40000, 11), (1, 700001)):
        check(rows, columns, dtype)

full = np.ones((64, 2001), "float32")
own = own_of(full)
smallest = own.nbytes if K == 1 else 64 * 4 * Shard(K - 1, K).count(2001)


def all_three():
    exchange.gather(own, full)
    exchange.reduce_scatter(full, own)
    exchange.sum(full)


all_three()
tracemalloc.start()
all_three()
peak = tracemalloc.get_traced_memory()[1]
# Views and request objects, and NumPy's own buffer of 8192 elements for a strided operand: no array.
assert peak < 4 * 8192 + 4096 < smallest, peak

comm.Barrier()
if me == 0:
    print("all", K, "ranks agree with NumPy")
"""


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4])
def test_gather_and_sums_are_numpys_to_the_bit(n_ranks, tmp_path):
    ended = mpirun(n_ranks, case_script(tmp_path, CASE), cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert f"all {n_ranks} ranks agree with NumPy" in ended.out
