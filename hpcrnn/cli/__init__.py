"""The command line: ``hpcrnn COMMAND`` lies in the module of that name, its flags and what it does.

A command's module is loaded when the command is used, and what is heavy within its function.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

import hpcrnn
from hpcrnn.cli.parser import Parser
from hpcrnn.cli.reading import tell
from hpcrnn.errors import HpcrnnError

COMMANDS = {
    "run": "verify and measure one problem; under mpirun or srun for several ranks",
    "sweep": "every point of a sweep, each under its own mpirun; resumes",
    "show": "result files as a table in the terminal",
    "report": "figures, and a report in HTML and Markdown",
    "merge": "several result files as one; every run keeps its environment",
    "export": "results for spreadsheets, programs, Extra-P or a trace viewer",
    "compare": "what of A is faster in B, what slower, and what cannot be told",
    "gate": "results against a reference; exit code 3 where they fall short",
    "verify": "whether result files are what was written, and can be true",
    "screen": "equal runs on many nodes, and the nodes that stand out",
    "slurm": "a sweep as Slurm jobs: their scripts, their submission, their results",
    "doctor": "what this machine can run, and what is wrong with it",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        # Under mpirun an error must be told once, whatever it is: ranks are known before flags are read.
        if argv[:1] == ["run"] and not {"-h", "--help"} & set(argv):
            from hpcrnn.cli.run import run_on_ranks

            return run_on_ranks(argv, make_parser())
        arguments = make_parser().parse_args(argv)
        return int(arguments.command(arguments))
    except HpcrnnError as error:
        tell(error.lines)
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("hpcrnn: interrupted\n")
        return 130


def make_parser() -> Parser:
    """Make the parser of all commands."""
    parser = Parser(prog="hpcrnn", description=hpcrnn.__doc__)
    parser.add_argument("--version", action="version", version=f"hpcrnn {hpcrnn.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=Parser)
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, add_flags=_add_flags_of(name))
    return parser


def _add_flags_of(name: str) -> Callable[[Parser], None]:
    def add_flags(parser: Parser) -> None:
        import_module(f"hpcrnn.cli.{name}").add_flags(parser)

    return add_flags
