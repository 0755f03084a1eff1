"""What decides whether segments of time can run at once: ``python -m hpcrnn.benchmarks.time_study --out FILE``.

Four tables on one rank, counted and not timed, so that the machine does not matter:

``speedup``    critical-path steps over cells, initialisations and numbers of segments, beside the meeting length
``tolerance``  the gradient's error against float64 over the tolerance, beside that of the serial run
``training``   meeting lengths, rounds, gradient error and Lyapunov exponent as a network is trained on real data
``chaos``      rounds over memory (forget bias) or recurrent gain, and the length of segments

``python -m hpcrnn.reporting.study FILE -o DIR`` draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hpcrnn.backends.base import LayerSolve
from hpcrnn.backends.numpy.engine import NumpyEngine
from hpcrnn.benchmarks.arguments import add_output, positive
from hpcrnn.benchmarks.comparison import relative_error
from hpcrnn.benchmarks.planning import make_plan
from hpcrnn.benchmarks.progress import Items
from hpcrnn.benchmarks.script import ScriptParser, check_ranks, on_ranks, say
from hpcrnn.errors import EXIT_VALID
from hpcrnn.execution.executor import Executor
from hpcrnn.execution.world import World
from hpcrnn.model.network import initial_parameters
from hpcrnn.records.certificate import SETTLED
from hpcrnn.records.environment import environment
from hpcrnn.records.host import host_facts
from hpcrnn.records.output import Output
from hpcrnn.records.study import StudyRecord, StudyTable, encode_study_record
from hpcrnn.spec import Grid, RecurrenceSpec, RunSpec, build_spec
from hpcrnn.workloads import Batch, Workload, open_workload

Row = dict[str, Any]

SPEEDUP_CELLS = (("lstm", 0.0), ("gru", 0.0), ("elman", 0.0), ("lstm", 1.0))
"""Cells and forget biases."""
SPEEDUP_SEGMENTS = (2, 4, 8, 16, 32, 64)
SPEEDUP_STEPS = (1024, 4096)
TOLERANCE_CELLS = ("lstm", "gru", "elman")
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
CHAOS_SEGMENTS = 16
CHAOS_STEPS = (8, 16, 32, 64, 128, 256)
FORGET_BIASES = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
CHRONO_SPANS = (10, 30, 100, 300, 1000, 3000)
GAINS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
"""Standard deviation of the recurrent weights times the root of H: without input, chaos begins at one."""


class Problem:
    """One network on one workload, on one rank, ready to take steps.

    Parameters
    ----------
    spec : RunSpec
    world : World
    workload : Workload, optional
        That of another problem whose data it shall have.
    """

    def __init__(self, spec: RunSpec, world: World, workload: Workload | None = None) -> None:
        self.workload = workload or open_workload(spec)
        plan = make_plan(spec, self.workload, Grid())
        self.executor: Executor = plan.executor(0, "numpy", world.communicators(Grid()))
        self.parameters = initial_parameters(plan.network, spec.problem.seed)

    @property
    def engine(self) -> NumpyEngine:
        """The engine, of the one kind there is here."""
        engine = self.executor.engine
        if not isinstance(engine, NumpyEngine):
            raise TypeError(type(engine))
        return engine

    def step(self, batch: Batch) -> tuple[LayerSolve, ...]:
        """Run one step."""
        self.engine.load_batch(batch)
        self.executor.run()
        return self.engine.solves()

    def gradients(self, parameters: Mapping[str, np.ndarray], batch: Batch) -> dict[str, np.ndarray]:
        """Gradients of every parameter at given values of them."""
        self.engine.load_parameters(parameters)
        self.step(batch)
        pieces = self.engine.part().pieces
        return {name: piece.value for name, piece in pieces.items() if name.startswith("gradient ")}


def worst_error(found: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray]) -> float:
    """Largest relative error of any parameter's gradient."""
    return max(relative_error(found[name], exact[name]) for name in exact)


