"""The figures of a length configuration as a bundle's manifest records them (docs/bundle-format.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dynamic_tinybert.runtime.common.bootstrap import paired_bootstrap
from dynamic_tinybert.runtime.tasks.measure import Scored

LOSSY = 1.0
"""Points that a configuration may lose against `full` without being called lossy."""


def measured_figures(result: Scored, full: Scored, metrics: Iterable[str], groups: Sequence[str]) -> dict[str, object]:
    """The figures of a run, compared with one of `full` on the same examples; both ran with a batch size of 1.

    Args:
        result: The run.
        full: The run of `full`.
        metrics: Keys of the measure's `metrics`; the first is the key of the scores.
        groups: The name of each example's group, such as its article.
    """
    of_scores, *_ = metrics
    against_full = paired_bootstrap(result.scores, full.scores)
    p50, p95, longest = (round(result.latency_ms(percentile) or 0.0, 2) for percentile in (50, 95, 100))
    return {
        **{metric: round(mean, 2) for metric, mean in result.means.items()},
        f"{of_scores}_against_full": [round(value, 2) for value in against_full],  # mean, 95 % interval
        **_over_groups(result, full, f"{of_scores}_against_full_over_groups", groups),
        "lossy": against_full[0] < -LOSSY,
        "macs": round(result.mean_macs),
        "macs_fewer": round(full.mean_macs / result.mean_macs, 3),
        "mean_kept_tokens": [round(value, 1) for value in result.mean_kept],
        "latency_p50_ms": p50,
        "latency_p95_ms": p95,
        "latency_max_ms": longest,
    }


def _over_groups(result: Scored, full: Scored, key: str, groups: Sequence[str]) -> dict[str, object]:
    """The gain with its 95 % interval over groups, and the number of groups; nothing if there is only one."""
    count = len(set(groups))
    if count < 2:
        return {}
    gain = paired_bootstrap(result.scores, full.scores, clusters=groups)
    return {key: [round(value, 2) for value in gain], "num_groups": count}
