"""Messages between the front process and a worker, and how they become bytes on the socket between them.

Each message is a pickle behind its length. Nobody but the two processes can write to the socket.
"""

from __future__ import annotations

import copyreg
import pickle
import struct
from collections.abc import Callable, Iterator
from dataclasses import fields
from operator import attrgetter
from typing import Any, NamedTuple

from dynamic_tinybert.runtime.common.errors import WorkerLostError
from dynamic_tinybert.runtime.latency_table import LatencyTable
from dynamic_tinybert.runtime.tasks.question_answering.plan import Answered
from dynamic_tinybert.serving.jobs import AnswerJob, ClassifyJob, Job, Logits, LogitsJob, ModelFacts, RankJob
from dynamic_tinybert.serving.usage import Computed

from .options import ModelOptions

_HEADER = struct.Struct("<4sI")  # a mark, which tells that both ends agree where messages begin, and the length
_MARK = b"dtb1"


class Start(NamedTuple):
    """To a worker, first: load this model.

    `table` is the latency table of an earlier worker, if there was one. With it, the worker measures none.
    """

    options: ModelOptions
    table: LatencyTable | None


class Hello(NamedTuple):
    """From a worker: the model is loaded, and jobs may come."""

    facts: ModelFacts
    table: LatencyTable | None


class CannotStart(NamedTuple):
    """From a worker, instead: this is why the model cannot be loaded. The worker ends."""

    error: Exception


class Run(NamedTuple):
    """To a worker: carry out a job. `Done` or `Failed` with the same number follows, unless the job is cancelled."""

    number: int
    job: Job
    deadline: float | None  # of `time.monotonic`, which all processes of a machine share


class Cancel(NamedTuple):
    """To a worker: nobody waits for this job any more."""

    number: int


class Done(NamedTuple):
    """From a worker: the result of a job."""

    number: int
    result: Any


class Failed(NamedTuple):
    """From a worker: the error of a job."""

    number: int
    error: Exception


class Ping(NamedTuple):
    """To a worker: are you alive?"""


class Pong(NamedTuple):
    """From a worker, at once: yes; and how many turns its threads have taken so far."""

    turns: int


Message = Start | Hello | CannotStart | Run | Cancel | Done | Failed | Ping | Pong


def _reduction(kind: type[Any]) -> Callable[[Any], tuple[type[Any], tuple[Any, ...]]]:
    """A function that gives what pickle needs to make a dataclass of this kind again: the class and its arguments."""
    values = attrgetter(*(field.name for field in fields(kind)))
    return lambda one: (kind, values(one))


# Dataclasses with slots ask for their fields each time.
for _kind in (AnswerJob, ClassifyJob, RankJob, LogitsJob, Answered, Computed, Logits):
    copyreg.pickle(_kind, _reduction(_kind))


def encode(message: Message) -> bytes:
    """The bytes of a message.

    Raises:
        Exception: Of any kind, from pickle: a part of the message cannot be pickled.
    """
    body = pickle.dumps(message, protocol=5)
    return _HEADER.pack(_MARK, len(body)) + body


class Decoder:
    """Puts messages together again from bytes that come in pieces of any size."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take further bytes, and give the messages that are complete now.

        Raises:
            WorkerLostError: The bytes are no message. Nothing that follows can be understood.
        """
        self._buffer += data
        start, end = 0, _HEADER.size
        try:
            while end <= len(self._buffer):
                mark, length = _HEADER.unpack_from(self._buffer, start)
                if mark != _MARK:
                    raise WorkerLostError(f"a message between processes begins with {mark!r} instead of {_MARK!r}")
                if end + length > len(self._buffer):
                    return
                with memoryview(self._buffer)[end : end + length] as body:
                    message = _unpickled(body)
                start = end + length
                end = start + _HEADER.size
                yield message
        finally:
            del self._buffer[:start]


def _unpickled(body: memoryview) -> Message:
    try:
        message = pickle.loads(body)
    except Exception as error:
        raise WorkerLostError(f"a message between processes cannot be read: {error!r}") from error
    if not isinstance(message, Message):
        raise WorkerLostError(f"a message between processes is a {type(message).__name__}")
    return message
