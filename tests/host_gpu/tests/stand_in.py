"""The stand-in for CuPy; a test module that imports this is left out, with the reason, where there is another CuPy."""

import pytest
from gpu.gpu_samples import on_host
from host_gpu.host_cuda.build import NO_COMPILER

if NO_COMPILER:
    pytest.skip(NO_COMPILER, allow_module_level=True)
if not on_host():
    pytest.skip("the stand-in for CuPy is not in use: PYTHONPATH=tests/host_gpu", allow_module_level=True)
cp = pytest.importorskip("cupy")
