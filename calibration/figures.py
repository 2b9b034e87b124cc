"""The figures of a length configuration as a bundle's manifest records them (docs/bundle-format.md)."""

from __future__ import annotations

from dynamic_tinybert.runtime.common.bootstrap import paired_bootstrap
from dynamic_tinybert.runtime.tasks.question_answering.evaluation import Evaluation

LOSSY = 1.0  # F1


def measured_figures(result: Evaluation, full: Evaluation) -> dict[str, object]:
    """Figures of an evaluation of single questions, beside that of `full` on the same ones."""
    against_full = paired_bootstrap(result.question_f1, full.question_f1)
    p50, p95, longest = (round(result.latency_ms(percentile) or 0.0, 2) for percentile in (50, 95, 100))
    return {
        "f1": round(result.f1, 2),
        "exact_match": round(result.exact_match, 2),
        "f1_against_full": [round(value, 2) for value in against_full],  # mean, 95 % interval
        "lossy": against_full[0] < -LOSSY,
        "macs": round(result.mean_macs),
        "macs_fewer": round(full.mean_macs / result.mean_macs, 3),
        "mean_kept_tokens": [round(value, 1) for value in result.mean_kept],
        "latency_p50_ms": p50,
        "latency_p95_ms": p95,
        "latency_max_ms": longest,
    }
