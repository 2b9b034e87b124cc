"""A function of the synchronous interface as the work of a request: each call of the model waits for its turn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.model import LengthAdaptiveModel

from .requests import Work
from .usage import Usage, usage_of

Result = TypeVar("Result")


class Stepwise(Generic[Result]):
    """A function that calls the model any number of times, one call in a turn.

    The function runs in a thread of its own, but only while a worker waits for it: until it asks for a turn or ends.
    Its calls of the model must go through a `SteppedModel`. Call `give_up` when nobody waits for the result any more,
    or the thread would wait for ever.

    Attributes:
        usage: What its calls of the model have taken so far.
    """

    def __init__(self, function: Callable[[], Result]) -> None:
        self.usage = Usage()
        self._function = function
        self._results: list[Result] = []  # none or one
        self._error: BaseException | None = None
        self._ended = self._given_up = False
        self._turn = threading.Semaphore(0)  # released when the function may call the model
        self._paused = threading.Semaphore(0)  # released when it asks for that, or ends

    def prepare(self) -> None:
        """Run the function up to its first call of the model."""
        threading.Thread(target=self._run, name="dynamic-tinybert-steps", daemon=True).start()
        self._await_pause()

    def check(self, ahead: Sequence[Work[Any]], deadline: float) -> None:
        """Do nothing: how long the function takes is unknown."""

    @property
    def done(self) -> bool:
        """Whether the function has ended."""
        return self._ended

    def companions(self, waiting: Sequence[Work[Any]]) -> Sequence[int]:
        """Nothing can be run together with it."""
        return ()

    def run(self, companions: Sequence[Work[Any]]) -> None:
        """Let the function call the model, and run it up to its next call; an error of the function is raised."""
        self._turn.release()
        self._await_pause()

    def result(self) -> Result:
        """What the function returned."""
        return self._results[0]

    def give_up(self) -> None:
        """End the function, if it has not ended: it calls the model no more."""
        self._given_up = True
        self._turn.release()

    def await_turn(self) -> None:
        """Wait for a turn; for the function's thread.

        Raises:
            _GivenUpError: There will be none.
        """
        self._paused.release()
        self._turn.acquire()
        if self._given_up:
            raise _GivenUpError

    def _await_pause(self) -> None:
        self._paused.acquire()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        _steps.current = self
        try:
            self._results.append(self._function())
        except BaseException as error:  # a panic of tokenizers is no Exception
            self._error = error
        self._ended = True
        self._paused.release()


class SteppedModel:
    """A model whose calls wait for a turn and are counted, in the functions that a `Stepwise` runs.

    Keep ratios that have no name all run in the elastic graph, the one for any ratios, so that no request compiles one.
    """

    def __init__(self, model: LengthAdaptiveModel) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the model's own
        return getattr(self._model, name)

    def __call__(
        self,
        input_ids: npt.NDArray[np.int64],
        *,
        attention_mask: npt.NDArray[np.int64] | None = None,
        token_type_ids: npt.NDArray[np.int64] | None = None,
        length_config: Any = None,  # noqa: ANN401 - as all that follow, the model's own
    ) -> Any:  # noqa: ANN401
        """Call the model, whose arguments and result these are."""
        steps: Stepwise[Any] = _steps.current
        how: dict[str, Any] = {"length_config": length_config}
        if not isinstance(length_config, str | None):
            how = {"length_configs": [length_config] * len(input_ids)}
        steps.await_turn()
        output = self._model(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, **how)
        steps.usage += usage_of(self._model, output, input_ids, attention_mask)
        return output


class _GivenUpError(BaseException):  # no Exception, so that nobody takes it for an error of the model
    pass


_steps = threading.local()
