"""Sums of gradients over ranks by NCCL: from GPU to GPU, beside what the GPU computes."""

from __future__ import annotations

import warnings
from typing import Any

from hpcrnn.backends.base import Array, RankGroup
from hpcrnn.backends.cupy.device import Device
from hpcrnn.errors import LaunchError, MissingPackageError


class NcclSummer:
    """The ranks of a group, of which each has a GPU of its own; made by all of them together.

    Parameters
    ----------
    group : RankGroup
    device : Device

    Raises
    ------
    MissingPackageError
        NCCL is not installed.
    LaunchError
        NCCL refuses, as where two ranks share a GPU.
    """

    def __init__(self, group: RankGroup, device: Device) -> None:
        self._nccl = load_nccl()
        # Beside the stream of the messages, which would wait for the sums.
        self._stream: Any = device.make_stream()
        try:
            name = group.share(self._nccl.get_unique_id() if group.rank == 0 else None)
            self._communicator = self._nccl.NcclCommunicator(group.size, name, group.rank)
        except self._nccl.NcclError as error:
            raise LaunchError(f"machine.gradient_sum = nccl: {error}; allowed is mpi") from None

    def begin(self, array: Array) -> None:
        """Sum a float32 array on the GPU, in place; what made it is done."""
        address: Any = array.data.ptr  # type: ignore[attr-defined]
        sum_of, stream = (self._nccl.NCCL_FLOAT32, self._nccl.NCCL_SUM), self._stream.ptr
        self._communicator.allReduce(address, address, array.size, *sum_of, stream)

    def wait(self) -> None:
        """Wait for all sums begun."""
        self._stream.synchronize()


def load_nccl() -> Any:
    """Return CuPy's binding.

    Raises
    ------
    MissingPackageError
        The library is not there.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # several lines of what the error below says in one
        try:
            from cupy.cuda import nccl
        except ImportError:
            nccl = None
    if not getattr(nccl, "available", False):
        raise MissingPackageError(
            "machine.gradient_sum = nccl: NCCL cannot be loaded: pip install nvidia-nccl-cu13; allowed is mpi"
        )
    return nccl
