"""What the measuring scripts share: each is started as ``[mpirun -n N] python -m hpcrnn.benchmarks.NAME``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import IO, Any

from hpcrnn.benchmarks.arguments import OneLineParser
from hpcrnn.errors import LaunchError
from hpcrnn.execution.launch_checks import check_met
from hpcrnn.execution.world import World, fail


def on_ranks(script: Callable[[World], int]) -> int:
    """Run a script on all ranks; an error on any of them ends all.

    Parameters
    ----------
    script : callable
        From the ranks to the exit code.
    """
    world = World.start()
    try:
        world.farewell.listen()
        check_met(world)
        return script(world)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever it is, no rank may hang
        fail(world, error)


def _command(name: str, n_ranks: int | None) -> str:
    """How a script is started on so many ranks, or on any number."""
    launcher = "" if n_ranks == 1 else f"mpirun -n {n_ranks or 'N'} "
    return f"{launcher}python -m hpcrnn.benchmarks.{name}"


class ScriptParser(OneLineParser):
    """A parser that speaks on rank 0 only.

    Parameters
    ----------
    world : World
    name : str
        Of the script's module.
    description : str or None
        The module's docstring; what precedes the command in it is shown.
    n_ranks : int, optional
        Ranks the script needs; any number by default.
    """

    def __init__(self, world: World, name: str, description: str | None, n_ranks: int | None = None) -> None:
        self._is_root = world.is_root
        text = (description or "").partition(": ``")[0]
        super().__init__(prog=_command(name, n_ranks), description=text, allow_abbrev=False)

    def _print_message(self, message: str, file: IO[str] | None = None) -> None:  # type: ignore[override]
        if self._is_root:
            super()._print_message(message, file)


def check_ranks(world: World, name: str, n_ranks: int) -> None:
    """Refuse any other number of ranks than a script is made for.

    Raises
    ------
    LaunchError
    """
    if world.size != n_ranks:
        raise LaunchError(f"{world.size} rank(s); allowed is {n_ranks}: {_command(name, n_ranks)}")


def say(world: World, text: str, *, progress: bool = False) -> None:
    """Write a line on rank 0: a result on standard output, or progress on standard error."""
    if world.is_root:
        stream: Any = sys.stderr if progress else sys.stdout
        stream.write(f"hpcrnn: {text}\n" if progress else f"{text}\n")
        stream.flush()
