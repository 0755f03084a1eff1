"""The command line: thin; heavy imports stay inside the commands.

``hpcrnn run`` takes a flag for every key of a specification, made from the specification itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hpcrnn
from hpcrnn.errors import EXIT_INVALID, EXIT_VALID, EXIT_WRONG_USE, HpcrnnError, LaunchError, SpecError

if TYPE_CHECKING:
    from hpcrnn.execution.world import World
    from hpcrnn.spec import Option


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours: one line, exit code 1, on rank 0 only."""

    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{message} (hpcrnn {self.prog.removeprefix('hpcrnn').strip()} --help)".replace("  ", " "))


class _UsageError(HpcrnnError):
    """The command line cannot be understood."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    # Under mpirun an error must be told once, whatever it is: ranks are known before flags are read.
    if argv[:1] == ["run"] and not {"-h", "--help"} & set(argv):
        return _run_on_ranks(argv)
    try:
        arguments = _parser().parse_args(argv)
        return int(arguments.command(arguments))
    except HpcrnnError as error:
        sys.stdout.flush()
        sys.stderr.write(f"hpcrnn: error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("hpcrnn: interrupted\n")
        return 130


def _run_on_ranks(argv: Sequence[str]) -> int:
    world = _start_world()
    from hpcrnn.execution.world import fail

    try:
        return _run(_parser().parse_args(argv), world, argv)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever it is, no rank may hang
        fail(world, error)


def _start_world() -> World:
    try:
        from hpcrnn.execution.world import World
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        lacking = LaunchError(
            f"no MPI library can be loaded ({reason}): pip install mpich, or load the site's MPI module"
        )
        sys.stderr.write(f"hpcrnn: error: {lacking}\n")
        raise SystemExit(lacking.exit_code) from None
    return World.start()


def _run(arguments: argparse.Namespace, world: World, argv: Sequence[str]) -> int:
    from hpcrnn.spec import build_spec, read_toml

    raw = read_toml(arguments.spec) if arguments.spec else {}
    spec = build_spec(raw, _overrides(arguments))

    from hpcrnn.benchmarks.run import run

    record = run(spec, world, ["hpcrnn", *argv])
    if record is None:
        code = EXIT_VALID
    else:
        from hpcrnn.reporting.terminal.show import show

        show([record], _console())
        invalid = [case for case in record.cases if case.verdict.status == "INVALID"]
        for case in invalid:
            worst = case.verdict.worst
            sys.stderr.write(
                f"hpcrnn: INVALID: {case.label}: {worst.quantity}: relative error {worst.error:.3g}, "
                f"allowed {worst.tolerance:.3g}\n"
            )
        sys.stdout.write(f"written: {record.source}\n")
        code = EXIT_INVALID if invalid else EXIT_VALID
    return int(world.comm.bcast(code))


def _show(arguments: argparse.Namespace) -> int:
    from hpcrnn.records.hdf5 import read_records
    from hpcrnn.reporting.terminal.show import show

    show(read_records(arguments.files), _console(), verbose=arguments.verbose)
    return EXIT_VALID


def _report(arguments: argparse.Namespace) -> int:
    from hpcrnn.records.hdf5 import read_records
    from hpcrnn.reporting.report.write import write_report

    for path in write_report(read_records(arguments.files), arguments.output, of_a_kind=arguments.figures):
        sys.stdout.write(f"written: {path}\n")
    return EXIT_VALID


def _merge(arguments: argparse.Namespace) -> int:
    from hpcrnn.records.merge import merge_files
    from hpcrnn.reporting.terminal.show import show_runs

    options = {"skip_damaged": arguments.skip_damaged, "overwrite": arguments.overwrite}
    merger = merge_files(arguments.files, arguments.output, **options)
    for line in merger.damaged:
        sys.stderr.write(f"hpcrnn: skipped: {line}\n")
    for line in merger.repeated:
        sys.stderr.write(f"hpcrnn: note: {line}\n")
    show_runs(merger.records, _console())
    sys.stdout.write(f"written: {arguments.output}\n")
    return EXIT_VALID


def _export(arguments: argparse.Namespace) -> int:
    from hpcrnn.records.hdf5 import read_records
    from hpcrnn.records.whole_file import check_output, write_output
    from hpcrnn.reporting.export.export import export, write_standard_output

    output, overwrite = arguments.output, arguments.overwrite
    if output is None and arguments.to == "perfetto":
        output, overwrite = arguments.files[0].with_suffix(".perfetto.json"), True  # a name of our own
    if output is not None:
        check_output(output, arguments.files, overwrite=overwrite)
    options = {"summary": arguments.summary, "raw": arguments.raw, "series": arguments.series}
    exported = export(read_records(arguments.files), arguments.to, **options)
    for note in exported.notes:
        sys.stderr.write(f"hpcrnn: note: {note}\n")
    if output is None:
        write_standard_output(exported.content)
    else:
        write_output(output, exported.content, inputs=arguments.files, overwrite=overwrite)
        sys.stdout.write(f"written: {output}\n")
    return EXIT_VALID


def _compare(arguments: argparse.Namespace) -> int:
    from hpcrnn.records.hdf5 import read_records
    from hpcrnn.reporting.comparison.compare import compare, to_json
    from hpcrnn.reporting.comparison.matching import read_words
    from hpcrnn.reporting.terminal.comparison import show_comparison

    of_a, of_b = read_words(arguments.of_a, "--a"), read_words(arguments.of_b, "--b")
    a, b = (read_records([path]) for path in (arguments.a, arguments.b))
    comparison = compare(a, b, of_a=of_a, of_b=of_b, across=arguments.across)
    if arguments.json:
        sys.stdout.write(_json(to_json(comparison)))
    else:
        show_comparison(comparison, _console())
    return EXIT_VALID


def _gate(arguments: argparse.Namespace) -> int:
    from hpcrnn.records.hdf5 import read_records
    from hpcrnn.records.whole_file import check_output, write_output
    from hpcrnn.reporting.comparison.gate import judge, to_json
    from hpcrnn.reporting.comparison.gate_reference import load_reference, write_reference
    from hpcrnn.reporting.terminal.gate import show_outcome

    writes = arguments.write_ref is not None
    for flag, given in {"--strict": arguments.strict, "--json": arguments.json}.items():
        if writes and given:
            raise _UsageError(f"{flag} goes with --ref, not with --write-ref (hpcrnn gate --help)")
    if arguments.overwrite and not writes:
        raise _UsageError("--overwrite goes with --write-ref (hpcrnn gate --help)")
    records = read_records(arguments.files)
    if writes:
        options = {"inputs": arguments.files, "overwrite": arguments.overwrite}
        write_reference(records, arguments.write_ref, arguments.tolerance, **options)
        sys.stdout.write(f"written: {arguments.write_ref}\n")
        return EXIT_VALID
    inputs = [*arguments.files, arguments.ref]
    if arguments.json:
        check_output(arguments.json, inputs, overwrite=True)
    outcome = judge(records, load_reference(arguments.ref, arguments.tolerance), strict=arguments.strict)
    if arguments.json:
        write_output(arguments.json, _json(to_json(outcome)).encode(), inputs=inputs, overwrite=True)
    show_outcome(outcome, _console())
    return outcome.exit_code


def _json(plain: object) -> str:
    import json

    return json.dumps(plain, indent=1, allow_nan=False) + "\n"


def _verify(arguments: argparse.Namespace) -> int:
    from hpcrnn.reporting.terminal.integrity import exit_code, print_outcome, render_json, verify_file

    outcomes = []
    for path in arguments.files:
        outcomes.append(verify_file(path))
        if not arguments.json:
            print_outcome(outcomes[-1], _console())
            if outcomes[-1].error:
                sys.stdout.flush()
                sys.stderr.write(f"hpcrnn: error: {outcomes[-1].error}\n")
    if arguments.json:
        sys.stdout.write(render_json(outcomes))
    return exit_code(outcomes)


def _sweep(arguments: argparse.Namespace) -> int:
    from hpcrnn.benchmarks.sweep import load_sweep, run_sweep

    sweep = load_sweep(arguments.spec, arguments.output)
    outcome = run_sweep(sweep, dry_run=arguments.dry_run)
    if arguments.report and not arguments.dry_run and outcome.files:
        from hpcrnn.records.hdf5 import read_records
        from hpcrnn.reporting.report.write import write_report

        for path in write_report(read_records(outcome.files), arguments.report):
            sys.stdout.write(f"written: {path}\n")
    return outcome.exit_code


def _doctor(arguments: argparse.Namespace) -> int:
    from hpcrnn.doctor import examine, render

    findings = examine()
    sys.stdout.write(render(findings, as_json=arguments.json))
    return EXIT_WRONG_USE if any(f.level == "problem" for f in findings) else EXIT_VALID


def _console() -> Any:
    from rich.console import Console

    return Console()


def _overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    from hpcrnn.spec import options

    given = vars(arguments)
    return {o.name: given[o.name] for o in options() if given.get(o.name) is not None}


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="hpcrnn", description=hpcrnn.__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"hpcrnn {hpcrnn.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=_Parser)

    run = commands.add_parser(
        "run",
        help="verify and measure one problem; under mpirun or srun for several ranks",
        description="Verify and measure one problem.",
        usage="[mpirun -n N] hpcrnn run [SPEC.toml] [--KEY VALUE ...]",
        allow_abbrev=False,
    )
    run.add_argument("spec", nargs="?", metavar="SPEC.toml", help="specification; flags win over it")
    _add_options(run)

    sweep = commands.add_parser("sweep", help="every point of a sweep, each under its own mpirun; resumes")
    sweep.add_argument("spec", type=Path, metavar="SPEC.toml")
    sweep.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: results/NAME")
    sweep.add_argument("--dry-run", action="store_true", help="say what would be started, and stop")
    sweep.add_argument("--report", type=Path, metavar="DIR", help="write the report there at the end")
    sweep.set_defaults(command=_sweep)

    show = commands.add_parser("show", help="result files as a table in the terminal")
    show.add_argument("files", nargs="+", type=Path, metavar="FILE")
    show.add_argument(
        "--verbose", action="store_true", help="of GPUs: their time of each phase, how kernels are laid out"
    )
    show.set_defaults(command=_show)

    report = commands.add_parser("report", help="figures, and a report in HTML and Markdown")
    report.add_argument("files", nargs="+", type=Path, metavar="FILE")
    report.add_argument("-o", "--output", type=Path, default=Path("plots/report"), metavar="DIR")
    report.add_argument(
        "--figures", type=_positive, metavar="N", help="of each kind; default: all while 40 or fewer, else 1"
    )
    report.set_defaults(command=_report)

    merge = commands.add_parser("merge", help="several result files as one; every run keeps its environment")
    merge.add_argument("files", nargs="+", type=Path, metavar="FILE")
    merge.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.h5")
    merge.add_argument("--skip-damaged", action="store_true", help="merge what can be read, and name the rest")
    merge.add_argument("--overwrite", action="store_true", help="replace an older OUT.h5; an input never is replaced")
    merge.set_defaults(command=_merge)

    export = commands.add_parser("export", help="results for spreadsheets, programs, Extra-P or a trace viewer")
    export.add_argument("files", nargs="+", type=Path, metavar="FILE")
    export.add_argument(
        "--to",
        choices=["csv", "json", "extrap", "perfetto"],
        required=True,
        help="csv: a row a raw sample; json: medians with intervals; extrap: times over ranks, for Extra-P; perfetto: "
        "timelines of runs with --trace, for https://ui.perfetto.dev",
    )
    export.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="default: standard output; of perfetto, beside the first FILE"
    )
    export.add_argument("--overwrite", action="store_true", help="replace an older OUT; an input never is replaced")
    export.add_argument("--summary", action="store_true", help="csv: a row a case instead")
    export.add_argument("--raw", action="store_true", help="json: every sample too")
    export.add_argument("--series", type=int, metavar="N", help="extrap: which series, where there are several")
    export.set_defaults(command=_export)

    _add_comparisons(commands)

    verify = commands.add_parser(
        "verify",
        help="whether result files are what was written, and can be true",
        description="Check result files: checksum, shapes, times, marks, bases, verdicts. Exit code 2 where one is "
        "wrong, 1 where one cannot be read; the others are looked at all the same.",
    )
    verify.add_argument("files", nargs="+", type=Path, metavar="FILE")
    verify.add_argument("--json", action="store_true", help="for programs")
    verify.set_defaults(command=_verify)

    doctor = commands.add_parser("doctor", help="what this machine can run, and what is wrong with it")
    doctor.add_argument("--json", action="store_true", help="for programs")
    doctor.set_defaults(command=_doctor)
    return parser


def _add_comparisons(commands: Any) -> None:
    compare = commands.add_parser(
        "compare", help="what of A is faster in B, what slower, and what cannot be told", allow_abbrev=False
    )
    compare.add_argument("a", type=Path, metavar="A")
    compare.add_argument("b", type=Path, metavar="B", help="may be A, with cases chosen")
    for side in ("a", "b"):
        text = f"cases of {side.upper()} to take, e.g. strategy=data ranks=2"
        compare.add_argument(
            f"--{side}", dest=f"of_{side}", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=text
        )
    compare.add_argument("--across", action="store_true", help="compare different problems and precisions too")
    compare.add_argument("--json", action="store_true", help="for programs")
    compare.set_defaults(command=_compare)

    gate = commands.add_parser(
        "gate", help="results against a reference; exit code 3 where they fall short", allow_abbrev=False
    )
    gate.add_argument("files", nargs="+", type=Path, metavar="FILE")
    reference = gate.add_mutually_exclusive_group(required=True)
    reference.add_argument("--ref", type=Path, metavar="REF", help="limits (REF.toml), or an earlier result file")
    reference.add_argument("--write-ref", type=Path, metavar="REF.toml", help="write limits from FILE, and stop")
    gate.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="what may be worse, 0.05 for a twentieth: of a result file, of all in REF.toml that has none of its own",
    )
    gate.add_argument("--strict", action="store_true", help="fail what the samples do not decide")
    gate.add_argument("--json", type=Path, metavar="OUT.json", help="for programs; replaces an older one")
    gate.add_argument("--overwrite", action="store_true", help="replace an older REF.toml")
    gate.set_defaults(command=_gate)


def _add_options(parser: argparse.ArgumentParser) -> None:
    from hpcrnn.spec import describe, options

    groups: dict[str, Any] = {}
    for leaf in options():
        group = groups.setdefault(leaf.section, parser.add_argument_group(leaf.section))
        text = leaf.description.replace("%", "%%")
        if isinstance(leaf.default, bool):
            group.add_argument(leaf.flag, dest=leaf.name, action=argparse.BooleanOptionalAction, help=text)
            continue
        allowed = "axis=count,..." if leaf.name == "grid" else describe(leaf.annotation)
        allowed = allowed.replace(" and <= 2147483647", "").replace("%", "%%")  # of no use to a reader
        shown = "" if leaf.default is None else f"; default {_plain(leaf.default)}"
        group.add_argument(
            leaf.flag, dest=leaf.name, type=_reader(leaf), metavar="X", help=f"{text} [{allowed}{shown}]"
        )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_positive.__name__ = "positive number"  # how argparse names it


def _plain(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _reader(leaf: Option) -> Any:
    """Turn a flag's text into the number the key wants; validation then sees the same value as from TOML."""
    from hpcrnn.spec import describe

    def read(text: str) -> object:
        allowed = describe(leaf.annotation)
        try:
            if allowed.startswith("an integer"):
                return int(text)
            if allowed.startswith("a number"):
                return float(text)
        except ValueError:
            raise SpecError(leaf.key, text, allowed) from None
        return text

    return read