def with_dtype(spec: RunSpec, dtype: str) -> RunSpec:
    """The same problem, serial, in another precision."""
    model = msgspec.structs.replace(spec.model, dtype=dtype)
    return msgspec.structs.replace(spec, model=model, recurrence=RecurrenceSpec())


class Reference:
    """The serial runs a method is held against: in float64, and in float32.

    Parameters
    ----------
    spec : RunSpec
    world : World
    workload : Workload
    """

    def __init__(self, spec: RunSpec, world: World, workload: Workload) -> None:
        self._exact = Problem(with_dtype(spec, "float64"), world, workload)
        self._serial = Problem(with_dtype(spec, "float32"), world, workload)

    def errors(
        self, found: Mapping[str, np.ndarray], parameters: Mapping[str, np.ndarray], batch: Batch
    ) -> tuple[float, float]:
        """Worst gradient error of a run at given parameters, and that of the serial float32 run."""
        rounded = {name: value.astype(np.float32).astype(np.float64) for name, value in parameters.items()}
        exact = self._exact.gradients(rounded, batch)
        return worst_error(found, exact), worst_error(self._serial.gradients(rounded, batch), exact)


def layer_spec(cell: str, hidden: int, steps: int, segments: int, method: str = "picard", **more: Any) -> RunSpec:
    """One layer of a cell on normal inputs, one row, with random gradients of every output."""
    return build_spec(
        {
            "model": {"cell": cell, "hidden": hidden, "layers": 1, "input": "direct", "dtype": "float32"}
            | more.pop("model", {}),
            "problem": {"workload": "synthetic", "batch": 1, "seq": steps},
            "training": {"mode": "gradient"},
            "recurrence": {"method": method, "fold": segments} | more,
        }
    )


def met_lengths(solve: LayerSolve) -> np.ndarray:
    """Meeting lengths of the segments that met."""
    lengths = solve.solve.meeting
    return lengths[lengths > SETTLED]


def median_or_nan(lengths: np.ndarray) -> float:
    """Median; NaN of nothing."""
    return float(np.median(lengths)) if lengths.size else float("nan")


def speedup_rows(world: World) -> Iterator[Row]:
    """Critical-path steps over cells, initialisations, lengths and numbers of segments."""
    for (cell, bias), steps, segments in product(SPEEDUP_CELLS, SPEEDUP_STEPS, SPEEDUP_SEGMENTS):
        model = {"forget_bias": bias} if bias else {}
        problem = Problem(layer_spec(cell, 128, steps, segments, model=model), world)
        for found in problem.step(problem.workload.batch(0)):
            met, taken = met_lengths(found), sum(found.solve.steps)
            yield {
                "cell": cell,
                "init": f"forget bias {bias:+g}" if bias else "default",
                "direction": found.direction,
                "segments": segments,
                "T": steps,
                "meeting": median_or_nan(met),
                "longest_meeting": float(met.max()) if met.size else float("nan"),
                "rounds": len(found.solve.steps),
                "critical_steps": taken,
                "speedup_steps": steps / taken,
            }


def tolerance_rows(world: World) -> Iterator[Row]:
    """The gradient's error over the tolerance."""
    for cell in TOLERANCE_CELLS:
        base = layer_spec(cell, 128, 2048, 16)
        reference = Reference(base, world, open_workload(base))
        for tolerance in TOLERANCES:
            problem = Problem(layer_spec(cell, 128, 2048, 16, tolerance=tolerance), world)
            batch = problem.workload.batch(0)
            gradients = problem.gradients(problem.parameters, batch)
            error, serial = reference.errors(gradients, problem.parameters, batch)
            yield {
                "cell": cell,
                "tolerance": tolerance,
                "gradient_error": error,
                "serial_error": serial,
                "critical_steps": sum(sum(found.solve.steps) for found in problem.engine.solves()),
            }


TRAINED: dict[str, dict[str, Any]] = {
    "stdlib": {"model": {"cell": "lstm", "hidden": 128, "layers": 1}, "problem": {"batch": 8, "seq": 256}},
    "adding": {"model": {"cell": "lstm", "hidden": 64, "layers": 1}, "problem": {"batch": 32, "seq": 128}},
}
"""Networks that are trained, by workload."""


