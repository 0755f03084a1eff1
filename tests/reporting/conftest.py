"""Reports written once a session, and cheaply."""

from __future__ import annotations

import pytest

from hpcrnn.reporting.figures import canvas


@pytest.fixture(scope="session", autouse=True)
def _type_3_fonts():
    """Publishers want Type 42 fonts in a PDF; cutting them out is most of what a figure costs."""
    kept = canvas.STYLE["pdf.fonttype"]
    canvas.STYLE["pdf.fonttype"] = 3
    yield
    canvas.STYLE["pdf.fonttype"] = kept
