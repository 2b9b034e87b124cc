"""The command ``dynamic-tinybert calibrate``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dynamic_tinybert.runtime.commands.options import ThreadsOption
from dynamic_tinybert.runtime.common.errors import InvalidInputError


class _Significance(StrEnum):
    LEARNT = "learnt"
    TRAINED = "trained"
    ATTENTION = "attention"


def calibrate(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle; it is replaced at the very end.")],
    data: Annotated[
        Path,
        typer.Option(
            help="Questions to fit significance on, SQuAD JSON or rows, for a classifier texts; no answers are needed. "
            "Or rankings, so that a reranker drops documents in the length configurations that it has."
        ),
    ],
    validation: Annotated[
        Path | None,
        typer.Option(help="Examples to choose on; by default some articles or groups of --data."),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(
            help="Examples to report on; by default some articles or groups of --validation or else of --data."
        ),
    ] = None,
    significance: Annotated[
        _Significance,
        typer.Option(help="Fit a scorer per layer, use the scorers trained with the model, or use attention."),
    ] = _Significance.LEARNT,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=POINTS",
            help="Also find the fastest configuration that loses at most so many points, such as quick=1.5.",
        ),
    ] = None,
    budget_minutes: Annotated[float, typer.Option(help="Time for the whole calibration.")] = 45.0,
    evaluations: Annotated[int | None, typer.Option(min=1, help="Try at most N length configurations.")] = None,
    fitting_steps: Annotated[
        int | None, typer.Option(min=1, help="Fit scorers in N steps; by default as many as the time allows.")
    ] = None,
    risk: Annotated[
        float | None,
        typer.Option(help="With rankings: what share of the first places' relevance may be lost; by default 0.01."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed for every random choice.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report to this file.")] = None,
    num_threads: ThreadsOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse data with an example that is too long or faulty.")
    ] = False,
) -> None:
    """Find a bundle's best length configurations on this machine, from examples; from rankings, drop documents."""
    from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_files import is_ranking_file

    if is_ranking_file(data):
        given: dict[str, object] = {"--test": test, "--limit": limit, "--report": report, "--evaluations": evaluations}
        given |= {"--fitting-steps": fitting_steps, "--resume": resume or None, "--strict": strict or None}
        _refuse("rankings", given)
        _calibrate_documents(bundle, data, validation, risk, seed, num_threads)
        return
    _refuse("examples that are no rankings", {"--risk": risk})
    from . import calibrate as run  # raises an error that names the missing extra
    from .report import write_calibration_report

    if report is not None and not report.parent.is_dir():  # fail now, not after the calibration
        raise InvalidInputError(f"there is no folder {report.parent} to write {report.name} to")
    result = run(
        bundle,
        data,
        validation=validation,
        test=test,
        significance=significance.value,
        limits=_limits(limit or []),
        budget_minutes=budget_minutes,
        evaluations=evaluations,
        fitting_steps=fitting_steps,
        seed=seed,
        resume=resume,
        num_threads=num_threads,
        strict=strict,
        say=lambda line: print(line, file=sys.stderr),
    )
    if report is not None:
        print("Measuring where the speed comes from", file=sys.stderr)
        write_calibration_report(result, report, num_threads=num_threads)
    print(f"{result.path}: {len(result.points)} length configurations evaluated, {len(result.front)} on the front")
    score_key, score_name = next(iter(result.metrics.items()))
    widths = {key: max(7, len(name) + 2) for key, name in result.metrics.items()}
    header = f"{'configuration':16}{''.join(f'{name:>{widths[key]}}' for key, name in result.metrics.items())}"
    print(f"{header}{'MACs':>8}{'p50 ms':>8}{'p95 ms':>8}{'max ms':>8}   {score_name} against full")
    for name, named in result.length_configs.items():
        figures = dict(named.measured or {})
        times = "".join(f"{figures[f'latency_{which}_ms']:8.1f}" for which in ("p50", "p95", "max"))
        means = "".join(f"{figures[key]:{widths[key]}.2f}" for key in result.metrics)
        line = f"{name:16}{means}{figures['macs_fewer']:7.2f}x{times}"
        if name != "full":
            difference, low, high = figures[f"{score_key}_against_full"]
            line += f"   {difference:+.2f} [{low:+.2f}, {high:+.2f}]"
            if over_groups := figures.get(f"{score_key}_against_full_over_groups"):
                line += ", over {} groups [{:+.2f}, {:+.2f}]".format(figures["num_groups"], *over_groups[1:])
        print(line)


def _calibrate_documents(
    bundle: Path, data: Path, validation: Path | None, risk: float | None, seed: int, num_threads: int | None
) -> None:
    from . import calibrate_documents

    heads = calibrate_documents(
        bundle,
        data,
        validation=validation,
        risk=0.01 if risk is None else risk,
        seed=seed,
        num_threads=num_threads,
        say=lambda line: print(line, file=sys.stderr),
    )
    print(f"{bundle}: documents are dropped, by {heads.queries} queries of {heads.data}")
    columns = f"{'layers before':>14}{'top':>5}{'margin':>9}{'leave':>8}{'lost':>8}{'risk':>8}{'MACs':>8}"
    print(f"{'configuration':16}{columns}")
    for name, head in heads.heads.items():
        for places, margin in head.margins.items():
            left, lost, fewer = (head.measured[key][str(places)] for key in ("dropped", "lost", "macs_fewer"))
            figures = f"{left:8.1%}{lost:8.2%}{head.risk:8.2%}{fewer:7.2f}x"
            print(f"{name:16}{head.layers:14}{places:5}{margin:9.2f}{figures}")


def _refuse(data: str, options: Mapping[str, object]) -> None:
    """Refuse options that mean nothing for the kind of data."""
    for name, value in options.items():
        if value is not None:
            raise InvalidInputError(f"{name} is no option for {data}; leave it out")


def _limits(texts: list[str]) -> dict[str, float]:
    limits: dict[str, float] = {}
    for text in texts:
        name, _, points = text.partition("=")
        try:
            value = float(points)
        except ValueError:
            raise InvalidInputError(f"--limit {text!r} is not NAME=POINTS, such as quick=1.5") from None
        if name in limits:
            raise InvalidInputError(f"--limit names {name!r} twice; give each configuration a name of its own")
        limits[name] = value
    return limits
