"""In which order a rank takes its tasks.

Block-major, all forwards and then all backwards::

    F(0,·,·) F(1,·,·) … F(n,·,·)   B(n,·,·)+W(n,·,·) … B(0,·,·)+W(0,·,·)

A block's tasks stay together, so its laid-out weights stay in cache, and each weight gradient follows its
backward task, so a block's gradient is complete, and can be sent, as early as possible.
"""

from __future__ import annotations

from collections.abc import Iterable

from hpcrnn.schedules.graph import Task


def block_major(tasks: Iterable[Task]) -> tuple[Task, ...]:
    """Order tasks block by block."""
    return tuple(sorted(tasks, key=_rank_of))


def _rank_of(task: Task) -> tuple[int, int, int, int, int]:
    if task.kind == "F":
        return (0, task.block, task.microbatch, task.chunk, 0)
    return (1, -task.block, task.microbatch, -task.chunk, "BW".index(task.kind))
