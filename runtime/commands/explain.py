"""``dynamic-tinybert explain``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .options import BundleOption, ContextArgument, ContextFileOption, JsonOption, QuestionArgument, read_context


def explain_command(
    question: QuestionArgument,
    length_config: Annotated[str, typer.Option(help="Name of a length configuration in the bundle.")],
    context: ContextArgument = None,
    context_file: ContextFileOption = None,
    bundle: BundleOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a question, and show which words of the question and the text each layer drops; layers count from 0."""
    from rich.console import Console

    from dynamic_tinybert.runtime.model import LengthAdaptiveModel
    from dynamic_tinybert.runtime.tasks.question_answering.explain import explain
    from dynamic_tinybert.runtime.tasks.question_answering.explanation_view import show

    text = read_context(context, context_file)
    explanation = explain(LengthAdaptiveModel.from_pretrained(bundle), question, text, length_config=length_config)
    if as_json:
        print(json.dumps(explanation.to_dict(), ensure_ascii=False))
    else:
        show(explanation, Console())
