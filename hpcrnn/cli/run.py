"""``hpcrnn run``: a flag for every key of a specification, made from the specification itself."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hpcrnn.cli.output import console
from hpcrnn.cli.parser import Parser
from hpcrnn.errors import EXIT_INVALID, EXIT_VALID, LaunchError, SpecError

if TYPE_CHECKING:
    from hpcrnn.execution.world import World
    from hpcrnn.spec import Option


def add_flags(parser: Parser) -> None:
    """Add the flags; it is started by :func:`run_on_ranks`, which knows the ranks before the flags."""
    parser.usage = "[mpirun -n N] hpcrnn run [SPEC.toml] [--KEY VALUE ...]"
    parser.description = "Verify and measure one problem."
    parser.add_argument("spec", nargs="?", metavar="SPEC.toml", help="specification; flags win over it")
    _add_options(parser)


def run_on_ranks(argv: Sequence[str], parser: argparse.ArgumentParser) -> int:
    """Read flags and run on every rank; whatever goes wrong is told once, and ends all ranks."""
    world = _start_world()
    from hpcrnn.execution.world import fail

    try:
        world.farewell.listen()
        return _run(parser.parse_args(argv), world, argv)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever it is, no rank may hang
        fail(world, error)


def overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the keys that were given as flags."""
    from hpcrnn.spec import options

    given = vars(arguments)
    return {o.name: given[o.name] for o in options() if given.get(o.name) is not None}


def _start_world() -> World:
    try:
        from hpcrnn.execution.start import start_mpi

        start_mpi()
        from hpcrnn.execution.world import World
    except LaunchError as error:
        wrong = error
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        wrong = LaunchError(
            f"no MPI library can be loaded ({reason}): pip install mpich, or load the site's MPI module"
        )
    else:
        return World.start()
    if wrong.told:
        sys.stderr.write(f"hpcrnn: error: {wrong}\n")
    raise SystemExit(wrong.exit_code)


def _run(arguments: argparse.Namespace, world: World, argv: Sequence[str]) -> int:
    from hpcrnn.spec import build_spec, read_toml

    raw = read_toml(arguments.spec) if arguments.spec else {}
    spec = build_spec(raw, overrides(arguments))

    from hpcrnn.benchmarks.run import run

    record = run(spec, world, ["hpcrnn", *argv])
    if record is None:
        code = EXIT_VALID
    else:
        from hpcrnn.errors import printable
        from hpcrnn.reporting.terminal.show import show

        show([record], console())
        invalid = [case for case in record.cases if case.verdict.status == "INVALID"]
        for case in invalid:
            worst = case.verdict.worst
            sys.stderr.write(
                f"hpcrnn: INVALID: {case.label}: {worst.quantity}: relative error {worst.error:.3g}, "
                f"allowed {worst.tolerance:.3g}\n"
            )
        sys.stdout.write(f"written: {printable(record.source)}\n")
        code = EXIT_INVALID if invalid else EXIT_VALID
    return int(world.comm.bcast(code))


def _add_options(parser: argparse.ArgumentParser) -> None:
    from hpcrnn.spec import describe, options

    groups: dict[str, Any] = {}
    for leaf in options():
        group = groups.setdefault(leaf.section, parser.add_argument_group(leaf.section))
        text = leaf.description.replace("%", "%%")
        if isinstance(leaf.default, bool):
            group.add_argument(leaf.flag, dest=leaf.name, action=argparse.BooleanOptionalAction, help=text)
            continue
        allowed = "axis=count,..." if leaf.name == "grid" else describe(leaf.annotation)
        allowed = allowed.replace(" and <= 2147483647", "").replace("%", "%%")  # of no use to a reader
        shown = "" if leaf.default is None else f"; default {_plain(leaf.default)}"
        group.add_argument(
            leaf.flag, dest=leaf.name, type=_reader(leaf), metavar="X", help=f"{text} [{allowed}{shown}]"
        )


def _plain(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _reader(leaf: Option) -> Any:
    """Turn a flag's text into the number the key wants; validation then sees the same value as from TOML."""
    from hpcrnn.spec import describe

    def read(text: str) -> object:
        allowed = describe(leaf.annotation)
        try:
            if allowed.startswith("an integer"):
                return int(text)
            if allowed.startswith("a number"):
                return float(text)
        except ValueError:
            raise SpecError(leaf.key, text, allowed) from None
        return text

    return read
