"""An abstract machine that runs the programs of all ranks on symbols: the oracle of the mutation tests.

It knows nothing of the rules in ``validation.py``.  Every buffer *slot* holds the symbol of what was written to it
last, a symbol names an operation and the symbols it read, and in the end gradients, loss and states must be the
symbols that the serial meaning of the network has.  Timing is adversarial, so that the outcome does not depend on
the order in which ranks are run here:

- a send reads its buffer as late as its wait, so until then nothing may write it;
- a receive fills its buffer as early as its post or as late as its wait, so between them nothing may touch it;
- a sum does both, in place;
- a synchronous send returns when its receive is posted; an eager one at once;
- sums of the same ranks match by the order in which each begins them; tensor ranks do forward and backward tasks
  together.
"""

from hpcrnn.data_methods import ALLREDUCE
from hpcrnn.schedules.graph import Task
from hpcrnn.schedules.lifetimes import Buffer, assign_slots
from hpcrnn.schedules.program import AllReduce, AllReduceScalar, Carry, PostRecv, PostSend, Update, Wait


class WrongError(Exception):
    """The programs hang or compute something else."""


def what_is_wrong(programs, schedule, *, synchronous=True, slots=None):
    """Reason why programs must not run; empty where they compute what they should."""
    try:
        _machine(schedule)(programs, schedule, synchronous=synchronous, slots=slots).run()
    except WrongError as wrong:
        return str(wrong)
    return ""


def _machine(schedule):
    """The machine that knows the instructions of a data method and a codec."""
    if schedule.data_method in ALLREDUCE and schedule.codec == "none":
        return Machine
    from replica_machine import ReplicaMachine

    return ReplicaMachine


def slots_of(program, schedule):
    chunks = schedule.placement.chunks_at(schedule.placement.place(program.rank))
    return assign_slots(program, schedule.graph, chunks)


class Symbols:
    """Numbers for terms: equal terms have equal numbers."""

    def __init__(self):
        self._numbers = {}

    def __call__(self, *term):
        return self._numbers.setdefault(term, len(self._numbers))


class Node:
    """One rank: its memory, and what is under way."""

    def __init__(self, program, schedule, slots):
        self.rank, self.todo, self.slots = program.rank, program.instructions, slots
        self.place = schedule.placement.place(program.rank)
        self.own_chunks = schedule.placement.chunks_at(self.place)
        self.blocks = schedule.placement.blocks_at(self.place)
        self.step = 0
        self.memory = {}  # address -> (tenant, {part: symbol})
        self.sending, self.receiving = {}, set()  # addresses under way
        self.active = {}  # post -> what its wait needs
        self.gradients = dict.fromkeys(self.blocks, ())
        self.summing = set()
        self.loss, self.norm, self.updated = (), None, None
        self.n_sums = {}

    @property
    def instruction(self):
        return self.todo[self.step] if self.step < len(self.todo) else None

    def address(self, name):
        if isinstance(name, Buffer):
            if name not in self.slots.of:
                raise WrongError(f"{name} has no memory")
            return name.family, name.block, self.slots.of[name]
        return name

    def read(self, name, part="y"):
        at = self.address(name)
        if at in self.receiving:
            raise WrongError(f"reads {name} while it is received")
        tenant, parts = self.memory.get(at, (None, {}))
        if tenant != name or part not in parts:
            raise WrongError(f"reads {name} where it is not")
        return parts[part]

    def write(self, name, part="y", symbol=None, *, whole=True):
        at = self.address(name)
        if at in self.receiving:
            raise WrongError(f"writes {name} while it is received")
        tenant, parts = self.memory.get(at, (None, {}))
        if self.sending.get(at) and (whole or tenant != name):
            raise WrongError(f"writes {name} while something there is sent")
        self.memory[at] = (name, {part: symbol} if whole or tenant != name else parts | {part: symbol})


def activation(block, m, c):
    return Buffer("activation", block, m, c)


def gradient(block, m, c):
    return Buffer("gradient", block, m, c)


def source(value):
    block, m, c = value.block, value.microbatch, value.chunk
    unit = {"y": activation(block, m, c), "dy": gradient(block, m, c)}
    return unit.get(value.kind) or ("final" if value.kind == "halo" else "carry", block, m)


def destination(value):
    if value.kind in ("y", "dy"):
        return source(value)
    return "initial" if value.kind == "halo" else "cotangent", value.block, value.microbatch


