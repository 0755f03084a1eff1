"""What a rank runs on: processor, caches, memory, limits and GPUs, as Linux tells it.

Functions take the root of the file system, so a test can hand them another machine's ``/proc`` and ``/sys``.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import socket
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from hpcrnn.records.attempt import UNKNOWN, attempt, attempts, text_of

ROOT = Path("/")
CPUS = Path("sys/devices/system/cpu")

SIMD = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "asimd",
    "sve",
    "sve2",
    "altivec",
    "vsx",
)
"""Instruction sets that decide how fast a matrix product can be."""

_PROCESSOR_CHARACTERS = 8192
"""Of ``/proc/cpuinfo``: the first processors.  Reading all of it interrupts every core of a large node."""


def host_facts(root: Path = ROOT) -> dict[str, Any]:
    """Describe the machine and the share of it that this process has.

    Returns
    -------
    dict
        Plain values; ``unknown`` where something cannot be found out, None where a limit is not set.
    """
    cpus = affinity()
    processor = attempt(lambda: _processor(root))
    fields: dict[str, str] = processor if isinstance(processor, dict) else {}
    cpu = root / CPUS / f"cpu{cpus[0] if cpus else 0}"
    facts = attempts(
        {
            "hostname": socket.gethostname,
            "pid": os.getpid,
            "python": lambda: f"{platform.python_implementation()} {platform.python_version()}",
            "system": lambda: _system(root),
            "kernel": platform.release,
            "architecture": platform.machine,
            "cpu_model": lambda: _model(fields),
            "simd": lambda: _simd(fields),
            "virtual_machine": lambda: "hypervisor" in fields["flags"].split(),
            "affinity": lambda: ranges(cpus),
            "n_cpus": lambda: len(cpus) or None,
            "n_physical_cores": lambda: _n_distinct(root, cpus, "thread_siblings_list"),
            "n_sockets": lambda: _n_distinct(root, cpus, "physical_package_id"),
            "n_numa_nodes": lambda: len(parse_ranges(text_of(root / "sys/devices/system/node/online"))),
            "caches": lambda: _caches(cpu),
            "memory_bytes": lambda: _memory(root, "MemTotal"),
            "available_memory_bytes": lambda: _memory(root, "MemAvailable"),
            "huge_pages": lambda: _chosen(text_of(root / "sys/kernel/mm/transparent_hugepage/enabled")),
            "governor": lambda: text_of(cpu / "cpufreq/scaling_governor"),
            "frequency_hz": lambda: 1000 * int(text_of(cpu / "cpufreq/scaling_cur_freq")),
            "max_frequency_hz": lambda: 1000 * int(text_of(cpu / "cpufreq/scaling_max_freq")),
            "load_average": lambda: os.getloadavg()[0],
        }
    )
    # Under mpirun all ranks are handed that of the node mpirun itself was started on.
    facts["slurm_node"] = os.environ.get("SLURMD_NODENAME")
    facts["cpu_quota"] = _never_failing_quota(root)
    facts["gpus"] = gpu_facts(root)
    return facts


def affinity() -> list[int]:
    """Return the logical CPUs this process may use, ascending; empty where the system does not say."""
    get = getattr(os, "sched_getaffinity", None)
    return sorted(get(0)) if get else list(range(os.cpu_count() or 0))


def ranges(numbers: Iterable[int]) -> str:
    """Write ascending numbers as Linux does: ``0-3,8``."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(f"{low}-{high}" if high > low else f"{low}" for low, high in spans)


