"""Pairs of a question and its context, from all the forms that transformers' pipeline accepted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

from dynamic_tinybert.runtime.common.errors import InvalidInputError


def question_context_pairs(question: object, context: object) -> list[tuple[Any, Any]]:
    """Pair questions with their contexts. The tokenizer checks later that these are texts.

    Args:
        question: A question, or several (list, tuple, array or other iterable); or, without a context, one mapping
            with the keys ``question`` and ``context``, or several.
        context: The context of all questions, or one for each.

    Raises:
        InvalidInputError: A part is missing, or the numbers of questions and contexts differ.
    """
    questions, contexts = _several("question", question), _several("context", context)
    if question is None or (questions is None and context is None and not _is_pair(question)):
        raise InvalidInputError("give a question and a context, or mappings with the keys 'question' and 'context'")
    if _is_pair(question):
        return [_pair(item) for item in (question, context) if item is not None]
    if questions is None:
        if contexts is not None:
            raise InvalidInputError("one question with a list of contexts; give a list of questions of the same length")
        return [(question, context)]
    if context is None:
        return [_pair(item) for item in questions]
    if contexts is None:
        return [(one, context) for one in questions]
    if len(questions) != len(contexts):
        raise InvalidInputError(
            f"{len(questions)} questions but {len(contexts)} contexts; give one for each question, or a str"
        )
    return list(zip(questions, contexts, strict=True))


def given_once(question: object, data: object, x: object) -> Any:  # noqa: ANN401 - `question_context_pairs` checks it
    """What a caller of the pipeline gave as its questions, by any of the three names of that argument.

    Raises:
        InvalidInputError: They were given by two names.
    """
    given = [value for value in (question, data, x) if value is not None]
    if len(given) > 1:
        raise InvalidInputError("questions are given twice; give one of question, data and X")
    return given[0] if given else None


def _several(name: str, value: object) -> list[object] | None:
    """The items of an iterable; None for a single text or pair."""
    if isinstance(value, Set):
        raise InvalidInputError(f"{name} is a {type(value).__name__}, whose items have no order; give a list")
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        return None
    try:
        return list(value)
    except TypeError as error:  # an array without dimensions
        raise InvalidInputError(f"{name} is neither a text nor a list of texts: {error}") from error


def _is_pair(value: object) -> bool:
    return isinstance(value, Mapping) or hasattr(value, "question_text")


def _pair(item: object) -> tuple[Any, Any]:
    if hasattr(item, "question_text") and hasattr(item, "context_text"):  # transformers' SquadExample
        return item.question_text, item.context_text
    if isinstance(item, Mapping) and {"question", "context"} <= item.keys():
        return item["question"], item["context"]
    found = f"the keys {sorted(map(str, item))}" if isinstance(item, Mapping) else type(item).__name__
    raise InvalidInputError(
        f"without a context, each item must be a mapping with 'question' and 'context', not {found}"
    )
