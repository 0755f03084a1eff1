"""Modules that import the GPU backend: left out, with the reason, where there is neither the stand-in nor a GPU."""

import pytest
from gpu.which_gpu import on_host, reason_to_skip


class LeftOut(pytest.Module):
    """A module that is not imported."""

    def collect(self):
        why = "" if on_host() else " (without one: PYTHONPATH=tests/host_gpu)"
        return pytest.skip(f"{reason_to_skip()}{why}", allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    return LeftOut.from_parent(parent, path=module_path) if reason_to_skip() else None
