"""What a report says in tables and sentences, before it is HTML or Markdown: both render the same cells."""

from __future__ import annotations

from collections.abc import Sequence

from hpcrnn.records.statistics import dependence, percentile
from hpcrnn.reporting.analysis.entries import Entry
from hpcrnn.reporting.analysis.scaling import Analysis, SerialRuns, describe_base, make_point, phase_names
from hpcrnn.reporting.describe import (
    case_name,
    case_names,
    describe_problem,
    mode_of,
    notable_settings,
    worst_check,
)
from hpcrnn.reporting.tables.samples import dependence_text, leg_note, percentile_text
from hpcrnn.reporting.tables.table import Table, spans
from hpcrnn.reporting.units import (
    MISSING,
    format_bytes,
    format_flops,
    format_gflops,
    format_interval,
    format_percent,
    format_percent_interval,
    format_ratio,
    format_ratio_interval,
    format_seconds,
    printable,
    scientific,
    shorten,
    significant,
)


def names(entries: Sequence[Entry]) -> dict[int, str]:
    """Name every case by what sets it apart, keyed by its number."""
    numbers = [entry.number for entry in entries]
    return dict(zip(numbers, case_names([entry.case for entry in entries]), strict=True))


def glance_table(analysis: Analysis) -> Table:
    """State the outcome of each scaling series, at its most ranks."""
    called = names(analysis.entries)
    rows = []
    for kind, series in [("strong", s) for s in analysis.strong] + [("weak", s) for s in analysis.weak]:
        point = series.widest
        gain, share = point.speedup if kind == "strong" else None, point.efficiency
        rows.append(
            [
                kind,
                called[point.entry.number],
                str(point.n_ranks),
                format_seconds(point.time.median),
                MISSING if gain is None else f"{format_ratio(gain.median)} ({format_ratio_interval(gain)})",
                MISSING if share is None else f"{format_percent(share.median)} ({format_percent_interval(share)})",
                describe_base(point.base) if point.base else "no VALID serial run to compare with",
            ]
        )
    columns = ["Scaling", "Case", "Ranks", "Median step", "Speedup", "Efficiency", "Compared with"]
    note = (
        "Each series at its most ranks; in brackets the 95 % interval. Weak efficiency is t(1) / t(P) at the "
        "same sequences a rank."
    )
    return Table("At a glance", columns, rows, text_columns=(0, 1, 6), note=note)


def problem_table(analysis: Analysis) -> Table:
    """List what was run, a row a problem; settings that all cases share are said once, in the note."""
    several = len(analysis.records) > 1
    settings = {e.number: notable_settings(e.case) for e in analysis.entries}
    shared = len(set(settings.values())) == 1
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for e in analysis.entries:
        where = [str(e.file)] if several else []
        how = [] if shared else [settings[e.number]]
        key = (*where, describe_problem(e.case), *how, printable(e.case.kernel))
        groups.setdefault(key, []).append(e)
    rows = [[spans([e.number for e in members]), *key, _run_as(members)] for key, members in groups.items()]
    columns = ["No.", *(["File"] if several else []), "Problem", *([] if shared else ["Settings"])]
    columns += ["Recurrent product", "Run as"]
    note = f"All cases: {settings[analysis.entries[0].number]}." if shared else ""
    first = 2 if several else 1
    return Table("Cases", columns, rows, text_columns=tuple(range(first, len(columns))), note=note)


def _run_as(members: Sequence[Entry], most: int = 6) -> str:
    """List the names of cases; many are counted, for the next table lists them."""
    names_ = list({case_name(e.case): None for e in members})
    return ", ".join(names_) if len(names_) <= most else f"{len(names_)} ways, listed below"


def timing_table(entries: Sequence[Entry]) -> Table:
    """Tabulate the raw step times: n, median, interval, the percentiles that n allows, and how steady they were."""
    called = names(entries)
    rows = []
    for e in entries:
        steps = e.case.step_s()
        rows.append(
            [
                str(e.number),
                called[e.number] + ("" if e.included else " (excluded)"),
                f"{e.step.n} + {e.case.warmup_s.shape[0]}",
                format_seconds(e.step.median),
                format_interval(e.step),
                percentile_text(percentile(steps, 90)),
                percentile_text(percentile(steps, 99)),
                format_seconds(float(steps.min())) if steps.size else MISSING,
                format_seconds(float(steps.max())) if steps.size else MISSING,
                str(e.n_outliers),
                dependence_text(dependence(steps)) or MISSING,
                printable(e.case.stop_reason),
            ]
        )
    columns = ["No.", "Case", "n + warm-up", "Median step", "95 % interval", "p90", "p99", "Min", "Max"]
    columns += ["Outliers", "Not independent", "Stopped because"]
    note = (
        "Time of a step, the slowest rank's. p90 needs 10 samples and p99 100; their 95 % intervals, in brackets, need "
        "36 and 368. Outliers are counted, never removed. Where samples are not independent, as in drift or in fewer "
        "runs about the median than the number expected, an interval may be too narrow; independent samples are said "
        "not to be in at most 1 of 50 cases."
    ) + leg_note(entries)
    return Table("Step times", columns, rows, text_columns=(1, 10, 11), note=note)


