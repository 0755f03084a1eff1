"""Functions of the CUDA driver."""

from cupy import _settings


class CUDADriverError(RuntimeError):
    """What the driver says."""


def occupancyMaxActiveBlocksPerMultiprocessor(  # noqa: N802
    func: int,
    blockSize: int,
    dynamicSMemSize: int,
) -> int:
    """One block a multiprocessor, of any kernel that can be there at all."""
    return int(blockSize <= 1024 and dynamicSMemSize <= _settings.SHARED_BYTES_AT_MOST)


def get_build_version() -> int:
    """Of the toolkit."""
    return _settings.CUDA_VERSION
