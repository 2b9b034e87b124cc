"""Read rankings: queries, each with its documents and how relevant they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeGuard

from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.errors import DataError
from dynamic_tinybert.runtime.common.json_records import Record, read_records, text_in

_LARGEST_GRADE = 1e30  # so that sums of grades are finite, also those of float32
_REFUSAL = "no file of rankings: JSON lines with 'query', 'documents' and 'relevant'"


@dataclass(frozen=True, slots=True)
class Ranking:
    """A query with the documents to rank.

    Attributes:
        id: Id in the file, or its number.
        query: The query.
        documents: The documents.
        grades: How relevant each document is; 0 is not relevant.
        group: Name of what the query belongs to, such as an article; empty if the file gives none.
    """

    id: str
    query: str
    documents: tuple[str, ...]
    grades: tuple[float, ...]
    group: str = ""


def read_rankings(path: str | Path, *, limit: int | None = None, judged: bool = True) -> list[Ranking]:
    """Read the rankings of a file.

    The file is JSON lines, plain or compressed by gzip. Each has a ``query``, a list ``documents``, and either
    ``relevant``, a list of indices of the relevant ones, or ``grades``, a number from 0 to 1e30 for each document;
    optionally ``id`` and ``group``. Documents that several rankings share may be in a first record of their own,
    ``{"corpus": [text, …]}``; ``documents`` are then indices in it.

    Args:
        path: The file.
        limit: Maximum number of rankings to read.
        judged: Refuse a ranking with neither ``relevant`` nor ``grades``; otherwise its grades are 0.

    Raises:
        DataError: The file cannot be read, a ranking has another form, or there is none.
        InvalidInputError: `limit` is less than 1.
    """
    if limit is not None:
        require_int("limit", limit, 1)
    records = read_records(path, key="query", refusal=_REFUSAL)
    corpus: list[object] = []
    rankings: list[Ranking] = []
    for place, record in records:
        if "corpus" in record:
            corpus = _list(place, record, "corpus")
            continue
        rankings.append(_ranking(place, record, corpus, len(rankings) + 1, judged))
        if len(rankings) == limit:
            break
    if not rankings:
        raise DataError(f"{path} holds no ranking")
    return rankings


def is_ranking_file(path: Path) -> bool:
    """Whether a file's first records have the form of rankings; False if it cannot be read as JSON."""
    if path.suffix.lower() not in (".jsonl", ".gz", ".json"):
        return False
    try:
        first = islice(read_records(path, key="query", refusal=_REFUSAL), 1)
        return any(
            isinstance(record.get("corpus"), list) or {"query", "documents"} <= record.keys() for _, record in first
        )
    except DataError:
        return False


def _ranking(place: str, record: Record, corpus: Sequence[object], number: int, judged: bool) -> Ranking:
    query = text_in(place, record, "query")
    documents = [_document(place, own, corpus) for own in _list(place, record, "documents")]
    if not documents:
        raise DataError(f"{place} has no documents")
    unjudged = not judged and not {"relevant", "grades"} & record.keys()
    grades = [0.0] * len(documents) if unjudged else _grades(place, record, len(documents))
    given, group = record.get("id"), record.get("group")
    return Ranking(
        str(number) if given is None else str(given),
        query,
        tuple(documents),
        tuple(grades),
        "" if group is None else str(group),
    )


def _document(place: str, given: object, corpus: Sequence[object]) -> str:
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < len(corpus):
        given = corpus[given]
    if not isinstance(given, str):
        what = f"a text or an index of the {len(corpus)} in 'corpus'" if corpus else "a text"
        raise DataError(f"{place}: a document must be {what}, not {given!r:.60}")
    return given


def _grades(place: str, record: Record, count: int) -> list[float]:
    if "grades" in record:
        given = _list(place, record, "grades")
        grades = [float(own) for own in given if _is_grade(own)]
        if len(given) != count or len(grades) != count:
            wrong = next((own for own in given if not _is_grade(own)), given)
            raise DataError(
                f"{place}: 'grades' must be {count} numbers of at least 0 and at most {_LARGEST_GRADE:g}, one for each "
                f"document, not {wrong!r:.60}"
            )
        return grades
    grades = [0.0] * count
    for index in _list(place, record, "relevant"):
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
            raise DataError(f"{place}: 'relevant' must hold indices of the {count} documents, not {index!r:.60}")
        grades[index] = 1.0
    return grades


def _is_grade(given: object) -> TypeGuard[float]:
    """Whether a value is a grade; NaN is none, and an int may be larger than any float."""
    return isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given <= _LARGEST_GRADE


def _list(place: str, record: Record, key: str) -> list[object]:
    given = record.get(key)
    if not isinstance(given, list):
        raise DataError(f"{place} has no list {key!r}")
    return given
