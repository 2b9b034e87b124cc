"""What dropping tokens gains at each length of the input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from dynamic_tinybert.calibration.search.latency import measure_latency
from dynamic_tinybert.runtime.batches import TokenSequence
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel

LENGTHS = (100, 200, 384)
"""Lengths, in tokens, at which the gain is shown."""


@dataclass(frozen=True)
class LengthGain:
    """What dropping tokens gains on inputs of about one length.

    Attributes:
        name: Name of the group, such as "200 tokens".
        windows: Number of windows that were measured.
        mean_length: Mean real tokens of a window.
        full_ms: Mean time of a window at `full`, in milliseconds.
        speedup: By configuration, the time at `full` divided by that of the configuration.
        macs_fewer: By configuration, the MACs of `full` divided by those of the configuration.
    """

    name: str
    windows: int
    mean_length: float
    full_ms: float
    speedup: Mapping[str, float]
    macs_fewer: Mapping[str, float]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


def gain_by_length(
    model: LengthAdaptiveModel,
    configs: Mapping[str, LengthConfig],
    questions: Sequence[Sequence[TokenSequence]],
    *,
    per_length: int = 16,
    repeats: int = 5,
    seed: int = 0,
) -> list[LengthGain]:
    """Measure the gain at each of `LENGTHS`, and for questions with several windows.

    Args:
        model: The model.
        configs: Length configurations by name.
        questions: The windows of each question, as a model would get them.
        per_length: Maximum number of windows near a length, and of questions with several windows.
        repeats: See `measure_latency`.
        seed: See `measure_latency`.

    Returns:
        The gains for the groups that have windows; there may be none.

    Raises:
        InvalidInputError: A number is out of range.
        InferenceError: OpenVINO failed.
        LengthConfigError: A configuration does not fit the model.
    """
    windows = [window for own in questions for window in own]
    groups = {f"{length} tokens": _near(windows, length)[:per_length] for length in LENGTHS}
    several = [own for own in questions if len(own) > 1][:per_length]
    groups["several windows"] = [window for own in several for window in own]
    measured = [window for group in groups.values() for window in group]
    if not measured:
        return []
    full = model.resolve("full")
    table = measure_latency(model, [full, *configs.values()], measured, repeats=repeats, seed=seed)
    gains, end = [], 0
    for name, group in groups.items():
        part = slice(end, end := end + len(group))
        if not group:
            continue
        ms = table.ms[:, part].sum(1)
        macs = [
            sum(map(partial(model.executed_macs, config), table.lengths[part].tolist(), kept[part].tolist()))
            for config, kept in zip(table.configs, table.kept, strict=True)
        ]
        gains.append(
            LengthGain(
                name=name,
                windows=len(group),
                mean_length=float(table.lengths[part].mean()),
                full_ms=float(ms[0]) / len(group),
                speedup={n: float(ms[0] / own_ms) for n, own_ms in zip(configs, ms[1:], strict=True)},
                macs_fewer={n: macs[0] / own_macs for n, own_macs in zip(configs, macs[1:], strict=True)},
            )
        )
    return gains


def _near(windows: Sequence[TokenSequence], length: int) -> list[TokenSequence]:
    """Windows within 15 % of a length, the nearest first."""
    near = [window for window in windows if abs(len(window) - length) <= 0.15 * length]
    return sorted(near, key=lambda window: abs(len(window) - length))