def parse_ranges(text: str) -> list[int]:
    """Read what :func:`ranges` writes."""
    spans = [span.partition("-") for span in text.split(",") if span]
    return [number for low, _, high in spans for number in range(int(low), int(high or low) + 1)]


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return the CPUs' worth of time the control groups leave to this process.

    Returns
    -------
    float or None
        None: no group sets a limit.

    Raises
    ------
    OSError, ValueError
        Which group this process is in cannot be read.
    """
    quotas: list[float] = []
    for line in text_of(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            quotas += _quotas(root / "sys/fs/cgroup", path, _quota_v2)
        elif "cpu" in controllers.split(","):
            quotas += _quotas(root / "sys/fs/cgroup" / controllers, path, _quota_v1)
    return min(quotas, default=None)


def gpu_facts(root: Path = ROOT) -> list[dict[str, Any]]:
    """Describe every NVIDIA GPU of the node, where there is a driver and ``nvidia-ml-py`` is installed.

    The management library sees them all, whatever ``CUDA_VISIBLE_DEVICES`` says.
    """
    if not any((root / path).exists() for path in ("proc/driver/nvidia/version", "dev/nvidiactl", "dev/dxg")):
        return []
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # noqa: BLE001 - not installed, or not of this driver
        return []
    try:
        return [_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    except Exception:  # noqa: BLE001 - a GPU that fell off the bus
        return []
    finally:
        attempt(nvml.nvmlShutdown)


def _gpu(nvml: Any, index: int) -> dict[str, Any]:
    gpu = nvml.nvmlDeviceGetHandleByIndex(index)
    return {"index": index} | attempts(
        {
            "name": lambda: _decoded(nvml.nvmlDeviceGetName(gpu)),
            "uuid": lambda: _decoded(nvml.nvmlDeviceGetUUID(gpu)),
            "pci_bus": lambda: _decoded(nvml.nvmlDeviceGetPciInfo(gpu).busId),
            "compute_capability": lambda: "{}.{}".format(*nvml.nvmlDeviceGetCudaComputeCapability(gpu)),
            "memory_bytes": lambda: int(nvml.nvmlDeviceGetMemoryInfo(gpu).total),
            "driver": lambda: _decoded(nvml.nvmlSystemGetDriverVersion()),
            "cuda_of_driver": lambda: int(nvml.nvmlSystemGetCudaDriverVersion()),
            "max_sm_clock_hz": lambda: 10**6 * int(nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM)),
            "max_memory_clock_hz": lambda: 10**6 * int(nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_MEM)),
            "power_limit_w": lambda: nvml.nvmlDeviceGetPowerManagementLimit(gpu) / 1000,
            "persistence_mode": lambda: bool(nvml.nvmlDeviceGetPersistenceMode(gpu)),
            "compute_mode": lambda: int(nvml.nvmlDeviceGetComputeMode(gpu)),
            "ecc": lambda: bool(nvml.nvmlDeviceGetEccMode(gpu)[0]),
            "mig": lambda: bool(nvml.nvmlDeviceGetMigMode(gpu)[0]),
        }
    )


def _decoded(text: str | bytes) -> str:
    """Older bindings return bytes."""
    return text.decode() if isinstance(text, bytes) else text


def _processor(root: Path) -> dict[str, str]:
    """Read the fields of the first processor; a key without a value among them."""
    block = text_of(root / "proc/cpuinfo", _PROCESSOR_CHARACTERS).split("\n\n")[0]
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _model(fields: dict[str, str]) -> str:
    """Name the processor; Arm's have numbers where others have a name."""
    for key in ("model name", "cpu model", "cpu", "Processor"):
        if fields.get(key):
            return fields[key]
    if "CPU part" in fields:
        return f"Arm implementer {fields.get('CPU implementer', UNKNOWN)} part {fields['CPU part']}"
    return platform.processor()


def _simd(fields: dict[str, str]) -> list[str]:
    flags = (fields["flags"] if "flags" in fields else fields["Features"]).split()
    return [name for name in SIMD if name in flags]


def _system(root: Path) -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)', text_of(root / "etc/os-release"), re.MULTILINE)
    return found[1] if found else platform.system()


def _n_distinct(root: Path, cpus: list[int], name: str) -> int | None:
    """Count the different values that a topology file has over some CPUs."""
    return len({text_of(root / CPUS / f"cpu{cpu}" / "topology" / name) for cpu in cpus}) or None


def _caches(cpu: Path) -> dict[str, int]:
    """Map ``L1d_bytes``, ``L2_bytes``, ... to the sizes of the caches a CPU sees."""
    kinds = {"Data": "d", "Instruction": "i", "Unified": ""}
    sizes = {}
    for index in sorted((cpu / "cache").glob("index*")):
        name = f"L{text_of(index / 'level')}{kinds[text_of(index / 'type')]}_bytes"
        sizes[name] = _size(text_of(index / "size"))
    if not sizes:
        raise FileNotFoundError
    return sizes


def _size(text: str) -> int:
    """Read ``36608K``."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    return int(text[:-1]) * units[text[-1]] if text[-1] in units else int(text)


def _memory(root: Path, name: str) -> int | None:
    found = re.search(rf"^{name}:\s*([0-9]+) kB", text_of(root / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _chosen(text: str) -> str:
    """Return the word in brackets of ``always [madvise] never``."""
    return text[text.index("[") + 1 : text.index("]")].strip()


def _never_failing_quota(root: Path) -> float | str | None:
    """Tell no limit (None) from no answer, which :func:`attempt` does not."""
    try:
        return cpu_quota(root)
    except (OSError, ValueError):
        return UNKNOWN


def _quotas(mount: Path, path: str, read: Callable[[Path], float | None]) -> list[float]:
    """Read the limits of a group and of every group it is in: the tightest holds."""
    group = mount / path.lstrip("/")
    lineage = [group, *(above for above in group.parents if above == mount or mount in above.parents)]
    limits = [attempt(partial(read, level)) for level in lineage]
    return [limit for limit in limits if isinstance(limit, float)]


def _quota_v2(group: Path) -> float | None:
    quota, period = text_of(group / "cpu.max").split()
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(group: Path) -> float | None:
    quota = int(text_of(group / "cpu.cfs_quota_us"))
    return None if quota < 0 else quota / int(text_of(group / "cpu.cfs_period_us"))