class Machine:
    def __init__(self, programs, schedule, *, synchronous, slots=None):
        self.s, self.graph, self.placement = schedule, schedule.graph, schedule.placement
        self.synchronous, self.symbol, self.meaning = synchronous, Symbols(), Meaning
        slots = slots or [slots_of(program, schedule) for program in programs]
        self.nodes = [Node(program, schedule, own) for program, own in zip(programs, slots, strict=True)]
        self.sent, self.posted = {}, {}  # (from, to, value) -> messages in order
        self.sums = {}  # (ranks, number) -> {rank: (post, what it adds)}
        for node in self.nodes:
            for block in (b for b in node.blocks if self.graph.recurrent[b]):
                for m in range(self.graph.n_microbatches):
                    for edge in ("initial", "cotangent"):
                        if node.own_chunks[0 if edge == "initial" else -1] == self.outer(edge):
                            node.write((edge, block, m), symbol=self.symbol(edge, block, node.place.data, m))

    def outer(self, edge):
        return 0 if edge == "initial" else self.graph.n_chunks - 1

    def run(self):
        moving = True
        while moving:
            moving = False
            for node in self.nodes:
                while node.instruction is not None and self.advance(node):
                    moving = True
        if any(node.instruction is not None for node in self.nodes):
            raise WrongError("hangs")
        for node in self.nodes:
            if node.active:
                raise WrongError("ends while something is under way")
        if any(len(self.posted.get(key, ())) != len(found) for key, found in self.sent.items()):
            raise WrongError("a message is never received")
        self.meaning(self).compare()

    def advance(self, node):
        """Run one instruction; False where it must wait."""
        instruction = node.instruction
        if isinstance(instruction, Task):
            return self.task(node, instruction)
        runs = {
            PostRecv: self.post_recv,
            PostSend: self.post_send,
            AllReduce: self.begin_sum,
            AllReduceScalar: self.begin_sum,
            Wait: self.wait,
            Carry: self.carry,
            Update: self.update,
        }
        if not runs[type(instruction)](node, instruction):
            return False
        node.step += 1
        return True

    # Tasks

    def task(self, node, task):
        if task.kind == "W":
            self.weight_gradient(node, task)
            node.step += 1
            return True
        members = [self.nodes[r] for r in self.placement.group(node.place, ("tensor",))]
        if any(member.instruction != task for member in members):
            return False
        run = self.forward if task.kind == "F" else self.backward
        if len({run(member, task) for member in members}) > 1:
            raise WrongError(f"{task}: tensor ranks differ")
        for member in members:
            member.step += 1
        return True

    def require_own(self, node, task):
        if task.block not in node.blocks or task.chunk not in node.own_chunks:
            raise WrongError(f"{task} is not of this rank")

    def forward(self, node, task):
        self.require_own(node, task)
        block, m, c, d = task.block, task.microbatch, task.chunk, node.place.data
        x = node.read(activation(block - 1, m, c)) if block else self.symbol("input", d, m, c)
        state = None
        if self.graph.recurrent[block]:
            first = c == node.own_chunks[0]
            state = node.read(("initial", block, m)) if first else node.read(activation(block, m, c - 1))
        y = self.symbol("F", block, d, m, c, x, state, node.updated)
        node.write(activation(block, m, c), symbol=y)
        node.write(activation(block, m, c), "tape", y, whole=False)
        if self.graph.recurrent[block] and c == node.own_chunks[-1]:
            node.write(("final", block, m), symbol=y)
        if block == self.graph.n_blocks - 1 and node.place.tensor == 0:
            node.loss = add(node.loss, (y,))
        return y

    def backward(self, node, task):
        self.require_own(node, task)
        block, m, c = task.block, task.microbatch, task.chunk
        tape, dy, carry = node.read(activation(block, m, c), "tape"), None, None
        if block < self.graph.n_blocks - 1:
            dy = node.read(gradient(block, m, c))
        if self.graph.recurrent[block]:
            last = c == node.own_chunks[-1]
            carry = node.read(("cotangent" if last else "carry", block, m))
        done = self.symbol("B", tape, dy, carry)
        node.write(activation(block, m, c), "tape", done, whole=False)
        if self.graph.recurrent[block]:
            node.write(("carry", block, m), symbol=done)
        if block:
            node.write(gradient(block - 1, m, c), symbol=done)
        return done

    def weight_gradient(self, node, task):
        self.require_own(node, task)
        block, m, c, place = task.block, task.microbatch, task.chunk, node.place
        x = node.read(activation(block - 1, m, c)) if block else self.symbol("input", place.data, m, c)
        tape, dy = node.read(activation(block, m, c), "tape"), None
        if not self.graph.recurrent[block] and block < self.graph.n_blocks - 1:
            dy = node.read(gradient(block, m, c))
        if block in node.summing:
            raise WrongError(f"{task} adds to a gradient that is being summed")
        part = self.symbol("W", x, tape, dy, place.tensor)
        node.gradients[block] = add(node.gradients[block], (part,))

    # Messages

    def begin(self, node, post, needs):
        if post in node.active:
            raise WrongError(f"{post.handle} is begun while it is under way")
        node.active[post] = needs

    def post_recv(self, node, post):
        name, channel = destination(post.value), (post.peer, node.rank, post.value)
        node.write(name)
        posted = self.posted.setdefault(channel, [])
        self.begin(node, post, len(posted))
        posted.append(post.n_bytes)
        node.receiving.add(node.address(name))
        return True

    def post_send(self, node, post):
        name, channel = source(post.value), (node.rank, post.peer, post.value)
        sent = self.sent.setdefault(channel, [])
        if self.synchronous and len(self.posted.get(channel, ())) <= len(sent):
            return False
        symbol, at = node.read(name), node.address(name)
        self.begin(node, post, at)
        sent.append((symbol, post.n_bytes))
        node.sending[at] = node.sending.get(at, 0) + 1
        return True

    def wait(self, node, wait):
        post = wait.post
        if post not in node.active:
            raise WrongError(f"waits for {post.handle}, which is not under way")
        if isinstance(post, PostSend):
            node.sending[node.active.pop(post)] -= 1
            return True
        if isinstance(post, PostRecv):
            return self.wait_recv(node, post)
        return self.wait_sum(node, post)

    def wait_recv(self, node, post):
        channel, number = (post.peer, node.rank, post.value), node.active[post]
        sent = self.sent.get(channel, ())
        if len(sent) <= number:
            return False
        symbol, n_bytes = sent[number]
        if n_bytes != post.n_bytes:
            raise WrongError(f"{post.handle} has another size than what was sent")
        name = destination(post.value)
        node.receiving.remove(node.address(name))
        del node.active[post]
        node.write(name, symbol=symbol)
        return True

    # Sums

    def begin_sum(self, node, post):
        ranks = self.placement.group(node.place, post.axes)
        number = node.n_sums.get(ranks, 0)
        node.n_sums[ranks] = number + 1
        self.begin(node, post, (ranks, number))
        self.sums.setdefault((ranks, number), {})[node.rank] = (post, self.addend(node, post))
        return True

    def addend(self, node, post):
        if isinstance(post, AllReduceScalar) and post.quantity == "loss":
            return node.loss
        blocks = node.blocks if isinstance(post, AllReduceScalar) else range(post.start, post.stop)
        if not node.summing.isdisjoint(blocks) or not set(blocks) <= set(node.blocks):
            raise WrongError(f"{post.handle} reads a gradient that is not here, or is being summed")
        found = {block: node.gradients[block] for block in blocks}
        if isinstance(post, AllReduceScalar):
            return ((node.rank, tuple(sorted(found.items()))),)
        node.summing.update(blocks)
        return found

    def wait_sum(self, node, post):
        ranks, number = node.active[post]
        parts = self.sums[ranks, number]
        if len(parts) < len(ranks):
            return False
        if len({(other.handle, other.axes) for other, _ in parts.values()}) > 1:
            raise WrongError("ranks begin different sums")
        del node.active[post]
        addends = [addend for _, addend in parts.values()]
        if isinstance(post, AllReduce):
            for block in range(post.start, post.stop):
                node.gradients[block] = add(*(addend[block] for addend in addends))
                node.summing.remove(block)
        elif post.quantity == "loss":
            node.loss = add(*addends)
        else:
            node.norm = add(*addends)
        return True

    # The end of a step

    def carry(self, node, _):
        for block in (b for b in node.blocks if self.graph.recurrent[b]):
            for m in range(self.graph.n_microbatches):
                node.write(("initial", block, m), symbol=node.read(("final", block, m)))
        return True

    def update(self, node, _):
        if node.summing or node.updated is not None:
            raise WrongError("updates with a gradient that is being summed, or twice")
        own = ((node.rank, tuple(sorted(node.gradients.items()))),)
        node.updated = (own, node.norm if self.s.axes("pipeline", "tensor") else own)
        return True


