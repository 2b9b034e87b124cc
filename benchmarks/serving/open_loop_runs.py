"""What an open loop gave: a table, a JSON file and a plot. The same for requests over HTTP and in one process."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.common import mean_change

ANSWERED = "answered"
REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request.

    Attributes:
        question: Index of its question.
        due: When it arrived, in seconds from the start of the run.
        seconds: From its arrival to its end, as the caller sees it.
        outcome: `ANSWERED`, `REFUSED` (the queue was full), or what else happened.
        length_config: Name of the length configuration that ran; empty if none did.
        f1: F1 of the answer in percent; NaN if there is none.
    """

    question: int
    due: float
    seconds: float
    outcome: str
    length_config: str = ""
    f1: float = float("nan")


@dataclass(frozen=True)
class Run:
    """An open loop at one rate.

    Attributes:
        load: The rate as a multiple of what `full` can serve.
        budgets: Whether requests had a budget; otherwise they ran with `full`.
        rate: Requests a second.
        budget_ms: The budget, which is also the deadline of requests without one.
        outcomes: All requests.
        queue: Pairs of a time in seconds from the start, and the number of requests that wait or are being run.
    """

    load: float
    budgets: bool
    rate: float
    budget_ms: float
    outcomes: Sequence[Outcome]
    queue: Sequence[tuple[float, int]]

    @property
    def name(self) -> str:
        return f"{self.load:g}x, {'budgets' if self.budgets else 'full'}"

    @property
    def answered(self) -> list[Outcome]:
        return [x for x in self.outcomes if x.outcome == ANSWERED]


def table(runs: Sequence[Run], full_f1: Mapping[int, float]) -> str:
    """A line for each run.

    Args:
        runs: The runs.
        full_f1: F1 in percent of the answer of `full` to each question.
    """
    lines = [
        "| Load | Requests | Answered | Refused | Other | In time | p50, ms | p95, ms | p99, ms | Most inside "
        "| F1 - F1 of full | Length configurations |",
        "| --- |" + " ---: |" * 9 + " --- | --- |",
    ]
    for run in runs:
        ends = Counter(x.outcome for x in run.outcomes)
        other = ", ".join(f"{name}: {n}" for name, n in ends.items() if name not in (ANSWERED, REFUSED)) or "0"
        done = run.answered
        if not done:
            lines.append(f"| {run.name} | {len(run.outcomes)} | 0 | {ends[REFUSED]} | {other} |" + " |" * 7)
            continue
        ms = 1e3 * np.array([x.seconds for x in done])
        p50, p95, p99 = np.percentile(ms, (50, 95, 99))
        loss = mean_change([x.f1 for x in done], [full_f1[x.question] for x in done])
        configs = Counter(x.length_config for x in done).most_common()
        shares = ", ".join(f"{name} {100 * n / len(done):.0f} %" for name, n in configs)
        lines.append(
            f"| {run.name} | {len(run.outcomes)} | {len(done)} | {ends[REFUSED]} | {other} "
            f"| {100 * (ms <= run.budget_ms).mean():.2f} % | {p50:.0f} | {p95:.0f} | {p99:.0f} "
            f"| {max((n for _, n in run.queue), default=0)} | {loss} | {shares} |"
        )
    return "\n".join(lines)


def write_json(path: Path, runs: Sequence[Run], settings: Mapping[str, object]) -> None:
    """Write the settings and all requests of all runs."""
    path.write_text(json.dumps({"settings": settings, "runs": [asdict(run) for run in runs]}))


def plot(path: Path, runs: Sequence[Run], title: str) -> None:
    """Draw a column for each load: times of requests, their number, configurations, with and without budgets."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    loads = sorted({run.load for run in runs})
    configs = list(dict.fromkeys(x.length_config for run in runs for x in run.answered))
    figure, axes = plt.subplots(3, len(loads), figsize=(5 * len(loads), 9), squeeze=False, sharex=True, sharey="row")
    for column, load in enumerate(loads):
        times, queue, shares = axes[:, column]
        times.set_title(f"{load:g}x of what full can serve")
        for run in (run for run in runs if run.load == load):
            name, color = ("with budgets", "tab:blue") if run.budgets else ("without (full)", "tab:orange")
            done, refused = run.answered, [x.due for x in run.outcomes if x.outcome == REFUSED]
            times.plot([x.due for x in done], [1e3 * x.seconds for x in done], ".", ms=2, color=color, label=name)
            if refused:
                times.plot(refused, [1.0] * len(refused), "|", color=color, label=f"{name}, refused")
            if run.queue:
                queue.plot(*zip(*run.queue, strict=True), color=color, label=name)
            if run.budgets and done:
                shares.stackplot(*_shares(done, configs), labels=configs)
        times.axhline(runs[0].budget_ms, color="black", lw=1, ls="--", label="budget")
        times.set_yscale("log")
        shares.set_xlabel("seconds")
    for row, name in enumerate(("time of a request, ms", "requests that wait or run", "share of configurations")):
        axes[row, 0].set_ylabel(name)
        axes[row, -1].legend(fontsize="small", loc="upper right")
    figure.suptitle(title, fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _shares(done: Sequence[Outcome], configs: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Times in seconds, and the share of each length configuration in the second around each of them."""
    last = int(max(x.due for x in done)) + 1
    counts = np.zeros((len(configs), last))
    for x in done:
        counts[configs.index(x.length_config), int(x.due)] += 1
    return np.arange(last) + 0.5, counts / np.maximum(counts.sum(axis=0), 1)
