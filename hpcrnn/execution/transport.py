"""Posts and waits of a program, carried out by MPI.

Messages are persistent requests on buffers that stay where they are: bound once, started in every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from mpi4py import MPI

from hpcrnn.execution.exchange import make_exchange
from hpcrnn.schedules.graph import Value
from hpcrnn.schedules.program import AllReduce, Axes, Collective, PostRecv, PostSend
from hpcrnn.spec import AXES, Grid

Array = npt.NDArray[Any]
Communicator = MPI.Comm

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
    """

    def __init__(self, communicator: Communicator, grid: Grid) -> None:
        self.cart = communicator.Create_cart([getattr(grid, axis) for axis in AXES], reorder=False)
        self._long = [axis for axis in AXES if getattr(grid, axis) > 1]
        self._subs = {(purpose, self._longer(axes)): self._sub(axes) for purpose, axes in _PURPOSES}
        self.exchange = make_exchange(self._sub(("tensor",)))

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
)


@dataclass(frozen=True, slots=True)
class Messages:
    """The persistent requests of one value."""

    requests: tuple[MPI.Prequest, ...]

    def start(self) -> None:
        """Begin."""
        for request in self.requests:
            request.Start()

    def wait(self) -> None:
        """Wait for the end; at once where nothing is under way."""
        for request in self.requests:
            request.Wait()


class Transport:
    """Messages and sums of one rank's program.

    Parameters
    ----------
    communicators : GridCommunicators
    """

    def __init__(self, communicators: GridCommunicators) -> None:
        self._communicators = communicators
        self._pending: dict[Collective, tuple[MPI.Request, Array]] = {}

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
                    arrays = buffers(post)
                    requests = [init(a, peer, tag * _PARTS + part) for part, a in enumerate(arrays)]
                    bound[post] = Messages(tuple(requests))
        return bound

    def bind_sum(self, post: Collective) -> Callable[[Array], None]:
        """Return the call that begins a sum, in place."""
        purpose = "gradient" if isinstance(post, AllReduce) else post.quantity
        comm = self._communicators.along(post.axes, purpose)

        def begin(buffer: Array) -> None:
            self._pending[post] = (comm.Iallreduce(MPI.IN_PLACE, buffer, op=MPI.SUM), buffer)

        return begin

    def progress(self) -> None:
        """Let MPI work on sums under way: without a progress thread it does so only inside its calls."""
        for request, _ in self._pending.values():
            request.Test()

    def wait_sum(self, post: Collective) -> Array:
        """Wait for a begun sum and return it."""
        request, buffer = self._pending.pop(post)
        request.Wait()
        return buffer


def _sort_key(value: Value) -> tuple[str, int, int, int]:
    return value.kind, value.block, value.microbatch, value.chunk
