"""Which sections a report has, and in which order: a new section is one entry of :func:`sections`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from hpcrnn.records.record import Record
from hpcrnn.reporting.analysis.accounting import account_all
from hpcrnn.reporting.analysis.balance import recoveries
from hpcrnn.reporting.analysis.contest import contests
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.learning import goals
from hpcrnn.reporting.analysis.onsets import find_onsets
from hpcrnn.reporting.analysis.roofline import rooflines
from hpcrnn.reporting.analysis.scaling import Analysis
from hpcrnn.reporting.analysis.stragglers import judge_all
from hpcrnn.reporting.analysis.strategy_map import strategy_maps
from hpcrnn.reporting.analysis.unequal_work import work_costs
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
from hpcrnn.reporting.report.page import Block, Concern, Page, Picture, Run, Section, Terms
from hpcrnn.reporting.tables.accounting import TERMS as ACCOUNTING_TERMS
from hpcrnn.reporting.tables.accounting import accounting_tables
from hpcrnn.reporting.tables.balance import balance_table
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
from hpcrnn.reporting.tables.compression import compression_table
from hpcrnn.reporting.tables.devices import device_table, kernel_table
from hpcrnn.reporting.tables.fits import fit_table
from hpcrnn.reporting.tables.learning import goal_sentences, loss_table, staleness_table, target_table
from hpcrnn.reporting.tables.peers import pair_peers, peer_content
from hpcrnn.reporting.tables.ranks import onset_table, straggler_table
from hpcrnn.reporting.tables.roofline import ceiling_table, roofline_table
from hpcrnn.reporting.tables.splits import contest_table, split_table, wait_table
from hpcrnn.reporting.tables.strategy_map import map_tables
from hpcrnn.reporting.tables.system import system_disclosures
from hpcrnn.reporting.tables.table import Table
from hpcrnn.reporting.tables.unequal_work import length_table, work_table
from hpcrnn.reporting.units import plural, printable

CONCERNS_IN_BOX = 5
"""A box of more reasons hides what it is to say; the rest stand under Exclusions."""


def make_page(
    analysis: Analysis, pictures: Sequence[Picture], left_out: str = "", unreadable: Sequence[str] = ()
) -> Page:
    """Gather what every form of the report shows.

    Parameters
    ----------
    analysis : Analysis
    pictures : sequence of Picture
    left_out : str
        What is said of figures that are not drawn.
    unreadable : sequence of str
        A line for each file that was given and could not be read.
    """
    missing = f" {plural(len(unreadable), 'file')} could not be read: see Exclusions." if unreadable else ""
    concerns = _concerns(analysis)
    more = len(concerns) - CONCERNS_IN_BOX
    return Page(
        title="hpcrnn scaling report",
        subtitle=common_problem([e.case for e in analysis.entries]),
        measured=max((record.created_utc for record in analysis.records), default=""),
        facts=[*_facts(analysis), *([("Figures", left_out)] if left_out else [])],
        standing=_standing(analysis),
        verdict=(VERDICTS[_standing(analysis)], _verdict_sentence(analysis) + missing),
        concerns=concerns[:CONCERNS_IN_BOX],
        more_concerns=f"{more} more {'is' if more == 1 else 'are'} listed under Exclusions." if more > 0 else "",
        sections=sections(analysis, pictures, unreadable),
    )


def sections(analysis: Analysis, pictures: Sequence[Picture], unreadable: Sequence[str] = ()) -> list[Section]:
    """Lay the report out, top to bottom; what has no blocks is not shown.

    A picture stands in the section whose entry asks for it by ``drawn(...)``, the name its drawing gave.
    """
    entries, included, missing = analysis.entries, analysis.included, gaps(analysis)
    called, limits, aims = names(entries), rooflines(included), goals(included)
    rows, accounted = pair_peers(included), accounting_tables(account_all(included), called)
    costs = work_costs(included)
    timing = timing_table(entries) if entries else None
    results = [timing, result_table(entries), verdict_table(entries)] if timing else ["There are none."]
    times = timing.title if timing else ""

    def drawn(*wanted: str) -> list[Picture]:
        return [p for p in pictures if p.section in wanted]

    plotted = [] if drawn("steps") else ["No case may be plotted."]
    found = [
        _section(
            "run",
            "What was run",
            *[_run(record) for record in analysis.records],
            problem_table(analysis) if entries else None,
            split_table(entries),
            kernel_table(entries),
        ),
        _section("glance", "At a glance", glance_table(analysis) if analysis.strong or analysis.weak else None),
        _section(
            "target",
            "Time to a target loss",
            *[goal_sentences(goal, names(goal.entries)) for goal in aims],
            *drawn("target"),
            *[target_table(goal, names(goal.entries)) for goal in aims],
        ),
        _section(
            "strong", "Strong scaling", missing.get("strong"), *drawn("strong"), fit_table(analysis.strong), data=times
        ),
        _section("weak", "Weak scaling", missing.get("weak"), *drawn("weak"), fit_table(analysis.weak), data=times),
        _section(
            "accounting",
            "Where the time goes: serial against parallel",
            *drawn("accounting"),
            *accounted,
            Terms("", list(ACCOUNTING_TERMS.items())) if accounted else None,
        ),
        _section(
            "strategies",
            "Strategies at equal ranks",
            *drawn("strategies"),
            *[contest_table(contest, called) for contest in contests(included)],
        ),
        _section(
            "strategy-map", "Which strategy wins where", *drawn("strategy_map"), *map_tables(strategy_maps(included))
        ),
        _section("compression", "Compressed gradients", compression_table(included)),
        _section(
            "unequal-work", "Unequal work", *drawn("unequal_work"), work_table(costs, called), length_table(costs)
        ),
        _section("over-time", "Over time", certificate_table(entries), *drawn("over_time")),
        _section("peers", "numpy beside torch", peer_content(rows) if rows else None),
        _section("steps", "Step times", *plotted, *drawn("steps"), data=times),
        _section("balance", "Unequal ranks", balance_table(recoveries(included), called)),
        _section(
            "ranks",
            "Ranks",
            *drawn("ranks"),
            straggler_table(judge_all(included), called),
            onset_table([(entry, onset) for entry in included for onset in find_onsets(entry)], called),
        ),
        _section(
            "phases",
            "Phases",
            *drawn("phases"),
            phase_table(analysis) if analysis.phases else None,
            device_table(included),
        ),
        _section("roofline", "Roofline", *drawn("roofline"), roofline_table(limits), ceiling_table(limits)),
        _section("timelines", "Timelines", *drawn("timelines"), wait_table(included) if drawn("timelines") else None),
        _section(
            "loss",
            "Learning",
            missing.get("loss"),
            *drawn("loss"),
            *[loss_table(goal, names(goal.entries)) for goal in aims],
            staleness_table(included, called),
        ),
        _section("cases", "All cases", *results),
        _section("exclusions", "Exclusions", *_exclusions(analysis, unreadable)),
        _section("system", "System", *_system(analysis.records)),
        _section("method", "Method", Terms("", method_text())),
    ]
    return [section for section in found if section.blocks]


def method_text() -> list[tuple[str, str]]:
    """Say how the numbers came about, as every report does: term and explanation."""
    lines = resource("method.txt").splitlines()
    return [(term, text) for term, _, text in (line.partition(": ") for line in lines) if text]


def resource(name: str) -> str:
    """Read one of the files in ``templates``."""
    return (resources.files("hpcrnn.reporting.report") / "templates" / name).read_text(encoding="utf-8")


def _section(key: str, title: str, *blocks: Block | None, data: str = "") -> Section:
    """Make a section of the blocks there are; what its pictures show is in its first table, or in the one named."""
    shown = [block for block in blocks if block]
    tables = [block.title for block in shown if isinstance(block, Table)]
    return Section(key, title, shown, data or next(iter(tables), ""))


def _system(records: Sequence[Record]) -> list[Block]:
    return [Terms(d.title, d.rows) for d in system_disclosures(records)] or ["The environment was not recorded."]


def _exclusions(analysis: Analysis, unreadable: Sequence[str]) -> list[Block]:
    """List what is in no plot, and what is plotted with a mark, each with its reason."""
    concerns = _concerns(analysis)
    excluded = {entry.number for entry in analysis.excluded}
    found: list[Block] = []
    for title, chosen in (
        ("In no plot, no base and no comparison", [c for c in concerns if c.number in excluded]),
        ("Plotted and marked: not the serial result", [c for c in concerns if c.number not in excluded]),
    ):
        if chosen:
            cells = [[str(c.number), c.case, c.reason, c.file] for c in chosen]
            found.append(Table(title, ["No.", "Case", "Reason", "File"], cells, (1, 2, 3)))
    if unreadable:
        lines = [[printable(line)] for line in unreadable]
        found.append(Table("Not read: nothing of these is in this report", ["File"], lines, (0,)))
    return found or (["No case is excluded, none is marked, and no sample is removed."] if analysis.entries else [])


def _concerns(analysis: Analysis) -> list[Concern]:
    """Name the excluded cases and those that are inexact."""
    called = names(analysis.entries)
    reasons = [(e, e.exclusion) for e in analysis.excluded] + [(e, _caveat(e)) for e in _inexact(analysis)]
    return [Concern(e.number, called[e.number], short_source(e.record), reason) for e, reason in reasons]


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


VERDICTS = {"good": "VALID", "mixed": "NOT ALL EXACT", "bad": "NOT ALL VALID"}
"""The word of a standing."""


def _standing(analysis: Analysis) -> str:
    """Return how the cases stand as a whole."""
    if analysis.excluded or not analysis.entries:
        return "bad"
    return "mixed" if _inexact(analysis) else "good"


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
        return f"{inexact} of {plural(total, 'case')} {verb} not the serial result, and marked wherever shown."
    if not excluded:
        which = "The one case is VALID: it" if total == 1 else f"All {total} cases are VALID: each"
        return f"{which} reproduced a float64 serial run within its tolerance before it was timed."
    verb = "is" if excluded == 1 else "are"
    return f"{excluded} of {plural(total, 'case')} {verb} excluded from every plot and comparison."


def _run(record: Record) -> Run:
    return Run(
        source=source_name(record),
        created=f"{printable(record.created_utc).replace('T', ' ')[:19]} UTC",
        version=f"hpcrnn {printable(record.hpcrnn_version)}, {git_text(record)}",
        hosts=hosts_text(record),
        command=command_line(record) or "command line not recorded",
        incomplete="" if record.complete else "incomplete: written before the run had come to its end",
    )