def result_table(entries: Sequence[Entry]) -> Table:
    """Tabulate what each case achieved against its base, and what it moved and held."""
    called = names(entries)
    pooled = any(e.case.device_peak_bytes is not None for e in entries)
    rows, serial = [], SerialRuns(entries)
    for e in entries:
        point = make_point(e, serial.base_of(e)) if e.included else None
        # A base beside itself has no speedup to state.
        is_base = bool(point and point.base and point.base.entry.number == e.number)
        speedup = point.speedup if point and not is_base else None
        efficiency = point.efficiency if point and e.case.n_ranks > 1 else None
        rate = format_gflops(e.case.flops, e.step.median) if e.included else MISSING
        sent, peak, pool = e.case.bytes_sent, e.case.peak_memory_bytes, e.case.device_peak_bytes
        rows.append(
            [
                str(e.number),
                called[e.number],
                "itself" if is_base else f"no. {point.base.entry.number}" if point and point.base else MISSING,
                format_ratio(speedup.median) if speedup else MISSING,
                format_ratio_interval(speedup) if speedup else MISSING,
                format_percent(efficiency.median) if efficiency else MISSING,
                format_flops(e.case.flops),
                rate,
                format_bytes(float(sent.max())) if sent.size else MISSING,
                format_bytes(float(peak.max())) if peak.size else MISSING,
                *([MISSING if pool is None else format_bytes(float(pool.max()))] if pooled else []),
                _loss_text(e),
            ]
        )
    columns = ["No.", "Case", "Base", "Speedup", "95 % interval", "Efficiency", "Work a step", "GFLOP/s"]
    memory = ["Peak memory, host", "GPU pool"] if pooled else ["Peak memory"]
    columns += ["Sent a rank", *memory, "Loss, first → last"]
    note = (
        "Base: the best VALID serial run of the same problem, by its number. Work counts matrix products "
        "over all ranks; GFLOP/s is that over the median step. Bytes and memory are the largest of any rank."
    )
    if pooled:
        note += " GPU pool: the most that a rank's process took of its GPU, for all cases of a file together."
    return Table("Results", columns, rows, text_columns=(1,), note=note)


def phase_table(analysis: Analysis) -> Table:
    """Tabulate the phases of a step with their shares: what the bars draw."""
    called = names(analysis.entries)
    # A phase that took no time anywhere is a column of noughts.
    phases = [p for p in phase_names(analysis.phases) if any(b.seconds.get(p, 0.0) > 0 for b in analysis.phases)]
    rows = [
        [str(b.entry.number), called[b.entry.number]]
        + [
            f"{format_seconds(b.seconds[p])} ({format_percent(b.shares[p])})" if p in b.seconds else MISSING
            for p in phases
        ]
        + [format_seconds(b.mean_step_s), format_seconds(b.entry.step.median)]
        for b in analysis.phases
    ]
    columns = ["No.", "Case", *(p.replace("_", " ") for p in phases), "mean rank", "slowest rank"]
    note = (
        "Median over repetitions of the mean over ranks; in brackets the share of the mean rank's step. The "
        "last two columns are the whole step. Medians of parts need not add up to the median of the whole."
    )
    return Table("Phases", columns, rows, text_columns=(1,), note=note)


def verdict_table(entries: Sequence[Entry]) -> Table:
    """Tabulate each case's verdict beside the check nearest to its tolerance."""
    called = names(entries)
    rows = []
    for e in entries:
        worst, checks = worst_check(e.case.verdict), e.case.verdict.checks
        rows.append(
            [
                str(e.number),
                called[e.number],
                printable(e.case.verdict.status),
                f"{sum(c.passed for c in checks)} of {len(checks)}",
                printable(worst.quantity) if worst else MISSING,
                scientific(worst.error) if worst else MISSING,
                scientific(worst.serial_error) if worst else MISSING,
                scientific(worst.tolerance) if worst else MISSING,
                shorten(printable(e.case.verdict.problem), 80),
            ]
        )
    columns = ["No.", "Case", "Verdict", "Checks passed", "Worst check", "Error", "Serial error", "Tolerance"]
    columns += ["Checked on"]
    note = (
        "Errors are relative, in the 2-norm, against a serial run in float64. The serial error is what a "
        "serial run in the case's own dtype loses, or, of precisions that only a GPU has, what rounding the parameters "
        "once does; the tolerance is a stated multiple of it."
    )
    return Table("Verdicts", columns, rows, text_columns=(1, 2, 4, 8), note=note)


def gaps(analysis: Analysis) -> dict[str, str]:
    """Say why a section has no plot, keyed ``strong``, ``weak`` and ``loss``; absent where it has one."""
    found = {}
    widest = max((e.case.n_ranks for e in analysis.included), default=0)
    if not analysis.strong:
        found["strong"] = (
            "No strong scaling: every case ran on one rank."
            if widest == 1
            else "No strong scaling: no problem was run on two rank counts, nor beside a VALID serial run."
        )
    if not analysis.weak:
        found["weak"] = (
            "No weak scaling: every case ran on one rank."
            if widest == 1
            else "No weak scaling: no two cases on different rank counts have the same sequences a rank."
        )
    if not analysis.losses and not any(e.case.learning for e in analysis.included):
        found["loss"] = "No learning curve: no plotted case trains."
    if not analysis.included:
        found = dict.fromkeys(("strong", "weak", "loss"), "No case may be plotted; the reasons stand above.")
    return found


def _loss_text(entry: Entry) -> str:
    loss = entry.case.loss
    if mode_of(entry.case) != "train" or not loss.size:
        return MISSING
    return f"{significant(float(loss[0]))} → {significant(float(loss[-1]))}"
