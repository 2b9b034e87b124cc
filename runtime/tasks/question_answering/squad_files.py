"""Read questions in SQuAD's formats: its own JSON, and the rows that `datasets` and transformers' scripts write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.errors import DataError
from dynamic_tinybert.runtime.common.json_records import Record, objects_in, read_records, text_in

from .example import Example

_REFUSAL = "neither SQuAD JSON nor rows of questions"


def read_squad(path: str | Path, *, require_answers: bool = False, limit: int | None = None) -> list[Example]:
    """Read the questions of a file, in the order of the file.

    The file is JSON in UTF-8, with or without a byte-order mark, plain or compressed by gzip. It contains either

    - SQuAD v1.1 or v2: ``{"data": [{"title", "paragraphs": [{"context", "qas": [question, …]}, …]}, …]}``; or
    - rows: questions that each have a ``context`` and optionally a ``title``, in a list, in a list under ``data``, or
      one per line (JSON lines).

    A question has a ``question``, an ``id`` (text or an integer; a missing one is generated from the question's number
    in the file), and ``answers``: a list of ``{"text", "answer_start"}``, or columns ``{"text": […],
    "answer_start": […]}``. Blank texts are not answers. A question is unanswerable if ``is_impossible`` is true, or if
    ``is_impossible`` is missing and the columns contain no answer, as `datasets` writes SQuAD v2. Questions with the
    same id are all read, and so are blank questions and questions with a blank context.

    Args:
        path: The file.
        require_answers: Refuse questions without an answer.
        limit: Maximum number of questions to read.

    Raises:
        DataError: The file cannot be read, is not JSON in one of these formats, or contains no question.
        InvalidInputError: `limit` is less than 1.
    """
    if limit is not None:
        require_int("limit", limit, 1)
    records = read_records(path, key="question", refusal=_REFUSAL)
    examples = list(islice(_examples(records, require_answers), limit))
    if not examples:
        raise DataError(f"{path} holds no question")
    return _with_ids(examples)


def _examples(records: Iterator[tuple[str, Record]], require_answers: bool) -> Iterator[Example]:
    for place, record in records:
        if "paragraphs" in record:
            for paragraph_place, paragraph in objects_in(place, record, "paragraphs", refusal=_REFUSAL):
                context = text_in(paragraph_place, paragraph, "context")
                for question_place, question in objects_in(paragraph_place, paragraph, "qas", refusal=_REFUSAL):
                    yield _example(question_place, question, context, record.get("title"), require_answers)
        elif "context" in record:
            yield _example(place, record, text_in(place, record, "context"), record.get("title"), require_answers)
        else:
            raise DataError(
                f"{place} has no list 'paragraphs', as articles of SQuAD have, and no 'context', as rows of questions "
                "have"
            )


def _example(place: str, question: Record, context: str, title: object, require_answers: bool) -> Example:
    text = text_in(place, question, "question")
    answers, starts = _answers(place, question)
    given = question.get("is_impossible")
    if given is not None and not isinstance(given, bool):
        raise DataError(f"{place}: is_impossible must be true or false, not {given!r:.60}")
    if require_answers and not answers:
        raise DataError(f"{place} has no answer, and scoring needs one")
    return Example(
        id=_id(place, question.get("id")),
        question=text,
        context=context,
        answers=answers,
        title="" if title is None else str(title),
        answer_starts=starts,
        is_impossible=not answers and isinstance(question.get("answers"), dict) if given is None else given,
    )


def _answers(place: str, question: Record) -> tuple[tuple[str, ...], tuple[object, ...]]:
    """The texts of the answers and their starts, from a list of answers or from columns, without blank ones."""
    answers = question.get("answers")
    if answers is None:
        return (), ()
    if isinstance(answers, dict):
        texts = answers.get("text")
        starts = answers.get("answer_start")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise DataError(f"{place}: the column 'text' of its answers must be a list of texts, not {texts!r:.60}")
        if starts is None:
            starts = [None] * len(texts)
        if not isinstance(starts, list) or len(starts) != len(texts):
            raise DataError(
                f"{place}: the column 'answer_start' of its answers must be a list of {len(texts)} numbers, as 'text' "
                f"has, not {starts!r:.60}"
            )
    else:
        found = list(objects_in(place, question, "answers", refusal=_REFUSAL))
        texts = [text_in(*answer, "text") for answer in found]
        starts = [answer.get("answer_start") for _, answer in found]
    kept = [i for i, text in enumerate(texts) if text.strip()]
    return tuple(texts[i] for i in kept), tuple(starts[i] for i in kept)


def _id(place: str, given: object) -> str:
    """The id as text; empty if there is none."""
    if given is None:
        return ""
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise DataError(f"{place}: its id must be text or an integer, not {given!r:.60}")
    return str(given) if str(given).strip() else ""


def _with_ids(examples: list[Example]) -> list[Example]:
    """Generate missing ids: ``#`` and the number of the question, with further ``#`` if that id is taken."""
    taken = {example.id for example in examples}
    for i, example in enumerate(examples):
        if not example.id:
            new_id = f"#{i + 1}"
            while new_id in taken:
                new_id = f"#{new_id}"
            taken.add(new_id)
            examples[i] = replace(example, id=new_id)
    return examples
