"""Arguments and options that several commands take, and the text that they say where to find."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dynamic_tinybert.runtime.common.errors import InvalidInputError

from .streams import read_input

BundleOption = Annotated[
    str | None,
    typer.Option("--bundle", help="Folder or Hub id of a bundle; by default the one in the package."),
]
QuestionArgument = Annotated[str, typer.Argument(help="What to ask.")]
ContextArgument = Annotated[str | None, typer.Argument(help="Text that holds the answer.")]
ContextFileOption = Annotated[Path | None, typer.Option(help="File with the text instead; - reads standard input.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print a JSON object.")]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--num-threads", min=1, help="CPU threads; by default as many as this process may use."),
]


def read_context(context: str | None, file: Path | None) -> str:
    """The text given as an argument or in a file; - is standard input.

    Every character of the file counts, line ends as they are; only a byte-order mark at its start is no part of it.

    Raises:
        InvalidInputError: Neither or both are given, or the file cannot be read or is not UTF-8 text.
    """
    if (context is None) == (file is None):
        raise InvalidInputError("give the text either as the second argument or with --context-file")
    if context is not None:
        return context
    assert file is not None
    name = "standard input" if str(file) == "-" else file
    try:
        return read_input() if str(file) == "-" else file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InvalidInputError(f"cannot read {name}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"cannot read {name} as UTF-8 text: {error}") from error
