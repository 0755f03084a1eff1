"""Posts and waits of a program, carried out by MPI.

Messages are persistent requests on buffers that stay where they are: bound once, started in every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from hpcrnn.compression.stages import Stage as CodecStage
from hpcrnn.execution.exchange import make_exchange
from hpcrnn.execution.line import make_line
from hpcrnn.execution.stages import Stage, compressed_stages, stages_through_nodes
from hpcrnn.schedules.graph import Value
from hpcrnn.schedules.nodes import Nodes
from hpcrnn.schedules.program import (
    SPANS,
    AllReduce,
    AllReduceParameters,
    AllReduceScalar,
    Axes,
    Collective,
    PostRecv,
    PostSend,
    Span,
    SumStage,
    Vector,
)
from hpcrnn.spec import AXES, Grid

Array = npt.NDArray[Any]
Communicator = MPI.Intracomm

_PARTS = 4
"""At most as many arrays as a value has: the states of a cell."""


class GridCommunicators:
    """A Cartesian communicator over the grid, and one for every purpose and set of axes a program may ask for.

    All are made at once: making one is collective, and not every rank needs every one.

    Parameters
    ----------
    communicator : Communicator
        Of as many ranks as the grid has, in the grid's order.
    grid : Grid
    local_rank : int
        Number of this rank among those of its node that see the same GPUs.
    nodes : Nodes, optional
        Of the ranks, where sums go through nodes.
    """

    def __init__(self, communicator: Communicator, grid: Grid, local_rank: int = 0, nodes: Nodes | None = None) -> None:
        self.local_rank, self.nodes = local_rank, nodes
        self.cart = communicator.Create_cart([getattr(grid, axis) for axis in AXES], reorder=False)
        self._long = [axis for axis in AXES if getattr(grid, axis) > 1]
        self._subs = {(purpose, self._longer(axes)): self._sub(axes) for purpose, axes in _PURPOSES}
        self.spans: dict[Span, Communicator] = {} if nodes is None else self._split(nodes)
        self.exchange = make_exchange(self._sub(("tensor",)))
        self.line = make_line(self._sub(("time",)))

    def _split(self, nodes: Nodes) -> dict[Span, Communicator]:
        """Communicators of this rank's node, and of the owners of its part in all nodes; ranks in ascending order."""
        rank = self.cart.Get_rank()
        first: dict[Span, int] = {"within node": min(nodes.within(rank)), "across nodes": min(nodes.across(rank))}
        split = {span: MPI.Comm.Split(self.cart, first[span], rank) for span in SPANS}
        return {span: MPI.Intracomm(communicator) for span, communicator in split.items()}

    def along(self, axes: Axes, purpose: str) -> Communicator:
        """Ranks that differ along the given axes only; each purpose has a communicator of its own."""
        return self._subs[purpose, self._longer(axes)]

    def _longer(self, axes: Axes) -> Axes:
        return tuple(axis for axis in axes if axis in self._long)

    def _sub(self, axes: Axes) -> Communicator:
        return self.cart.Sub([axis in axes for axis in AXES])


_PURPOSES: tuple[tuple[str, Axes], ...] = (
    ("loss", ("data", "pipeline", "time", "tensor")),
    ("norm", ("pipeline", "tensor")),
    ("gradient", ("data", "time")),
    ("gradient", ("data", "time", "tensor")),
    ("parameters", ("data",)),
)


@dataclass(frozen=True, slots=True)
class Messages:
    """The persistent requests of one value.

    Attributes
    ----------
    start : callable
        Begins.
    wait : callable
        Waits for the end; returns at once where nothing is under way.
    """

    start: Callable[[], None]
    wait: Callable[[], None]


def _messages(requests: Sequence[MPI.Prequest]) -> Messages:
    """Calls that begin and end one message or several; of one, mpi4py's own, with nothing around them."""
    if len(requests) == 1:
        return Messages(requests[0].Start, requests[0].Wait)  # type: ignore[arg-type]  # what it returns is always True

    def start() -> None:
        for request in requests:
            request.Start()

    def wait() -> None:
        for request in requests:
            request.Wait()

    return Messages(start, wait)


