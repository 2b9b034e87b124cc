import inspect
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
import typer.main

from dynamic_tinybert.runtime.cli import app
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.tasks.question_answering.evaluation import evaluate
from dynamic_tinybert.runtime.tasks.question_answering.options import PIPELINE, SQUAD, AnswerOptions


def test_defaults_are_those_of_the_pipeline_and_of_squads_scripts() -> None:
    assert (PIPELINE.top_k, PIPELINE.max_answer_len, PIPELINE.max_seq_len, PIPELINE.doc_stride) == (1, 15, 384, 128)
    assert (PIPELINE.handle_impossible_answer, PIPELINE.align_to_words, PIPELINE.merge) == (False, True, "span")
    assert replace(SQUAD, max_answer_len=15, align_to_words=True, batch_size=8) == PIPELINE
    assert SQUAD.max_answer_len == 30
    with pytest.raises(FrozenInstanceError):
        PIPELINE.top_k = 2  # type: ignore[misc]


def test_none_and_nothing_are_the_defaults_within_what_the_model_reads() -> None:
    nothing = {field.name: None for field in fields(AnswerOptions)}
    assert AnswerOptions.for_model(512, **nothing) == AnswerOptions.for_model(512) == PIPELINE
    assert AnswerOptions.for_model(100) == replace(PIPELINE, max_seq_len=100, doc_stride=50)


def test_what_is_given_is_taken() -> None:
    given = {
        field.name: value for field, value in zip(fields(AnswerOptions), (3, 4, 90, 5, 1, 0, "text", 2, 1), strict=True)
    }
    options = AnswerOptions.for_model(512, **given)
    assert {name: getattr(options, name) for name in given} == given
    assert options.handle_impossible_answer is True
    assert type(AnswerOptions(top_k=np.int8(3)).top_k) is int


@pytest.mark.parametrize("name", ["top_k", "max_answer_len", "max_seq_len", "doc_stride", "batch_size"])
@pytest.mark.parametrize("value", [-1, 1.0, "1", True, None])
def test_counts_that_are_none_are_refused(name: str, value: object) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} must be an int of at least"):
        replace(PIPELINE, **{name: value})


@pytest.mark.parametrize(("command", "options"), [("ask", PIPELINE), ("evaluate", SQUAD)])
def test_commands_have_the_same_defaults(command: str, options: AnswerOptions) -> None:
    group = typer.main.get_command(app)
    parameters = {parameter.name: parameter for parameter in group.commands[command].params}  # type: ignore[attr-defined]
    shared = parameters.keys() & {field.name for field in fields(AnswerOptions)}
    assert len(shared) >= 4
    decided_later = {"max_seq_len", "doc_stride"}  # by default less where the model reads less
    if command == "evaluate":
        decided_later |= {"batch_size", "max_answer_len"}  # they depend on the bundle's task
    for name in shared - decided_later:
        assert parameters[name].default == getattr(options, name)
    for name in decided_later:
        assert parameters[name].default is None
        assert str(getattr(options, name)) in parameters[name].help


def test_evaluation_has_the_same_defaults() -> None:
    parameters = inspect.signature(evaluate).parameters
    for name in ("batch_size", "max_answer_len"):
        assert parameters[name].default == getattr(SQUAD, name)
