"""Settings of the Ray Serve application."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.serving.settings import ServerSettings

_SERVER = ServerSettings()


class RaySettings(BaseModel):
    """All that can be set of the application, by keyword, in YAML or as ``NAME=VALUE`` of ``serve run``.

    Attributes:
        bundle: Folder, the same on all nodes, or Hub id; None takes the one embedded in the package.
        model_name: Name of the model, as clients call it.
        length_config: Length configuration of requests that name none and have no budget; None for the bundle's.
        num_cpus: CPUs of each replica, and by default its threads.
        num_threads: Threads of each replica.
        min_replicas: Number of replicas that always run.
        max_replicas: Number of replicas that load may lead to.
        target_ongoing_requests: Requests in a replica that autoscaling aims at; None for half of
            `max_ongoing_requests`.
        max_ongoing_requests: Requests that a replica takes at once; its own queue orders them.
        max_queued_requests: Requests that wait for a replica; a further one is refused.
        front_replicas: Number of processes that speak HTTP.
        front_on_head: Whether these run on the head node, without which there is no cluster.
        health_check_period_s: Seconds between two checks of a replica.
        health_check_timeout_s: Seconds that a check may take. After three failed checks the replica is replaced.
        max_body_bytes: As for the HTTP server, like those below.
        max_items: Questions in a request.
        max_characters: Characters in all texts of a request.
        max_top_k: Answers to one question.
        request_timeout_s: Seconds after which a request without a result is given up.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bundle: str | None = None
    model_name: str = _SERVER.model_name
    length_config: str | None = None
    num_cpus: float = Field(1, gt=0)
    num_threads: int | None = Field(None, ge=1)
    min_replicas: int = Field(1, ge=1)
    max_replicas: int = Field(1, ge=1)
    target_ongoing_requests: float | None = Field(None, gt=0)
    max_ongoing_requests: int = Field(32, ge=1)
    max_queued_requests: int = Field(_SERVER.max_queued, ge=1)
    front_replicas: int = Field(1, ge=1)
    front_on_head: bool = True
    health_check_period_s: float = Field(10, gt=0)
    health_check_timeout_s: float = Field(30, gt=0)
    max_body_bytes: int = _SERVER.max_body_bytes
    max_items: int = _SERVER.max_items
    max_characters: int = _SERVER.max_characters
    max_top_k: int = _SERVER.max_top_k
    request_timeout_s: float = _SERVER.request_timeout_s

    @model_validator(mode="after")
    def _replicas_in_order(self) -> RaySettings:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas={self.max_replicas} is less than min_replicas={self.min_replicas}")
        return self

    @classmethod
    def checked(cls, args: Mapping[str, Any]) -> RaySettings:
        """Check settings, of which those from a command line are texts.

        Raises:
            InvalidInputError: A name is unknown, or a value has the wrong type or is out of range.
        """
        try:
            settings = cls.model_validate(dict(args))
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc'])) or 'the settings'}: {fault['msg']}, not {fault['input']!r:.80}"
                for fault in error.errors()
            )
            raise InvalidInputError(
                f"cannot use these settings ({faults}); there are {', '.join(cls.model_fields)}"
            ) from error
        settings.server()  # checks the rest
        return settings

    def server(self) -> ServerSettings:
        """Those of the HTTP server in them.

        Raises:
            InvalidInputError: A value is out of range.
        """
        return ServerSettings(
            bundle=self.bundle,
            model_name=self.model_name,
            max_queued=self.max_queued_requests,
            max_body_bytes=self.max_body_bytes,
            max_items=self.max_items,
            max_characters=self.max_characters,
            max_top_k=self.max_top_k,
            request_timeout_s=self.request_timeout_s,
        )
