"""SQuAD v1.1: its data files and its metric."""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from .checks import require_int
from .errors import DataError


@dataclass(frozen=True, slots=True)
class Example:
    """One question of a data file.

    Attributes:
        id: As in the file.
        question: Its text.
        context: The paragraph to answer from.
        answers: Texts that count as right; empty where the file gives none.
        title: Title of the article; empty where the file gives none.
        answer_starts: For each answer its first character in the context, as the file says it; None where it does not.
    """

    id: str
    question: str
    context: str
    answers: tuple[str, ...]
    title: str
    answer_starts: tuple[object, ...] = ()


def read_squad(path: str | Path, *, require_answers: bool = False, limit: int | None = None) -> list[Example]:
    """Read the questions of a file in SQuAD v1.1 JSON, in its order.

    Args:
        path: The file.
        require_answers: Refuse questions without an answer, as scoring needs one.
        limit: Read only so many questions.

    Raises:
        DataError: The file cannot be read, is not JSON of this layout, or holds no question.
        InvalidInputError: `limit` is less than 1.
    """
    if limit is not None:
        require_int("limit", limit, 1)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    examples = list(islice(_examples(str(path), content, require_answers), limit))
    if not examples:
        raise DataError(f"{path} holds no question")
    return examples


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """100 if the prediction equals one of `answers` (at least one) by SQuAD's normalisation, else 0."""
    return 100.0 * (normalize(prediction) in map(normalize, answers))


def f1(prediction: str, answers: Sequence[str]) -> float:
    """Best F1 in percent between the words of the prediction and those of one of `answers` (at least one)."""
    return max(_f1(normalize(prediction).split(), normalize(answer).split()) for answer in answers)


def normalize(text: str) -> str:
    """Lower-case a text; drop ASCII punctuation, English articles and needless blanks: SQuAD v1.1's rule."""
    text = text.lower().translate(_WITHOUT_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _f1(predicted: list[str], expected: list[str]) -> float:
    common = (Counter(predicted) & Counter(expected)).total()
    return 200.0 * common / (len(predicted) + len(expected)) if common else 0.0


def _examples(place: str, content: object, require_answers: bool) -> Iterator[Example]:
    for article_place, article in _objects(place, content, "data"):
        for paragraph_place, paragraph in _objects(article_place, article, "paragraphs"):
            context = _text(paragraph_place, paragraph, "context")
            for question_place, question in _objects(paragraph_place, paragraph, "qas"):
                found: list[tuple[str, dict[str, object]]] = []
                if require_answers or "answers" in question:
                    found = list(_objects(question_place, question, "answers"))
                answers = tuple(_text(*answer, "text") for answer in found)
                if require_answers and not answers:
                    raise DataError(f"{question_place} has no answer, and scoring needs one")
                yield Example(
                    id=_text(question_place, question, "id"),
                    question=_text(question_place, question, "question"),
                    context=context,
                    answers=answers,
                    title=str(article.get("title", "")),
                    answer_starts=tuple(answer.get("answer_start") for _, answer in found),
                )


def _objects(place: str, node: object, key: str) -> Iterator[tuple[str, dict[str, object]]]:
    """List the objects in the list `node[key]`, each after its place in the file."""
    children = node.get(key) if isinstance(node, dict) else None
    if not isinstance(children, list):
        raise DataError(f"{place} has no list {key!r}, so this is not SQuAD v1.1 JSON")
    for i, child in enumerate(children):
        if not isinstance(child, dict):
            raise DataError(f"{place}, {key}[{i}] must be an object, not {child!r:.60}")
        yield f"{place}, {key}[{i}]", child


def _text(place: str, node: dict[str, object], key: str) -> str:
    text = node.get(key)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{place} has no text {key!r}")
    return text
