"""What of a timeline belongs together: the two ends of a message, the members of a sum."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from hpcrnn.records.split import Split
from hpcrnn.records.timeline import Message, Sum, Timeline, awaited, read_post


@dataclass
class Transfer:
    """A message, as rows of a timeline; None for what the timeline does not hold.

    Attributes
    ----------
    sender, receiver : int
        Ranks.
    value : str
    n_bytes : int
    send, send_wait, receive, receive_wait : int or None
        Rows of the two posts and the two waits.
    """

    sender: int
    receiver: int
    value: str
    n_bytes: int
    send: int | None = None
    send_wait: int | None = None
    receive: int | None = None
    receive_wait: int | None = None


@dataclass
class Reduction:
    """A sum over ranks, as rows of a timeline.

    Attributes
    ----------
    members : tuple of int
        Ranks it runs over.
    handle : str
        E.g. ``AllReduce(2:3)``.
    posts, waits : dict of int to int
        Rows by rank.
    """

    members: tuple[int, ...]
    handle: str
    posts: dict[int, int]
    waits: dict[int, int]


def transfers(timeline: Timeline) -> tuple[Transfer, ...]:
    """Pair the posts and waits of every message.

    A sender, a receiver and a value name a message; where they repeat, the first post belongs to the first
    receive and so on, as MPI's order of messages has it.

    Returns
    -------
    tuple of Transfer
        In the order in which either end first appears.
    """
    found: dict[tuple[int, int, str, int], Transfer] = {}
    for rank in _ranks(timeline):
        seen: dict[tuple[str, int], int] = defaultdict(int)
        begun: dict[str, Transfer] = {}
        for row in timeline.rows_of(rank).tolist():
            text = timeline.instruction[row]
            post = read_post(text)
            if isinstance(post, Message):
                ends = (rank, post.peer) if post.sends else (post.peer, rank)
                turn = seen[post.handle, post.peer]
                seen[post.handle, post.peer] += 1
                transfer = found.setdefault((*ends, post.value, turn), Transfer(*ends, post.value, post.n_bytes))
                begun[post.handle] = transfer
                if post.sends:
                    transfer.send = row
                else:
                    transfer.receive = row
            elif ended := begun.pop(awaited(text), None):
                if awaited(text).startswith("send "):
                    ended.send_wait = row
                else:
                    ended.receive_wait = row
    return tuple(found.values())


def reductions(timeline: Timeline, split: Split) -> tuple[Reduction, ...]:
    """Gather the posts and waits of every sum.

    Parameters
    ----------
    timeline : Timeline
    split : Split
        Says which ranks a sum over an axis has.
    """
    found: dict[tuple[tuple[int, ...], str, int], Reduction] = {}
    for rank in _ranks(timeline):
        seen: dict[str, int] = defaultdict(int)
        begun: dict[str, Reduction] = {}
        for row in timeline.rows_of(rank).tolist():
            text = timeline.instruction[row]
            post = read_post(text)
            if isinstance(post, Sum):
                members = split.members(rank, post.axes)
                key = (members, post.handle, seen[post.handle])
                seen[post.handle] += 1
                reduction = found.setdefault(key, Reduction(members, post.handle, {}, {}))
                reduction.posts[rank] = row
                begun[post.handle] = reduction
            elif ended := begun.pop(awaited(text), None):
                ended.waits[rank] = row
    return tuple(found.values())


def _ranks(timeline: Timeline) -> list[int]:
    return sorted({int(rank) for rank in timeline.rank})
