"""Answer questions about texts, with the interface of transformers' question-answering pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack, overload

from dynamic_tinybert.runtime.latency_table import LatencyTable
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel

from .answers import Answer, in_pipeline_shape
from .budgets import Budgets
from .call_options import CallOptions, Pair
from .options import AnswerOptions, Merge
from .pairs import given_once, question_context_pairs
from .plan import AnswerPlan
from .windowing import Windowing, cut_all


class QuestionAnswerer:
    """Answers questions with a model. Like the model, it is thread-safe, fork-safe and picklable."""

    def __init__(self, model: LengthAdaptiveModel) -> None:
        """Answer with a loaded model."""
        self.model = model
        self._windowing = Windowing.of(model)
        self.budgets = Budgets(model, self._windowing)

    def __reduce__(self) -> tuple[type[QuestionAnswerer], tuple[LengthAdaptiveModel]]:
        return type(self), (self.model,)

    @classmethod
    def from_pretrained(
        cls,
        id_or_path: str | Path | None = None,
        **options: Any,  # noqa: ANN401 - listed and checked by LengthAdaptiveModel.from_pretrained
    ) -> QuestionAnswerer:
        """Load a bundle; arguments and errors are those of `LengthAdaptiveModel.from_pretrained`."""
        return cls(LengthAdaptiveModel.from_pretrained(id_or_path, **options))

    def answer_batch(
        self,
        questions: str | Iterable[str] | Pair | Iterable[Pair],
        contexts: str | Iterable[str] | None = None,
        *,
        top_k: int | None = None,
        doc_stride: int | None = None,
        max_answer_len: int | None = None,
        max_seq_len: int | None = None,
        handle_impossible_answer: bool | None = None,
        align_to_words: bool | None = None,
        merge: Merge | None = None,
        length_config: str | LengthConfig | Sequence[float] | None = None,
        batch_size: int | None = None,
        compete: bool | None = None,
        budget_ms: float | None = None,
        max_f1_loss: float | None = None,
    ) -> list[list[Answer]]:
        """Answer questions. The result always has the same shape, whatever their number and `top_k`.

        Args:
            questions: The questions (list, tuple, array or other iterable), or mappings with the keys ``question`` and
                ``context``. A single one is a batch of one.
            contexts: The text to answer from: one for all questions, or one for each. None if `questions` are mappings.
            top_k: Maximum number of answers to each question, 1 by default.
            doc_stride: Number of context tokens that neighbouring windows share. All options are described in full in
                `__call__`.
            max_answer_len: Maximum length of an answer in tokens.
            max_seq_len: Maximum length of a window in tokens.
            handle_impossible_answer: Let the empty answer compete.
            align_to_words: Widen answers to whole words.
            merge: Which answers count as the same one.
            length_config: Which tokens each layer keeps.
            batch_size: Maximum number of windows that run at once.
            compete: Let the windows of a long context compete.
            budget_ms: Milliseconds for the whole call.
            max_f1_loss: Most points of F1 that may be lost.

        Returns:
            For each question, in order, a list of its answers, best first.

        Raises:
            InvalidInputError: As for `__call__`.
            LengthConfigError: Unknown or unfitting length configuration.
        """
        plan = self.plan(
            questions,
            contexts,
            length_config=length_config,
            budget_ms=budget_ms,
            max_f1_loss=max_f1_loss,
            top_k=top_k,
            max_answer_len=max_answer_len,
            max_seq_len=max_seq_len,
            doc_stride=doc_stride,
            handle_impossible_answer=handle_impossible_answer,
            align_to_words=align_to_words,
            merge=merge,
            batch_size=batch_size,
            compete=compete,
        )
        return plan.run(self.model)

    def plan(
        self,
        questions: str | Iterable[str] | Pair | Iterable[Pair],
        contexts: str | Iterable[str] | None = None,
        *,
        length_config: str | LengthConfig | Sequence[float] | None = None,
        budget_ms: float | None = None,
        max_f1_loss: float | None = None,
        arrived: float | None = None,
        **options: Any,  # noqa: ANN401 - listed and checked by AnswerOptions.for_model
    ) -> AnswerPlan:
        """Check the arguments of `answer_batch` and cut the questions into windows, but run nothing; same errors.

        `arrived` is the time of `time.monotonic` at which the time of a budget began; None for now.
        """
        chosen = AnswerOptions.for_model(self.model.max_length, **options)
        budgeted = self.budgets.begin(budget_ms, max_f1_loss, length_config, arrived)
        pairs = question_context_pairs(questions, contexts)
        windows = cut_all(self._windowing.resized(chosen.max_seq_len, chosen.doc_stride), pairs)
        texts = [context for _, context in pairs]
        return AnswerPlan(texts, windows, chosen, length_config, self.model.bundle.no_answer_threshold, budgeted)

    def latency_table(self, cache_dir: str | Path | None = None) -> LatencyTable:
        """Measure what the bundle's length configurations take on this CPU, or load what was measured before.

        The first call with a budget does this by itself, in up to 3 s; a service calls it before it serves, while
        nothing else runs. `docs/budgets.md` says how times are measured and where they are kept.

        Args:
            cache_dir: Folder to keep tables in, or "off"; None for that of the environment. It counts only for the
                first call, as the answerer keeps its table.

        Raises:
            InferenceError: OpenVINO failed.
        """
        return self.budgets.table(cache_dir)

    @overload
    def __call__(
        self, question: str, context: str, *, top_k: Literal[1] | None = None, **options: Unpack[CallOptions]
    ) -> Answer: ...

    @overload
    def __call__(
        self, question: str, context: str, *, top_k: int | None, **options: Unpack[CallOptions]
    ) -> Answer | list[Answer]: ...

    @overload
    def __call__(
        self, question: Pair, *, top_k: Literal[1] | None = None, **options: Unpack[CallOptions]
    ) -> Answer: ...

    @overload
    def __call__(
        self,
        question: Iterable[str],
        context: str | Iterable[str],
        *,
        top_k: Literal[1] | None = None,
        **options: Unpack[CallOptions],
    ) -> Answer | list[Answer]: ...

    @overload
    def __call__(
        self,
        question: str | Iterable[str] | Pair | Iterable[Pair] | None = None,
        context: str | Iterable[str] | Pair | None = None,
        *,
        data: Pair | Iterable[Pair] | None = None,
        X: Pair | Iterable[Pair] | None = None,  # noqa: N803 - the pipeline's name
        top_k: int | None = None,
        **options: Unpack[CallOptions],
    ) -> Answer | list[Answer] | list[Answer | list[Answer]]: ...

    def __call__(
        self,
        question: Any = None,
        context: Any = None,
        *,
        data: Any = None,
        X: Any = None,  # noqa: N803 - the pipeline's name
        top_k: int | None = None,
        topk: int | None = None,
        doc_stride: int | None = None,
        max_answer_len: int | None = None,
        max_seq_len: int | None = None,
        handle_impossible_answer: bool | None = None,
        align_to_words: bool | None = None,
        merge: Merge | None = None,
        length_config: str | LengthConfig | Sequence[float] | None = None,
        batch_size: int | None = None,
        compete: bool | None = None,
        budget_ms: float | None = None,
        max_f1_loss: float | None = None,
        max_question_len: object = None,
        padding: object = None,
        num_workers: object = None,
        framework: object = None,
    ) -> Answer | list[Answer] | list[Answer | list[Answer]]:
        """Answer one or several questions from a context, with results in the shapes of transformers' pipeline.

        Arguments are those of transformers' question-answering pipeline, by keyword or in this order; None selects the
        default of each. `docs/transformers-contract.md` lists how the results differ. The results of `answer_batch`
        always have the same shape.

        Args:
            question: One question or several (list, tuple, array). Or, instead of both texts, one mapping with the
                keys ``question`` and ``context``, or several.
            context: The text to answer from: one for all questions, or one for each.
            data: Mappings, as an alternative to `question`.
            X: The same as `data`.
            top_k: Maximum number of answers to each question, 1 by default; fewer if the context does not contain that
                many.
            topk: Old name of `top_k`.
            doc_stride: Number of context tokens that neighbouring windows over a long context share, by default
                ``min(max_seq_len // 2, 128)``. If a long question leaves no more room than that for the context,
                windows share half of the room.
            max_answer_len: Maximum length of an answer in tokens, 15 by default.
            max_seq_len: Maximum length of a window in tokens, ``min(model.max_length, 384)`` by default.
            handle_impossible_answer: Let the empty answer compete, with a score of its own; off by default. If the
                bundle has a no-answer threshold, which `calibrate` measures on data with unanswerable questions, the
                threshold decides whether the empty answer comes first. Otherwise it is ranked by its score, as in the
                pipeline.
            align_to_words: Widen answers to whole words; on by default.
            merge: Which answers count as the same one. "span", the default: those at the same position; the score is
                the largest that any window gives. "text": those with the same text anywhere; their scores are added
                up, as in the pipeline.
            length_config: Which tokens each layer keeps; see `LengthAdaptiveModel.__call__`.
            batch_size: Maximum number of windows that run at once, 8 by default.
            compete: Let the windows of a long context compete; off by default, as in the pipeline. Scores are then
                probabilities over the whole context instead of over each window, so that windows without the answer
                do not win by guesses that are sure of themselves. And the windows that match the question best run
                first, until no other one is likely to win. See `docs/long-documents.md`.
            budget_ms: Milliseconds that the call may take, all of its questions and windows together. The most accurate
                of the bundle's length configurations that is predicted to fit runs, or else the fastest. Answers of
                calls with this option or the next have `length_config`, `ms` and `budget_met`, too. Not together with
                `length_config`.
            max_f1_loss: Most points of F1 (of 100) that may be lost against `full`, by the pessimistic end of the
                interval that calibration measured. Without `budget_ms` the fastest such configuration runs.
            max_question_len: Ignored, as in the pipeline with a fast tokenizer: questions are never cut.
            padding: Ignored: windows are padded as the model needs it.
            num_workers: Ignored.
            framework: Ignored.

        Returns:
            As the pipeline: for each question its `Answer`, or a list of them, best first, if there are several; a
            list of these unless there is exactly one question.

        Raises:
            InvalidInputError: A text is empty or not a string (for several items the message names the item), lists
                differ in length, a question leaves no room in the window, an option is out of range, a budget is given
                with a length configuration, or the bundle has no figures for `max_f1_loss`.
            LengthConfigError: Unknown or unfitting length configuration.
        """
        answers = self.answer_batch(
            given_once(question, data, X),
            context,
            top_k=topk if top_k is None else top_k,
            doc_stride=doc_stride,
            max_answer_len=max_answer_len,
            max_seq_len=max_seq_len,
            handle_impossible_answer=handle_impossible_answer,
            align_to_words=align_to_words,
            merge=merge,
            length_config=length_config,
            batch_size=batch_size,
            compete=compete,
            budget_ms=budget_ms,
            max_f1_loss=max_f1_loss,
        )
        return in_pipeline_shape(answers)
