"""``hpcrnn slurm``: a sweep as Slurm jobs: their scripts, their submission, their results."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hpcrnn.cli.parser import Parser, counts
from hpcrnn.errors import EXIT_LAUNCH, EXIT_VALID, EXIT_WRONG_USE

if TYPE_CHECKING:
    from hpcrnn.slurm.follow import Standing
    from hpcrnn.slurm.plan import Plan


def add_flags(parser: Parser) -> None:
    """Add the actions and their flags."""
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION", parser_class=Parser)
    setup = actions.add_parser("setup", help="print the site's modules and variables as shell, for job scripts")
    setup.add_argument("--site", type=Path, required=True, metavar="FILE")
    setup.set_defaults(command=_setup)
    for name, text, command in (
        ("render", "print the scripts, and stop", _render),
        ("submit", "print the scripts, and hand them to sbatch: all of them or none", _submit),
        ("collect", "say how the jobs stand; merge what is done, and report it", _collect),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("spec", type=Path, metavar="SPEC.toml", help="a sweep")
        action.add_argument("--site", type=Path, required=True, metavar="FILE", help="the machine; see jobs/site.toml")
        action.add_argument("-o", "--output", type=Path, metavar="DIR", help="of the results; default: results/NAME")
        if name != "collect":
            action.add_argument(
                "--as", dest="shape", choices=["jobs", "array"], default="jobs",
                help="jobs: one for each number of ranks; array: a task for each point",
            )  # fmt: skip
            action.add_argument("--ranks", type=counts, default=(), metavar="N,...", help="instead of sweep.ranks")
        if name == "submit":
            action.add_argument("--dry-run", action="store_true", help="print the scripts, and stop")
            action.add_argument("--follow", action="store_true", help="say how the jobs get on until they have ended")
        if name == "collect":
            action.add_argument("--follow", action="store_true", help="wait until the jobs have ended")
            action.add_argument("--report", type=Path, metavar="DIR", help="default: plots/NAME")
        action.set_defaults(command=command)


def _plan(arguments: argparse.Namespace) -> Plan:
    from hpcrnn.slurm.plan import make_plan

    return make_plan(arguments.spec, arguments.site, arguments.output, arguments.shape, arguments.ranks)


def _say(text: str) -> None:
    sys.stderr.write(f"hpcrnn: {text}\n")
    sys.stderr.flush()


def _nothing_left(plan: Plan) -> int:
    sys.stdout.write(f"nothing to submit: all {len(plan.sweep.points)} points are done\n")
    return EXIT_VALID


def _setup(arguments: argparse.Namespace) -> int:
    from hpcrnn.slurm.script import setup_lines
    from hpcrnn.slurm.site import load_site

    sys.stdout.write("".join(f"{line}\n" for line in setup_lines(load_site(arguments.site))))
    return EXIT_VALID


def _render(arguments: argparse.Namespace) -> int:
    plan = _plan(arguments)
    if not plan.jobs:
        return _nothing_left(plan)
    sys.stdout.write(plan.text())
    return EXIT_VALID


def _submit(arguments: argparse.Namespace) -> int:
    from hpcrnn.slurm.follow import follow
    from hpcrnn.slurm.submission import check_fits, submit

    plan = _plan(arguments)
    if not plan.jobs:
        return _nothing_left(plan)
    sys.stdout.write(plan.text())
    sys.stdout.flush()
    check_fits(plan.jobs, plan.site)
    if arguments.dry_run:
        sys.stdout.write("not submitted: --dry-run\n")
        return EXIT_VALID
    submission = submit(plan)
    for job in submission.jobs:
        sys.stdout.write(f"submitted: {job.id} {job.name} ({job.script})\n")
    if arguments.follow:
        return _conclude(follow(plan.sweep, submission, _say))
    return EXIT_VALID


def _collect(arguments: argparse.Namespace) -> int:
    from hpcrnn.benchmarks.sweep import load_sweep
    from hpcrnn.errors import FileError
    from hpcrnn.slurm.collection import collect
    from hpcrnn.slurm.follow import follow, look
    from hpcrnn.slurm.site import load_site
    from hpcrnn.slurm.submission import FILE_NAME, read_submission

    load_site(arguments.site)
    folder = load_sweep(arguments.spec, arguments.output).folder
    submission = read_submission(folder)
    if submission is None:
        message = f"{folder / FILE_NAME}: is not there: nothing was submitted; hpcrnn slurm submit does"
        raise FileError(message)
    sweep = load_sweep(arguments.spec, arguments.output, ranks=submission.ranks)
    standing = follow(sweep, submission, _say) if arguments.follow else look(sweep, submission)
    if not arguments.follow:
        _say(standing.line())
    report = arguments.report or Path("plots") / sweep.section.name
    for path in collect(sweep, report):
        sys.stdout.write(f"written: {path}\n")
    return _conclude(standing)


def _conclude(standing: Standing) -> int:
    """Say what went wrong, and return the exit code: 0 where all points are done, or may still be."""
    for state in standing.failed:
        reason = f", {state.reason}" if state.reason else ""
        sys.stderr.write(f"hpcrnn: job {state.job}: {state.word.lower()}{reason}\n")
    for job in standing.lost:
        sys.stderr.write(
            f"hpcrnn: error: job {job.id} ({job.name}): Slurm no longer knows it, and points of it are not done; "
            f"hpcrnn slurm submit submits what is left\n"
        )
    if standing.lost:
        return EXIT_LAUNCH
    if not standing.over or standing.n_done == standing.n_points:
        return EXIT_VALID
    _say(f"{standing.line()}, and no job is left; hpcrnn slurm submit submits the rest")
    return EXIT_WRONG_USE
