"""``dynamic-tinybert rank``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError

from .options import BundleOption, LengthConfigOption, ThreadsOption
from .streams import read_input


def rank(
    query: Annotated[str, typer.Argument(help="The query.")],
    documents: Annotated[
        Path,
        typer.Option(
            help="Documents: one a line, or a table that ends in .jsonl, .csv or .parquet; - reads lines from standard "
            "input."
        ),
    ],
    bundle: BundleOption = None,
    column: Annotated[str, typer.Option(help="Column of the documents in a table.")] = "text",
    top_n: Annotated[int | None, typer.Option(min=1, help="Maximum number of documents, best first.")] = None,
    length_config: LengthConfigOption = None,
    drop: Annotated[
        bool, typer.Option("--drop/--no-drop", help="With --top-n: let documents leave early, if the bundle can.")
    ] = True,
    num_threads: ThreadsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list of objects.")] = False,
) -> None:
    """Sort documents by how well they answer a query.

    Standard output has a line for each document: its score, its number in the file from 0, and its text.
    """
    from dynamic_tinybert.runtime.tasks.sequence_classification.reranker import Reranker

    texts = read_documents(documents, column)
    reranker = Reranker.from_pretrained(bundle, num_threads=num_threads)
    config = length_config or reranker.model.bundle.default_length_config
    reranker.model.warm_up([config], [8])  # compiles the graph, not part of the time below
    if drop:
        reranker.dropping.warm_up(config)
    start = perf_counter()
    ranked = reranker.rank(query, texts, top_n, return_documents=True, length_config=length_config, drop_documents=drop)
    milliseconds = 1000 * (perf_counter() - start)
    if as_json:
        print(json.dumps(ranked, ensure_ascii=False))
    else:
        for own in ranked:
            print(f"{own['score']:.4f}\t{own['corpus_id']}\t{' '.join(own['text'].split())}")
    print(f"{len(texts)} documents, length configuration {config}, {milliseconds:.1f} ms", file=sys.stderr)


def read_documents(file: Path, column: str) -> list[str]:
    """The documents of a file: its lines, or the texts of a table's column.

    Raises:
        DataError: The file cannot be read, or a row of a table has no text in the column.
    """
    from dynamic_tinybert.runtime.tables.files import open_table

    if file.suffix.lower() in (".jsonl", ".csv", ".parquet"):
        documents = []
        for row in open_table(file).rows([column]):
            text = row.values.get(column)
            if row.error is not None or not isinstance(text, str):
                raise DataError(f"{file}, {row.place}: {row.error or f'no text in the column {column!r}'}")
            documents.append(text)
        return documents
    name = "standard input" if str(file) == "-" else str(file)
    try:
        content = read_input() if str(file) == "-" else file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {name} as UTF-8 text: {error}") from error
    lines = [line.removesuffix("\r") for line in content.split("\n")]  # splitlines also splits within texts
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise InvalidInputError(f"{name} holds no document")
    return lines
