"""Write a report: one self-contained HTML page, the same as Markdown and PDF, and every figure as PNG and PDF."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpcrnn.errors import FileError
from hpcrnn.records.record import Record
from hpcrnn.reporting.analysis.scaling import analyse
from hpcrnn.reporting.figures.canvas import Sheet, drawing_style
from hpcrnn.reporting.figures.plan import choose, plan_all
from hpcrnn.reporting.figures.save import save, svg_text
from hpcrnn.reporting.report.html import render_html
from hpcrnn.reporting.report.markdown import render_markdown
from hpcrnn.reporting.report.page import Picture
from hpcrnn.reporting.report.pdf import render_pdf
from hpcrnn.reporting.report.sections import make_page
from hpcrnn.reporting.units import printable


def write_report(
    records: Sequence[Record], out_dir: Path, *, of_a_kind: int | None = None, unreadable: Sequence[str] = ()
) -> list[Path]:
    """Write the report of one or more records.

    Everything is made in a temporary folder beside the target first and moved into place file by file, the
    pages last: a run killed half-way leaves no page that shows figures it does not have.

    Parameters
    ----------
    records : sequence of Record
    out_dir : Path
        Made where it is missing. Files of an older report by the same names are replaced.
    of_a_kind : int, optional
        The most figures of a kind. By default all, or one of each kind where all are too many to read; the pages
        then say what is left out.
    unreadable : sequence of str
        A line for each file that was given and could not be read: they are named under Exclusions.

    Returns
    -------
    list of Path
        ``report.html``, ``report.md``, ``report.pdf``, then the figures.

    Raises
    ------
    FileError
        The folder cannot be made or written.
    """
    out_dir = Path(out_dir)
    analysis = analyse(records)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".report-", dir=out_dir) as scratch:
            made = Path(scratch)
            sheets, cut_kinds = choose(plan_all(analysis), of_a_kind)
            pictures = _draw(sheets, cut_kinds, made)
            page = make_page(analysis, pictures, _left_out(sheets, cut_kinds), unreadable)
            figures = [f"{p.name}{suffix}" for p in pictures for suffix in (".png", ".pdf")]
            (made / "report.html").write_text(render_html(page), encoding="utf-8")
            (made / "report.md").write_text(render_markdown(page), encoding="utf-8")
            (made / "report.pdf").write_bytes(render_pdf(page))
            pages = ["report.html", "report.md", "report.pdf"]
            for name in [*figures, *pages]:
                os.replace(made / name, out_dir / name)  # noqa: PTH105 - the name of the guarantee
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"{printable(out_dir)}: the report cannot be written there: {reason}"
        raise FileError(message) from None
    return [out_dir / name for name in [*pages, *figures]]


def _left_out(sheets: Sequence[Sheet], cut_kinds: Mapping[str, int]) -> str:
    """Say how many figures are not drawn, and how to get them; empty where all are."""
    if not cut_kinds:
        return ""
    drawn = Counter(sheet.kind for sheet in sheets)
    missing = sum(total - drawn[kind] for kind, total in cut_kinds.items())
    kinds = ", ".join(f"{kind.replace('_', ' ')} {drawn[kind]} of {total}" for kind, total in cut_kinds.items())
    return (
        f"{missing} of {missing + len(sheets)} were left out, the last of each kind: {kinds} drawn. "
        f"All cases are in the tables. More figures: hpcrnn report --figures {max(cut_kinds.values())}"
    )


def _draw(sheets: Sequence[Sheet], cut_kinds: Mapping[str, int], folder: Path) -> list[Picture]:
    """Draw and save figures, holding one at a time; those of a kind that is cut say which of how many they are."""
    pictures = []
    with drawing_style():
        seen: Counter[str] = Counter()
        for sheet in sheets:
            drawing = sheet.draw()
            seen[sheet.kind] += 1
            which = f" Figure {seen[sheet.kind]} of {cut_kinds[sheet.kind]}." if sheet.kind in cut_kinds else ""
            save(drawing, folder / drawing.name)
            pictures.append(
                Picture(
                    drawing.name,
                    drawing.section,
                    drawing.title,
                    drawing.caption + which,
                    drawing.alt,
                    svg=svg_text(drawing),
                    png=(folder / f"{drawing.name}.png").read_bytes(),
                    wide=drawing.wide,
                )
            )
    return pictures
