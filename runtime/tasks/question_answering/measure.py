"""Question answering as a measure of length configurations: SQuAD's F1, or agreement with `full`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.common.errors import DataError
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.measure import ReadExamples, Wording
from dynamic_tinybert.runtime.tasks.windows import Window

from .example import Example, article_of
from .findings import EXAMPLES, Kind
from .gold_answers import GoldAnswers, gold_answers
from .question_checks import check_questions
from .squad_files import read_squad
from .windowing import Windowing

TREATMENT = {
    Kind.UNREADABLE: "skipped",
    Kind.WITHOUT_ANSWER: "scored by agreement with full",
    Kind.MISPLACED: "scored by its text if the context holds it, else by agreement with full",
    Kind.PUT_RIGHT: "corrected",
    Kind.SAME_ID: "used like any other",
}
"""What a calibration does about each kind of problem with a question."""


class QuestionAnsweringMeasure:
    """The `Measure` of question answering."""

    metrics = MappingProxyType({"f1": "F1", "exact_match": "EM"})
    examples = EXAMPLES
    groups = "articles"

    def __init__(self, windowing: Windowing) -> None:
        """Measure with windows that `windowing` cuts."""
        self._windowing = windowing

    @property
    def wording(self) -> Wording:
        """Descriptions for reports."""
        size, stride = self._windowing.max_seq_len, self._windowing.doc_stride
        return Wording(
            example="question",
            measured=f"Each question was answered alone, in windows of up to {size} tokens that share {stride}, and "
            "scored by SQuAD's rules. Its time is from text to answer: tokenisation, all its windows, the best span.",
            chosen_by="It is the mean of F1 against the annotated answers and the expected F1 under the answer "
            "distribution of full; for questions without annotated answers, it is the latter alone.",
        )

    @property
    def padded_length(self) -> int:
        """The length of a full window."""
        return self._windowing.max_seq_len

    @classmethod
    def of(cls, bundle: Bundle) -> QuestionAnsweringMeasure:
        """The measure of a bundle, with windows of the default sizes.

        Raises:
            BundleCorruptError: The bundle's tokenizer cannot be read.
        """
        return cls(Windowing.of(bundle))

    def read(self, path: Path, *, strict: bool) -> ReadExamples[Example]:
        """Read a file in one of the formats of `read_squad`. It may have no answers at all.

        Raises:
            DataError: The file cannot be read, or `strict` refuses a question.
        """
        examples = read_squad(path)
        treatment = dict(TREATMENT)
        if not any(example.answers or example.is_impossible for example in examples):
            del treatment[Kind.WITHOUT_ANSWER]
        checked = check_questions(examples, treatment, self._windowing, name=path.name, strict=strict)
        return ReadExamples(list(map(_with_found_answers, checked.readable)), checked.findings, checked.lines)

    def group_of(self, example: Example) -> str:
        """The article."""
        return article_of(example)

    def size_of(self, example: Example) -> int:
        """Characters of question and context."""
        return len(example.question) + len(example.context)

    def windows_of(self, example: Example) -> list[Window]:
        """All windows of a question; none if the model cannot read it."""
        return self._windowing(example)

    def refuse_all(self, examples: str) -> DataError:
        """The error to raise if the model cannot read any of some questions; it gives the reason for one of them."""
        return self._windowing.refuse_all(examples)

    def scoring(self, model: LengthAdaptiveModel, examples: Sequence[Example]) -> GoldAnswers:
        """Score by the data's answers, and by those of `full` as soft labels."""
        return gold_answers(model, examples, to_choose=True)


def _with_found_answers(example: Example) -> Example:
    """The question without answers that its context does not contain, because no model can give them."""
    there = [i for i, answer in enumerate(example.answers) if answer in example.context]
    if len(there) == len(example.answers):
        return example
    answers, starts = ([column[i] for i in there] for column in (example.answers, example.answer_starts))
    return replace(example, answers=tuple(map(str, answers)), answer_starts=tuple(starts))