def add(*multisets):
    return tuple(sorted(part for multiset in multisets for part in multiset))


class Meaning:
    """What a step means, written down without schedules: the network on the whole batch, from the graph alone."""

    def __init__(self, machine):
        self.nodes, self.s, self.graph, self.symbol = machine.nodes, machine.s, machine.graph, machine.symbol
        self.replicas = range(machine.placement.grid.data)
        self.shards = range(machine.placement.grid.tensor)
        g = self.graph
        self.blocks, self.parts, self.chunks = range(g.n_blocks), range(g.n_microbatches), range(g.n_chunks)
        self.y, self.tape, self.dy = {}, {}, {}
        for d in self.replicas:
            for m in self.parts:
                self.forward(d, m)
                if g.backward:
                    self.backward(d, m)

    def forward(self, d, m):
        for block in self.blocks:
            state = self.symbol("initial", block, d, m) if self.graph.recurrent[block] else None
            for c in self.chunks:
                y = self.symbol("F", block, d, m, c, self.x(block, d, m, c), state, None)
                self.y[block, d, m, c] = y
                state = y if self.graph.recurrent[block] else None

    def x(self, block, d, m, c):
        return self.y[block - 1, d, m, c] if block else self.symbol("input", d, m, c)

    def backward(self, d, m):
        for block in reversed(self.blocks):
            carry = self.symbol("cotangent", block, d, m) if self.graph.recurrent[block] else None
            for c in reversed(self.chunks):
                dy = self.tape.get((block + 1, d, m, c))
                done = self.symbol("B", self.y[block, d, m, c], dy, carry)
                self.tape[block, d, m, c] = done
                carry = done if self.graph.recurrent[block] else None

    def gradient(self, block, shard):
        """The sum over the whole batch; of an input layer also over the shards, each of which makes a part."""
        whole = block == 0 and not self.graph.recurrent[0]
        inner = not self.graph.recurrent[block] and block < self.graph.n_blocks - 1
        return add(
            [
                self.symbol(
                    "W",
                    self.x(block, d, m, c),
                    self.tape[block, d, m, c],
                    self.tape[block + 1, d, m, c] if inner else None,
                    k,
                )
                for d in self.replicas
                for m in self.parts
                for c in self.chunks
                for k in (self.shards if whole else [shard])
            ]
        )

    def compare(self):
        last, end = self.graph.n_blocks - 1, self.graph.n_chunks - 1
        loss = add([self.y[last, d, m, c] for d in self.replicas for m in self.parts for c in self.chunks])
        wanted = {}
        for node in self.nodes:
            wanted[node.rank] = {
                b: self.gradient(b, node.place.tensor) if self.graph.backward else () for b in node.blocks
            }
            self.same("loss", node.loss, loss)
            self.same("gradients", node.gradients, wanted[node.rank])
            for block in (b for b in node.blocks if self.graph.recurrent[b]):
                for m in self.parts:
                    self.compare_states(node, block, m, end)
        for node in self.nodes:
            self.compare_update(node, wanted)

    def compare_states(self, node, block, m, end):
        d, final = node.place.data, self.y[block, node.place.data, m, end]
        if node.own_chunks[-1] == end:
            self.same("final state", node.read(("final", block, m)), final)
            self.same("cotangent", node.read(("cotangent", block, m)), self.symbol("cotangent", block, d, m))
        if node.own_chunks[0] == 0:
            start = final if self.s.carry else self.symbol("initial", block, d, m)
            self.same("next initial state", node.read(("initial", block, m)), start)
            if self.graph.backward:
                self.same("gradient of the initial state", node.read(("carry", block, m)), self.tape[block, d, m, 0])

    def compare_update(self, node, wanted):
        if self.s.mode != "train":
            self.same("update", node.updated, None)
            return
        ranks = self.s.placement.group(node.place, ("pipeline", "tensor"))
        parts = {rank: tuple(sorted(wanted[rank].items())) for rank in {node.rank, *ranks}}
        norm = tuple(sorted((rank, parts[rank]) for rank in ranks))
        self.same("update", node.updated, (((node.rank, parts[node.rank]),), norm))

    @staticmethod
    def same(name, found, expected):
        if found != expected:
            raise WrongError(f"the {name} is not what it should be")
