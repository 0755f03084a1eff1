"""From the name of a backend to an engine; heavy libraries are imported here and not before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hpcrnn.backends.base import Engine, Extent
from hpcrnn.backends.numpy.engine import NumpyEngine
from hpcrnn.backends.numpy.mkl import MklProducts, load_mkl
from hpcrnn.cells.exchange import ALONE, Exchange
from hpcrnn.cells.products import NumpyProducts, ProductLibrary
from hpcrnn.errors import LaunchError, MissingPackageError, SpecError
from hpcrnn.methods.line import ALONE as ONLY_WINDOW
from hpcrnn.methods.line import Line
from hpcrnn.model.network import Network
from hpcrnn.spec import BackendName, Grid, RunSpec

if TYPE_CHECKING:
    from hpcrnn.backends.cupy.engine import CupyEngine


def check_backends(spec: RunSpec) -> None:
    """Refuse what cannot run here, before anything is built.

    Raises
    ------
    MissingPackageError
        A package is not installed; the message says how to get it.
    SpecError
        The backend does not have what the model asks for.
    """
    others = [name for name in spec.machine.rank_backends or spec.machine.backend if name != "numpy"]
    if spec.problem.sequences != "windows" and others:
        allowed = f"numpy, with sequences = {spec.problem.sequences}"
        raise SpecError("machine.backend", ",".join(others), allowed)
    if spec.machine.gemm == "mkl" and load_mkl() is None:
        raise MissingPackageError("machine.gemm = mkl: MKL is not installed: pip install mkl")
    if "torch" in spec.machine.backend:
        from importlib.util import find_spec

        if find_spec("torch") is None:
            raise MissingPackageError(
                "machine.backend = torch: PyTorch is not installed: pip install torch (it is a peer to "
                "measure against; everything else works without it)"
            )
        _check_cell(spec, "torch")
        if spec.model.cell == "gru" and spec.model.reset == "before":
            raise SpecError("model.reset", spec.model.reset, "after, with backend torch: torch.nn.GRU has no other")
        if spec.training.carry:
            raise SpecError("training.carry", value=True, allowed="false, with backend torch")

    if "cupy" in spec.machine.backend:
        _check_cupy(spec)
        if spec.machine.rank_backends is not None:
            _check_beside_hosts(spec)
        return
    for key, value, plain in (
        ("precision", spec.machine.precision, "float32"),
        ("gradient_sum", spec.machine.gradient_sum, "mpi"),
        ("transport", spec.machine.transport, "auto"),
        ("kernel", spec.machine.kernel, "auto"),
    ):
        if value != plain:
            raise SpecError(f"machine.{key}", value, f"{plain}, unless the backend is cupy")


def _check_beside_hosts(spec: RunSpec) -> None:
    """Refuse what ranks on GPUs cannot do beside ranks on CPUs."""
    for key, value, plain in (
        ("precision", spec.machine.precision, "float32"),
        ("gradient_sum", spec.machine.gradient_sum, "mpi"),
    ):
        if value != plain:
            raise SpecError(f"machine.{key}", value, f"{plain}, with rank_backends")


def _check_cupy(spec: RunSpec) -> None:
    from importlib.util import find_spec

    if find_spec("cupy") is None:
        raise MissingPackageError(
            "machine.backend = cupy: CuPy is not installed: pip install cupy-cuda13x (or cupy-cuda12x, for a CUDA 12 "
            "driver)"
        )
    if spec.model.dtype != "float32":
        raise SpecError("model.dtype", spec.model.dtype, "float32, with backend cupy (see machine.precision)")
    _check_cell(spec, "cupy")
    if spec.machine.gradient_sum == "nccl" and spec.machine.allow_shared_gpu:
        raise SpecError("machine.gradient_sum", "nccl", "mpi where ranks may share a GPU (machine.allow_shared_gpu)")


def _check_cell(spec: RunSpec, backend: BackendName) -> None:
    """Refuse a cell that only the NumPy backend has."""
    if spec.model.cell not in ("elman", "lstm", "gru"):
        raise SpecError("model.cell", spec.model.cell, f"elman, lstm or gru, with backend {backend}")


def check_grid(spec: RunSpec, grid: Grid) -> None:
    """Refuse a grid or a method that a backend cannot take part in.

    With a method that runs segments at once, ``torch`` is measured serially.

    Raises
    ------
    SpecError
    """
    backends, method = spec.machine.backend, spec.recurrence.method
    if "torch" in backends and method == "chain" and grid.n_ranks != grid.data:
        raise SpecError("parallel.grid", str(grid), "the axis data alone, with backend torch")
    if "cupy" in backends and grid.tensor > 1 and spec.model.cell == "gru" and spec.model.reset == "before":
        raise SpecError("model.reset", "before", "after where backend cupy splits the hidden units (tensor > 1)")
    if "cupy" in backends and method in ("scan", "deer"):
        allowed = (
            "chain, picard, gateprod, tbptt_zero, tbptt_stale, burnin, overlap_verified or auto, with backend cupy"
        )
        raise SpecError("recurrence.method", method, allowed)


def make_engine(
    name: BackendName,
    network: Network,
    extent: Extent,
    spec: RunSpec,
    exchange: Exchange = ALONE,
    line: Line = ONLY_WINDOW,
    *,
    direct: bool = False,
    local_rank: int | None = None,
) -> Engine:
    """Build an engine.

    Parameters
    ----------
    name : {"numpy", "torch", "cupy"}
    network : Network
    extent : Extent
    spec : RunSpec
        For its training and machine sections.
    exchange : Exchange
        With the other shards of the hidden units.
    line : Line
        With the other windows of time.
    direct : bool
        Of ``cupy``: whether MPI takes arrays on the GPU as they are.
    local_rank : int, optional
        Of ``cupy``: number of this rank among those of its host that see the same GPUs; by default what the launcher
        tells.
    """
    if name == "torch":
        from hpcrnn.backends.torch.engine import TorchEngine

        return TorchEngine(network, extent, spec.training, spec.machine.threads)
    if name == "cupy":
        return _make_cupy_engine(network, extent, spec, exchange, line, direct=direct, local_rank=local_rank)
    library = product_library(spec.machine.gemm, spec.machine.threads)
    return NumpyEngine(network, extent, spec.training, library, exchange, line)


def _make_cupy_engine(
    network: Network,
    extent: Extent,
    spec: RunSpec,
    exchange: Exchange,
    line: Line,
    *,
    direct: bool,
    local_rank: int | None,
) -> Engine:
    return _load_cupy_engine()(
        network, extent, spec.training, spec.machine, exchange, line, direct=direct, local_rank=local_rank
    )


def gpu_of_rank(spec: RunSpec, local_rank: int) -> str:
    """Name the GPU a rank takes, by its UUID, before anything is built on one.

    Parameters
    ----------
    spec : RunSpec
    local_rank : int
        Number of this rank among those of its host that see the same GPUs.

    Returns
    -------
    str
        The same in all processes that take it.

    Raises
    ------
    LaunchError
        There is no driver or no GPU, or none for this rank.
    MissingPackageError
        A CUDA library cannot be loaded.
    """
    _load_cupy_engine()
    from hpcrnn.backends.cupy.device import index_of_gpu, uuid_of_gpu

    return uuid_of_gpu(index_of_gpu(shared=spec.machine.allow_shared_gpu, local_rank=local_rank))


def _load_cupy_engine() -> type[CupyEngine]:
    """Import the engine on a GPU, once it is known that there is one."""
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # noqa: BLE001 - a missing driver or library comes as any of several kinds
        raise LaunchError(f"machine.backend = cupy: no usable GPU: {_first_line(error)}") from None
    if not count:
        raise LaunchError("machine.backend = cupy: no GPU on this host")
    try:
        from hpcrnn.backends.cupy.engine import CupyEngine
    except Exception as error:  # noqa: BLE001 - likewise
        raise MissingPackageError(
            f"machine.backend = cupy: a CUDA library cannot be loaded: {_first_line(error)}: "
            "pip install 'cupy-cuda13x[ctk]'"
        ) from None
    return CupyEngine


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def product_library(gemm: Literal["auto", "numpy", "mkl"], threads: int) -> ProductLibrary:
    """Return what multiplies: packed MKL where it is installed, unless NumPy is asked for."""
    mkl = load_mkl() if gemm != "numpy" else None
    return NumpyProducts() if mkl is None else MklProducts(mkl, threads)
