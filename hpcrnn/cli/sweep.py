"""``hpcrnn sweep``: every point of a sweep, each under its own mpirun."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hpcrnn.cli.parser import Parser, UsageError, counts
from hpcrnn.cli.reading import exit_code_of, read_and_tell
from hpcrnn.cli.report import write_and_tell

if TYPE_CHECKING:
    from hpcrnn.benchmarks.sweep import Sweep
    from hpcrnn.benchmarks.sweep_run import SweepOutcome


def add_flags(parser: Parser) -> None:
    """Add the flags."""
    parser.add_argument("spec", type=Path, metavar="SPEC.toml")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: results/NAME")
    parser.add_argument("--ranks", type=counts, default=(), metavar="N,...", help="instead of sweep.ranks")
    parser.add_argument("--point", type=int, metavar="K", help="only this one, from 0 in the order of --dry-run")
    parser.add_argument("--site", type=Path, metavar="FILE", help="its launcher, where the sweep names none")
    parser.add_argument("--dry-run", action="store_true", help="say what would be started, and stop")
    parser.add_argument("--report", type=Path, metavar="DIR", help="write the report there at the end")
    parser.add_argument(
        "--requeue", action="store_true", help="in a Slurm job: asked to end by SIGUSR1, queue again for what is left"
    )
    parser.set_defaults(command=sweep)


def sweep(arguments: argparse.Namespace) -> int:
    """Run what is not done yet; report where that is asked for."""
    from hpcrnn.benchmarks.sweep_run import run_sweep

    if arguments.requeue and "SLURM_JOB_ID" not in os.environ:
        raise UsageError("--requeue is for Slurm jobs, and this is none (hpcrnn sweep --help)")
    outcome = run_sweep(_load(arguments), dry_run=arguments.dry_run)
    if arguments.requeue and outcome.n_left:
        return _requeue(outcome)
    if arguments.report and not arguments.dry_run and outcome.files:
        reading = read_and_tell(outcome.files)
        write_and_tell(reading, arguments.report)
        return outcome.exit_code or exit_code_of(reading)
    return outcome.exit_code


def _load(arguments: argparse.Namespace) -> Sweep:
    from hpcrnn.benchmarks.sweep import load_sweep

    launcher: tuple[str, ...] = ()
    if arguments.site:
        from hpcrnn.slurm.site import load_site

        launcher = load_site(arguments.site).launch.command
    loaded = load_sweep(arguments.spec, arguments.output, ranks=arguments.ranks, launcher=launcher)
    return loaded if arguments.point is None else loaded.only(arguments.point)


def _requeue(outcome: SweepOutcome) -> int:
    """Put this job back into the queue, unless it would never get further than it got now."""
    from hpcrnn.slurm.queue import requeue

    if not outcome.n_done:
        sys.stderr.write(
            "hpcrnn: not queued again: no point was done within the time of the job; a longer queue.time of the site, "
            "or a shorter measure.max_time, helps\n"
        )
        return outcome.exit_code
    # Said before: Slurm ends this process with the job, as soon as that is in the queue again.
    sys.stderr.write(f"hpcrnn: job {os.environ['SLURM_JOB_ID']} goes back into the queue\n")
    sys.stderr.flush()
    requeue(os.environ["SLURM_JOB_ID"])
    return outcome.exit_code
