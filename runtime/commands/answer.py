"""``dynamic-tinybert answer``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dynamic_tinybert.runtime.tasks.question_answering.options import PIPELINE

from .options import (
    AnswerLengthOption,
    BundleOption,
    CompeteOption,
    ImpossibleAnswerOption,
    LengthConfigOption,
    SequenceLengthOption,
    StrideOption,
    ThreadsOption,
    TopKOption,
)


def answer(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="Questions and texts, one pair a row: .jsonl, .csv or .parquet.")
    ],
    output: Annotated[
        Path, typer.Argument(help="The same rows with their answers, in the same or another of these formats.")
    ],
    question_column: Annotated[str, typer.Option(help="Column of the questions.")] = "question",
    context_column: Annotated[str, typer.Option(help="Column of the texts to answer from.")] = "context",
    id_column: Annotated[str | None, typer.Option(help="Column that names a row in messages.")] = None,
    prefix: Annotated[
        str, typer.Option(help="Is put before the names of the new columns: answer, score, start, end, error.")
    ] = "",
    bundle: BundleOption = None,
    length_config: LengthConfigOption = None,
    top_k: TopKOption = PIPELINE.top_k,
    max_answer_len: AnswerLengthOption = PIPELINE.max_answer_len,
    max_seq_len: SequenceLengthOption = None,
    doc_stride: StrideOption = None,
    handle_impossible_answer: ImpossibleAnswerOption = PIPELINE.handle_impossible_answer,
    compete: CompeteOption = PIPELINE.compete,
    num_threads: ThreadsOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a file in which a row cannot be answered, before any is.")
    ] = False,
) -> None:
    """Answer the questions of a file, row by row.

    All columns are kept. A row that cannot be answered gets a text in the column error. With --top-k above 1, a column
    answers holds all answers. What is finished is kept beside the output, in a folder that ends in .answering.
    """
    from dynamic_tinybert.runtime.model import LengthAdaptiveModel
    from dynamic_tinybert.runtime.tasks.question_answering.bulk import BulkAnswerer, InputColumns
    from dynamic_tinybert.runtime.tasks.question_answering.bulk_file import BulkFiles, answer_file
    from dynamic_tinybert.runtime.tasks.question_answering.options import AnswerOptions

    files = BulkFiles.checked(source, output, resume=resume, force=force)
    model = LengthAdaptiveModel.from_pretrained(bundle, num_threads=num_threads)
    options = AnswerOptions.for_model(
        model.max_length,
        top_k=top_k,
        max_answer_len=max_answer_len,
        max_seq_len=max_seq_len,
        doc_stride=doc_stride,
        handle_impossible_answer=handle_impossible_answer,
        compete=compete,
    )
    answerer = BulkAnswerer(model, InputColumns(question_column, context_column, id_column), options, length_config)
    result = answer_file(answerer, files, prefix=prefix, resume=resume, strict=strict, progress=True, say=_say)
    print(f"{output}: {result.num_rows} rows, length configuration {answerer.length_config}")
    if result.num_errors:
        why = f"the column {prefix}error says why"
        print(f"{result.num_errors} of {result.num_rows} rows could not be answered; {why}", file=sys.stderr)


def _say(line: str) -> None:
    """Print a line, on a terminal above the progress bar."""
    from tqdm import tqdm

    if sys.stderr is not None and sys.stderr.isatty():
        tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr)
