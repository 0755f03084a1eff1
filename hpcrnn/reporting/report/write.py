"""The report: one self-contained HTML page, the same in Markdown, and every figure as PNG and PDF."""

from __future__ import annotations

import base64
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcrnn.errors import FileError
from hpcrnn.records.record import Record
from hpcrnn.reporting.analysis.contest import contests
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.scaling import Analysis, analyse
from hpcrnn.reporting.describe import (
    all_hosts_text,
    command_line,
    common_problem,
    cpu_text,
    git_text,
    hosts_text,
    mpi_text,
    short_source,
    shortfalls,
    source_name,
)
from hpcrnn.reporting.figures.canvas import Sheet, drawing_style, save
from hpcrnn.reporting.figures.plan import choose, plan_all
from hpcrnn.reporting.tables.cases import (
    gaps,
    glance_table,
    names,
    phase_table,
    problem_table,
    result_table,
    timing_table,
    verdict_table,
)
from hpcrnn.reporting.tables.certificates import certificate_table, error_text
from hpcrnn.reporting.tables.devices import device_table, kernel_table
from hpcrnn.reporting.tables.peers import pair_peers, peer_content
from hpcrnn.reporting.tables.splits import contest_table, split_table, wait_table
from hpcrnn.reporting.tables.system import system_disclosures
from hpcrnn.reporting.tables.table import Table, escape_markdown, markdown_table
from hpcrnn.reporting.units import plural, printable

if TYPE_CHECKING:
    import jinja2


