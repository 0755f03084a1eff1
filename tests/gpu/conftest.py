"""Tests that need a GPU; they skip, with the reason, where there is none."""

from pathlib import Path

import pytest


def reason_to_skip():
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
    except ImportError:
        return "CuPy is not installed"
    except Exception as error:  # noqa: BLE001 - whatever the driver, or its absence, says
        return f"no usable GPU: {str(error).splitlines()[0]}"
    return None if count else "no GPU"


def pytest_collection_modifyitems(items):
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    reason = reason_to_skip() if ours else None
    if reason:
        for item in ours:
            item.add_marker(pytest.mark.skip(reason=reason))
