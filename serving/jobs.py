"""What the process that runs the model can be asked to do, and what it gives back. All of it can be pickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, overload

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.tasks.question_answering.plan import Answered
from dynamic_tinybert.runtime.tasks.sequence_classification.classifier import LabelScore
from dynamic_tinybert.runtime.tasks.sequence_classification.reranker import RankedDocument

from .usage import Computed


@dataclass(frozen=True, slots=True)
class AnswerJob:
    """Answer questions as one request; the result is `Answered`.

    Attributes:
        questions: The questions, at least one.
        contexts: The text to answer each of them from.
        options: Options of `QuestionAnswerer.answer_batch` by name, those left out that were not given.
        arrived: Time of `time.monotonic`, which all processes of a machine share, at which the time of a budget began;
            None for when the model's process gets the job.
    """

    questions: tuple[str, ...]
    contexts: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    arrived: float | None = None


@dataclass(frozen=True, slots=True)
class ClassifyJob:
    """Classify texts as one request; the result is the labels of each text, best first, as `Classified`.

    Attributes:
        texts: The texts, each alone or with its second text, at least one.
        options: Options of `TextClassifier.classify_batch` by name, those left out that were not given.
    """

    texts: tuple[tuple[str] | tuple[str, str], ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RankJob:
    """Rank documents for a query; the result is the documents, best first, as `Ranked`.

    Attributes:
        query: The query.
        documents: The documents, at least one.
        raw_scores: Whether scores are logits; otherwise they are sigmoids of these.
        options: Options of `Reranker.rank` by name, those left out that were not given.
    """

    query: str
    documents: tuple[str, ...]
    raw_scores: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


Classified = Computed[list[list[LabelScore]]]
"""For each text its labels, best first."""

Ranked = Computed[list[RankedDocument]]
"""The documents, best first."""


@dataclass(frozen=True, slots=True)
class LogitsJob:
    """Run the model on token ids; the result is `Logits`.

    Attributes:
        input_ids: Token ids, int64 [B, L].
        attention_mask: 1 for real tokens, 0 for padding, int64 [B, L]; None if all are real.
        token_type_ids: Segment of each token, int64 [B, L]; None for 0 everywhere.
        length_config: Which tokens each layer keeps: a name, keep ratios, or None for the bundle's default.
    """

    input_ids: npt.NDArray[np.int64]
    attention_mask: npt.NDArray[np.int64] | None = None
    token_type_ids: npt.NDArray[np.int64] | None = None
    length_config: str | tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Logits:
    """The model's outputs for a batch.

    Attributes:
        outputs: The outputs of the model's task by name, float32: for question answering `start_logits` and
            `end_logits`, [B, L]; for sequence classification `logits`, [B, labels].
        length_config: Name of the length configuration that ran; None if it has no name.
        tokens: Number of real tokens.
        kept: For each layer, the number of these tokens that it passed on.
    """

    outputs: Mapping[str, npt.NDArray[np.float32]]
    length_config: str | None
    tokens: int
    kept: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ExplainJob:
    """Answer a question and say what each layer dropped; the result is that of `Explanation.to_dict`.

    Attributes:
        question: The question.
        context: The text to answer from.
        length_config: Name of a length configuration in the bundle, or None for its default.
    """

    question: str
    context: str
    length_config: str | None = None


Job = AnswerJob | ClassifyJob | RankJob | LogitsJob | ExplainJob
Result = Answered | Classified | Ranked | Logits | dict[str, Any]
"""What the jobs give."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a server says about its model.

    Attributes:
        name: Name of the model, as clients call it.
        version: Version of the model, as clients call it: "1".
        task: Name of its task, as in the bundle's manifest.
        labels: Names of the outputs of a classifier, in their order; empty for other tasks.
        max_length: Maximum length of an input in tokens.
        vocab_size: Token ids are below this.
        num_layers: Layers of the encoder.
        length_configs: The bundle's length configurations by name, with what calibration measured of each.
        default_length_config: The name of that which runs when nothing is asked for.
        quantization: The bundle's.
        cpu: The CPU's name.
        kernels: The kernels that run on it.
        threads: Number of CPU threads that a call uses.
        versions: Versions of this package and of OpenVINO.
    """

    name: str
    version: str
    task: str
    labels: tuple[str, ...]
    max_length: int
    vocab_size: int
    num_layers: int
    length_configs: Mapping[str, Mapping[str, Any]]
    default_length_config: str
    quantization: Mapping[str, Any]
    cpu: str
    kernels: str
    threads: int
    versions: Mapping[str, str]


class Backend(Protocol):
    """Runs jobs, somewhere else than in the event loop that asks for them."""

    @property
    def facts(self) -> ModelFacts | None:
        """What the model is; None before it is loaded."""

    @property
    def ready(self) -> bool:
        """Whether jobs are taken and would be run at once if nothing were waiting."""

    @property
    def draining(self) -> bool:
        """Whether `aclose` was called."""

    @property
    def queued(self) -> int:
        """Number of jobs that wait."""

    @property
    def running(self) -> int:
        """Number of jobs that are being run."""

    @property
    def restarts(self) -> Mapping[Any, int]:
        """How many processes that run the model were replaced, by cause."""

    @overload
    async def run(self, job: AnswerJob, *, deadline: float | None = None) -> Answered: ...

    @overload
    async def run(self, job: ClassifyJob, *, deadline: float | None = None) -> Classified: ...

    @overload
    async def run(self, job: RankJob, *, deadline: float | None = None) -> Ranked: ...

    @overload
    async def run(self, job: LogitsJob, *, deadline: float | None = None) -> Logits: ...

    @overload
    async def run(self, job: ExplainJob, *, deadline: float | None = None) -> dict[str, Any]: ...

    async def run(self, job: Job, *, deadline: float | None = None) -> Result:
        """Run a job. Cancelling the awaiting task gives up the job and frees its place.

        Args:
            job: What to do.
            deadline: Time of `time.monotonic` by which the result is wanted; None for any time.

        Raises:
            OverloadedError: As many jobs wait as are accepted.
            DeadlineExceededError: There was no result by the deadline.
            ClosedError: `aclose` was called.
            StartingError: The model is not loaded yet.
            WorkerLostError: The process that ran the job ended, and so did the one that tried it again.
            DynamicTinyBertError: What the model's own methods raise for this input.
        """

    async def aclose(self) -> None:
        """Refuse new jobs, finish the accepted ones, and end."""