def training_rows(world: World, steps: int, every: int) -> Iterator[Row]:
    """Train with ``picard``; now and then look at what the solves did, and at the gradient beside float64."""
    for workload, raw in TRAINED.items():
        spec = build_spec(
            {
                "model": raw["model"],
                "problem": raw["problem"] | {"workload": workload},
                "training": {"mode": "train", "lr": 3e-3, "clip": 1.0},
                "recurrence": {"method": "picard", "fold": 4},
            }
        )
        problem = Problem(spec, world)
        gradient_only = msgspec.structs.replace(spec, training=msgspec.structs.replace(spec.training, mode="gradient"))
        probe = Problem(gradient_only, world, problem.workload)
        reference = Reference(gradient_only, world, problem.workload)
        for step in range(steps + 1):
            batch = problem.workload.batch(step)
            if step % every == 0:
                parameters = {name: piece.value for name, piece in problem.engine.parameter_pieces().items()}
                error, serial = reference.errors(probe.gradients(parameters, batch), parameters, batch)
                yield _training_row(workload, spec, step, probe) | {"gradient_error": error, "serial_error": serial}
            problem.step(batch)


def _training_row(workload: str, spec: RunSpec, step: int, probe: Problem) -> Row:
    by_direction = {found.direction: found for found in probe.engine.solves()}
    row: Row = {"workload": workload, "cell": spec.model.cell, "step": step, "loss": probe.engine.loss}
    for direction, found in by_direction.items():
        row |= {
            f"meeting_{direction}": median_or_nan(met_lengths(found)),
            f"unmet_{direction}": int((found.solve.meeting < SETTLED).sum()),
            f"rounds_{direction}": len(found.solve.steps),
            f"truncated_{direction}": int(found.solve.truncated),
        }
    return row | {"lyapunov": float(np.mean(list(probe.engine.exponents().values())))}


def chaos_rows(world: World) -> Iterator[Row]:
    """Rounds over what makes memories long: forget bias and chrono span of an LSTM, recurrent gain of an Elman cell."""
    for method, steps, bias in product(("picard", "gateprod"), CHAOS_STEPS, FORGET_BIASES):
        spec = layer_spec("lstm", 64, steps * CHAOS_SEGMENTS, CHAOS_SEGMENTS, method, model={"forget_bias": bias})
        yield _chaos_row(spec, world, "forget_bias", bias, 1.0)
    for method, steps, span in product(("picard", "gateprod"), CHAOS_STEPS, CHRONO_SPANS):
        model = {"forget_init": "chrono", "chrono_span": span}
        spec = layer_spec("lstm", 64, steps * CHAOS_SEGMENTS, CHAOS_SEGMENTS, method, model=model)
        yield _chaos_row(spec, world, "chrono_span", span, 1.0)
    for method, steps, gain in product(("picard", "gateprod"), CHAOS_STEPS, GAINS):
        spec = layer_spec("elman", 64, steps * CHAOS_SEGMENTS, CHAOS_SEGMENTS, method)
        # U(-1/√H, 1/√H) has a standard deviation of 1/√(3H).
        yield _chaos_row(spec, world, "gain", gain, gain * 3**0.5)


def _chaos_row(spec: RunSpec, world: World, axis: str, value: float, scale: float) -> Row:
    # Forward only: the gradients of a chaotic trajectory leave the range of float32.
    training = msgspec.structs.replace(spec.training, mode="forward")
    problem = Problem(msgspec.structs.replace(spec, training=training), world)
    parameters = {name: a * scale if name.endswith(".R") else a for name, a in problem.parameters.items()}
    problem.engine.load_parameters(parameters)
    forward = problem.step(problem.workload.batch(0))[0]
    return {
        "cell": spec.model.cell,
        "method": spec.recurrence.method,
        "axis": axis,
        axis: value,
        "segment_steps": spec.problem.seq // CHAOS_SEGMENTS,
        "rounds": len(forward.solve.steps),
        "max_rounds": CHAOS_SEGMENTS,
        "lyapunov": float(np.mean(list(problem.engine.exponents().values()))),
    }


