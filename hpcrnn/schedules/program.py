"""A program: what one rank does in one step, as an immutable list of small instructions.

A program reads and writes as text, one instruction a line::

    # hpcrnn program 2: rank 1 of pipeline=2, blocks input layer0 layer1 head
    PostRecv y(1,0,0) from 0, 65536 B
    Wait recv y(1,0,0)
    F(2,0,0)
    F(3,0,0)
    ...
    B(2,0,0)
    PostSend dy(1,0,0) to 0, 65536 B
    W(3,0,0)
    ...
    AllReduce(2:3) over data, 66560 B
    ...
    Wait AllReduce(2:3)
    Update

A *post* begins something and returns at once; its *wait* ends it.  What replicas exchange reads as::

    AllReduce(2:3) over data, 66560 B             a sum of gradients in one stage
    ReduceScatter(2:3) within node, 66560 B       one in three: each stage begins when the one before has ended
    AllReduce(2:3) across nodes, 33280 B
    AllGather(2:3) within node, 33280 B
    AllToAll(2:3) of int8 over data, 16904 B      compressed: parts to their owners, their sums to all
    AllGather(2:3) of int8 over data, 8452 B
    PostSend gradient(2:3) to 0, 66560 B          a worker and its parameter server
    Add gradient(2:3) from 1
    PostRecv parameters(0:4) from 0, 266240 B
    Serve gradient(0:4) from 1,2,3, staleness 2, 266240 B
    AllReduce(parameters) over data, 266240 B     an average of models
    Average
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import msgspec

from hpcrnn.errors import ScheduleError, SpecError
from hpcrnn.schedules.graph import Task, Value
from hpcrnn.spec import Axis, Grid, convert, parse_grid

Axes = tuple[Axis, ...]
Span = Literal["within node", "across nodes"]
"""Ranks of a stage: those of this rank's node, or those at its place in every node."""
SPANS: tuple[Span, ...] = get_args(Span)
Over = Axes | Span
"""Which ranks a collective runs over."""


class Vector(msgspec.Struct, frozen=True, gc=False):
    """Parameters of the blocks ``start:stop``, or their gradient, in one piece; printed as ``gradient(2:3)``."""

    kind: Literal["gradient", "parameters"]
    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.kind}({self.start}:{self.stop})"


def _handle(verb: str, value: Value | Vector, way: str, peer: int) -> str:
    """Name a message for its wait: a vector comes from, or goes to, several ranks."""
    return f"{verb} {value} {way} {peer}" if isinstance(value, Vector) else f"{verb} {value}"


class PostRecv(msgspec.Struct, frozen=True, gc=False):
    """Begin to receive a value; until its wait nothing may touch the buffer."""

    value: Value | Vector
    peer: int
    n_bytes: int

    def __str__(self) -> str:
        return f"PostRecv {self.value} from {self.peer}, {self.n_bytes} B"

    @property
    def handle(self) -> str:
        """What a wait calls it."""
        return _handle("recv", self.value, "from", self.peer)


class PostSend(msgspec.Struct, frozen=True, gc=False):
    """Begin to send a value; until its wait nothing may overwrite the buffer."""

    value: Value | Vector
    peer: int
    n_bytes: int

    def __str__(self) -> str:
        return f"PostSend {self.value} to {self.peer}, {self.n_bytes} B"

    @property
    def handle(self) -> str:
        """What a wait calls it."""
        return _handle("send", self.value, "to", self.peer)


class AllReduce(msgspec.Struct, frozen=True, gc=False):
    """Begin to sum the gradients of the blocks ``start:stop`` over the ranks that differ along ``axes`` only."""

    start: int
    stop: int
    axes: Axes
    n_bytes: int

    def __str__(self) -> str:
        return f"{self.handle} over {','.join(self.axes)}, {self.n_bytes} B"

    @property
    def handle(self) -> str:
        """What a wait calls it."""
        return f"AllReduce({self.start}:{self.stop})"


class AllReduceScalar(msgspec.Struct, frozen=True, gc=False):
    """Begin to sum one float64: the loss, or the square of the gradient's norm."""

    quantity: Literal["loss", "norm"]
    axes: Axes

    @property
    def n_bytes(self) -> int:
        """One float64."""
        return 8

    def __str__(self) -> str:
        return f"{self.handle} over {','.join(self.axes)}, 8 B"

    @property
    def handle(self) -> str:
        """What a wait calls it."""
        return f"AllReduce({self.quantity})"


