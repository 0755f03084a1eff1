"""Table and figures of a layer benchmark: ours beside cuDNN, microseconds a step beside their floor, the roofline.

``python -m hpcrnn.reporting.layers results/gpu/layers.h5 -o plots/gpu``
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcrnn.errors import HpcrnnError
from hpcrnn.records.layers import LayerRecord, LayerTiming, read_layer_record
from hpcrnn.records.statistics import Interval, median_interval, ratio_interval
from hpcrnn.records.whole_file import unusable
from hpcrnn.reporting.figures.canvas import (
    BLACK,
    BLUE,
    GREY,
    PNG_DPI,
    SERIES_STYLES,
    VERMILLION,
    drawing_style,
)
from hpcrnn.reporting.tables.table import Table, markdown_table
from hpcrnn.reporting.units import MISSING, format_ratio, format_ratio_interval, scientific, significant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PASSES = {"inference": "forward", "training": "forward + backward"}
DIRECTIONS = ("forward", "backward")


def has_peer(record: LayerRecord) -> bool:
    """Whether torch.nn was timed too."""
    return any(samples.size for case in record.cases for samples in case.peer_s.values())


def ratio_of(case: LayerTiming, which: str) -> Interval:
    """Median time of the peer over ours: above 1 we are faster."""
    return ratio_interval(median_interval(case.peer_s[which]), median_interval(case.ours_s[which]))


def step_us(case: LayerTiming, which: str, *, peer: bool = False) -> float:
    """Median microseconds a time step."""
    samples = (case.peer_s if peer else case.ours_s)[which]
    return median_interval(samples).median / int(case.facts["T"]) * 1e6


def floor_us(record: LayerRecord, case: LayerTiming, which: str) -> float:
    """Microseconds a step that no program can undercut.

    The larger of operations over the measured matrix rate and the fewest bytes over the measured copy rate; the way
    of a state from one multiprocessor to another, which every step waits for, is not in it. Folded, a step of one
    segment does not wait for those of the others: nothing but this floor is below it.
    """
    arithmetic = case.facts[f"flops_{which}"] / record.ceilings[f"{case.facts['precision']}_flops_per_s"]
    moving = case.facts[f"least_bytes_{which}"] / record.ceilings["copy_bytes_per_s"]
    return float(max(arithmetic, moving) / case.facts["T"] * 1e6)


def geometric_mean(values: Sequence[float]) -> float:
    """Mean of ratios; NaN of none."""
    return math.exp(math.fsum(map(math.log, values)) / len(values)) if values else math.nan


def layer_table(record: LayerRecord, which: str) -> Table:
    """Build the table of one pass: time a step, ratio with its interval, floor, errors."""
    rows = []
    for case in record.cases:
        ratio = ratio_of(case, which)
        rows.append(
            [
                str(case.facts["name"]),
                _tier(case),
                significant(step_us(case, which)),
                significant(step_us(case, which, peer=True)),
                format_ratio(ratio.median),
                format_ratio_interval(ratio) if ratio.n else MISSING,
                significant(floor_us(record, case, which)),
                scientific(max(case.errors.values())),
                scientific(max(case.peer_errors.values())) if case.peer_errors else MISSING,
            ]
        )
    columns = ["layer", "kernel", "ours µs/step", "cuDNN µs/step", "ratio", "95 % interval", "floor µs/step"]
    return Table(PASSES[which], [*columns, "error", "cuDNN error"], rows, (0, 1))


def folded_cases(record: LayerRecord) -> list[LayerTiming]:
    """Return the cases whose segments of time run at once."""
    return [case for case in record.cases if "fold" in case.facts]


def solve_table(record: LayerRecord) -> Table:
    """Build the table of what the solves of folded cases did, a row a direction."""
    rows = []
    for case in folded_cases(record):
        for way in (way for way in DIRECTIONS if f"rounds_{way}" in case.facts):
            facts = {name: case.facts[f"{name}_{way}"] for name in ("rounds", "steps", "meeting", "unmet", "residual")}
            rows.append(
                [
                    str(case.facts["name"]),
                    way,
                    scientific(float(case.facts["tolerance"])),
                    str(facts["rounds"]),
                    f"{facts['steps']} of {case.facts['T']}",
                    str(facts["meeting"]),
                    str(facts["unmet"]),
                    scientific(float(facts["residual"])),
                ]
            )
    columns = ["layer", "direction", "tolerance", "rounds", "steps in turn", "longest meeting", "unmet", "residual"]
    return Table(_SOLVES, columns, rows, (0, 1))


def _tier(case: LayerTiming) -> str:
    """Say what ran forward and backward, in a letter each: P persistent, S stepwise."""
    return "".join(part.strip()[0].upper() for part in str(case.facts["kernel"]).split(";")[:2])


def summary(record: LayerRecord) -> list[tuple[str, float, float]]:
    """Geometric means of the ratios of each group, forward and forward + backward."""
    ordered = sorted(record.cases, key=lambda case: str(case.facts["group"]))
    found = []
    for group, members in groupby(ordered, key=lambda case: str(case.facts["group"])):
        cases = list(members)
        means = [geometric_mean([ratio_of(case, which).median for case in cases]) for which in PASSES]
        found.append((group, means[0], means[1]))
    return found


def markdown(record: LayerRecord) -> str:
    """Write the report's text."""
    rates = {name: f"{value / 1e12:.3g} T{name.split('_')[-3]}/s" for name, value in record.ceilings.items()}
    packages = record.environment.get("packages", {}) | record.environment.get("device", {})
    versions = ", ".join(f"{name} {packages[name]}" for name in ("cupy", "nvrtc", "torch") if packages.get(name))
    folded = folded_cases(record)
    checked = max((case.facts["error_steps"] for case in record.cases if case not in folded), default=None)
    lines = [
        f"# Recurrent layers on one {record.device}",
        "",
        f"Measured {record.created_utc}{'; ' + versions if versions else ''}. Ceilings measured in the same run: "
        + ", ".join(f"{name.removesuffix('_per_s').replace('_', ' ')} {rate}" for name, rate in rates.items())
        + ".",
        "",
        (
            "Ratio: median time of torch.nn with cuDNN over ours; above 1 we are faster. Repetitions of both sides "
            "alternate in one process. A time holds the input's product, the recurrence and, backward, dx and the "
            "gradients of all weights, between two events on the GPU. Input and gradient are random, the initial "
            "state is zero, and D = H. Kernel: P persistent, S stepwise; forward, then backward. Floor: the larger of "
            "operations over the matrix rate and least bytes over the copy rate. Error: the largest relative error, in "
            "the 2-norm, of output and gradients against float64"
            + (f", over {checked} steps or the whole sequence where that is shorter." if checked else ".")
        ),
        "",
        *(_about_folded(folded) if folded else ()),
        "| group (geometric mean of ratios) | forward | forward + backward |",
        "| --- | ---: | ---: |",
        *(f"| {group} | {format_ratio(f)} | {format_ratio(b)} |" for group, f, b in summary(record)),
    ]
    for which, title in PASSES.items():
        lines += ["", f"## {title.capitalize()}", "", markdown_table(layer_table(record, which))]
    if folded:
        lines += ["", f"## {_SOLVES.capitalize()}", "", _ABOUT_SOLVES, "", markdown_table(solve_table(record))]
    return "\n".join(lines) + "\n"


