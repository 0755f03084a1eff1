"""Ranks in one process: what the collectives of a compressed sum do, without MPI."""

import numpy as np

from hpcrnn.compression.codecs import parse_codec
from hpcrnn.compression.stages import FlatLayout

ROUNDED = ("float16", "bfloat16", "int8")
CODECS = (*ROUNDED, "topk:0.1", "topk:3", "powersgd:1", "powersgd:4")
SHAPES = (("a.W", (12, 9)), ("a.b", (12,)), ("b.W", (20, 3)), ("b.s", (1, 1)), ("b.c", (1,)))


def layout_of(*shapes):
    """Names and shapes, or sizes of vectors."""
    named = [shape if isinstance(shape, tuple) else (f"v{at}", (shape,)) for at, shape in enumerate(shapes)]
    return FlatLayout(tuple(name for name, _ in named), tuple(shape for _, shape in named))


class Ranks:
    """The compressed sums of n ranks, run in lockstep."""

    def __init__(self, codec, layout, n_ranks, dtype=np.float64):
        self.layout, self.n_ranks = layout, n_ranks
        self.gradients = np.zeros((n_ranks, layout.size), dtype)
        self.sums = [parse_codec(codec).bind(g, layout, rank, n_ranks) for rank, g in enumerate(self.gradients)]

    def step(self, gradients):
        """Return what every rank applies, (n_ranks, n)."""
        self.gradients[...] = gradients
        for stages in zip(*(s.stages for s in self.sums), strict=True):
            for stage in stages:
                stage.begin()
            exchange(stages)
            for stage in stages:
                stage.end()
        return self.gradients.copy()

    @property
    def held_back(self):
        """Over all ranks, in float64."""
        return np.sum([s.held_back().astype(np.float64) for s in self.sums], axis=0)

    def state(self):
        return [{name: array.copy() for name, array in s.state.items()} for s in self.sums]

    def load(self, state):
        for s, arrays in zip(self.sums, state, strict=True):
            assert s.state.keys() == arrays.keys()
            for name, array in arrays.items():
                s.state[name][...] = array


def exchange(stages):
    """Do what MPI would."""
    n_ranks = len(stages)
    assert len({(stage.kind, stage.send.nbytes) for stage in stages}) == 1
    assert all(stage.send.flags.c_contiguous and stage.receive.flags.c_contiguous for stage in stages)
    if stages[0].kind == "allreduce":
        assert all(stage.send is stage.receive for stage in stages)
        total = sum(stage.send.copy() for stage in stages[1:]) + stages[0].send if n_ranks > 1 else stages[0].send
        for stage in stages:
            stage.receive[...] = total
        return
    sent = np.array([stage.send.ravel().view(np.uint8) for stage in stages])
    for rank, stage in enumerate(stages):
        part = np.split(sent, n_ranks, axis=1)[rank] if stage.kind == "alltoall" else sent
        received = stage.receive.reshape(-1).view(np.uint8)
        assert received.size == part.size
        received[...] = part.ravel()
