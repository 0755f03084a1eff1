"""Tests that need a GPU, or the stand-in for one; they skip, with the reason, where there is neither."""

from pathlib import Path

import pytest
from gpu.which_gpu import reason_to_skip


def pytest_collection_modifyitems(items):
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    reason = reason_to_skip() if ours else None
    if reason:
        for item in ours:
            item.add_marker(pytest.mark.skip(reason=reason))