_SOLVES = "segments at once"
_ABOUT_SOLVES = (
    "Of the last repetition. Rounds: passes over the segments, the first included. Steps in turn: of the sequence's "
    "steps so many had to wait for one another. Longest meeting: steps until the slowest segment, run again from its "
    "neighbour's end, met what it had been; unmet: segments whose last re-run came to their end first. Residual: what "
    "is left between a segment's start and its neighbour's end, to be held against the tolerance."
)


def _about_folded(folded: Sequence[LayerTiming]) -> list[str]:
    """Say what is other in layers with a fold."""
    checked = sorted({int(case.facts["error_steps"]) for case in folded})
    text = (
        "Fold: segments of time that run at once, as rows, and again until they meet, to the tolerance stated below. "
        "There a time is on the host's clock, from a drained GPU to a drained one, since the host decides between "
        "rounds; µs are of a step of the whole sequence. What keeps one long row far above its floor, steps that wait "
        "for one another, is cut short; what is computed again is in the time, not in the floor. Errors are over "
        f"{' or '.join(map(str, checked))} steps in as many segments."
    )
    if any(int(case.facts["T"]) > _CUDNN_STEPS for case in folded):
        text += f" cuDNN takes {_CUDNN_STEPS} steps at the most: torch.nn runs longer sequences in equal pieces."
    return [text, ""]


_CUDNN_STEPS = 65535


def ratio_figure(record: LayerRecord) -> Figure:
    """Draw the ratios of both passes, a row a case."""
    figure, ax = _figure(6.4, 1.4 + 0.27 * len(record.cases), left=0.36, bottom_in=0.85)
    places = np.arange(len(record.cases))[::-1]
    for offset, color, (which, title) in zip((0.19, -0.19), (BLUE, VERMILLION), PASSES.items(), strict=True):
        ratios = [ratio_of(case, which) for case in record.cases]
        medians = [r.median for r in ratios]
        spread = [[r.median - r.low for r in ratios], [r.high - r.median for r in ratios]]
        ax.barh(places + offset, medians, 0.36, color=color, label=title, hatch="" if offset > 0 else "////")
        ax.errorbar(medians, places + offset, xerr=np.nan_to_num(spread), fmt="none", ecolor="black", elinewidth=0.8)
    ax.axvline(1.0, color=GREY, linewidth=1)
    ax.set_yticks(places, [str(case.facts["name"]) for case in record.cases])
    ax.set_xlabel("time of torch.nn with cuDNN / ours (median; bars: 95 % interval)")
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    ax.set_ylim(-0.6, len(record.cases) - 0.4)
    figure.legend(loc="lower left", ncols=2, bbox_to_anchor=(0.02, 0.0), handlelength=1.6)
    ax.set_title(f"One layer on one {record.device}", loc="left")
    _make_room_for_names(figure, ax)
    return figure