def _joined(arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    """Arrays that together are the whole of one larger array, as that: one message is cheaper than two.

    (64, 256) float32 h and c there and back on two ranks of one node: 43 µs in two messages, 35 in one, and 79 in one
    of a derived datatype, which MPI packs.
    """
    if len(arrays) == 1:
        return arrays
    whole = arrays[0].base
    if not isinstance(whole, np.ndarray) or not whole.flags.c_contiguous:
        return arrays
    starts = [a.__array_interface__["data"][0] for a in (whole, *arrays)]
    expected = np.cumsum([0, *(a.nbytes for a in arrays)]) + starts[0]
    follow = starts[1:] == expected[:-1].tolist() and whole.nbytes == expected[-1] - starts[0]
    return (whole,) if follow and all(a.base is whole for a in arrays) else arrays


class Group:
    """Ranks of a communicator, for what sums without MPI.

    Parameters
    ----------
    communicator : Communicator
    """

    def __init__(self, communicator: Communicator) -> None:
        self._comm = communicator
        self.rank, self.size = int(communicator.Get_rank()), int(communicator.Get_size())

    def share(self, value: Any) -> Any:
        return self._comm.bcast(value)


class Transport:
    """Messages and sums of one rank's program.

    Parameters
    ----------
    communicators : GridCommunicators
    """

    def __init__(self, communicators: GridCommunicators) -> None:
        self._communicators = communicators
        self._pending: dict[Collective, MPI.Request] = {}

    def bind_messages(
        self, posts: Sequence[PostRecv | PostSend], buffers: Callable[[PostRecv | PostSend], tuple[Array, ...]]
    ) -> dict[PostRecv | PostSend, Messages]:
        """Make the persistent requests of a program's messages.

        Tags number the values between two ranks; both ends number the same set in the same way.

        Parameters
        ----------
        posts : sequence of PostRecv or PostSend
        buffers : callable
            From post to contiguous arrays.
        """
        comm, bound = self._communicators.cart, {}
        for kind, init in ((PostSend, comm.Send_init), (PostRecv, comm.Recv_init)):
            channels: dict[int, list[PostRecv | PostSend]] = {}
            for post in posts:
                if isinstance(post, kind):
                    channels.setdefault(post.peer, []).append(post)
            for peer, members in channels.items():
                for tag, post in enumerate(sorted(members, key=lambda post: _sort_key(post.value))):
                    arrays = _joined(buffers(post))
                    requests = [init(a, peer, tag * _PARTS + part) for part, a in enumerate(arrays)]
                    bound[post] = _messages(requests)
        return bound

    def group(self, post: AllReduce) -> Group:
        """Return the ranks that a gradient is summed over."""
        return Group(self._communicators.along(post.axes, "gradient"))

    def bind_sum(self, post: AllReduce | AllReduceScalar | AllReduceParameters) -> Callable[[Array], None]:
        """Return the call that begins a sum, in place."""
        comm = self._communicators.along(post.axes, _purpose(post))

        def begin(buffer: Array) -> None:
            self._pending[post] = comm.Iallreduce(MPI.IN_PLACE, buffer, op=MPI.SUM)

        return begin

    def bind_stages(
        self, posts: Sequence[SumStage], gradient: Array, coded: Sequence[CodecStage] = ()
    ) -> dict[SumStage, Stage]:
        """Lay the stages of one gradient's sum on its memory.

        Here a method that sums in stages of its own says what they do.

        Parameters
        ----------
        posts : sequence of SumStage
        gradient : array (n,)
        coded : sequence of CodecStage, optional
            What a codec does with it.
        """
        if coded:
            axes = next(post.over for post in posts if not isinstance(post.over, str))
            return compressed_stages(posts, coded, self._communicators.along(axes, "gradient"))
        nodes, spans = self._communicators.nodes, self._communicators.spans
        if nodes is None:
            raise ValueError("these communicators know of no nodes")
        return stages_through_nodes(gradient, posts, nodes, self._communicators.cart.Get_rank(), spans)

    def begin_stage(self, post: SumStage, stage: Stage) -> None:
        """Begin a stage of a sum."""
        self._pending[post] = stage.begin()

    @property
    def cart(self) -> Communicator:
        """What messages go through."""
        return self._communicators.cart

    def progress(self) -> None:
        """Let MPI work on sums under way: without a progress thread it does so only inside its calls."""
        for request in self._pending.values():
            request.Test()

    def wait_sum(self, post: Collective) -> None:
        """Wait for a begun sum."""
        self._pending.pop(post).Wait()


def _purpose(post: AllReduce | AllReduceScalar | AllReduceParameters) -> str:
    if isinstance(post, AllReduceScalar):
        return post.quantity
    return "gradient" if isinstance(post, AllReduce) else "parameters"


def _sort_key(value: Value | Vector) -> tuple[str, int, int, int]:
    if isinstance(value, Vector):
        return value.kind, value.start, value.stop, 0
    return value.kind, value.block, value.microbatch, value.chunk
