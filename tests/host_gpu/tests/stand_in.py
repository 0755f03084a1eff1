"""The stand-in for CuPy; a test module that imports this is left out, with the reason, where there is a real one."""

import pytest
from gpu.which_gpu import on_host

if not on_host():
    pytest.skip("a real GPU: this is about the stand-in (PYTHONPATH=tests/host_gpu)", allow_module_level=True)
cp = pytest.importorskip("cupy")
