"""What submitted jobs have left behind: one file of all results, and the report of it."""

from __future__ import annotations

from pathlib import Path

from hpcrnn.benchmarks.sweep import Sweep
from hpcrnn.records.merge import merge_files
from hpcrnn.reporting.report.write import write_report


def collect(sweep: Sweep, report: Path) -> list[Path]:
    """Merge the points that are done, and write their report.

    Parameters
    ----------
    sweep : Sweep
    report : Path
        Folder of the report.

    Returns
    -------
    list of Path
        The merged file, ``NAME.h5`` beside the folder of the results, then the report's; none where nothing is done.
    """
    shards = [point.path for point in sweep.points if point.is_done()]
    if not shards:
        return []
    merged = sweep.folder.parent / f"{sweep.folder.name}.h5"
    merger = merge_files(shards, merged, skip_damaged=False, overwrite=True)
    return [merged, *write_report(merger.records, report)]
