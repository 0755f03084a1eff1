"""Energy counters of processors and GPUs, where they can be read.

Linux shows the counters of a processor's packages as files (powercap, which Intel's and AMD's drivers fill); an NVIDIA
GPU is asked through NVML.  Many machines let nobody but root read the first; then energy is unknown, and said to be so.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import Any, Protocol

POWERCAP = Path("/sys/class/powercap")
_PACKAGE_PARTS = 2
"""Of ``intel-rapl:0``; its cores and memory are ``intel-rapl:0:0``, and are in it."""


class Counter(Protocol):
    """Something that counts joules."""

    def joules(self) -> float:
        """Count since it was made; raises OSError where it cannot be read."""


class PackageCounter:
    """The counter of one processor package, which begins anew when it is full.

    Parameters
    ----------
    folder : Path
        Of powercap.
    """

    def __init__(self, folder: Path) -> None:
        self._energy = folder / "energy_uj"
        self._range_uj = int((folder / "max_energy_range_uj").read_text())
        self._last_uj = self._read()
        self._total_uj = 0

    def _read(self) -> int:
        return int(self._energy.read_text())

    def joules(self) -> float:
        now = self._read()
        grown = now - self._last_uj
        self._total_uj += grown if grown >= 0 else grown + self._range_uj
        self._last_uj = now
        return self._total_uj * 1e-6


class GpuCounter:
    """The counter of one GPU.

    Parameters
    ----------
    nvml : module
    handle : NVML device
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle
        self._first_mj = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)

    def joules(self) -> float:
        grown: float = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) - self._first_mj
        return grown * 1e-3


def package_counters(root: Path = POWERCAP) -> list[Counter]:
    """Find the counters of this node's processor packages; none where one cannot be read.

    Parameters
    ----------
    root : Path, optional
    """
    try:
        names = sorted(path for path in root.iterdir() if path.name.count(":") == _PACKAGE_PARTS - 1)
        return [PackageCounter(path) for path in names if (path / "energy_uj").exists()]
    except (OSError, ValueError):
        return []


def gpu_counters(uuids: Sequence[str]) -> list[Counter]:
    """Find the counters of some GPUs of this node; none where NVML does not know one of them."""
    if not uuids:
        return []
    try:
        import pynvml

        pynvml.nvmlInit()
        return [GpuCounter(pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid)) for uuid in uuids]
    except Exception:  # noqa: BLE001 - whatever a driver lacks, energy is then unknown
        return []


class EnergyMeter:
    """What a node's processors and GPUs have used since the meter was made.

    Parameters
    ----------
    counters : sequence of Counter
    complete : bool
        Whether these are all: without a processor's or a GPU's nothing is known of the node.
    """

    def __init__(self, counters: Sequence[Counter], *, complete: bool) -> None:
        self._counters = counters if complete else ()

    def joules(self) -> float:
        """Return the joules used so far; NaN where they are unknown."""
        if not self._counters:
            return nan
        try:
            return sum(counter.joules() for counter in self._counters)
        except (OSError, ValueError):
            self._counters = ()
            return nan


def node_meter(gpu_uuids: Sequence[str], root: Path = POWERCAP) -> EnergyMeter:
    """Make the meter of this node.

    Parameters
    ----------
    gpu_uuids : sequence of str
        Of the GPUs that take part on it.
    root : Path, optional
        Where the counters of processors are.
    """
    packages, gpus = package_counters(root), gpu_counters(gpu_uuids)
    return EnergyMeter([*packages, *gpus], complete=bool(packages) and len(gpus) == len(gpu_uuids))
