"""Which of its node's GPUs a rank takes: by its number among the ranks of the node that see the same ones.

A launcher either shows all GPUs of a node to all its ranks, which then take one each by their number, or shows each
rank its own, which is number 0 for all of them: by ``CUDA_VISIBLE_DEVICES``, or by a control group that keeps it from
the other devices, as Slurm does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path


def gpus_in_sight(variables: Mapping[str, str] | None = None, root: Path = Path("/")) -> str:
    """Name the NVIDIA GPUs that CUDA would find, without opening one: the same text where they are the same.

    Parameters
    ----------
    variables : mapping, optional
        By default the environment of this process.
    root : Path
        Of the file system.
    """
    variables = os.environ if variables is None else variables
    # Asking for permission consults the control group too; opening might wake the GPU up.
    devices = [path.name for path in (root / "dev").glob("nvidia[0-9]*") if os.access(path, os.R_OK | os.W_OK)]
    return f"{variables.get('CUDA_VISIBLE_DEVICES', 'all')} of {','.join(sorted(devices))}"


def local_rank(sights: Sequence[str], number: int) -> int:
    """Count the ranks before this one that see the same GPUs.

    Parameters
    ----------
    sights : sequence of str
        :func:`gpus_in_sight` of every rank of the node, in order.
    number : int
        Of this rank among them.
    """
    return sights[:number].count(sights[number])
