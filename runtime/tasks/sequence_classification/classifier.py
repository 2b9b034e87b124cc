"""Classify texts and pairs of texts, with the interface of transformers' text-classification pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, TypedDict

from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.user_classes import require_task

from .inference import run_texts
from .labels import FUNCTIONS, Labels
from .tokens import TextTokenizer, TextTokens

BATCH_SIZE = 8
"""Inputs that run at once by default; larger batches are no faster on a CPU and need more memory."""

Text = str | Mapping[str, str]
"""A text, or a mapping with the keys ``text`` and ``text_pair``, of which the second may be missing."""

_DEFAULT: Any = object()


class LabelScore(TypedDict):
    """A label with its score."""

    label: str
    score: float


class TextClassifier:
    """Classifies texts with a model. Like the model, it is thread-safe, fork-safe and picklable."""

    def __init__(self, model: LengthAdaptiveModel) -> None:
        """Classify with a loaded model.

        Raises:
            BundleFormatError: The labels in config.json cannot be read.
            InvalidInputError: The model is for another task.
        """
        require_task(model.bundle, "sequence_classification", "classify texts")
        self.model = model
        self.labels = Labels.of(model.bundle)
        self._tokenize = TextTokenizer(model.tokenizer_file, model.max_length)

    def __reduce__(self) -> tuple[type[TextClassifier], tuple[LengthAdaptiveModel]]:
        return type(self), (self.model,)

    @classmethod
    def from_pretrained(
        cls,
        id_or_path: str | Path,
        **options: Any,  # noqa: ANN401 - listed and checked by LengthAdaptiveModel.from_pretrained
    ) -> TextClassifier:
        """Load a bundle; arguments and errors are those of `LengthAdaptiveModel.from_pretrained`."""
        return cls(LengthAdaptiveModel.from_pretrained(id_or_path, **options))

    def classify_batch(
        self,
        inputs: Text | Iterable[Text],
        *,
        top_k: int | None = None,
        function_to_apply: str | None = None,
        truncation: bool = False,
        length_config: str | LengthConfig | Sequence[float] | None = None,
        batch_size: int | None = None,
    ) -> list[list[LabelScore]]:
        """Classify texts. The result always has the same shape, whatever their number and `top_k`.

        Args:
            inputs: The texts or pairs; a single one is a batch of one.
            top_k: Maximum number of labels of each text; None for all.
            function_to_apply: As for `__call__`, like the following options.
            truncation: Cut longer inputs to the model's length.
            length_config: Which tokens each layer keeps.
            batch_size: Maximum number of inputs that run at once.

        Returns:
            For each text, in order, its labels with their scores, best first.

        Raises:
            InvalidInputError: As for `__call__`.
            LengthConfigError: Unknown or unfitting length configuration.
        """
        if top_k is not None:
            require_int("top_k", top_k, 1)
        batch_size = require_int("batch_size", BATCH_SIZE if batch_size is None else batch_size, 1)
        apply = FUNCTIONS[self.labels.function_named(function_to_apply)]
        texts = [inputs] if _is_single(inputs) else _several(inputs)
        sequences = [self._tokens(text, index, len(texts), truncation) for index, text in enumerate(texts)]
        outputs = run_texts(self.model, sequences, self.labels, length_config=length_config, batch_size=batch_size)
        results = []
        for output in outputs:
            scores = apply(output.logits)
            # By the logits, because several of them may have the same score, as float32 rounds it.
            best = sorted(range(len(scores)), key=lambda i, own=output.logits: -own[i])  # type: ignore[misc]
            results.append([LabelScore(label=self.labels.names[i], score=float(scores[i])) for i in best[:top_k]])
        return results

    def __call__(
        self,
        inputs: Text | Iterable[Text],
        *,
        top_k: int | None = _DEFAULT,
        function_to_apply: str | None = None,
        truncation: bool = False,
        length_config: str | LengthConfig | Sequence[float] | None = None,
        batch_size: int | None = None,
    ) -> LabelScore | list[LabelScore] | list[list[LabelScore]]:
        """Classify one or several texts, with results in the shapes of transformers' pipeline.

        The results of `classify_batch` always have the same shape.

        Args:
            inputs: A text; a mapping with the keys ``text`` and ``text_pair`` for a pair; or several of these.
            top_k: Maximum number of labels of each text, best first; None for all. Not given: the best one alone.
            function_to_apply: What turns logits into scores: "sigmoid", "softmax" or "none". By default, softmax for
                classes, sigmoid for one output and for labels that go together, and none for a regression, by
                config.json.
            truncation: Cut inputs that are longer than the model reads at the end of the longer text. They are refused
                otherwise.
            length_config: Which tokens each layer keeps; see `LengthAdaptiveModel.__call__`.
            batch_size: Maximum number of inputs that run at once, 8 by default.

        Returns:
            As the pipeline. Without `top_k`: for a text a list of its best label with the score, for a mapping the
            label itself, for several inputs the best label of each. With `top_k`: for one input a list of its labels,
            for several a list of such lists.

        Raises:
            InvalidInputError: A text is empty, too long or not a string (for several inputs the message names the
                item), or an option is out of range.
            LengthConfigError: Unknown or unfitting length configuration.
        """
        legacy = top_k is _DEFAULT
        results = self.classify_batch(
            inputs,
            top_k=1 if legacy else top_k,
            function_to_apply=function_to_apply,
            truncation=truncation,
            length_config=length_config,
            batch_size=batch_size,
        )
        if not legacy:
            return results[0] if _is_single(inputs) else results
        best = [own[0] for own in results]
        return best[0] if isinstance(inputs, Mapping) else best

    def _tokens(self, text: object, index: int, count: int, truncation: bool) -> TextTokens:
        try:
            return self._tokenize(*_texts_of(text), truncation=truncation)
        except InvalidInputError as error:
            if count == 1:
                raise
            raise InvalidInputError(f"item {index} of {count}, counted from 0: {error}") from error


def _is_single(inputs: object) -> bool:
    return isinstance(inputs, str | Mapping)


def _several(inputs: object) -> list[object]:
    if isinstance(inputs, Set | bytes) or not isinstance(inputs, Iterable):
        raise InvalidInputError(f"give a text, a mapping, or a list of them, not {type(inputs).__name__}")
    return list(inputs)


def _texts_of(item: object) -> tuple[Any, Any]:
    """The two texts of an item, the second None if there is none; the tokenizer checks later that they are texts."""
    if isinstance(item, str):
        return item, None
    if isinstance(item, Mapping):
        if "text" in item and item.keys() <= {"text", "text_pair"}:
            return item["text"], item.get("text_pair")
        found = sorted(map(str, item))
        raise InvalidInputError(f"a mapping must have the keys 'text' and perhaps 'text_pair', not {found}")
    raise InvalidInputError(
        f"{item!r:.60} is neither a text nor a mapping; give a pair of texts as {{'text': …, 'text_pair': …}}"
    )