def _make_room_for_names(figure: Figure, ax: Any) -> None:
    """Begin the axes where the longest name ends, if that is farther right."""
    figure.canvas.draw()
    longest_in = max(label.get_window_extent().width for label in ax.get_yticklabels()) / figure.dpi
    place = ax.get_position()
    left = (longest_in + 0.2) / figure.get_figwidth()
    if left > place.x0:
        ax.set_position((left, place.y0, place.x1 - left, place.height))
        ax.set_xlabel(ax.get_xlabel(), loc="right")  # it is as wide as the axes were


def roofline_figure(record: LayerRecord) -> Figure:
    """Draw what each layer reached over its intensity, under the measured ceilings."""
    figure, ax = _figure(6.4, 4.9, left=0.11, bottom_in=1.0)
    copy = record.ceilings["copy_bytes_per_s"]
    intensities = np.logspace(0, 4, 200)
    precisions = list(dict.fromkeys(str(case.facts["precision"]) for case in record.cases))
    for precision, (color, marker, line) in zip(precisions, SERIES_STYLES, strict=False):
        rate = record.ceilings[f"{precision}_flops_per_s"]
        ax.plot(intensities, np.minimum(rate, intensities * copy) / 1e12, color=color, linestyle=line, linewidth=1)
        members = [case for case in record.cases if case.facts["precision"] == precision]
        for peer in (False, True) if has_peer(record) else (False,):
            points = [_reached(case, which, peer=peer) for case in members for which in PASSES]
            face: dict[str, Any] = {"facecolors": "none"} if peer else {}
            x, y = zip(*points, strict=True)
            label = f"{precision}, {'cuDNN' if peer else 'ours'}"
            ax.scatter(x, y, s=22, marker=marker, edgecolors=color, color=None if peer else color, label=label, **face)
    rings = [_reached(case, which, peer=False) for case in folded_cases(record) for which in PASSES]
    if rings:
        x, y = zip(*rings, strict=True)
        ax.scatter(x, y, s=75, marker="o", facecolors="none", edgecolors=BLACK, linewidths=0.8, label="ours, folded")
    for axis in (ax.xaxis, ax.yaxis):
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_xlabel("operations / least bytes moved")
    ax.set_ylabel("10¹² operations a second")
    tighter: dict[str, Any] = {"ncols": 5, "handlelength": 1.4} if rings else {"ncols": 4}
    figure.legend(loc="lower center", fontsize=8, handletextpad=0.2, columnspacing=1.0, **tighter)
    ax.set_title(f"Roofline, measured ceilings: {record.device}", loc="left")
    return figure


def _reached(case: LayerTiming, which: str, *, peer: bool) -> tuple[float, float]:
    seconds = step_us(case, which, peer=peer) * 1e-6 * int(case.facts["T"])
    flops = float(case.facts[f"flops_{which}"])
    return flops / float(case.facts[f"least_bytes_{which}"]), flops / seconds / 1e12


def _figure(width_in: float, height_in: float, *, left: float, bottom_in: float) -> tuple[Figure, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in))
    FigureCanvasAgg(figure)
    bottom = bottom_in / height_in
    return figure, figure.add_axes((left, bottom, 0.97 - left, 1 - bottom - 0.35 / height_in))


def write_report(record: LayerRecord, folder: Path) -> None:
    """Write ``layers.md`` and the figures as PNG; of ratios there is one where a peer was timed.

    Raises
    ------
    FileError
        The folder cannot be written, or the record, whose facts are free, holds what cannot be drawn.
    """
    try:
        _write(record, folder)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise unusable(folder, f"was not written, for a case cannot be drawn: {error!r:.200}") from error
    except OSError as error:
        raise unusable(folder, f"cannot be written: {error.strerror or error}") from None


def _write(record: LayerRecord, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "layers.md").write_text(markdown(record), encoding="utf-8")
    figures = {"layers_roofline": roofline_figure} | ({"layers_ratio": ratio_figure} if has_peer(record) else {})
    with drawing_style():
        for name, draw in figures.items():
            draw(record).savefig(folder / f"{name}.png", dpi=PNG_DPI, metadata={"Software": None})


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report of a file."""
    parser = argparse.ArgumentParser(description="table and figures of a layer benchmark")
    parser.add_argument("file", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("plots/layers"))
    arguments = parser.parse_args(argv)
    try:
        write_report(read_layer_record(arguments.file), arguments.out)
    except HpcrnnError as error:
        sys.stderr.write(f"hpcrnn: error: {error}\n")
        return error.exit_code
    sys.stdout.write(f"written: {arguments.out}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
