"""Choose a length configuration for a time budget and a limit on the loss in F1."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .bundles.bundle import NamedLengthConfig
from .common.checks import require_number
from .common.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Limits:
    """What a caller asks of a length configuration; at least one of the two.

    Attributes:
        budget_ms: Milliseconds that the call may take, above 0; None for any time.
        max_f1_loss: Most points of F1 (of 100) that may be lost against `full`, 0 or more; None for any loss.

    Raises:
        InvalidInputError: A limit is not a finite number, or out of range.
    """

    budget_ms: float | None = None
    max_f1_loss: float | None = None

    def __post_init__(self) -> None:
        if self.budget_ms is not None and require_number("budget_ms", self.budget_ms) <= 0:
            raise InvalidInputError(f"budget_ms must be above 0 milliseconds, not {self.budget_ms!r}")
        if self.max_f1_loss is not None and require_number("max_f1_loss", self.max_f1_loss) < 0:
            raise InvalidInputError(f"max_f1_loss must be 0 or more points of F1, not {self.max_f1_loss!r}")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A length configuration that may be chosen.

    Attributes:
        name: Its name in the bundle.
        ms: Predicted milliseconds.
        f1_loss: Points of F1 that it loses against `full`; None if that was not measured.
    """

    name: str
    ms: float
    f1_loss: float | None


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate to run.

    Attributes:
        candidate: It.
        fits: Whether it is predicted to meet the budget; True without one.
    """

    candidate: Candidate
    fits: bool


def choose(candidates: Collection[Candidate], limits: Limits) -> Choice:
    """The most accurate candidate that is predicted to meet the budget, or else the fastest that may be taken.

    A limit on the loss in F1 excludes the candidates that lose more, and those whose loss is unknown. Without a budget
    the fastest of the others is taken. Candidates of equal loss are chosen by time, the faster first. A candidate whose
    loss is unknown counts as less accurate than all whose loss is known; among several of them the slower one, which
    drops fewer tokens, counts as the more accurate one.

    Raises:
        InvalidInputError: `limits.max_f1_loss` excludes all candidates.
    """
    allowed = [candidate for candidate in candidates if is_allowed(candidate.f1_loss, limits)]
    if not allowed:
        raise InvalidInputError(f"no length configuration loses at most max_f1_loss={limits.max_f1_loss}; allow more")
    fitting = [c for c in allowed if limits.budget_ms is None or c.ms <= limits.budget_ms]
    if limits.budget_ms is None or not fitting:
        fastest = min(allowed, key=lambda c: (c.ms, math.inf if c.f1_loss is None else c.f1_loss))
        return Choice(fastest, fits=bool(fitting))
    return Choice(min(fitting, key=by_accuracy), fits=True)


def is_allowed(f1_loss: float | None, limits: Limits) -> bool:
    """Whether a limit on the loss in F1 admits a length configuration that loses `f1_loss`, None if that is unknown."""
    return limits.max_f1_loss is None or (f1_loss is not None and f1_loss <= limits.max_f1_loss)


def f1_losses(length_configs: Mapping[str, NamedLengthConfig]) -> dict[str, float | None]:
    """For each length configuration of a bundle, the points of F1 that it may lose against `full`.

    This is the pessimistic end of the 95 % interval that calibration measured (`f1_against_full` in the manifest), so
    that a limit holds for other questions, too, and not only in every second case. It is negative if the configuration
    is better than `full`. None where the manifest has no such figure; `full` itself loses 0.
    """
    return {name: 0.0 if name == "full" else _f1_loss(named.measured) for name, named in length_configs.items()}


def check_figures(losses: Mapping[str, float | None]) -> None:
    """Refuse a limit on the loss in F1 where no configuration but `full` has a figure, although there are others.

    Raises:
        InvalidInputError: The bundle was not calibrated.
    """
    others = [name for name in losses if name != "full"]
    if others and all(losses[name] is None for name in others):
        raise InvalidInputError(
            f"max_f1_loss needs to know what {', '.join(others)} lose, and this bundle has no f1_against_full of them; "
            "calibrate the bundle, or give budget_ms alone"
        )


def by_accuracy(candidate: Candidate) -> tuple[float, float]:
    """A key that sorts the most accurate candidate first."""
    return (math.inf, -candidate.ms) if candidate.f1_loss is None else (candidate.f1_loss, candidate.ms)


def _f1_loss(measured: Mapping[str, Any] | None) -> float | None:
    gain = (measured or {}).get("f1_against_full")  # figures are free, so that this may be anything
    if not isinstance(gain, list | tuple) or len(gain) != 3:
        return None
    try:
        return -require_number("f1_against_full", gain[1])
    except InvalidInputError:
        return None
