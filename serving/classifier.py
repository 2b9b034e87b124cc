"""Classify texts asynchronously, in the event loop of a service."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, cast

from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.sequence_classification.classifier import LabelScore, Text, TextClassifier

from .service import AsyncService
from .stepwise import SteppedModel, Stepwise
from .usage import Computed, name_that_ran

Result = TypeVar("Result")


class AsyncTextClassifier(AsyncService):
    """Classifies texts as a `TextClassifier` does, with the same results, without blocking the event loop.

    A pickle holds the classifier and the arguments, without the queue.

    Attributes:
        classifier: What classifies; others may use it at the same time.
    """

    _synchronous: ClassVar[Any] = TextClassifier
    """The class whose objects this one runs."""

    def __init__(self, classifier: TextClassifier, *, max_queued: int = 128, workers: int | None = None) -> None:
        """Classify with a classifier; other arguments and errors are those of `AsyncService`."""
        super().__init__(classifier.model, max_queued=max_queued, workers=workers)
        self.classifier = classifier
        self._stepped_classifier = in_steps(classifier)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return partial(type(self), max_queued=self.max_queued, workers=self.workers), (self.classifier,)

    @classmethod
    def from_pretrained(
        cls,
        id_or_path: str | Path,
        *,
        max_queued: int = 128,
        workers: int | None = None,
        **options: Any,  # noqa: ANN401 - listed and checked by the synchronous class
    ) -> Self:
        """Load a bundle; other arguments and errors are those of the synchronous class's method. It blocks."""
        return cls(cls._synchronous.from_pretrained(id_or_path, **options), max_queued=max_queued, workers=workers)

    async def __call__(
        self,
        inputs: Text | Iterable[Text],
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        **options: Any,  # noqa: ANN401 - those of `TextClassifier.__call__`
    ) -> LabelScore | list[LabelScore] | list[list[LabelScore]]:
        """Classify one or several texts; arguments, results and errors are those of `TextClassifier.__call__`.

        Cancelling the awaiting task takes the request out of the queue; what is being run of it is finished, but no
        more.

        Args:
            inputs: A text, a pair, or several of these.
            timeout: Seconds from now in which the result is wanted.
            deadline: The same as a point in time, as `time.monotonic` counts it; give one of the two.
            options: Further options of `TextClassifier.__call__`.

        Raises:
            OverloadedError: The queue is full; raised at once.
            DeadlineExceededError: There was no result by the deadline. Raised at the deadline.
            ClosedError: `aclose` was called.
            InvalidInputError: As for `TextClassifier.__call__`; or `timeout` or `deadline` is not usable.
            LengthConfigError: Unknown or unfitting length configuration.
        """
        function = partial(self._stepped_classifier, inputs, **options)
        return (await self._in_steps(function, options, timeout, deadline)).result

    async def classify_batch(
        self,
        inputs: Text | Iterable[Text],
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        **options: Any,  # noqa: ANN401 - those of `TextClassifier.classify_batch`
    ) -> list[list[LabelScore]]:
        """Classify texts; arguments and results are those of `TextClassifier.classify_batch`, errors those of a call.

        `timeout` and `deadline` are those of a call.
        """
        return (await self.classified(inputs, timeout=timeout, deadline=deadline, **options)).result

    async def classified(
        self,
        inputs: Text | Iterable[Text],
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        **options: Any,  # noqa: ANN401 - those of `TextClassifier.classify_batch`
    ) -> Computed[list[list[LabelScore]]]:
        """As `classify_batch`; also says which length configuration ran, and how many tokens each layer kept."""
        function = partial(self._stepped_classifier.classify_batch, inputs, **options)
        return await self._in_steps(function, options, timeout, deadline)

    async def _in_steps(
        self, function: Callable[[], Result], options: dict[str, Any], timeout: float | None, deadline: float | None
    ) -> Computed[Result]:
        """Run a function that calls the model through a `SteppedModel`, at the length configuration in its options."""
        work = Stepwise(function)
        try:
            result = await self._result(work, timeout, deadline)
        finally:
            work.give_up()
        name = name_that_ran(self.model, options.get("length_config"))
        return Computed(result, name, work.usage.tokens, work.usage.kept)


User = TypeVar("User")


def in_steps(user: User) -> User:
    """A copy of an object with an attribute `model`, whose calls of the model wait for turns."""
    copied: Any = copy.copy(user)
    copied.model = cast(LengthAdaptiveModel, SteppedModel(copied.model))
    return cast(User, copied)
