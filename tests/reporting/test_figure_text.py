"""No two words of a figure lie on one another, and none outside it: one case to forty, long names too."""

from __future__ import annotations

from itertools import combinations

import pytest
from factory import (
    gpu_cases,
    make_case,
    make_record,
    many_cases,
    quick_cases,
    strategy_cases,
    time_parallel_cases,
)

from hpcrnn.reporting.analysis.scaling import analyse
from hpcrnn.reporting.figures.canvas import drawing_style
from hpcrnn.reporting.figures.plan import choose, plan_all

LONG = "file:/scratch/project_465000123/users/a-rather-long-user-name/corpora/enwik9-lowercased-and-deduplicated.txt"

SETS = {
    "one": lambda: [make_case(1, n=20)],
    "one, too few samples": lambda: [make_case(1, n=3)],
    "two": lambda: [make_case(1, 64, 0.4), make_case(2, 64, 0.22)],
    "two, far apart": lambda: [make_case(1, 64, 4000.0), make_case(2, 64, 2e-6)],
    "three": quick_cases,
    "eight": lambda: many_cases()[:8],
    "forty": many_cases,
    "long names": lambda: [make_case(n, 64, 0.4 / n, workload=LONG, seed=n) for n in (1, 2, 4, 64, 1024)],
    "many ways": lambda: strategy_cases((2, 4)),
    "over time": time_parallel_cases,
    "on GPUs": gpu_cases,
    "with torch": lambda: [
        make_case(1, 64, 0.4),
        *[make_case(n, 64, 0.4 / n, backend="torch", workload=LONG) for n in (1, 2)],
    ],
}

SLACK = 1.0
"""Dots of 1/100 inch that boxes may share: they hold the room above and below the letters."""


def words(figure):
    """Return what every text that is drawn says, with its box in dots; those of legends and axes too."""
    from matplotlib.text import Text

    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    ticks, drawn = set(), set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        ticks.update(axis.findobj(Text))
        # An axis keeps ticks beyond its ends, which it does not draw.
        shown = [tick for tick in axis._update_ticks() if axis.axes.get_visible()]
        drawn.update([axis.label], *[(tick.label1, tick.label2) for tick in shown])
    found = []
    for text in figure.findobj(Text):
        if not text.get_text().strip() or not text.get_visible() or (text in ticks and text not in drawn):
            continue
        box = text.get_window_extent(renderer)
        clipped = text.get_clip_on() and text.axes is not None and not text.axes.bbox.overlaps(box)
        if box.width > 0 and not clipped:
            found.append((text.get_text(), box))
    return found


def collisions(found, width, height):
    """Name texts that lie on one another or outside."""
    bad = []
    for text, box in found:
        if box.x0 < -SLACK or box.y0 < -SLACK or box.x1 > width + SLACK or box.y1 > height + SLACK:
            bad.append(f"outside: {text!r}")
    for (one, a), (two, b) in combinations(found, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        down = min(a.y1, b.y1) - max(a.y0, b.y0)
        # Lines of one legend or label stand closer than their boxes, which hold room for accents.
        if across > SLACK and down > SLACK + 0.12 * min(a.height, b.height):
            bad.append(f"overlap: {one!r} and {two!r} by {across:.0f} x {down:.0f}")
    return bad


@pytest.mark.parametrize(
    "which", [pytest.param(s, marks=pytest.mark.thorough if s in ("many ways", "forty") else ()) for s in SETS]
)
def test_no_words_collide(which):
    analysis = analyse([make_record(SETS[which]())])
    found = {}
    with drawing_style():
        for sheet in choose(plan_all(analysis), 2)[0]:
            drawing = sheet.draw()
            width, height = drawing.figure.get_size_inches() * drawing.figure.dpi
            seen = words(drawing.figure)
            assert len(seen) > 2
            if bad := collisions(seen, width, height):
                found[sheet.name] = bad
    assert found == {}


def test_the_check_sees_what_collides():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with drawing_style():
        figure = Figure(figsize=(3, 2), dpi=100)
        FigureCanvasAgg(figure)
        figure.text(0.5, 0.5, "first")
        figure.text(0.52, 0.5, "second")
        figure.text(0.95, 0.1, "beyond the edge")
        assert len(collisions(words(figure), 300, 200)) == 2
