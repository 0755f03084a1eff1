"""Training to a target: seed after seed, leg after leg, until the loss on held-out data is low enough.

Throughput alone flatters methods that train worse.  Here the clock runs until a model is as good as was asked for: it
runs in legs, the steps between two evaluations, from the common start of all ranks to the end of the slowest one, and
stands still while a model is evaluated or kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import isfinite, nan
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from hpcrnn.benchmarks.evaluation import Evaluation, whole_parameters
from hpcrnn.benchmarks.planning import Plan
from hpcrnn.benchmarks.training_file import Kept, TrainingFile, take_back
from hpcrnn.benchmarks.variants import make_variant
from hpcrnn.benchmarks.ways import Way
from hpcrnn.errors import SpecError
from hpcrnn.execution.energy import EnergyMeter, node_meter
from hpcrnn.execution.executor import Executor
from hpcrnn.execution.measurement import Keeper, Samples, Variant, keep_exponents, one_leg
from hpcrnn.execution.world import World
from hpcrnn.records.learning import COLUMNS, COUNTED, Curve, Ending, Learning
from hpcrnn.records.record import ASKED, IntArray
from hpcrnn.workloads import open_workload
from hpcrnn.workloads.registry import loss_unit


@dataclass
class Course:
    """The training of one seed while it goes on; known on rank 0."""

    seed: int
    columns: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in COLUMNS})

    def add(self, row: dict[str, float]) -> None:
        """Take in an evaluation: a value for every column."""
        for name in COLUMNS:
            self.columns[name].append(row[name])

    def last(self, name: str) -> float:
        """Return the latest value of a column; nothing was needed for what has not begun."""
        return self.columns[name][-1] if self.columns[name] else 0.0

    def curve(self, ending: Ending) -> Curve:
        """Return what is known so far."""
        arrays: dict[str, Any] = {
            name: np.array(column, dtype=np.int64 if name in COUNTED else np.float64)
            for name, column in self.columns.items()
        }
        return Curve(self.seed, ending, **arrays)

    @classmethod
    def of(cls, curve: Curve) -> Course:
        """Go on with a curve."""
        return cls(curve.seed, {name: getattr(curve, name).tolist() for name in COLUMNS})


class Follower(Protocol):
    """Who wants to see how a training goes; called on rank 0."""

    def __call__(self, seed_index: int, course: Course) -> None:
        """Hear of an evaluation."""


class TargetTraining:
    """The training of one way of running a problem, over all its seeds.

    Every rank makes one, and calls its methods together with the others.

    Parameters
    ----------
    way : Way
    world : World
    variants : list of Variant
        Gets the variant of the seed under way, for what ranks say of themselves.
    follow : callable
    file : TrainingFile or None
        Where the training is kept, to go on from.
    gpus : sequence of str
        UUIDs of the GPUs of this node that take part.

    Attributes
    ----------
    samples : Samples
        What is measured; a repetition is a leg.
    """

    def __init__(
        self,
        way: Way,
        world: World,
        variants: list[Variant],
        follow: Follower,
        file: TrainingFile | None,
        gpus: Sequence[str] = (),
    ) -> None:
        self._way, self._world, self._follow, self._file = way, world, follow, file
        self._evaluation = Evaluation(way, world, ensemble=way.trains_an_ensemble)
        self._counts_energy = world.node.Get_rank() == 0
        self._meter = node_meter(gpus) if self._counts_energy else EnergyMeter((), complete=False)
        self._done: list[Curve] = []
        self._restarts: tuple[int, ...] = ()
        self._slept_s = 0.0
        self.samples = Samples()
        self._variants = variants

    def run(self, keeper: Keeper) -> Samples:
        """Train all seeds.

        Parameters
        ----------
        keeper : Keeper
            Of the record while it grows.

        Returns
        -------
        Samples
            Complete on rank 0.

        Raises
        ------
        FileError, SpecError
            The checkpoint is damaged or of another training, or the untrained model is at the target already.
        NumericsError
            States between segments of time that run at once are not finite: what meets inside a task cannot go on.
        """
        kept = self._file.read() if self._file is not None else None
        first = 0
        if kept is not None:
            first = kept.seed_index
            self._go_on(kept)
        ending: Ending = "target"  # where all seeds were done before
        for index in range(first, self._way.spec.training.seeds):
            ending = self._train_seed(index, kept if kept is not None and index == first else None, keeper)
            if ending == "asked":
                break
        self.samples.stop_reason = ASKED if ending == "asked" else self._summary()
        if self._variants[0].solves:
            keep_exponents(self._variants[0], self.samples, self._world)
        return self.samples

    def _go_on(self, kept: Kept) -> None:
        """Take in what is known of the legs and seeds before."""
        if kept.learning is None:
            return
        take_back(self.samples, kept.samples)
        self._done = list(kept.learning.curves)
        self._restarts = (*kept.learning.restarts, len(self.samples.loss))
        self.samples.learning = self._learning()

    def _summary(self) -> str:
        return f"{sum(c.reached for c in self._done)} of {self._way.spec.training.seeds} seeds reached the target"

    def _variant(self, index: int) -> tuple[Variant, Plan]:
        """Make this rank's part of a seed's training."""
        way = of_seed(self._way, index)
        workload = open_workload(way.spec)
        plan = way.plan(workload)
        variant = make_variant(way, plan, workload, self._world)
        return replace(variant, leg_steps=way.spec.training.eval_every), plan

    def _train_seed(self, index: int, kept: Kept | None, keeper: Keeper) -> Ending:
        """Train one seed to its end, from its beginning or from what was kept."""
        self._variants.clear()  # memory for two would be in the peak that is recorded
        variant, plan = self._variant(index)
        self._variants.append(variant)
        executor = variant.executor
        if executor is None:
            raise TypeError("every rank trains")
        course, step = Course(self._way.spec.problem.seed + index), 0
        if kept is not None and kept.state is not None:
            executor.restore(kept.state)
            step = kept.step
            course = Course.of(self._done.pop()) if self._done else course
            self._tell(index, course)
        else:
            self._look(index, course, plan, executor, dict.fromkeys(COLUMNS, 0.0) | {"train_loss": nan})
        while not (ending := self._world.on_root(partial(self._ending, index, course, step))):
            self._keep_record(keeper)
            row = self._run_leg(variant, executor, course, step)
            if row is None:
                ending = "diverged"
                break
            step += variant.leg_steps
            self._look(index, course, plan, executor, row)
            if self._file is not None and step // variant.leg_steps % self._way.spec.measure.checkpoint_every == 0:
                self._file.write(index, executor, self.samples)
        if ending == "asked" and self._file is not None:
            self._file.write(index, executor, self.samples)
        if self._world.is_root:
            self._add_staleness(executor.staleness)
            self._done.append(course.curve(ending))
            self.samples.learning = self._learning()
        if ending != "asked" and self._file is not None:
            self._file.write(index + 1, None, self.samples)
        return ending

    def _ending(self, index: int, course: Course, step: int) -> Ending | None:
        """Why a training ends now; None where it goes on."""
        spec, loss = self._way.spec, course.last("held_out_loss")
        training = spec.training
        if training.target_loss is not None and loss <= training.target_loss:
            if step == 0 and index == 0:
                allowed = f"less than the held-out loss before any training, {loss:.6g}"
                raise SpecError("training.target_loss", training.target_loss, allowed)
            return "target"
        if not isfinite(loss):
            return "diverged"
        if self._world.farewell.asked:
            return "asked"
        if step + training.eval_every > training.max_steps:
            return "max_steps"
        return "max_time" if course.last("time_s") >= spec.measure.max_time else None

    def _run_leg(self, variant: Variant, executor: Executor, course: Course, step: int) -> dict[str, float] | None:
        """Run a leg; what it adds to the curve, on rank 0, or None where it diverged."""
        steps = range(step, step + variant.leg_steps)
        before_j = self._joules()
        self._slept_s = one_leg(variant, self.samples, self._world, steps, self._slept_s, counted=True)
        if self._world.on_any_rank(executor.diverged):
            self.samples.drop_last()
            return None
        if variant.solves and len(self.samples.exponents) == 0:
            keep_exponents(variant, self.samples, self._world)
        spent_j = self._joules() - before_j
        all_j = self._world.comm.gather(spent_j)
        if all_j is None:
            return {}
        return {
            "step": steps.stop,
            "time_s": course.last("time_s") + float(self.samples.time_s[-1][:, 0].max()) * len(steps),
            "sent_bytes": course.last("sent_bytes") + int(self.samples.sent_bytes[-1].sum()),
            "energy_j": course.last("energy_j") + sum(all_j),
            "train_loss": self.samples.loss[-1],
        }

    def _joules(self) -> float:
        """What this rank has to say of energy: its node's where it is the first there, NaN where that is unknown."""
        return self._meter.joules() if self._counts_energy else 0.0

    def _look(self, index: int, course: Course, plan: Plan, executor: Executor, row: dict[str, float]) -> None:
        """Evaluate the model as it is, and take the row in."""
        pieces = executor.engine.parameter_pieces()
        if self._way.trains_an_ensemble:
            parameters = {name: piece.value for name, piece in pieces.items()}
        else:
            parameters = whole_parameters(pieces, plan, self._world)
        loss = self._evaluation.loss(parameters)
        if self._world.is_root:
            course.add(row | {"held_out_loss": loss})
        self._tell(index, course)

    def _tell(self, index: int, course: Course) -> None:
        if self._world.is_root:
            self.samples.learning = self._learning(course.curve("unfinished"))
            self._follow(index, course)

    def _add_staleness(self, counts: IntArray | None) -> None:
        """Count the late gradients of a seed to those of the others."""
        if counts is not None:
            self.samples.staleness = counts + (0 if self.samples.staleness is None else self.samples.staleness)

    def _learning(self, *under_way: Curve) -> Learning:
        spec = self._way.spec
        return Learning(
            target_loss=spec.training.target_loss or nan,
            unit=loss_unit(spec.problem.workload),
            held_out=self._evaluation.description,
            curves=(*self._done, *under_way),
            restarts=self._restarts,
        )

    def _keep_record(self, keeper: Keeper) -> None:
        due = self._world.comm.bcast(keeper.is_due() if self._world.is_root else None)
        if due:
            keeper.keep([self.samples])


def of_seed(way: Way, index: int) -> Way:
    """Return the same way with the seed of a training."""
    problem = msgspec.structs.replace(way.spec.problem, seed=way.spec.problem.seed + index)
    return replace(way, spec=msgspec.structs.replace(way.spec, problem=problem))


def target_training(
    way: Way, world: World, variants: list[Variant], follow: Follower, gpus: Sequence[str]
) -> TargetTraining:
    """Prepare a training; refuse one whose checkpoint cannot be written, before any step.

    Parameters
    ----------
    way : Way
    world : World
    variants : list of Variant
        Gets the variant of the seed under way.
    follow : callable
    gpus : sequence of str
        The UUID of each rank's GPU; nothing where GPUs do not take part.

    Raises
    ------
    SpecError
    """
    limits, file = way.spec.measure, None
    if limits.checkpoint is not None:
        path = Path(limits.checkpoint)
        file = TrainingFile(path, way, world, resume=limits.resume, overwrite=limits.overwrite)
        world.on_root(file.check)
    own = gpus[world.rank] if gpus else ""
    on_node = tuple(dict.fromkeys(filter(None, world.node.allgather(own))))
    return TargetTraining(way, world, variants, follow, file, on_node)
