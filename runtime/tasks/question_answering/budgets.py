"""Answer within a time budget: predict what a call takes on this CPU, and choose its length configuration by that."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from time import monotonic

from dynamic_tinybert.runtime import cpu
from dynamic_tinybert.runtime.batches import batches_of
from dynamic_tinybert.runtime.budget import Candidate, Limits, check_figures, choose, f1_losses, is_allowed
from dynamic_tinybert.runtime.bundles.files import MANIFEST
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.common.work_dir import digest
from dynamic_tinybert.runtime.cpu_quota import default_threads
from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.encoder.gate import gate
from dynamic_tinybert.runtime.latency_cache import Key, cache_folder, load_table, save_table
from dynamic_tinybert.runtime.latency_table import Batch, LatencyTable, measure_latency_table
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.windows import Window

from .answers import Answer, pipeline_answers
from .inference import run_windows
from .options import PIPELINE
from .sample_windows import sample_windows
from .windowing import Windowing

_SCHEME = 2
"""Grows when tables are measured or stored in another way."""


class Budgets:
    """Chooses length configurations of a model for calls with limits. Thread-safe and fork-safe.

    The model's latency table is measured when the first call needs it, or comes from the user's cache.
    """

    def __init__(self, model: LengthAdaptiveModel, windowing: Windowing) -> None:
        self._model = model
        self._windowing = windowing
        self._table: LatencyTable | None = None
        self._lock = threading.Lock()

    def begin(
        self, budget_ms: float | None, max_f1_loss: float | None, length_config: object, arrived: float | None = None
    ) -> BudgetedCall | None:
        """Start the clock of a call; None if it has no limits.

        Args:
            budget_ms: See `Limits`.
            max_f1_loss: See `Limits`.
            length_config: What the call asks for itself, which must be nothing if it has limits.
            arrived: Time of `time.monotonic` at which the call began; None for now.

        Raises:
            InvalidInputError: A limit is out of range, there are limits and a length configuration, or the bundle has
                no figures for `max_f1_loss`.
        """
        if budget_ms is None and max_f1_loss is None:
            return None
        limits = Limits(budget_ms, max_f1_loss)
        if length_config is not None:
            raise InvalidInputError(
                f"length_config={length_config!r} together with a budget: budget_ms and max_f1_loss choose the length "
                "configuration; give either"
            )
        losses = f1_losses(self._model.length_configs)
        if max_f1_loss is not None:
            check_figures(losses)
        return BudgetedCall(self, limits, losses, monotonic() if arrived is None else arrived)

    def table(self, cache_dir: str | Path | None = None) -> LatencyTable:
        """The model's latency table; concurrent callers wait for the first of them, which measures it or loads it."""
        if self._table is None:
            with gate, self._lock:  # so that the lock is not held at a fork
                if self._table is None:
                    self._table = self._loaded_or_measured(cache_folder(cache_dir))
        return self._table

    def adopt(self, table: LatencyTable) -> None:
        """Predict by a table that was measured in another process; one of other length configurations is ignored."""
        if table.ms.keys() == self._model.length_configs.keys():
            self._table = table

    def predict(self, names: Iterable[str], lengths: Sequence[int], batch_size: int) -> dict[str, float]:
        """Milliseconds of a call's windows by length configuration; empty while there is no latency table.

        Args:
            names: The length configurations.
            lengths: Tokens of each window.
            batch_size: Maximum number of windows that run at once.
        """
        table = self._table
        if table is None:
            return {}
        batches = [(max(lengths[i] for i in batch), len(batch)) for batch in batches_of(lengths, batch_size)]
        return {name: table.predict(name, batches) for name in names}

    def _loaded_or_measured(self, folder: Path | None) -> LatencyTable:
        key = _key(self._model)
        if folder is None or key is None:
            return self._measured()
        table = load_table(folder, key)
        if table is None or table.ms.keys() != self._model.length_configs.keys():
            table = self._measured()
            save_table(folder, key, table)
        return table

    def _measured(self) -> LatencyTable:
        """Time from windows to answers, with the options of a call that gives none."""
        model = self._model

        @cache
        def windows_of(length: int) -> list[Window]:
            return sample_windows(self._windowing, length)

        def run(name: str, batch: Batch, turn: int) -> None:
            length, size = batch
            samples = windows_of(length)
            windows = [[samples[(turn + k) % len(samples)]] for k in range(size)]
            outputs = run_windows(model, windows, length_config=name, batch_size=size)
            for own_windows, own_outputs in zip(windows, outputs, strict=True):
                pipeline_answers("", own_windows, own_outputs, PIPELINE)

        elastic = model.execution["elastic"] == str(True)
        limit = None if elastic else model.max_compiled
        return measure_latency_table(run, list(model.length_configs), max_length=model.max_length, max_compiled=limit)