class SumStage(msgspec.Struct, frozen=True, gc=False):
    """Begin one stage of a sum of gradients that takes several: each begins when the one before has ended.

    ``n_bytes`` is what this rank contributes; of a compressed sum ``operand`` says what crosses.
    """

    verb: Literal["ReduceScatter", "AllReduce", "AllGather", "AllToAll"]
    start: int
    stop: int
    over: Over
    n_bytes: int
    operand: str = ""

    def __str__(self) -> str:
        ranks = self.over if isinstance(self.over, str) else f"over {','.join(self.over)}"
        return f"{self.handle} {ranks}, {self.n_bytes} B"

    @property
    def axes(self) -> Over:
        """Which ranks it runs over."""
        return self.over

    @property
    def handle(self) -> str:
        """What a wait calls it."""
        return f"{self.verb}({self.start}:{self.stop}){self.operand and f' of {self.operand}'}"


class AllReduceParameters(msgspec.Struct, frozen=True, gc=False):
    """Begin to sum the parameters of all replicas, each weighted by its share of the batch."""

    axes: Axes
    n_bytes: int

    def __str__(self) -> str:
        return f"{self.handle} over {','.join(self.axes)}, {self.n_bytes} B"

    @property
    def handle(self) -> str:
        """What a wait calls it."""
        return "AllReduce(parameters)"


Message = PostRecv | PostSend
Collective = AllReduce | AllReduceScalar | SumStage | AllReduceParameters
Post = Message | Collective


class Wait(msgspec.Struct, frozen=True, gc=False):
    """Wait until what was begun is over."""

    post: Post

    def __str__(self) -> str:
        return f"Wait {self.post.handle}"


class Carry(msgspec.Struct, frozen=True, gc=False):
    """Let the next step start from this step's final states, where both ends of time lie on this rank."""

    def __str__(self) -> str:
        return "Carry"


class Update(msgspec.Struct, frozen=True, gc=False):
    """Check, clip and apply the gradient."""

    def __str__(self) -> str:
        return "Update"


class Add(msgspec.Struct, frozen=True, gc=False):
    """Add a gradient received from a worker to this rank's."""

    value: Vector
    peer: int

    def __str__(self) -> str:
        return f"Add {self.value} from {self.peer}"


class Serve(msgspec.Struct, frozen=True, gc=False):
    """Take as many gradients as there are workers, in the order in which they arrive, and update after each.

    A worker gets the parameters back at once, or, where it is more than ``staleness`` steps ahead of the slowest, when
    that has caught up (stale synchronous parallel; Ho et al., NIPS 2013).
    """

    value: Vector
    peers: tuple[int, ...]
    staleness: int
    n_bytes: int

    def __str__(self) -> str:
        peers = ",".join(map(str, self.peers))
        return f"Serve {self.value} from {peers}, staleness {self.staleness}, {self.n_bytes} B"

    @property
    def parameters(self) -> Vector:
        """What a worker gets back."""
        return Vector("parameters", self.value.start, self.value.stop)


class Average(msgspec.Struct, frozen=True, gc=False):
    """Take the average of all replicas' parameters, or a step towards it."""

    def __str__(self) -> str:
        return "Average"


Instruction = Task | Post | Wait | Carry | Update | Add | Serve | Average


@dataclass(frozen=True)
class Program:
    """What one rank does in one step.

    Attributes
    ----------
    rank : int
    grid : Grid
    blocks : tuple of str
        Names of the network's blocks; instructions give their index.
    instructions : tuple of Instruction
    """

    rank: int
    grid: Grid
    blocks: tuple[str, ...]
    instructions: tuple[Instruction, ...]

    @property
    def n_ranks(self) -> int:
        """Ranks that take part."""
        return self.grid.n_ranks

    def to_text(self) -> str:
        """Write the program, one instruction a line."""
        head = f"# hpcrnn program 2: rank {self.rank} of {self.grid}, blocks {' '.join(self.blocks)}"
        return "\n".join([head, *map(str, self.instructions)]) + "\n"

    @property
    def bytes_sent(self) -> int:
        """Bytes this rank sends in messages and contributes to collectives in a step."""
        sent = sum(i.n_bytes for i in self.instructions if isinstance(i, PostSend | Collective))
        return sent + sum(i.n_bytes * len(i.peers) for i in self.instructions if isinstance(i, Serve))


_HEAD = re.compile(r"# hpcrnn program 2: rank ([0-9]+) of ([a-z0-9=,]+), blocks (.+)")
_VALUE = r"(y|dy|halo|dhalo)\(([0-9]+),([0-9]+),([0-9]+)\)"
_VECTOR = r"(gradient|parameters)\(([0-9]+):([0-9]+)\)"
_AXES = r"([a-z]+(?:,[a-z]+)*)"


def _value(kind: str, *place: str) -> Value:
    return Value(kind, *map(int, place))  # type: ignore[arg-type]  # the pattern admits only the four kinds


