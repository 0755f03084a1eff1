"""Shards of a layer, each in a thread, in lock step: what a cell computes when its hidden units are split."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from cell_samples import Problem, Result

from hpcrnn.cells.exchange import ALONE
from hpcrnn.cells.products import NumpyProducts
from hpcrnn.model.network import Block
from hpcrnn.model.sharding import Shard, join, join_units, take, take_units

TIMEOUT_S = 20


class Board:
    """Where the shards of a group put their arrays for the others to read."""

    def __init__(self, size):
        self.slots = [None] * size
        self.barrier = threading.Barrier(size, timeout=TIMEOUT_S)


@dataclass
class ThreadExchange:
    """The exchange of one shard: put, wait for all, read, wait for all."""

    board: Board
    shard: Shard
    calls: list = field(default_factory=list)

    rank = property(lambda self: self.shard.index)
    size = property(lambda self: self.shard.size)

    def _all(self, name, array):
        self.calls.append((name, array.shape))
        self.board.slots[self.rank] = array
        self.board.barrier.wait()
        return self.board.slots

    def gather(self, own, full):
        assert own.shape == (len(full), self.shard.count(full.shape[1]))
        for index, part in enumerate(self._all("gather", own)):
            np.copyto(full[:, Shard(index, self.size).units(full.shape[1])], part)
        self.board.barrier.wait()

    def reduce_scatter(self, partial, own):
        assert own.shape == (len(partial), self.shard.count(partial.shape[1]))
        units = self.shard.units(partial.shape[1])
        first, *others = self._all("reduce_scatter", partial)
        np.copyto(own, first[:, units])
        for other in others:
            np.add(own, other[:, units], out=own)
        self.board.barrier.wait()

    def sum(self, array):
        total = sum(self._all("sum", array))
        self.board.barrier.wait()
        array[...] = total


def on_every_shard(size, function):
    """Call ``function(shard, exchange)`` in a thread for each shard; return the results in their order."""
    board = Board(size)

    def call(index):
        shard = Shard(index, size)
        try:
            return function(shard, ThreadExchange(board, shard) if size > 1 else ALONE)
        except BaseException:
            board.barrier.abort()  # so that no other thread waits for this one
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(call, index) for index in range(size)]
    errors = [f.exception() for f in futures if f.exception() is not None]
    for error in sorted(errors, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
        raise error  # the cause, not one of those it broke
    return [f.result() for f in futures]


def layer(cell, D, H):
    """The block of a recurrent layer."""
    return Block("layer0", "recurrent", D, H, cell.parameter_shapes(D, H), cell)


def shard_problem(cell, problem, shard):
    """What one shard computes from: the whole input, its own units of all else."""
    block = layer(cell, problem.x.shape[-1], problem.hidden)

    def units(arrays):
        return {name: np.ascontiguousarray(take_units(a, shard)) for name, a in arrays.items()}

    return Problem(
        {name: take(block, name, a, shard) for name, a in problem.parameters.items()},
        problem.x,
        units(problem.initial),
        np.ascontiguousarray(take_units(problem.dy, shard)),
        units(problem.dstate),
    )


def prepare(cell, problem, shard, exchange, library=None):
    """A shard's problem, tape and workspace, weights loaded and initial state in place."""
    own, width = shard_problem(cell, problem, shard), problem.hidden
    steps, rows, _ = problem.x.shape
    H, dtype = shard.count(width), problem.x.dtype
    tape = cell.make_tape(steps, rows, H, dtype, width)
    work = cell.make_workspace(rows, H, dtype, library or NumpyProducts(), width, exchange)
    cell.load(own.parameters, work, backward=True)
    for name, state in own.initial.items():
        tape.states[name][0] = state
    return own, tape, work


def run_shard(cell, problem, shard, exchange, library=None, chunks=None):
    """Run both passes on one shard, chunk by chunk, gradients added up in place; ``x``'s is this shard's part."""
    chunks = chunks or [slice(0, len(problem.x))]
    own, tape, work = prepare(cell, problem, shard, exchange, library)
    windows = [tape.window(c.start, c.stop) for c in chunks]
    for c, window in zip(chunks, windows, strict=True):
        cell.forward(own.parameters, own.x[c], window, work)
    y, final = tape.y.copy(), {name: state[-1].copy() for name, state in tape.states.items()}

    carry = {name: a.copy() for name, a in own.dstate.items()}
    dx = np.full_like(own.x, np.nan)
    gradients = {name: np.full_like(a, np.nan) for name, a in own.parameters.items()}
    for n, (c, window) in enumerate(zip(reversed(chunks), reversed(windows), strict=True)):
        cell.backward(own.dy[c], carry, window, work)
        cell.input_gradient(own.parameters, window, dx[c], work)
        cell.weight_gradient(own.x[c], window, gradients, work, accumulate=n > 0)
    return Result(y, final, {**gradients, "x": dx, **{f"{name}0": a for name, a in carry.items()}})


def run_shards(cell, problem, size, make_library=NumpyProducts, chunks=None):
    """Run all shards and put what they computed together."""
    results = on_every_shard(
        size, lambda shard, exchange: run_shard(cell, problem, shard, exchange, make_library(), chunks)
    )
    for result in results:  # every shard has the whole output
        np.testing.assert_array_equal(result.y, results[0].y)
    block = layer(cell, problem.x.shape[-1], problem.hidden)
    gradients = {name: join(block, name, [r.gradients[name] for r in results]) for name in problem.parameters}
    gradients["x"] = sum(r.gradients["x"] for r in results)
    gradients |= {f"{name}0": join_units([r.gradients[f"{name}0"] for r in results]) for name in problem.initial}
    final = {name: join_units([r.final[name] for r in results]) for name in problem.initial}
    return Result(results[0].y, final, gradients)
