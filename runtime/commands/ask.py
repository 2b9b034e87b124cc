"""``dynamic-tinybert ask``."""

from __future__ import annotations

import json
import sys
from time import perf_counter
from typing import Annotated

import typer

from dynamic_tinybert.runtime.question_answering import QuestionAnswerer

from .options import (
    BundleOption,
    ContextArgument,
    ContextFileOption,
    JsonOption,
    QuestionArgument,
    ThreadsOption,
    read_context,
)


def ask(
    question: QuestionArgument,
    context: ContextArgument = None,
    context_file: ContextFileOption = None,
    bundle: BundleOption = None,
    length_config: Annotated[str | None, typer.Option(help="Name in the bundle; by default its own default.")] = None,
    num_threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a question from a text."""
    text = read_context(context, context_file)
    answerer = QuestionAnswerer.from_pretrained(bundle, num_threads=num_threads)
    answerer(question, text, length_config=length_config)  # compiles the graph, so that the time below is an answer's
    start = perf_counter()
    answer = answerer(question, text, length_config=length_config)
    milliseconds = 1000 * (perf_counter() - start)
    config = length_config or answerer.model.bundle.default_length_config
    if as_json:
        print(
            json.dumps(
                {**answer, "length_config": config, "milliseconds": round(milliseconds, 2)},
                ensure_ascii=False,
            )
        )
        return
    print(answer["answer"])
    place = f"characters {answer['start']}-{answer['end']}"
    print(
        f"score {answer['score']:.3f}, {place}, length configuration {config}, {milliseconds:.1f} ms",
        file=sys.stderr,
    )
