"""Score how well documents answer a query, and sort them, with the interface of sentence-transformers' CrossEncoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict, Unpack, overload

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.bundles.hub import default_reranker
from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.question_answering.options import window_size
from dynamic_tinybert.runtime.tasks.user_classes import require_task
from dynamic_tinybert.runtime.tasks.windows import Window, WindowTokenizer

from .classifier import BATCH_SIZE
from .dropping import DocumentDropping
from .inference import logits_of, run_texts
from .labels import FUNCTIONS, Labels
from .pair_windows import ByDocument, Pair, listed, pair_windows


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
            function_to_apply: What turns logits into scores: "sigmoid" or "none". None and "default" select
                CrossEncoder's: that of config.json's entry `sentence_transformers`, or else sigmoid.

        Raises:
            BundleFormatError: The labels in config.json cannot be read, or it names another activation and no function
                is given.
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
        if function_to_apply is None or function_to_apply == "default":
            name = self.labels.cross_encoder_function
        else:
            name = self.labels.function_named(function_to_apply)
        if name == "softmax":
            raise InvalidInputError("the softmax of one output is always 1; give function_to_apply='sigmoid' or 'none'")
        self._apply = FUNCTIONS[name]
        self._tokenize = WindowTokenizer(model.tokenizer_file, ("query", "document"))
        self.dropping = DocumentDropping(model, self.labels)

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
            id_or_path: Folder or Hub id of a bundle; by default that of the package, if it has one.
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
        drop_documents: bool = True,
        batch_size: int | None = None,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
    ) -> list[RankedDocument]:
        """Sort documents by how well they answer a query.

        With `top_n`, and where the bundle was calibrated on rankings (docs/ranking.md), documents that are safely below
        the first `top_n`, by their words or after some layers, do not run to the end. Documents that are returned have
        their exact scores.

        Args:
            query: The query. It is repeated in each window, and must leave room for a document.
            documents: The documents. Equal ones are computed once.
            top_n: Maximum number of documents to return; None for all. CrossEncoder's `top_k`.
            return_documents: Return the texts of the documents, too.
            length_config: Which tokens each layer keeps; see `LengthAdaptiveModel.__call__`. Documents are dropped only
                in configurations that are given by name, or in the default one.
            drop_documents: Let documents leave early; False runs all layers for each document.
            batch_size: Maximum number of windows that run at once, 8 by default; those of similar length run together.
            max_seq_len: Maximum length of a window in tokens, by default what the model reads.
            doc_stride: Number of document tokens that neighbouring windows share, by default
                ``min(max_seq_len // 2, 128)``.

        Returns:
            The documents, best first: in the order of their logits, also where these have the same score as it is
            rounded. Those with equal logits stay in the order in which they were given.

        Raises:
            InvalidInputError: There are no documents, a text is empty or not a string, the query fills the window, or
                an option is out of range.
            LengthConfigError: Unknown or unfitting length configuration.
        """
        if top_n is not None:
            require_int("top_n", top_n, 1)
        texts = listed("documents", documents)
        at_once = _batch_size(batch_size)
        windows = self._windows([(query, text) for text in texts], "document", max_seq_len, doc_stride)
        dropped = None
        if top_n is not None and drop_documents:
            dropped = self.dropping.logits(self.model, list(windows.values()), top_n, length_config, batch_size=at_once)
        if dropped is None:
            logits = self._logits(windows, length_config, at_once)
        else:
            pairs = list(windows)
            logits = {pairs[i]: logit for i, logit in dropped.items()}
        left = [i for i, text in enumerate(texts) if (query, text) in logits]
        # Not by the scores: large logits have the same sigmoid, as float32 rounds it.
        order = sorted(left, key=lambda i: -logits[query, texts[i]])[:top_n]
        scores = self._apply(np.array([logits[query, texts[i]] for i in order], np.float32))
        ranked = [RankedDocument(corpus_id=i, score=float(score)) for i, score in zip(order, scores, strict=True)]
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
            pairs: The pairs, or one pair; also an array of texts, [n, 2]. Equal ones are computed once.
            length_config: As for `rank`, like the following options.
            batch_size: Maximum number of windows that run at once.
            max_seq_len: Maximum length of a window in tokens.
            doc_stride: Number of document tokens that neighbouring windows share.

        Returns:
            float32 [n], or one score if one pair of two texts was given.

        Raises:
            InvalidInputError, LengthConfigError: As for `rank`.
        """
        items = listed("pairs", pairs)
        single = len(items) == 2 and all(isinstance(item, str) for item in items)
        if single:
            items = [items]
        pairs_given = [_pair(item, index, len(items)) for index, item in enumerate(items)]
        at_once = _batch_size(batch_size)
        windows = self._windows(pairs_given, "pair", max_seq_len, doc_stride)
        logits = self._logits(windows, length_config, at_once)
        scores: npt.NDArray[np.float32] = self._apply(np.array([logits[pair] for pair in pairs_given], np.float32))
        return scores[0] if single else scores

    def check(self, query: str, documents: Iterable[str]) -> None:
        """Check, without running the model, that `rank` can read a query and its documents.

        Raises:
            InvalidInputError: There are no documents, a text is empty or not a string, or the query fills the window.
        """
        self._windows([(query, text) for text in listed("documents", documents)], "document", None, None)

    def _windows(
        self, pairs: Sequence[tuple[Any, Any]], name: str, max_seq_len: int | None, doc_stride: int | None
    ) -> dict[Pair, list[Window]]:
        """The windows of each different pair; `name` is "pair" or, where all have the same query, "document"."""
        longest = self.model.max_length
        size, stride = window_size(longest, longest if max_seq_len is None else max_seq_len, doc_stride)
        return pair_windows(
            self._tokenize, pairs, name, max_seq_len=size, doc_stride=stride, same_query=name == "document"
        )

    def _logits(
        self,
        windows: dict[Pair, list[Window]],
        length_config: str | LengthConfig | Sequence[float] | None,
        batch_size: int,
    ) -> dict[Pair, np.float32]:
        """The logit of each pair, all layers of which are run."""
        documents = ByDocument(windows.values())
        outputs = run_texts(
            self.model, documents.sequences, self.labels, length_config=length_config, batch_size=batch_size
        )
        return dict(zip(windows, documents.best(logits_of(outputs)[:, 0]), strict=True))


def _pair(given: object, index: int, count: int) -> tuple[Any, Any]:
    """A pair as a tuple; of an array, a row of texts. Whether its items are texts is checked later."""
    row = given.tolist() if isinstance(given, np.ndarray) and given.dtype.kind in "OUT" else given
    if not isinstance(row, list | tuple) or len(row) != 2:
        raise InvalidInputError(
            f"pair {index} of {count}, counted from 0, must be a query and a document, not {given!r:.60}"
        )
    return row[0], row[1]


def _batch_size(given: int | None) -> int:
    return require_int("batch_size", BATCH_SIZE if given is None else given, 1)


def _loaded(cls: type[Reranker], model: LengthAdaptiveModel, function_to_apply: str | None) -> Reranker:
    return cls(model, function_to_apply=function_to_apply)
