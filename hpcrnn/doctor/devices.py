"""GPUs, and whether MPI takes arrays that lie on them."""

from __future__ import annotations

import importlib.util
import os
import sys

from hpcrnn.doctor.asking import ask
from hpcrnn.doctor.finding import Finding
from hpcrnn.doctor.ranks import outside
from hpcrnn.records.environment import gpu_facts

_CUDA_PROGRAM = "from hpcrnn.execution.cuda_aware import probe; found = probe(); print(int(found.aware), found.how)"


def gpus() -> list[Finding]:
    """Name the GPUs of the host."""
    found = gpu_facts()
    if not found:
        return [Finding("GPUs", "note", "none visible: --backend cupy cannot run")]
    names = " and ".join(dict.fromkeys(str(gpu.get("name")) for gpu in found))
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    text = f"{len(found)} on this host: {names}" + (
        f"; CUDA_VISIBLE_DEVICES is {hidden!r}" if hidden is not None else ""
    )
    if importlib.util.find_spec("cupy") is None:
        return [Finding("GPUs", "note", f"{text}; CuPy is not installed", "pip install 'cupy-cuda13x[ctk]'")]
    if hidden is not None and not hidden.strip():
        return [Finding("GPUs", "note", f"{text}: all are hidden", "unset CUDA_VISIBLE_DEVICES")]
    return [Finding("GPUs", "ok", text)]


def mpi_and_gpus() -> list[Finding]:
    """Say whether MPI takes arrays on a GPU as they are."""
    answer = ask([sys.executable, "-c", _CUDA_PROGRAM], variables=outside())
    aware, _, how = answer.last_line.partition(" ")
    reason = how if answer.code == 0 else f"MPI could not be asked: {answer.last_line}"
    if answer.code == 0 and aware == "1":
        return [Finding("MPI and GPU", "ok", f"CUDA-aware: {reason}")]
    if not gpu_facts():
        return [Finding("MPI and GPU", "ok", f"not CUDA-aware, which matters on GPUs only: {reason}")]
    text = f"not CUDA-aware, arrays on a GPU go through pinned host memory: {reason}"
    return [Finding("MPI and GPU", "note", text, "an MPI built with CUDA, and mpi4py with it: it takes them directly")]
