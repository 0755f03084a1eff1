"""The symbolic machine for programs whose replicas exchange models, have a server, or sum through nodes.

Like its base it knows none of the validator's rules.  Collectives of the same ranks match by their order.  A
reduce-scatter leaves a gradient useless until its parts are gathered; parts that were not summed alike make none.  A
vector that is received may be written from the post on, one that is sent may be read until the wait.
"""

from symbolic_machine import Machine, Meaning, WrongError, add

from hpcrnn.schedules.program import (
    Add,
    AllReduceParameters,
    Average,
    PostRecv,
    PostSend,
    Serve,
    SumStage,
    Vector,
    Wait,
)

SCATTERED = (-1,)
"""Marks a gradient of which only parts are summed; symbols are never negative."""


class ReplicaMachine(Machine):
    def __init__(self, programs, schedule, **options):
        super().__init__(programs, schedule, **options)
        for node in self.nodes:
            node.part, node.landed, node.order = {}, {}, {block: [] for block in node.blocks}
            node.model_moves = node.serving = False
            node.models = None
            if schedule.is_server(node.rank):
                node.memory.clear()
        self.meaning = ReplicaMeaning

    def advance(self, node):
        instruction = node.instruction
        begun = instruction.post if isinstance(instruction, Wait) else instruction
        if isinstance(begun, PostRecv | PostSend) and not isinstance(begun.value, Vector):
            return super().advance(node)
        ends = isinstance(instruction, Wait)
        runs = {
            PostRecv: self.end_vector_recv if ends else self.begin_vector_recv,
            PostSend: self.end_vector_send if ends else self.begin_vector_send,
            SumStage: self.end_stage if ends else self.begin_stage,
            AllReduceParameters: self.end_models if ends else self.begin_models,
            Add: self.add_landed,
            Serve: self.serve,
            Average: self.average,
        }
        if type(begun) not in runs:
            return super().advance(node)
        if ends and begun not in node.active:
            raise WrongError(f"waits for {begun.handle}, which is not under way")
        if not runs[type(begun)](node, begun):
            return False
        node.step += 1
        return True

    def require_own(self, node, task):
        super().require_own(node, task)
        if self.s.is_server(node.rank) or node.model_moves:
            raise WrongError(f"{task} has no rows, or computes with what is received")

    def update(self, node, instruction):
        if node.model_moves or any(SCATTERED[0] in found for found in node.gradients.values()):
            raise WrongError("updates what is moved, or with a gradient that is scattered")
        if self.s.workers and not self.s.is_server(node.rank):
            raise WrongError("a worker updates")
        return super().update(node, instruction)

    # Messages

    def begin_vector_recv(self, node, post):
        posted = self.posted.setdefault((post.peer, node.rank, post.value), [])
        self.begin(node, post, len(posted))
        posted.append(post.n_bytes)
        if post.value.kind == "parameters":
            if node.model_moves:
                raise WrongError("receives parameters twice at a time")
            node.model_moves = True
        node.landed.pop((post.value, post.peer), None)
        return True

    def begin_vector_send(self, node, post):
        channel = (node.rank, post.peer, post.value)
        sent = self.sent.setdefault(channel, [])
        if self.synchronous and len(self.posted.get(channel, ())) <= len(sent):
            return False
        blocks = range(post.value.start, post.value.stop)
        if post.value.kind == "gradient":
            if not node.summing.isdisjoint(blocks) or not set(blocks) <= set(node.blocks):
                raise WrongError(f"{post.handle} reads a gradient that is not here, or moves")
            node.summing.update(blocks)
            symbol = {block: node.gradients[block] for block in blocks}
        else:
            symbol = node.updated
        self.begin(node, post, blocks)
        sent.append((symbol, post.n_bytes))
        return True

    def end_vector_send(self, node, post):
        if post.value.kind == "gradient":
            node.summing.difference_update(node.active[post])
        del node.active[post]
        return True

    def end_vector_recv(self, node, post):
        sent, number = self.sent.get((post.peer, node.rank, post.value), ()), node.active[post]
        if len(sent) <= number:
            return False
        symbol, n_bytes = sent[number]
        if n_bytes != post.n_bytes:
            raise WrongError(f"{post.handle} has another size than what was sent")
        del node.active[post]
        if post.value.kind == "parameters":
            node.model_moves, node.updated = False, symbol
        else:
            node.landed[post.value, post.peer] = symbol
        return True

    def add_landed(self, node, instruction):
        if (instruction.value, instruction.peer) not in node.landed:
            raise WrongError(f"{instruction}: it is not here")
        for block, symbol in node.landed[instruction.value, instruction.peer].items():
            node.gradients[block] = add(node.gradients[block], symbol)
            node.order[block].append(instruction.peer)
        return True

    def serve(self, node, instruction):
        channels = [(peer, node.rank, instruction.value) for peer in instruction.peers]
        if not node.serving:
            node.serving = True
            for channel in channels:
                self.posted.setdefault(channel, []).append(instruction.n_bytes)
        if any(channel not in self.sent for channel in channels):
            return False
        found = [self.sent[channel][0] for channel in channels]
        if any(n_bytes != instruction.n_bytes for _, n_bytes in found):
            raise WrongError("a gradient has another size")
        node.updated = tuple(tuple(sorted(symbol.items())) for symbol, _ in found)
        for peer in instruction.peers:
            channel = (node.rank, peer, instruction.parameters)
            self.sent.setdefault(channel, []).append((node.updated, instruction.n_bytes))
        return True

    # Sums

    def matched(self, node, post, addend):
        ranks = self.s.group(node.rank, post.axes)
        number = node.n_sums.get(ranks, 0)
        node.n_sums[ranks] = number + 1
        self.begin(node, post, (ranks, number))
        self.sums.setdefault((ranks, number), {})[node.rank] = (post, addend)
        return True

    def all_there(self, node, post):
        """What every rank brings; None as long as one is absent."""
        ranks, number = node.active[post]
        parts = self.sums[ranks, number]
        if len(parts) < len(ranks):
            return None
        if len({other.handle for other, _ in parts.values()}) > 1:
            raise WrongError("ranks begin different sums")
        del node.active[post]
        return [parts[rank][1] for rank in ranks]

    def begin_stage(self, node, post):
        blocks = range(post.start, post.stop)
        if not node.summing.isdisjoint(blocks) or not set(blocks) <= set(node.blocks):
            raise WrongError(f"{post.handle} reads a gradient that is not here, or moves")
        if post.operand:
            return self.begin_compressed(node, post)
        alone = len(self.s.group(node.rank, "within node")) == 1
        if post.verb == "ReduceScatter" or (alone and post.verb == "AllReduce"):
            addend = {block: node.gradients[block] for block in blocks}
        else:
            owns = self.s.nodes.index(node.rank) < self.s.nodes.n_parts
            if owns and (post.start, post.stop) not in node.part:
                raise WrongError(f"{post.handle} reads a part that is not here")
            addend = node.part.get((post.start, post.stop)) if owns else None
        node.summing.update(blocks)
        return self.matched(node, post, addend)

    def end_stage(self, node, post):
        addends = self.all_there(node, post)
        if addends is None:
            return False
        blocks = range(post.start, post.stop)
        node.summing.difference_update(blocks)
        if post.operand:
            self.end_compressed(node, post, addends)
            return True
        if post.verb == "AllGather":
            parts = [part for part in addends if part is not None]
            node.gradients |= parts[0] if all(part == parts[0] for part in parts) else dict.fromkeys(blocks, SCATTERED)
            return True
        total = {block: add(*(addend[block] for addend in addends)) for block in blocks}
        if post.verb == "AllReduce" and len(self.s.group(node.rank, "within node")) == 1:
            node.gradients |= total
        else:
            node.part[post.start, post.stop] = total
            node.gradients |= dict.fromkeys(blocks, SCATTERED)
        return True

    def begin_compressed(self, node, post):
        """Of two stages the first takes the gradient, and leaves it useless until the second has brought the sum."""
        blocks = range(post.start, post.stop)
        if self.is_first(post):
            addend = {block: node.gradients[block] for block in blocks}
        elif (post.start, post.stop) in node.part:
            addend = node.part.pop((post.start, post.stop))
        else:
            raise WrongError(f"{post.handle} reads a part that is not here")
        node.summing.update(blocks)
        return self.matched(node, post, addend)

    def end_compressed(self, node, post, addends):
        blocks = range(post.start, post.stop)
        if not self.is_first(post):
            alike = all(part == addends[0] for part in addends)
            node.gradients |= addends[0] if alike else dict.fromkeys(blocks, SCATTERED)
            return
        total = {block: add(*(addend[block] for addend in addends)) for block in blocks}
        if post.operand == "topk":
            node.gradients |= total
            return
        node.part[post.start, post.stop] = total
        node.gradients |= dict.fromkeys(blocks, SCATTERED)

    @staticmethod
    def is_first(post):
        return post.verb == "AllToAll" or post.operand in ("topk", "P")

    def begin_models(self, node, post):
        if node.model_moves:
            raise WrongError("sums what moves already")
        node.model_moves = True
        return self.matched(node, post, node.updated)

    def end_models(self, node, post):
        addends = self.all_there(node, post)
        if addends is None:
            return False
        node.model_moves, node.models = False, tuple(addends)
        return True

    def average(self, node, _):
        if node.models is None or node.model_moves:
            raise WrongError("there is no sum of the models")
        node.updated, node.models = ("average", node.models), None
        return True


