"""Run functions in another process, so that the load does not share the interpreter of what is measured."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

P = ParamSpec("P")
Result = TypeVar("Result")


class OtherProcess:
    """A process that runs one function after another. It ends with this one, however this one ends."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_carry_out, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def run(self, function: Callable[P, Result], *args: P.args, **options: P.kwargs) -> Result:
        """What a function of a module returns there; an exception in it is raised here."""
        self.start(function, *args, **options)
        result: Result = self.result()
        return result

    def start(self, function: Callable[P, object], *args: P.args, **options: P.kwargs) -> None:
        """Begin a function there; `result` waits for its end."""
        self._pipe.send((function, args, options))

    def result(self) -> Any:  # noqa: ANN401 - what the function returns
        """What the function returned that was begun last."""
        failed, found = self._pipe.recv()
        if failed:
            raise found
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _carry_out(pipe: Connection[Any, Any]) -> None:
    while True:
        try:
            function, args, options = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            pipe.send((False, function(*args, **options)))
        except Exception as error:
            pipe.send((True, error))
