"""The ranks as PyTorch sees them: a process group over gloo, on one node."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed

from hpcrnn.errors import MissingPackageError

VERSION = str(torch.__version__)


def join_group(rank: int, n_ranks: int, folder: Path) -> None:
    """Connect the ranks of one node through gloo; collective.

    Parameters
    ----------
    rank, n_ranks : int
    folder : Path
        Empty, and the same on all ranks: they meet through a file in it.

    Raises
    ------
    MissingPackageError
        PyTorch was built without gloo.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        raise MissingPackageError(f"torch {VERSION} lacks gloo: pip install --upgrade torch")
    if sys.platform == "linux":
        # All ranks are on this node; the name of the host need not resolve.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=n_ranks
    )


def leave_group() -> None:
    """Undo :func:`join_group`; collective."""
    torch.distributed.destroy_process_group()
