"""Classification as a measure of length configurations: accuracy, or agreement with `full`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.findings import Finding, refused, summary
from dynamic_tinybert.runtime.tasks.measure import ReadExamples, Wording

from .example import Example, group_of
from .findings import Kind
from .labels import Labels
from .scoring import TextScoring, metric_of
from .text_files import read_texts
from .tokens import TextTokenizer, TextTokens

TREATMENT = {
    Kind.UNREADABLE: "skipped",
    Kind.WITHOUT_LABEL: "scored by agreement with full",
    Kind.UNKNOWN_LABEL: "scored by agreement with full",
    Kind.CUT: "cut at the end of the longer text",
}
"""What a calibration does about each kind of problem with a text."""


class TextMeasure:
    """The `Measure` of sequence classification."""

    examples = "texts"
    groups = "groups"
    padded_length = None

    def __init__(self, tokenizer: TextTokenizer, labels: Labels) -> None:
        """Measure a model with these labels."""
        self._tokenize = tokenizer
        self.labels = labels

    @classmethod
    def of(cls, bundle: Bundle) -> TextMeasure:
        """The measure of a bundle.

        Raises:
            BundleCorruptError: The bundle's tokenizer cannot be read.
            BundleFormatError: The labels in config.json cannot be read.
        """
        return cls(TextTokenizer(bundle.tokenizer_json, bundle.max_length), Labels.of(bundle))

    @property
    def metrics(self) -> Mapping[str, str]:
        """Accuracy of classes and labels; closeness to `full` for a model with one output."""
        name = metric_of(self.labels)
        return {name: name}

    @property
    def wording(self) -> Wording:
        """Descriptions for reports."""
        score = "100 points are for the right label; of labels that go together, an equal part for each"
        chosen_by = (
            "It is accuracy by the labels of the data or, for texts without a label, the probability that full gives "
            "to the label that was found."
        )
        if self.labels.kind == "score":
            score = "100 points are for the output of full, fewer for others by the distance of their sigmoids"
            chosen_by = "It is closeness to the output of full; labels of the data do not count."
        return Wording(
            example="text",
            measured=f"Each text, or pair of texts, was run alone, cut to the model's length. {score}. The time of a "
            "text is from text to logits.",
            chosen_by=chosen_by,
        )

    def read(self, path: Path, *, strict: bool, limit: int | None = None) -> ReadExamples[Example]:
        """Read a file in one of the formats of `read_texts`. It may have no labels at all.

        Raises:
            DataError: The file cannot be read, holds no text that the model can read, or `strict` refuses a text.
        """
        examples, findings = read_texts(path, self.labels, limit=limit)
        total = len(examples) + sum(finding.kind == Kind.UNREADABLE for finding in findings)
        readable = []
        for example in examples:
            try:
                tokens = self._tokenize(example.text, example.text_pair, truncation=True)
            except InvalidInputError as error:
                findings.append(Finding(Kind.UNREADABLE, example.id, str(error)))
                continue
            if tokens.is_cut:
                findings.append(Finding(Kind.CUT, example.id, "its end is not read"))
            readable.append(example)
        treatment = dict(TREATMENT)
        if self.labels.kind == "score" or not any(example.label is not None for example in readable):
            del treatment[Kind.WITHOUT_LABEL]
        unknown = {finding.id for finding in findings if finding.kind == Kind.UNKNOWN_LABEL}
        findings += [
            Finding(Kind.WITHOUT_LABEL, example.id, "it has no label")
            for example in readable
            if example.label is None and example.id not in unknown
        ]
        findings = [finding for finding in findings if finding.kind in treatment]
        faults = [finding for finding in findings if finding.kind != Kind.CUT]
        if strict and faults:
            raise refused(faults[0], self.examples, path.name)
        if not readable:
            raise DataError(f"{path} holds no text that can be read; {findings[0]}")
        return ReadExamples(readable, findings, summary(findings, total, treatment, self.examples, path.name))

    def group_of(self, example: Example) -> str:
        """The group that the file names, or the first text."""
        return group_of(example)

    def size_of(self, example: Example) -> int:
        """Characters of both texts."""
        return len(example.text) + len(example.text_pair or "")

    def tokens_of(self, example: Example) -> TextTokens:
        """The tokens of an example, cut to the model's length."""
        return self._tokenize(example.text, example.text_pair, truncation=True)

    def windows_of(self, example: Example) -> list[TextTokens]:
        """The one input of an example."""
        return [self.tokens_of(example)]

    def refuse_all(self, examples: str) -> DataError:
        """The error to raise if the model cannot read any of some examples."""
        return DataError(f"the model cannot read {examples}: they hold no token")

    def scoring(self, model: LengthAdaptiveModel, examples: Sequence[Example]) -> TextScoring:
        """Score by the data's labels, and by agreement with `full` where there are none."""
        return TextScoring.of(model, examples, self.labels, self.tokens_of)