UNITS = {
    "T": "steps",
    "meeting": "steps",
    "longest_meeting": "steps",
    "meeting_forward": "steps",
    "meeting_backward": "steps",
    "critical_steps": "steps",
    "segment_steps": "steps",
    "lyapunov": "1/step",
}


def table(name: str, rows: Sequence[Row], facts: Mapping[str, Any]) -> StudyTable:
    """Make a table of rows; what a row lacks is NaN."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    columns = {key: np.array([row.get(key, float("nan")) for row in rows]) for key in names}
    return StudyTable(name, columns, {key: unit for key, unit in UNITS.items() if key in columns}, dict(facts))


def study(world: World, output: Output, names: Sequence[str], steps: int, every: int) -> StudyRecord:
    """Make some of the tables; each is kept when it is made.

    Raises
    ------
    FileError
        The file cannot be written; the message says where the results are.
    """
    makers: dict[str, Callable[[], Iterator[Row]]] = {
        "speedup": lambda: speedup_rows(world),
        "tolerance": lambda: tolerance_rows(world),
        "training": lambda: training_rows(world, steps, every),
        "chaos": lambda: chaos_rows(world),
    }
    tables: list[StudyTable] = []
    facts = environment([host_facts()], world.facts())
    record = StudyRecord(datetime.now(UTC).isoformat(timespec="seconds"), facts, ())
    kinds = [f"of {name}" for name in names for _ in range(n_rows(name, steps, every))]
    with Items("time study", kinds, "row") as items:
        for number, name in enumerate(names, start=1):
            rows = list(items.each(makers[name](), name))
            tables.append(table(name, rows, FACTS[name] | ({"training_steps": steps} if name == "training" else {})))
            record = StudyRecord(record.created_utc, facts, tuple(tables))
            if number < len(names):
                world.farewell.keep(output, encode_study_record(record))
    world.farewell.finish(output, encode_study_record(record))
    return record


def n_rows(name: str, steps: int, every: int) -> int:
    """Count the rows a table will have; parameters as of :func:`study`."""
    return {
        "speedup": 2 * len(SPEEDUP_CELLS) * len(SPEEDUP_STEPS) * len(SPEEDUP_SEGMENTS),  # both directions
        "tolerance": len(TOLERANCE_CELLS) * len(TOLERANCES),
        "training": len(TRAINED) * (steps // every + 1),
        "chaos": 2 * len(CHAOS_STEPS) * (len(FORGET_BIASES) + len(CHRONO_SPANS) + len(GAINS)),  # two methods
    }[name]


FACTS: dict[str, dict[str, Any]] = {
    "speedup": {"hidden": 128, "batch": 1, "tolerance": 1e-6, "method": "picard", "dtype": "float32"},
    "tolerance": {"hidden": 128, "batch": 1, "T": 2048, "segments": 16, "method": "picard", "dtype": "float32"},
    "training": {"method": "picard", "segments": 4, "tolerance": 1e-6, "dtype": "float32"},
    "chaos": {"hidden": 64, "batch": 1, "segments": CHAOS_SEGMENTS, "tolerance": 1e-6, "dtype": "float32"},
}
"""What holds for each table as a whole."""

TABLES = ("speedup", "tolerance", "training", "chaos")


def main(world: World) -> int:
    """Run the study on one rank."""
    parser = ScriptParser(world, "time_study", __doc__, 1)
    add_output(parser, Path("results/time_study.h5"))
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--steps", type=positive, default=300, help="of training")
    parser.add_argument("--every", type=positive, default=15, help="training steps from one look to the next")
    arguments = parser.parse_args()
    check_ranks(world, "time_study", 1)
    output = Output(arguments.out, overwrite=arguments.overwrite, key="--out")
    output.check()
    study(world, output, arguments.tables, arguments.steps, arguments.every)
    say(world, f"written: {arguments.out}")
    return EXIT_VALID


if __name__ == "__main__":
    raise SystemExit(on_ranks(main))
