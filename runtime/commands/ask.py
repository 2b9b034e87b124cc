"""``dynamic-tinybert ask``."""

from __future__ import annotations

import json
import sys
from time import perf_counter
from typing import Annotated, Any

import typer

from dynamic_tinybert.runtime.tasks.question_answering.options import PIPELINE

from .options import (
    AnswerLengthOption,
    BundleOption,
    CompeteOption,
    ContextArgument,
    ContextFileOption,
    ImpossibleAnswerOption,
    LengthConfigOption,
    QuestionArgument,
    SequenceLengthOption,
    StrideOption,
    ThreadsOption,
    TopKOption,
    read_context,
)


def ask(
    question: QuestionArgument,
    context: ContextArgument = None,
    context_file: ContextFileOption = None,
    bundle: BundleOption = None,
    length_config: LengthConfigOption = None,
    budget_ms: Annotated[
        float | None,
        typer.Option(help="Milliseconds to answer in, by the most accurate length configuration that is fast enough."),
    ] = None,
    max_f1_loss: Annotated[
        float | None, typer.Option(help="Most points of F1 that the length configuration may lose against full.")
    ] = None,
    top_k: TopKOption = PIPELINE.top_k,
    max_answer_len: AnswerLengthOption = PIPELINE.max_answer_len,
    max_seq_len: SequenceLengthOption = None,
    doc_stride: StrideOption = None,
    handle_impossible_answer: ImpossibleAnswerOption = PIPELINE.handle_impossible_answer,
    compete: CompeteOption = PIPELINE.compete,
    num_threads: ThreadsOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object, or a list if --top-k is above 1.")
    ] = False,
) -> None:
    """Answer a question from a text. Answers go to standard output, one per line, all else to standard error."""
    from dynamic_tinybert.runtime.tasks.question_answering.answerer import QuestionAnswerer

    text = read_context(context, context_file)
    options: dict[str, Any] = {
        "length_config": length_config,
        "top_k": top_k,
        "max_answer_len": max_answer_len,
        "max_seq_len": max_seq_len,
        "doc_stride": doc_stride,
        "handle_impossible_answer": handle_impossible_answer,
        "compete": compete,
        "budget_ms": budget_ms,
        "max_f1_loss": max_f1_loss,
    }
    answerer = QuestionAnswerer.from_pretrained(bundle, num_threads=num_threads)
    answerer.answer_batch(question, text, **options)  # compiles the graph, which is not part of the time below
    start = perf_counter()
    (answers,) = answerer.answer_batch(question, text, **options)
    milliseconds = 1000 * (perf_counter() - start)
    config = length_config or answerer.model.bundle.default_length_config
    budgeted = budget_ms is not None or max_f1_loss is not None
    if budgeted:
        config, milliseconds = answers[0]["length_config"], answers[0]["ms"]
    if as_json:
        facts = {} if budgeted else {"length_config": config, "milliseconds": round(milliseconds, 2)}
        objects = [{**answer, **facts} for answer in answers]
        print(json.dumps(objects if top_k > 1 else objects[0], ensure_ascii=False))
        return
    cost = f"length configuration {config}, {milliseconds:.1f} ms"
    if budget_ms is not None:
        cost += f", {'within' if answers[0]['budget_met'] else 'over'} the budget of {budget_ms:g} ms"
    for answer in answers:
        print(" ".join(answer["answer"].split()), flush=True)  # to appear before its line on standard error
        about = f"score {answer['score']:.3f}, characters {answer['start']}-{answer['end']}"
        if not answer["answer"]:
            about = f"no answer in the text: score {answer['score']:.3f}"
        print(f"  {about}" if top_k > 1 else f"{about}, {cost}", file=sys.stderr)
    if top_k > 1:
        print(cost, file=sys.stderr)
