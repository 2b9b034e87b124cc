"""Score how well documents answer a query, and sort them, with the interface of sentence-transformers' CrossEncoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import chain, islice
from pathlib import Path
from typing import Any, NotRequired, TypedDict, Unpack, overload

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding

from dynamic_tinybert.runtime.bundles.hub import default_reranker
from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.question_answering.options import window_size
from dynamic_tinybert.runtime.tasks.question_answering.windows import Window, WindowTokenizer
from dynamic_tinybert.runtime.tasks.user_classes import require_task

from .classifier import BATCH_SIZE
from .inference import logits_of, run_texts
from .labels import FUNCTIONS, Labels

Pair = tuple[str, str]
"""A query and a document."""


class RankOptions(TypedDict, total=False):
    """Options of `Reranker.predict`."""

    length_config: str | LengthConfig | Sequence[float] | None
    batch_size: int | None
    max_seq_len: int | None
    doc_stride: int | None


class RankedDocument(TypedDict):
    """A document in the order of a ranking.

    Attributes:
        corpus_id: Its index among the documents that were given.
        score: Its score.
        text: The document itself, if that was asked for.
    """

    corpus_id: int
    score: float
    text: NotRequired[str]


class Reranker:
    """Ranks documents for a query with a model. Like the model, it is thread-safe, fork-safe and picklable.

    A document that is too long for the model is read in overlapping windows, and the best window counts.
    """

    def __init__(self, model: LengthAdaptiveModel, *, function_to_apply: str | None = None) -> None:
        """Rank with a loaded model.

        Args:
            model: A classifier with one output.
            function_to_apply: What turns logits into scores: "sigmoid" or "none". By default that of config.json's
                entry `sentence_transformers`, or else sigmoid.

        Raises:
            BundleFormatError: The labels in config.json cannot be read.
            InvalidInputError: The model is for another task or has several outputs, or there is no such function.
        """
        require_task(model.bundle, "sequence_classification", "rank documents")
        self.labels = Labels.of(model.bundle)
        if len(self.labels) != 1:
            raise InvalidInputError(
                f"this model has {len(self.labels)} outputs, and a ranking needs one score; use TextClassifier for it"
            )
        self.model = model
        self._given = function_to_apply
        name = self.labels.cross_encoder_function
        if function_to_apply is not None:
            name = self.labels.function_named(function_to_apply)
        if name == "softmax":
            raise InvalidInputError("the softmax of one output is always 1; give function_to_apply='sigmoid' or 'none'")
        self._apply = FUNCTIONS[name]
        self._tokenize = WindowTokenizer(model.tokenizer_file, ("query", "document"))

    def __reduce__(self) -> tuple[Any, ...]:
        return _loaded, (type(self), self.model, self._given)

    @classmethod
    def from_pretrained(
        cls,
        id_or_path: str | Path | None = None,
        *,
        function_to_apply: str | None = None,
        **options: Any,  # noqa: ANN401 - listed and checked by LengthAdaptiveModel.from_pretrained
    ) -> Reranker:
        """Load a bundle.

        Args:
            id_or_path: Folder or Hub id of a bundle; by default the reranker that comes with the package.
            function_to_apply: As for the constructor, with the same errors.
            options: Further arguments of `LengthAdaptiveModel.from_pretrained`, with the same errors.
        """
        place = default_reranker() if id_or_path is None else id_or_path
        return cls(LengthAdaptiveModel.from_pretrained(place, **options), function_to_apply=function_to_apply)

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        top_n: int | None = None,
        return_documents: bool = False,
        *,
        length_config: str | LengthConfig | Sequence[float] | None = None,
        batch_size: int | None = None,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
    ) -> list[RankedDocument]:
        """Sort documents by how well they answer a query.

        Args:
            query: The query. It is repeated in each window, and must leave room for a document.
            documents: The documents. Equal ones are computed once.
            top_n: Maximum number of documents to return; None for all. CrossEncoder's `top_k`.
            return_documents: Return the texts of the documents, too.
            length_config: Which tokens each layer keeps; see `LengthAdaptiveModel.__call__`.
            batch_size: Maximum number of windows that run at once, 8 by default; those of similar length run together.
            max_seq_len: Maximum length of a window in tokens, by default what the model reads.
            doc_stride: Number of document tokens that neighbouring windows share, by default
                ``min(max_seq_len // 2, 128)``.

        Returns:
            The documents, best first; those with equal scores in the order in which they were given.

        Raises:
            InvalidInputError: There are no documents, a text is empty or not a string, the query fills the window, or
                an option is out of range.
            LengthConfigError: Unknown or unfitting length configuration.
        """
        if top_n is not None:
            require_int("top_n", top_n, 1)
        texts = _listed("documents", documents)
        scores = self._scores(
            [(query, text) for text in texts],
            "document",
            length_config=length_config,
            batch_size=batch_size,
            max_seq_len=max_seq_len,
            doc_stride=doc_stride,
        )
        order = sorted(range(len(texts)), key=lambda i: -scores[i])[:top_n]
        ranked = [RankedDocument(corpus_id=i, score=float(scores[i])) for i in order]
        if return_documents:
            for document in ranked:
                document["text"] = texts[document["corpus_id"]]
        return ranked

    @overload
    def predict(self, pairs: Pair, **options: Unpack[RankOptions]) -> np.float32: ...

    @overload
    def predict(
        self, pairs: Iterable[Pair] | Iterable[list[str]], **options: Unpack[RankOptions]
    ) -> npt.NDArray[np.float32]: ...

    def predict(
        self,
        pairs: Pair | Iterable[Pair] | Iterable[list[str]],
        *,
        length_config: str | LengthConfig | Sequence[float] | None = None,
        batch_size: int | None = None,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
    ) -> np.float32 | npt.NDArray[np.float32]:
        """The score of each pair of a query and a document.

        Args:
            pairs: The pairs, or one pair. Equal ones are computed once.
            length_config: As for `rank`, like the following options.
            batch_size: Maximum number of windows that run at once.
            max_seq_len: Maximum length of a window in tokens.
            doc_stride: Number of document tokens that neighbouring windows share.

        Returns:
            float32 [n], or one score if one pair of two texts was given.

        Raises:
            InvalidInputError, LengthConfigError: As for `rank`.
        """
        listed = _listed("pairs", pairs)
        single = len(listed) == 2 and all(isinstance(item, str) for item in listed)
        if single:
            listed = [tuple(listed)]
        for index, pair in enumerate(listed):
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise InvalidInputError(
                    f"pair {index} of {len(listed)}, counted from 0, must be a query and a document, not {pair!r:.60}"
                )
        scores = self._scores(
            [(query, document) for query, document in listed],
            "pair",
            length_config=length_config,
            batch_size=batch_size,
            max_seq_len=max_seq_len,
            doc_stride=doc_stride,
        )
        return scores[0] if single else scores

    def _scores(
        self,
        pairs: Sequence[tuple[Any, Any]],
        name: str,
        *,
        length_config: str | LengthConfig | Sequence[float] | None,
        batch_size: int | None,
        max_seq_len: int | None,
        doc_stride: int | None,
    ) -> npt.NDArray[np.float32]:
        """The score of each pair, float32 [n]; `name` is what an item is called in messages."""
        batch_size = require_int("batch_size", BATCH_SIZE if batch_size is None else batch_size, 1)
        longest = self.model.max_length
        size, stride = window_size(longest, longest if max_seq_len is None else max_seq_len, doc_stride)
        queries: dict[str, Encoding] = {}
        windows: dict[tuple[str, str], list[Window]] = {}
        for index, (query, document) in enumerate(pairs):
            if not isinstance(query, str) or query not in queries:
                tokens = self._tokenize.first(query)
                self._tokenize.require_room(tokens, size)
                queries[query] = tokens
            try:
                if isinstance(document, str) and (query, document) in windows:
                    continue
                own = self._tokenize.second(document)
            except InvalidInputError as error:
                if len(pairs) == 1:
                    raise
                raise InvalidInputError(f"{name} {index} of {len(pairs)}, counted from 0: {error}") from error
            windows[query, document] = self._tokenize.windows(queries[query], own, max_seq_len=size, doc_stride=stride)
        sequences = list(chain.from_iterable(windows.values()))
        outputs = run_texts(self.model, sequences, self.labels, length_config=length_config, batch_size=batch_size)
        scores = iter(self._apply(logits_of(outputs))[:, 0])
        best = {pair: max(islice(scores, len(own))) for pair, own in windows.items()}
        return np.array([best[pair] for pair in pairs], np.float32)


def _loaded(cls: type[Reranker], model: LengthAdaptiveModel, function_to_apply: str | None) -> Reranker:
    return cls(model, function_to_apply=function_to_apply)


def _listed(name: str, values: object) -> list[Any]:
    """The items of an iterable that has an order and at least one of them."""
    if isinstance(values, str | bytes | Set | Mapping) or not isinstance(values, Iterable):
        raise InvalidInputError(f"{name} must be a list, not {type(values).__name__}")
    items = list(values)
    if not items:
        raise InvalidInputError(f"there are no {name}; give at least one")
    return items
