"""The command line: ``dynamic-tinybert``.

Exit codes: 0 success, 1 an error, explained in one line on standard error (also if standard output is full or closed),
2 wrong usage, 130 interrupted, 141 the reader of standard output has gone (`| head`), 143 terminated.
Commands of the other subpackages are found by the entry points ``dynamic_tinybert.commands``. Every start imports the
modules of all commands. To keep ``--help`` fast, these modules import what they run inside their functions.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import typer

from .commands.answer import answer
from .commands.ask import ask
from .commands.classify import classify
from .commands.compile import compile_command
from .commands.evaluate import evaluate_command
from .commands.explain import explain_command
from .commands.info import info
from .commands.rank import rank
from .commands.streams import guard_output
from .common.errors import DynamicTinyBertError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Length-adaptive BERT question answering, classification and ranking on Intel CPUs.",
)
app.command("ask")(ask)
app.command("answer")(answer)
app.command("explain")(explain_command)
app.command("classify")(classify)
app.command("rank")(rank)
app.command("evaluate")(evaluate_command)
app.command("info")(info)
app.command("compile")(compile_command)


def main() -> None:
    """Run the command line."""
    guard_output()
    try:
        for command in entry_points(group="dynamic_tinybert.commands"):
            app.command(command.name)(command.load())
        try:
            app()
        except SystemExit:
            sys.stdout.flush()  # while an error can still be reported
            raise
    except DynamicTinyBertError as error:
        print(f"dynamic-tinybert: {error}", file=sys.stderr)
        sys.exit(1)
