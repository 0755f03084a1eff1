"""The exchange between the shards of a layer, of arrays on the GPU: see :mod:`hpcrnn.cells.exchange`.

A time step waits for every message, so there is nothing to gain from handing MPI the arrays themselves in pieces: they
come to pinned memory of the host, are exchanged there, and return.
"""

from __future__ import annotations

import math

from hpcrnn.backends.base import Array
from hpcrnn.backends.cupy.device import Device, DeviceArray
from hpcrnn.backends.cupy.staging import as_words, pinned_zeros
from hpcrnn.cells.exchange import Exchange


class GpuExchange:
    """An exchange of arrays on a GPU; with one shard nothing moves.

    Parameters
    ----------
    exchange : Exchange
        Of arrays on the host.
    device : Device
    """

    def __init__(self, exchange: Exchange, device: Device) -> None:
        self._exchange, self._device = exchange, device
        self.rank, self.size = exchange.rank, exchange.size
        self._hosts: dict[tuple[str, tuple[int, ...], str], Array] = {}

    @property
    def sent_bytes(self) -> int:
        """Bytes this shard has sent so far."""
        return self._exchange.sent_bytes

    def gather(self, own: DeviceArray, full: DeviceArray) -> None:
        """Bring the columns (M, Nk) of all shards together: (M, N)."""
        if self.size > 1:
            part, whole = self._fetched("own", as_words(own)), self._host("full", as_words(full))
            self._exchange.gather(part, whole)
            as_words(full).set(whole, stream=self._device.stream)

    def reduce_scatter(self, partial: DeviceArray, own: DeviceArray) -> None:
        """Sum float32 (M, N) over the shards, each of which is left with its own columns (M, Nk)."""
        if self.size > 1:
            whole, part = self._fetched("full", partial), self._host("own", own)
            self._exchange.reduce_scatter(whole, part)
            own.set(part, stream=self._device.stream)

    def sum(self, array: DeviceArray) -> None:
        """Sum float32 over the shards, in place."""
        if self.size > 1:
            host = self._fetched("full", array)
            self._exchange.sum(host)
            array.set(host, stream=self._device.stream)

    def _fetched(self, role: str, array: DeviceArray) -> Array:
        host = self._host(role, array)
        array.get(out=host, stream=self._device.stream)
        self._device.synchronize()
        return host

    def _host(self, role: str, array: DeviceArray) -> Array:
        """Pinned memory for arrays of this shape."""
        key = role, tuple(array.shape), str(array.dtype)
        if key not in self._hosts:
            self._hosts[key] = pinned_zeros(math.prod(array.shape), array.dtype).reshape(array.shape)
        return self._hosts[key]
