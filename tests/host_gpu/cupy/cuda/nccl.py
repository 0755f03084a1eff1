"""NCCL's sums, by files: ranks that share a folder and a name add up what each has written, in the order of the ranks.

One GPU takes part once in a communicator, as with the real library.
"""

import os
import secrets
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from cupy_backends.cuda.api import runtime

from cupy.cuda.memory import block_of

available = True
NCCL_FLOAT32, NCCL_SUM = 7, 0
_PATIENCE_S = 60


class NcclError(RuntimeError):
    """What the library answers."""


def get_unique_id() -> tuple[int, ...]:
    """Name a communicator."""
    return tuple(secrets.token_bytes(16))


class NcclCommunicator:
    """The ranks that were given one name."""

    def __init__(self, size: int, name: tuple[int, ...], rank: int) -> None:
        self._size, self._rank, self._calls = size, rank, 0
        self._folder = Path(tempfile.gettempdir()) / f"host-nccl-{bytes(name).hex()}"
        self._folder.mkdir(exist_ok=True)
        gpus = self._exchange(np.array([runtime.getDevice()], np.int64))
        if len({int(gpu[0]) for gpu in gpus}) < size:
            raise NcclError("NCCL_ERROR_INVALID_USAGE: invalid usage: a GPU takes part twice")

    def allReduce(  # noqa: N802 - the library's name
        self, send: int, receive: int, count: int, kind: int, operation: int, stream: int
    ) -> None:
        """Sum float32 numbers."""
        if (kind, operation) != (NCCL_FLOAT32, NCCL_SUM):
            raise NcclError("only sums of float32 are made here")
        block = block_of(send, 4 * count)
        if block is None or send != receive or not stream:
            raise NcclError("NCCL_ERROR_INVALID_ARGUMENT: invalid argument")
        start = send - block.ptr
        own = block.bytes[start : start + 4 * count].view(np.float32)
        total = np.zeros(count, np.float32)
        for part in self._exchange(own.copy()):
            total += part
        own[...] = total

    def _exchange(self, own: np.ndarray) -> list[Any]:
        """Return the arrays of all ranks."""
        self._calls += 1
        name = f"{self._calls}-{{}}.npy"
        partial = self._folder / f".{self._rank}.npy"
        np.save(partial, own)
        partial.replace(self._folder / name.format(self._rank))
        end = time.monotonic() + _PATIENCE_S
        paths = [self._folder / name.format(rank) for rank in range(self._size)]
        while not all(path.exists() for path in paths):
            if time.monotonic() > end:
                raise NcclError("NCCL_ERROR_REMOTE_ERROR: a rank did not come")
            os.sched_yield()
        return [np.load(path) for path in paths]
