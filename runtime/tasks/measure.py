"""How a task's examples are read, turned into model inputs, run and scored.

Calibration only uses these protocols: it sees a score for each example, but not what is scored. A task implements
`Measure`, `Scoring` and `Scored`, and `MEASURES` names its implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

from dynamic_tinybert.runtime.batches import TokenSequence
from dynamic_tinybert.runtime.common.errors import DataError, InvalidInputError

from . import entry_of

if TYPE_CHECKING:
    from dynamic_tinybert.runtime.bundles.bundle import Bundle
    from dynamic_tinybert.runtime.length_config import LengthConfig
    from dynamic_tinybert.runtime.model import LengthAdaptiveModel

E = TypeVar("E")
"""Type of a task's examples, whose contents only the task itself uses."""


class Finding(Protocol):
    """A problem with an example."""

    @property
    def id(self) -> str:
        """The id of the example."""

    @property
    def why(self) -> str:
        """Description of the problem."""


@dataclass(frozen=True)
class Wording:
    """How a measure is described in reports.

    Attributes:
        example: What one of the examples is called.
        measured: Sentences about how an example is run, timed and scored for published figures.
        chosen_by: Sentences about the score that length configurations are chosen by.
    """

    example: str
    measured: str
    chosen_by: str


@dataclass(frozen=True)
class ReadExamples(Generic[E]):
    """The examples of a data file.

    Attributes:
        examples: The examples that the model can read.
        findings: Problems with examples of the file, including those that the model cannot read.
        lines: A summary to print, with a line for each kind of finding.
    """

    examples: Sequence[E]
    findings: Sequence[Finding] = ()
    lines: Sequence[str] = ()


class Scored(Protocol):
    """The measurements of a run over some examples. A window is one input of the model; an example has at least one."""

    @property
    def scores(self) -> Sequence[float]:
        """Score of each example in points, 0 to 100; more is better."""

    @property
    def means(self) -> Mapping[str, float]:
        """The mean of each of the measure's `metrics`, by the metric's key."""

    @property
    def window_lengths(self) -> Sequence[int]:
        """Number of real tokens of each window, example by example."""

    @property
    def window_kept(self) -> Sequence[Sequence[int]]:
        """For each window, the number of tokens that each layer passed on."""

    @property
    def mean_macs(self) -> float:
        """Mean executed multiply-accumulates of a window."""

    @property
    def mean_kept(self) -> Sequence[float]:
        """For each layer, the mean number of tokens of a window that it passed on."""

    @property
    def example_ms(self) -> Sequence[float]:
        """The time of each example from text to result, in milliseconds; empty for a run in batches."""

    def latency_ms(self, percentile: float) -> float | None:
        """A percentile (0 to 100) of the examples' times; None for a run in batches."""

    def join(self, others: Sequence[Self]) -> Self:
        """Join this run and others, over other examples with the same options, into one."""


class Scoring(Protocol[E]):
    """Examples together with the labels that they are scored against."""

    @property
    def examples(self) -> Sequence[E]:
        """The examples."""

    @property
    def scored_by(self) -> str:
        """Description of the labels: labels of the data, agreement with `full`, or both."""

    @property
    def lines(self) -> Sequence[str]:
        """Messages to print about what was decided before scoring, such as a threshold."""

    @property
    def manifest(self) -> Mapping[str, float]:
        """Values to record in the bundle's manifest, such as a threshold, by keyword argument of `write_manifest`."""

    def evaluate(
        self, model: LengthAdaptiveModel, length_config: LengthConfig, *, batch_size: int, span: slice = slice(None)
    ) -> Scored:
        """Run the examples of a span, by default all, and score them; the same call always gives the same scores.

        Args:
            model: The model.
            length_config: Which tokens each layer keeps.
            batch_size: Windows to run at once; latencies are measured with 1 only.
            span: The examples to run.
        """

    def for_reporting(self, model: LengthAdaptiveModel, examples: Sequence[E]) -> Scoring[E]:
        """The scoring of other examples for published figures, by the data's labels alone where there are any.

        Args:
            model: The model.
            examples: Examples that were not used for any choice.
        """


class Measure(Protocol[E]):
    """How the quality of models at a task is measured."""

    @property
    def metrics(self) -> Mapping[str, str]:
        """Short names to print, by key in the manifest. The first metric is the mean of the scores."""

    @property
    def examples(self) -> str:
        """What the task's examples are called, in the plural."""

    @property
    def wording(self) -> Wording:
        """Descriptions for reports."""

    @property
    def padded_length(self) -> int | None:
        """Tokens of a window to which models without our runtime pad; None for those of the longest window."""

    @property
    def groups(self) -> str:
        """What the groups of `group_of` are called, in the plural."""

    def read(self, path: Path, *, strict: bool) -> ReadExamples[E]:
        """Read the examples of a file.

        Args:
            path: The file.
            strict: Refuse the file if anything is wrong with one of its examples.

        Raises:
            DataError: The file cannot be read, or `strict` refuses an example.
        """

    def group_of(self, example: E) -> str:
        """Name of the group of an example, such as its article. Data is split between groups, never within one."""

    def size_of(self, example: E) -> int:
        """Roughly how long an example is, so that batches can be made of examples of similar length."""

    def windows_of(self, example: E) -> Sequence[TokenSequence]:
        """The model inputs of an example; none if the model cannot read it."""

    def refuse_all(self, examples: str) -> DataError:
        """The error to raise if the model cannot read any of some examples.

        Args:
            examples: Description of these examples; it completes "the model cannot read …".
        """

    def scoring(self, model: LengthAdaptiveModel, examples: Sequence[E]) -> Scoring[E]:
        """The scoring by which length configurations are chosen.

        Args:
            model: The model; its outputs at `full` take the place of missing labels.
            examples: Examples that the model can read.
        """


def readable_windows(measure: Measure[E], examples: Iterable[E]) -> list[TokenSequence]:
    """All windows of the examples that the model can read."""
    return [window for example in examples for window in measure.windows_of(example)]


MEASURES: dict[str, str] = {
    "question_answering": "dynamic_tinybert.runtime.tasks.question_answering.measure:QuestionAnsweringMeasure.of",
    "sequence_classification": "dynamic_tinybert.runtime.tasks.sequence_classification.measure:TextMeasure.of",
}
"""For each task, `module:attribute` of a function that returns its `Measure` for a bundle."""


def measure_of(bundle: Bundle) -> Measure[Any]:
    """The measure of a bundle's task.

    Raises:
        InvalidInputError: The task has no measure.
    """
    task: str = bundle.task
    make: Callable[[Bundle], Measure[Any]] = entry_of(
        MEASURES,
        task,
        lambda known: InvalidInputError(f"there is no measure for the task {task!r}, only for {known}"),
    )
    return make(bundle)