class ReplicaMeaning(Meaning):
    """What a step means to each rank: whose rows its loss and its gradient are of, and what its model becomes."""

    def rows_of(self, node):
        """Replicas whose rows a rank's gradient is of at the end."""
        if self.s.workers:
            late = self.s.data_method == "parameter_server_async"
            return ([] if late else self.s.workers) if self.s.is_server(node.rank) else [node.place.data]
        return [node.place.data] if not self.s.loss_axes else self.replicas

    def gradients(self, node):
        own = self.rows_of(node)
        of = {}
        for block in node.blocks:
            of[block] = self.gradient_of(block, own) if self.graph.backward else ()
        return of

    def gradient_of(self, block, replicas):
        kept, self.replicas = self.replicas, replicas
        try:
            return self.gradient(block, 0)
        finally:
            self.replicas = kept

    def compare(self):
        last, end = self.graph.n_blocks - 1, self.graph.n_chunks - 1
        with_rows = self.s.workers or self.replicas
        for node in self.nodes:
            rows = with_rows if self.s.loss_axes else [node.place.data] if node.place.data in with_rows else []
            loss = add([self.y[last, d, m, c] for d in rows for m in self.parts for c in self.chunks])
            self.same("loss", node.loss, loss)
            self.same("gradients", node.gradients, self.gradients(node))
            if self.s.is_server(node.rank):
                late = self.s.data_method == "parameter_server_async"
                wanted = [] if late else list(self.s.workers)
                self.same("order of the sum", set(map(tuple, node.order.values())), {tuple(wanted)})
                continue
            for block in (b for b in node.blocks if self.graph.recurrent[b]):
                for m in self.parts:
                    self.compare_states(node, block, m, end)
        for node in self.nodes:
            self.same("update", node.updated, self.updated(node))

    def updated(self, node):
        if self.s.mode != "train":
            return None
        if self.s.data_method == "parameter_server_async":
            return tuple(tuple(sorted(self.gradients(self.nodes[w]).items())) for w in self.s.workers)
        source = self.nodes[0] if self.s.workers else node
        own = ((source.rank, tuple(sorted(self.gradients(source).items()))),)
        if self.s.averages:
            return "average", tuple(self.model(other) for other in self.nodes)
        return own, own

    def model(self, node):
        own = ((node.rank, tuple(sorted(self.gradients(node).items()))),)
        return own, own
