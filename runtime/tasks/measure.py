"""How a task's examples are read, turned into model inputs, run and scored.

Calibration goes through these protocols alone: it knows scores of examples, not what they are scores of. A task
implements `Measure`, `Scoring` and `Scored`, and `MEASURES` names its implementation.
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
"""An example of a task, which only the task itself looks into."""


class Finding(Protocol):
    """Something that is wrong with an example."""

    @property
    def id(self) -> str:
        """The id of the example."""

    @property
    def why(self) -> str:
        """What is wrong, in words."""


@dataclass(frozen=True)
class ReadExamples(Generic[E]):
    """The examples of a data file.

    Attributes:
        examples: Those that the model can read.
        findings: What is wrong with some of the file's examples, those included that the model cannot read.
        lines: The same in words, a line for each kind of finding.
    """

    examples: Sequence[E]
    findings: Sequence[Finding] = ()
    lines: Sequence[str] = ()


class Scored(Protocol):
    """What a run over some examples measured. A window is one input of the model; an example has at least one."""

    @property
    def scores(self) -> Sequence[float]:
        """Score of each example in points, 0 to 100; more is better."""

    @property
    def means(self) -> Mapping[str, float]:
        """The mean of each of the measure's `metrics`, by key."""

    @property
    def window_lengths(self) -> Sequence[int]:
        """Real tokens of each window, example by example."""

    @property
    def window_kept(self) -> Sequence[Sequence[int]]:
        """For each window, the tokens that each layer passed on."""

    @property
    def mean_macs(self) -> float:
        """Mean executed multiply-accumulates of a window."""

    @property
    def mean_kept(self) -> Sequence[float]:
        """For each layer, the mean tokens of a window that it passed on."""

    def latency_ms(self, percentile: float) -> float | None:
        """A percentile (0 to 100) of the examples' times, from text to result; None for a run in batches."""

    def join(self, others: Sequence[Self]) -> Self:
        """This run and others, over other examples with the same options, as one."""


class Scoring(Protocol[E]):
    """Examples with what they are scored against."""

    @property
    def examples(self) -> Sequence[E]:
        """The examples."""

    @property
    def scored_by(self) -> str:
        """What the scores compare with, in words: labels of the data, agreement with `full`, or both."""

    @property
    def lines(self) -> Sequence[str]:
        """What was decided before anything was scored, for people."""

    @property
    def manifest(self) -> Mapping[str, float]:
        """What the bundle's manifest is to record for the task, such as a threshold, by keyword of `write_manifest`."""

    def evaluate(
        self, model: LengthAdaptiveModel, length_config: LengthConfig, *, batch_size: int, span: slice = slice(None)
    ) -> Scored:
        """Run the examples of a span, by default all, and score them; the same call always gives the same scores.

        Args:
            model: The model.
            length_config: Which tokens each layer keeps.
            batch_size: Windows to run at once; only with 1 are there latencies.
            span: Which of the examples.
        """

    def for_reporting(self, model: LengthAdaptiveModel, examples: Sequence[E]) -> Scoring[E]:
        """The scoring of other examples, for figures to publish: by labels alone where there are any.

        Args:
            model: The model.
            examples: Examples that nothing was chosen on.
        """


class Measure(Protocol[E]):
    """How good a model is at a task."""

    @property
    def metrics(self) -> Mapping[str, str]:
        """Short names for people by key in the manifest; the first is the mean of the scores."""

    @property
    def examples(self) -> str:
        """What the task's examples are called, in the plural."""

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
        """What an example has in common with others, such as its article: one group is never split up."""

    def size_of(self, example: E) -> int:
        """Roughly how long an example is, so that batches can be made of examples of similar length."""

    def windows_of(self, example: E) -> Sequence[TokenSequence]:
        """The model inputs of an example; none if the model cannot read it."""

    def refuse_all(self, examples: str) -> DataError:
        """The error to raise when the model can read none of some examples, which `examples` describes."""

    def scoring(self, model: LengthAdaptiveModel, examples: Sequence[E]) -> Scoring[E]:
        """What examples are scored against when length configurations are chosen.

        Args:
            model: The model; where labels are missing, what it gives at `full` stands for them.
            examples: Examples that the model can read.
        """


def readable_windows(measure: Measure[E], examples: Iterable[E]) -> list[TokenSequence]:
    """All windows of the examples that the model can read."""
    return [window for example in examples for window in measure.windows_of(example)]


MEASURES: dict[str, str] = {
    "question_answering": "dynamic_tinybert.runtime.tasks.question_answering.measure:QuestionAnsweringMeasure.of",
}
"""For each task, "module:attribute" of a function that gives its `Measure` for a bundle."""


def measure_of(bundle: Bundle) -> Measure[Any]:
    """The measure of a bundle's task.

    Raises:
        InvalidInputError: The task has none.
    """
    task: str = bundle.task
    make: Callable[[Bundle], Measure[Any]] = entry_of(
        MEASURES,
        task,
        lambda known: InvalidInputError(f"there is no measure for the task {task!r}, only for {known}"),
    )
    return make(bundle)