class BudgetedCall:
    """A call with limits, from its start to its answers.

    Attributes:
        limits: What its caller asks for.
        allowed: Points of F1 that the length configurations lose which it may run at, None where unknown.
    """

    def __init__(self, budgets: Budgets, limits: Limits, losses: dict[str, float | None], start: float) -> None:
        self.limits = limits
        self.allowed = {name: loss for name, loss in losses.items() if is_allowed(loss, limits)}
        self._budgets = budgets
        self._start = start
        self._name = "full"

    @property
    def slack_ms(self) -> float:
        """Milliseconds that are left of the budget, negative if it is over; infinite without one."""
        budget = self.limits.budget_ms
        return math.inf if budget is None else budget - 1e3 * (monotonic() - self._start)

    def predict(self, lengths: Sequence[int], batch_size: int) -> dict[str, float]:
        """Milliseconds by allowed length configuration; nothing is measured if there is no other choice.

        The time of measuring or loading the latency table does not count towards the budget.

        Args:
            lengths: Tokens of all windows of the call.
            batch_size: Maximum number of windows that run at once.
        """
        if len(self.allowed) > 1:
            before = monotonic()
            self._budgets.table()
            self._start += monotonic() - before
        return self._budgets.predict(self.allowed, lengths, batch_size) or dict.fromkeys(self.allowed, 0.0)

    def choose(self, lengths: Sequence[int], batch_size: int) -> str:
        """The name of the length configuration to run the windows of the call at, if nothing else waits.

        What the call has taken so far counts towards its budget. Arguments are those of `predict`.
        """
        ms = self.predict(lengths, batch_size)
        if len(ms) > 1:
            spent = 1e3 * (monotonic() - self._start)
            candidates = [Candidate(name, spent + ms[name], loss) for name, loss in self.allowed.items()]
            return self.take(choose(candidates, self.limits).candidate.name)
        return self.take(*ms)

    def take(self, name: str) -> str:
        """Note the length configuration at which the call runs; returns its name."""
        self._name = name
        return name

    def finish(self, answers: Iterable[Iterable[Answer]]) -> None:
        """Say in all answers of the call which configuration ran, how long it took and if that is in the budget."""
        ms = 1e3 * (monotonic() - self._start)
        budget = self.limits.budget_ms
        met = None if budget is None else bool(ms <= budget)  # NumPy's numbers compare to a bool that is no JSON
        for own in answers:
            for answer in own:
                answer["length_config"] = self._name
                answer["ms"] = ms
                answer["budget_met"] = met


def _key(model: LengthAdaptiveModel) -> Key | None:
    """All that a table depends on; None if the bundle's folder has gone, so that it cannot be told from others."""
    try:
        manifest = digest(model.bundle.path / MANIFEST)
    except OSError:
        return None
    return {
        "scheme": _SCHEME,
        "manifest": manifest,
        "length_configs": list(model.length_configs),
        "cpu": cpu.name(),
        "isa": extension_library.isa(),
        "threads": model.execution.get("INFERENCE_NUM_THREADS", str(default_threads())),
        "execution": {name: value for name, value in model.execution.items() if name != "CACHE_DIR"},
        "versions": {name: version(name) for name in ("dynamic-tinybert", "openvino")},
    }
