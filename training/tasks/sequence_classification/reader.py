"""Read labelled texts and rankings for trainings; turn them into rows, and into inputs that models are measured on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError
from dynamic_tinybert.runtime.tasks.findings import Finding, refused, summary
from dynamic_tinybert.runtime.tasks.measure import ReadExamples
from dynamic_tinybert.runtime.tasks.sequence_classification.example import Example, Label
from dynamic_tinybert.runtime.tasks.sequence_classification.findings import Kind
from dynamic_tinybert.runtime.tasks.sequence_classification.labels import Labels
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_files import (
    Ranking,
    is_ranking_file,
    read_rankings,
)
from dynamic_tinybert.runtime.tasks.sequence_classification.text_files import read_texts
from dynamic_tinybert.runtime.tasks.sequence_classification.tokens import TextTokenizer
from dynamic_tinybert.training.batches import Label as RowLabel
from dynamic_tinybert.training.batches import TrainingRow

from .examples import GradedDocuments, LabelledText, TextInput, TrainingExample
from .losses import CLASS, GRADE, HOLDS, NUMBER, PROBABILITY
from .scored import ScoredTexts

_TREATMENT = {
    Kind.UNREADABLE: "skipped",
    Kind.WITHOUT_LABEL: "skipped",
    Kind.UNKNOWN_LABEL: "skipped",
    Kind.CUT: "cut at the end of the longer text",
}

_Read = tuple[TrainingExample | None, list[Finding]]
"""An example, or None if it is skipped, and what is wrong with it."""


class TextReader:
    """Reads labelled texts and rankings; see `Reader`.

    Args:
        tokenizer: The tokenizer of the model.
        labels: The labels of the model.
        max_length: Longest input of the model in tokens.
        max_seq_len: Longest row in tokens; None for what the model reads.

    Raises:
        InvalidInputError: `max_seq_len` is more than `max_length`, or less than 8.
    """

    def __init__(self, tokenizer: Tokenizer, labels: Labels, max_length: int, max_seq_len: int | None) -> None:
        longest = max_length if max_seq_len is None else require_int("max_seq_len", max_seq_len, 8)
        if longest > max_length:
            raise InvalidInputError(f"max_seq_len is {longest}, but the model reads at most {max_length} tokens")
        self._tokenize = TextTokenizer(tokenizer, longest)
        self._labels = labels

    def read_training(self, path: str | Path, limit: int | None, *, strict: bool) -> ReadExamples[TrainingExample]:
        """Read rankings, or texts with labels, in a form of `read_rankings` or `read_texts`.

        Texts without a label of the model, and queries without a relevant document, are skipped.
        """
        path = Path(path)
        if is_ranking_file(path):
            if self._labels.kind != "score":
                raise InvalidInputError(
                    f"{path} holds rankings, and this model has {len(self._labels)} outputs; a ranking needs one score"
                )
            rankings = read_rankings(path, limit=limit)
            read: list[_Read] = [self._graded(ranking) for ranking in rankings]
            documents = sum(len(ranking.documents) for ranking in rankings)
            return _checked(path, read, [], documents, strict=strict)
        texts, findings = read_texts(path, self._labels, limit=limit)
        unknown = {finding.id for finding in findings if finding.kind == Kind.UNKNOWN_LABEL}
        read = [self._labelled(text) for text in texts if text.id not in unknown]
        total = len(texts) + sum(finding.kind == Kind.UNREADABLE for finding in findings)
        return _checked(path, read, findings, total, strict=strict)

    def read_scored(self, path: str | Path, limit: int | None, *, strict: bool) -> ReadExamples[TrainingExample]:
        """As `read_training`: only texts with labels, and rankings, can be scored."""
        return self.read_training(path, limit, strict=strict)

    def rows(self, examples: Sequence[TrainingExample]) -> list[TrainingRow]:
        """A row for each text; the documents of a query are a group of rows."""
        rows = []
        for number, example in enumerate(examples):
            if isinstance(example, GradedDocuments):
                rows += [
                    TrainingRow(own.ids, own.second_segment, {GRADE: grade}, number)
                    for own, grade in zip(example.inputs, example.grades, strict=True)
                ]
            else:
                name, label = self._label_of_row(example.label)
                rows += [TrainingRow(own.ids, own.second_segment, {name: label}) for own in example.inputs]
        return rows

    def scored_inputs(self, scored: Sequence[TrainingExample]) -> ScoredTexts:
        """Texts and rankings with what is right."""
        return ScoredTexts(scored, self._labels)

    def inputs(self, examples: Sequence[TrainingExample]) -> list[TextInput]:
        """All inputs of the examples."""
        return [own for example in examples for own in example.inputs]

    def _label_of_row(self, label: Label) -> tuple[str, RowLabel]:
        """The name that the losses know a label by, and the label itself."""
        if isinstance(label, frozenset):
            return HOLDS, tuple(float(i in label) for i in range(len(self._labels)))
        if self._labels.kind == "classes":
            return CLASS, int(label)
        return (NUMBER if self._labels.problem_type == "regression" else PROBABILITY), float(label)

    def _labelled(self, text: Example) -> tuple[LabelledText | None, list[Finding]]:
        """A text with its label, or None, and what is wrong with it."""
        if text.label is None:
            return None, [Finding(Kind.WITHOUT_LABEL, text.id, "it has no label")]
        name, value = self._label_of_row(text.label)
        if name == PROBABILITY and not (isinstance(value, float) and 0 <= value <= 1):
            why = f"the label {value:g} is not from 0 to 1, as a model needs whose problem_type is not regression"
            return None, [Finding(Kind.UNKNOWN_LABEL, text.id, why)]
        found, findings = self._tokenized(text.id, text.text, text.text_pair)
        return None if found is None else LabelledText([found], text.label), findings

    def _graded(self, ranking: Ranking) -> tuple[GradedDocuments | None, list[Finding]]:
        """A query with the documents that can be read, or None, and what is wrong with it."""
        inputs, grades, findings = [], [], []
        highest = max(1.0, *ranking.grades)
        for document, grade in zip(ranking.documents, ranking.grades, strict=True):
            found, own = self._tokenized(ranking.id, ranking.query, document)
            findings += own
            if found is not None:
                inputs.append(found)
                grades.append(grade / highest)
        if inputs and not any(grades):
            return None, [*findings, Finding(Kind.WITHOUT_LABEL, ranking.id, "it has no relevant document")]
        return GradedDocuments(inputs, grades) if inputs else None, findings

    def _tokenized(self, place: str, text: str, text_pair: str | None) -> tuple[TextInput | None, list[Finding]]:
        try:
            tokens = self._tokenize(text, text_pair, truncation=True)
        except InvalidInputError as error:
            return None, [Finding(Kind.UNREADABLE, place, str(error))]
        return TextInput.of(tokens), [Finding(Kind.CUT, place, "its end is not read")] if tokens.is_cut else []


def _checked(
    path: Path,
    read: Sequence[_Read],
    findings: Sequence[Finding],
    total: int,
    *,
    strict: bool,
) -> ReadExamples[TrainingExample]:
    """What was read, with all findings; an error if nothing is left, or if `strict` refuses a fault."""
    examples = [example for example, _ in read if example is not None]
    findings = [*findings, *(finding for _, own in read for finding in own)]
    faults = [finding for finding in findings if finding.kind != Kind.CUT]
    if strict and faults:
        raise refused(faults[0], "texts", path.name)
    if not examples:
        raise DataError(f"{path.name} holds no text with a label to train on or to score; {faults[0]}")
    return ReadExamples(examples, findings, summary(findings, total, _TREATMENT, "texts", path.name))
