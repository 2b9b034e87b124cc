"""Metrics in the format of Prometheus; durations are in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dynamic_tinybert.runtime.tasks.question_answering.plan import Answered
from dynamic_tinybert.serving.jobs import Backend, Logits
from dynamic_tinybert.serving.usage import Computed

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "dynamic_tinybert_"

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_SHARES = tuple(tenth / 10 for tenth in range(1, 11))


class Metrics:
    """The counters of a server, in a registry of their own."""

    def __init__(self, backend: Backend) -> None:
        """Count from 0; queue and jobs in flight are those of the backend."""
        self.registry = CollectorRegistry()
        self.requests = Counter(
            PREFIX + "requests",
            "Requests by route, method and HTTP status; 499 if the client hung up.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            PREFIX + "request_seconds",
            "Time from the head of a request to the end of its response.",
            ("route",),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.failures = Counter(
            PREFIX + "failures", "Failed requests by error_type.", ("error_type",), registry=self.registry
        )
        self.jobs = Counter(
            PREFIX + "jobs",
            'Finished jobs by the length configuration that ran; "other" for keep ratios without a name.',
            ("length_config",),
            registry=self.registry,
        )
        self.tokens = Counter(PREFIX + "tokens", "Tokens that entered the model.", registry=self.registry)
        self.kept = Histogram(
            PREFIX + "kept_share",
            "Share of a job's tokens that a layer passes on, the mean over all layers.",
            registry=self.registry,
            buckets=_SHARES,
        )
        self.budgets = Counter(
            PREFIX + "budgets", 'Answered jobs with a budget, by whether it was met ("true", "false").', ("met",),
            registry=self.registry,
        )  # fmt: skip
        self.registry.register(_BackendGauges(backend))
        # To look a counter up by its labels takes longer than to count. There are few of each.
        self._requests = cache(self.requests.labels)
        self._seconds = cache(self.seconds.labels)
        self._jobs = cache(self.jobs.labels)

    def count_request(self, route: str, method: str, status: int, seconds: float, error_type: str | None) -> None:
        """Count a request that has ended."""
        self._requests(route, method, status).inc()
        self._seconds(route).observe(seconds)
        if error_type is not None:
            self.failures.labels(error_type).inc()

    def count_result(self, result: Answered | Computed[Any] | Logits) -> None:
        """Count a job that has been run."""
        self._jobs(result.length_config or "other").inc()
        self.tokens.inc(result.tokens)
        if result.tokens and result.kept:
            self.kept.observe(sum(result.kept) / len(result.kept) / result.tokens)
        if isinstance(result, Answered):
            met = next((answer.get("budget_met") for own in result.answers for answer in own), None)
            if met is not None:
                self.budgets.labels(str(met).lower()).inc()

    def text(self) -> bytes:
        """All metrics as text."""
        return generate_latest(self.registry)


class _BackendGauges(Collector):
    """What a backend says of itself when it is asked."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def collect(self) -> Iterator[Metric]:
        """Ask the backend."""
        for name, text, value in (
            ("queued", "Jobs that wait.", self._backend.queued),
            ("running", "Jobs that are being run.", self._backend.running),
            ("ready", "1 if jobs are taken.", self._backend.ready),
        ):
            yield GaugeMetricFamily(PREFIX + name, text, value)
        restarts = CounterMetricFamily(
            PREFIX + "worker_restarts", "Processes that run the model and were replaced, by cause.", labels=["cause"]
        )
        for cause, number in self._backend.restarts.items():
            restarts.add_metric([cause], number)
        yield restarts
