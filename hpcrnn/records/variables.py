"""Environment variables: which of them are recorded, and why no secret is among them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

VARIABLE_FAMILIES = (
    "OMP_",
    "GOMP_",
    "KMP_",
    "MKL_",
    "OPENBLAS_",
    "BLIS_",
    "MPICH_",
    "MPIR_",
    "MV2_",
    "MVP_",
    "PSP_",
    "OMPI_MCA_",
    "I_MPI_",
    "UCX_",
    "FI_",
)
SLURM_VARIABLES = {
    "job_id": "SLURM_JOB_ID",
    "job_name": "SLURM_JOB_NAME",
    "partition": "SLURM_JOB_PARTITION",
    "cluster": "SLURM_CLUSTER_NAME",
    "nodes": "SLURM_NNODES",
    "tasks": "SLURM_NTASKS",
    "step_tasks": "SLURM_STEP_NUM_TASKS",
}
VARIABLES = frozenset({"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "PYTHONHASHSEED", *SLURM_VARIABLES.values()})

_SECRET_NAME = re.compile(r"PASS|SECRET|TOKEN|KEY|CRED|AUTH|COOKIE|PRIVATE|CERT|SIGN", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"://[^/\s@]*@|(passw|secret|token|credential|api.?key)\w*\s*[=:]", re.IGNORECASE)
_LONGEST_VALUE = 1000


def may_be_shown(name: str, value: str) -> bool:
    """Whether a variable is among those that change how MPI, BLAS and OpenMP work, and does not look like a secret."""
    known = name in VARIABLES or name.startswith(VARIABLE_FAMILIES)
    return known and not _SECRET_NAME.search(name) and not looks_secret(value)


def looks_secret(text: str) -> bool:
    """Whether a text has a password in an address, or something like ``token=``, in it."""
    return bool(_SECRET_VALUE.search(text))


def variable_facts(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Pick the environment variables that change how MPI, BLAS and OpenMP work; never one like a secret.

    Parameters
    ----------
    variables : mapping, optional
        By default those of this process.
    """
    variables = os.environ if variables is None else variables
    home = variables.get("HOME", "").rstrip("/")
    return {
        name: (value.replace(home, "~") if home else value)[:_LONGEST_VALUE]
        for name, value in sorted(variables.items())
        if may_be_shown(name, value)
    }


def slurm_facts(variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Name the Slurm job this process belongs to; empty outside of one."""
    variables = os.environ if variables is None else variables
    if "SLURM_JOB_ID" not in variables:
        return {}
    found = {name: variables[key] for name, key in SLURM_VARIABLES.items() if key in variables}
    counts = ("nodes", "tasks", "step_tasks")
    return {
        name: int(text) if name in counts and text.isascii() and text.isdigit() else text
        for name, text in found.items()
    }
