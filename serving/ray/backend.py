"""The replicas of a Ray Serve deployment as the backend of the HTTP server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic
from typing import Any

from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, RayTaskError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from dynamic_tinybert.runtime.common.errors import (
    ClosedError,
    DeadlineExceededError,
    DynamicTinyBertError,
    OverloadedError,
    StartingError,
    WorkerLostError,
)
from dynamic_tinybert.serving.jobs import Job, ModelFacts

_LOST = (RayActorError, WorkerCrashedError, NodeDiedError, ObjectLostError)  # with the replica or with its node


class HandleBackend:
    """The `Backend` whose jobs are carried out by replicas of `ModelReplica`.

    Serve sends a request again to another replica if the first dies before it has accepted it, but not after: then the
    caller gets an error. Answering has no effect besides its result, so such a job is sent once more here.
    """

    def __init__(self, handle: DeploymentHandle[Any], facts: ModelFacts) -> None:
        """Send jobs through a handle."""
        self.facts: ModelFacts | None = facts
        self.draining = False
        self._handle = handle
        self._running = 0

    @property
    def ready(self) -> bool:
        """Whether jobs are taken. While no replica is up they wait for one."""
        return not self.draining

    @property
    def queued(self) -> int:
        """0: Ray does not tell which of the jobs sent to it wait, so all of them count as running."""
        return 0

    @property
    def running(self) -> int:
        """Number of jobs that have been sent and have no result yet."""
        return self._running

    @property
    def restarts(self) -> Mapping[Any, int]:
        """None are known here: Serve replaces replicas and counts them itself."""
        return {}

    async def run(self, job: Job, *, deadline: float | None = None) -> Any:  # noqa: ANN401 - by the kind of the job
        """Run a job; see `Backend.run`."""
        if self.draining:
            raise ClosedError("the server is shutting down and takes no further requests")
        self._running += 1
        try:
            async with asyncio.timeout(None if deadline is None else deadline - monotonic()):
                return await self._sent_twice(job, deadline)
        except DeadlineExceededError:  # found by the replica
            raise
        except TimeoutError as error:
            raise DeadlineExceededError("there was no result by the deadline") from error
        finally:
            self._running -= 1

    async def aclose(self) -> None:
        """Refuse new jobs. Serve itself waits for those that are running before it ends a replica."""
        self.draining = True

    async def _sent_twice(self, job: Job, deadline: float | None) -> Any:  # noqa: ANN401
        try:
            return await self._sent(job, deadline)
        except _LOST:
            pass
        try:
            return await self._sent(job, deadline)
        except _LOST as error:
            raise WorkerLostError(
                "the replica that ran the request ended before it was done, and so did the one that tried it again; "
                "send the request again"
            ) from error

    async def _sent(self, job: Job, deadline: float | None) -> Any:  # noqa: ANN401
        seconds = None if deadline is None else max(deadline - monotonic(), 1e-3)
        response: Any = self._handle.run.remote(job, seconds)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()  # frees the place
            raise
        except RayTaskError as error:
            if isinstance(error.cause, DynamicTinyBertError):
                raise error.cause from None  # without Ray's traceback in its message
            raise
        except BackPressureError as error:
            raise OverloadedError("as many requests wait as this server accepts; try again later") from error
        except DeploymentUnavailableError as error:
            raise StartingError("no replica of the model can be started; the log of Ray Serve says why") from error
