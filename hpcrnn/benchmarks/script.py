"""What the measuring scripts share: each is started as ``mpirun -n N python -m hpcrnn.benchmarks.NAME``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import IO, Any, NoReturn

from hpcrnn.errors import HpcrnnError, LaunchError
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
        return script(world)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever it is, no rank may hang
        fail(world, error)


class ScriptParser(argparse.ArgumentParser):
    """A parser that speaks on rank 0 only."""

    def __init__(self, world: World, name: str, description: str | None) -> None:
        self._is_root = world.is_root
        prog = f"mpirun -n N python -m hpcrnn.benchmarks.{name}"
        text = (description or "").partition(": ``")[0]
        super().__init__(prog=prog, description=text, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise HpcrnnError(f"{message} ({self.prog} --help)")

    def _print_message(self, message: str, file: IO[str] | None = None) -> None:  # type: ignore[override]
        if self._is_root:
            super()._print_message(message, file)


def positive(text: str) -> int:
    """Read a whole number of at least one, for ``argparse``."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def check_two_ranks(world: World, name: str) -> None:
    """Refuse anything but two ranks.

    Raises
    ------
    LaunchError
    """
    if world.size != 2:
        raise LaunchError(f"{world.size} rank(s); allowed is 2: mpirun -n 2 python -m hpcrnn.benchmarks.{name}")


def say(world: World, text: str, *, progress: bool = False) -> None:
    """Write a line on rank 0: a result on standard output, or progress on standard error."""
    if world.is_root:
        stream: Any = sys.stderr if progress else sys.stdout
        stream.write(f"hpcrnn: {text}\n" if progress else f"{text}\n")
        stream.flush()
