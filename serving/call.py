"""A function as the work of a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from .requests import Work

Result = TypeVar("Result")


class Call(Generic[Result]):
    """One call of a function, which may use the model, in one turn."""

    def __init__(self, function: Callable[[], Result]) -> None:
        self._function = function
        self._results: list[Result] = []  # none or one

    def prepare(self) -> None:
        """Do nothing."""

    def check(self, ahead: Sequence[Work[Any]], deadline: float) -> None:
        """Do nothing: how long the function takes is unknown."""

    @property
    def done(self) -> bool:
        """Whether the function was called."""
        return bool(self._results)

    def companions(self, waiting: Sequence[Work[Any]]) -> Sequence[int]:
        """Nothing can be run together with it."""
        return ()

    def run(self, companions: Sequence[Work[Any]]) -> None:
        """Call the function."""
        self._results.append(self._function())

    def result(self) -> Result:
        """What the function returned."""
        return self._results[0]
