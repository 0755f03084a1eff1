"""The compiler's version; compiling is ``host_cuda.build``'s."""

from cupy import _settings


def getVersion() -> tuple[int, int]:  # noqa: N802
    """Major and minor."""
    return _settings.CUDA_VERSION // 1000, _settings.CUDA_VERSION % 1000 // 10