def _vector(kind: str, start: str, stop: str) -> Vector:
    return Vector(kind, int(start), int(stop))  # type: ignore[arg-type]  # the pattern admits only the two kinds


def _axes(text: str) -> Axes:
    return tuple(text.split(","))  # type: ignore[arg-type]  # validation compares them with the grid's


_FORMS: tuple[tuple[re.Pattern[str], Callable[..., Instruction]], ...] = (
    (re.compile(r"([FBW])\(([0-9]+),([0-9]+),([0-9]+)\)"), lambda kind, *place: Task(kind, *map(int, place))),
    (
        re.compile(rf"PostRecv {_VALUE} from ([0-9]+), ([0-9]+) B"),
        lambda *g: PostRecv(_value(*g[:4]), int(g[4]), int(g[5])),
    ),
    (
        re.compile(rf"PostSend {_VALUE} to ([0-9]+), ([0-9]+) B"),
        lambda *g: PostSend(_value(*g[:4]), int(g[4]), int(g[5])),
    ),
    (
        re.compile(rf"AllReduce\(([0-9]+):([0-9]+)\) over {_AXES}, ([0-9]+) B"),
        lambda start, stop, axes, n_bytes: AllReduce(int(start), int(stop), _axes(axes), int(n_bytes)),
    ),
    (
        re.compile(rf"AllReduce\((loss|norm)\) over {_AXES}, 8 B"),
        lambda quantity, axes: AllReduceScalar(quantity, _axes(axes)),
    ),
    (
        re.compile(rf"PostRecv {_VECTOR} from ([0-9]+), ([0-9]+) B"),
        lambda *g: PostRecv(_vector(*g[:3]), int(g[3]), int(g[4])),
    ),
    (
        re.compile(rf"PostSend {_VECTOR} to ([0-9]+), ([0-9]+) B"),
        lambda *g: PostSend(_vector(*g[:3]), int(g[3]), int(g[4])),
    ),
    (
        re.compile(r"(ReduceScatter|AllReduce|AllGather)\(([0-9]+):([0-9]+)\) (within node|across nodes), ([0-9]+) B"),
        lambda verb, start, stop, span, n_bytes: SumStage(verb, int(start), int(stop), span, int(n_bytes)),
    ),
    (
        re.compile(rf"(AllToAll|AllReduce|AllGather)\(([0-9]+):([0-9]+)\) of (\w+) over {_AXES}, ([0-9]+) B"),
        lambda verb, start, stop, operand, axes, n_bytes: SumStage(
            verb, int(start), int(stop), _axes(axes), int(n_bytes), operand
        ),
    ),
    (
        re.compile(rf"AllReduce\(parameters\) over {_AXES}, ([0-9]+) B"),
        lambda axes, n_bytes: AllReduceParameters(_axes(axes), int(n_bytes)),
    ),
    (re.compile(rf"Add {_VECTOR} from ([0-9]+)"), lambda *g: Add(_vector(*g[:3]), int(g[3]))),
    (
        re.compile(rf"Serve {_VECTOR} from ([0-9]+(?:,[0-9]+)*), staleness ([0-9]+), ([0-9]+) B"),
        lambda *g: Serve(_vector(*g[:3]), tuple(map(int, g[3].split(","))), int(g[4]), int(g[5])),
    ),
    (re.compile("Average"), Average),
    (re.compile("Carry"), Carry),
    (re.compile("Update"), Update),
)


def parse_program(text: str) -> Program:
    """Read what :meth:`Program.to_text` wrote.

    Raises
    ------
    ScheduleError
        A line is not an instruction, or waits for something that was not begun; the message gives it.
    """
    head, *lines = text.splitlines() or [""]
    match = _HEAD.fullmatch(head)
    if not match:
        raise ScheduleError(f"line 1: not the head of a program: {head!r}")
    rank, axes, blocks = match.groups()
    try:
        grid = convert(parse_grid(axes), Grid)
    except SpecError as error:
        raise ScheduleError(f"line 1: {error}") from None
    begun: dict[str, Post] = {}
    instructions: list[Instruction] = []
    for number, line in enumerate(lines, start=2):
        instruction = _parse_line(line, begun)
        if instruction is None:
            raise ScheduleError(f"line {number}: not an instruction: {line!r}")
        if isinstance(instruction, Post):
            begun[instruction.handle] = instruction
        instructions.append(instruction)
    return Program(int(rank), grid, tuple(blocks.split()), tuple(instructions))


def _parse_line(line: str, begun: dict[str, Post]) -> Instruction | None:
    handle = line.removeprefix("Wait ")
    if handle != line:
        return Wait(begun[handle]) if handle in begun else None
    for pattern, make in _FORMS:
        if match := pattern.fullmatch(line):
            return make(*match.groups())
    return None
