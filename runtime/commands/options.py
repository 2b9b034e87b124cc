"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.tasks.question_answering.options import PIPELINE

from .streams import read_input

BundleOption = Annotated[
    str | None,
    typer.Option("--bundle", help="Folder or Hub id of a bundle; by default the one that comes with the package."),
]
RequiredBundleOption = Annotated[str, typer.Option("--bundle", help="Folder or Hub id of a bundle of a classifier.")]
QuestionArgument = Annotated[str, typer.Argument(help="The question.")]
ContextArgument = Annotated[str | None, typer.Argument(help="The text to answer from.")]
ContextFileOption = Annotated[Path | None, typer.Option(help="Read the text from this file; - reads standard input.")]
LengthConfigOption = Annotated[
    str | None, typer.Option(help="Name of a length configuration in the bundle; by default the bundle's default.")
]
TopKOption = Annotated[int, typer.Option(min=1, help="Maximum number of answers, best first.")]
AnswerLengthOption = Annotated[int, typer.Option(min=1, help="Maximum length of an answer in tokens.")]
ImpossibleAnswerOption = Annotated[
    bool, typer.Option("--handle-impossible-answer", help="Let the empty answer compete with the others.")
]
CompeteOption = Annotated[
    bool, typer.Option("--compete", help="Let the windows of a long text compete: better answers, in less time.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print a JSON object.")]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--num-threads", min=1, help="Number of CPU threads; by default as many as this process may use."),
]
SequenceLengthOption = Annotated[
    int | None,
    typer.Option(
        "--max-seq-len", min=1, help=f"Maximum length of a window in tokens; by default {PIPELINE.max_seq_len}."
    ),
]
StrideOption = Annotated[
    int | None,
    typer.Option(
        "--doc-stride",
        min=0,
        help=f"Number of tokens that neighbouring windows share; by default {PIPELINE.doc_stride}.",
    ),
]


def read_context(context: str | None, file: Path | None) -> str:
    """The context, which is given either as an argument or in a file; the file - is standard input.

    All characters of the file are kept, including line ends, except a byte-order mark at its start.

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