SECTIONS = ("strong", "weak", "strategies", "over_time", "steps", "phases", "timelines", "loss")
"""Sections that hold figures."""


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it.

    Attributes
    ----------
    name, section, title, caption, alt : str
        As in :class:`~hpcrnn.reporting.figures.canvas.Drawing`.
    svg_base64 : str
        The vector form, for the page that must need no other file.
    wide : bool
        As in :class:`~hpcrnn.reporting.figures.canvas.Drawing`.
    """

    name: str
    section: str
    title: str
    caption: str
    alt: str
    svg_base64: str
    wide: bool = False


def write_report(records: Sequence[Record], out_dir: Path, *, of_a_kind: int | None = None) -> list[Path]:
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

    Returns
    -------
    list of Path
        ``report.html``, ``report.md``, then the figures.

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
            context = report_context(analysis, pictures, _left_out(sheets, cut_kinds))
            figures = [f"{p.name}{suffix}" for p in pictures for suffix in (".png", ".pdf")]
            (made / "report.html").write_text(render_html(context), encoding="utf-8")
            (made / "report.md").write_text(render_markdown(context), encoding="utf-8")
            pages = ["report.html", "report.md"]
            for name in [*figures, *pages]:
                os.replace(made / name, out_dir / name)  # noqa: PTH105 - the name of the guarantee
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"{printable(out_dir)}: the report cannot be written there: {reason}"
        raise FileError(message) from None
    return [out_dir / name for name in [*pages, *figures]]


def report_context(analysis: Analysis, pictures: Sequence[Picture], left_out: str = "") -> dict[str, Any]:
    """Gather what both templates show: plain text in tables and lists, nothing left to compute."""
    entries, rows = analysis.entries, pair_peers(analysis.included)
    called = names(entries)
    files = [_file_facts(record) for record in analysis.records]
    return {
        "title": "hpcrnn scaling report",
        "subtitle": common_problem([e.case for e in entries]),
        "facts": [*_facts(analysis), *([("Figures", left_out)] if left_out else [])],
        "standing": _standing(analysis),
        "verdict": _verdict_sentence(analysis),
        "caveats": [(e.number, called[e.number], short_source(e.record), _caveat(e)) for e in _inexact(analysis)],
        "excluded": [(e.number, called[e.number], short_source(e.record), e.exclusion) for e in analysis.excluded],
        "files": files,
        "cases": problem_table(analysis) if entries else None,
        "glance": glance_table(analysis) if analysis.strong or analysis.weak else None,
        "gaps": gaps(analysis),
        "pictures": {section: [p for p in pictures if p.section == section] for section in SECTIONS},
        "splits": split_table(entries),
        "kernels": kernel_table(entries),
        "contests": [contest_table(contest, called) for contest in contests(analysis.included)],
        "certificates": certificate_table(entries),
        "waits": wait_table(analysis.included),
        "phases": phase_table(analysis) if analysis.phases else None,
        "device": device_table(analysis.included),
        "peers": peer_content(rows) if rows else None,
        "tables": [timing_table(entries), result_table(entries), verdict_table(entries)] if entries else [],
        "system": system_disclosures(analysis.records),
        "method": method_text(),
    }


def render_html(context: dict[str, Any]) -> str:
    """Render the page; every value is escaped by the template engine."""
    return _template("report.html.j2", autoescape=True).render(context)


def render_markdown(context: dict[str, Any]) -> str:
    """Render the Markdown form; every value is escaped but for tables and code, which escape themselves."""
    return _template("report.md.j2", autoescape=False).render(context)


def method_text() -> list[tuple[str, str]]:
    """Say how the numbers came about, as every report does: term and explanation."""
    lines = _resource("method.txt").splitlines()
    return [(term, text) for term, _, text in (line.partition(": ") for line in lines) if text]


def _resource(name: str) -> str:
    return (resources.files("hpcrnn.reporting.report") / "templates" / name).read_text(encoding="utf-8")


def _template(name: str, *, autoescape: bool) -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_resource),
        autoescape=autoescape,  # noqa: S701 - off for Markdown alone, which has its own escapes
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = escape_markdown
    environment.filters["md_table"] = _markdown_with_note
    environment.filters["fenced"] = _fenced
    return environment.get_template(name)


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
            encoded = base64.b64encode((folder / f"{drawing.name}.svg").read_bytes()).decode("ascii")
            pictures.append(
                Picture(
                    drawing.name,
                    drawing.section,
                    drawing.title,
                    drawing.caption + which,
                    drawing.alt,
                    svg_base64=encoded,
                    wide=drawing.wide,
                )
            )
    return pictures


def _facts(analysis: Analysis) -> list[tuple[str, str]]:
    """Name what a reader looks for first: where, when, with what."""
    records = analysis.records

    def distinct(values: list[str]) -> str:
        found = list(dict.fromkeys(v for v in values if v))
        return "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")

    facts = [
        ("Hosts", all_hosts_text(records)),
        ("CPU", distinct([cpu_text(r) for r in records])),
        ("MPI", distinct([mpi_text(r) for r in records])),
        ("Measured", _when([printable(r.created_utc) for r in records])),
        ("Version", distinct([f"hpcrnn {printable(r.hpcrnn_version)}, {git_text(r)}" for r in records])),
    ]
    return [(name, text) for name, text in facts if text]


def _when(times: list[str]) -> str:
    days = sorted(t.replace("T", " ")[:16] for t in times if t)
    if not days:
        return ""
    return f"{days[0]} UTC" if days[0] == days[-1] else f"{days[0]} to {days[-1]} UTC"


def _standing(analysis: Analysis) -> tuple[str, str]:
    """Return how the cases stand as a whole: class of the page, and words."""
    if analysis.excluded or not analysis.entries:
        return "bad", "NOT ALL VALID"
    return ("mixed", "NOT ALL EXACT") if _inexact(analysis) else ("good", "VALID")


def _inexact(analysis: Analysis) -> list[Entry]:
    """Return the plotted cases whose numbers are not those of the chain."""
    return [e for e in analysis.included if shortfalls(e.case)]


def _caveat(entry: Entry) -> str:
    """Say how far a case is from the chain."""
    return f"{', '.join(shortfalls(entry.case))}; {error_text(entry.case)}"


def _verdict_sentence(analysis: Analysis) -> str:
    total, excluded, inexact = len(analysis.entries), len(analysis.excluded), len(_inexact(analysis))
    if not total:
        return "There is no case to report."
    if inexact and not excluded:
        verb = "is" if inexact == 1 else "are"
        return f"{inexact} of {plural(total, 'case')} {verb} not the chain's result, and marked wherever shown."
    if not excluded:
        which = "The one case is VALID: it" if total == 1 else f"All {total} cases are VALID: each"
        return f"{which} reproduced a float64 serial run within its tolerance before it was timed."
    verb = "is" if excluded == 1 else "are"
    return f"{excluded} of {plural(total, 'case')} {verb} excluded from every plot and comparison."


def _file_facts(record: Record) -> dict[str, str]:
    return {
        "source": source_name(record),
        "created": f"{printable(record.created_utc).replace('T', ' ')[:19]} UTC",
        "version": f"hpcrnn {printable(record.hpcrnn_version)}, {git_text(record)}",
        "hosts": hosts_text(record),
        "uuid": printable(record.uuid),
        "command": command_line(record),
        "incomplete": "" if record.complete else "incomplete: written while cases were still to come",
    }


def _markdown_with_note(table: Table) -> str:
    note = f"\n\n{escape_markdown(table.note)}" if table.note else ""
    return markdown_table(table) + note


def _fenced(text: str) -> str:
    """Put text into a code fence longer than any run of backticks in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"
