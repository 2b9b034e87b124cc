"""``dynamic-tinybert evaluate`` for classifiers: labelled texts, and rankings for a model with one output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from dynamic_tinybert.runtime.common.bootstrap import paired_bootstrap
from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.common.publish import writing
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.sequence_classification.classifier import BATCH_SIZE
from dynamic_tinybert.runtime.tasks.sequence_classification.evaluation import Evaluation
from dynamic_tinybert.runtime.tasks.sequence_classification.measure import TextMeasure
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_evaluation import (
    RankingEvaluation,
    evaluate_rankings,
)
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_files import is_ranking_file, read_rankings
from dynamic_tinybert.runtime.tasks.sequence_classification.reranker import Reranker


def evaluate_classifier(
    model: LengthAdaptiveModel,
    data: Path,
    *,
    length_config: str | None,
    limit: int | None,
    batch_size: int | None,
    strict: bool,
    json_file: Path | None,
    write_report: Callable[..., None] | None = None,
    num_threads: int | None = None,
) -> None:
    """Measure a classifier on labelled texts, or on rankings if the file has some, and print a table.

    Args:
        model: The model.
        data: A file in a form that `read_texts` or `read_rankings` reads.
        length_config: Name of a length configuration, "all", or None for the bundle's default.
        limit: Read only this many texts or rankings.
        batch_size: Number of inputs to run at once; by default 1, so that texts are timed, and 8 for rankings.
        strict: Refuse data with a faulty text; not for rankings, which are always refused then.
        json_file: Write all figures to this file.
        write_report: Writes the report of an evaluation; see `write_evaluation_report`.
        num_threads: CPU threads that the model was given.

    Raises:
        DataError: The data cannot be read.
        InvalidInputError: The data are rankings, but the model has several outputs, or a report or `strict` is wanted.
        LengthConfigError: The length configuration is unknown.
    """
    chosen = length_config or model.bundle.default_length_config
    names = list(model.length_configs) if chosen == "all" else [chosen]
    rows: Iterable[tuple[str, Evaluation | RankingEvaluation]]
    if is_ranking_file(data):
        if write_report is not None:
            raise InvalidInputError(f"{data} holds rankings, and a report shows texts; leave out --report")
        if strict:
            raise InvalidInputError(
                f"{data} holds rankings, which are refused if the model cannot read a text, also without --strict; "
                "leave it out"
            )
        rankings = read_rankings(data, limit=limit)
        # Orders are those of the logits, so the activation does not matter, which may be one that is not known here.
        reranker, at_once = Reranker(model, function_to_apply="none"), batch_size or BATCH_SIZE
        print(f"{len(rankings)} queries of {data}, bundle {model.bundle.path}")
        rows = (
            (name, evaluate_rankings(reranker, rankings, length_config=name, batch_size=at_once, progress=True))
            for name in names
        )
    else:
        measure = TextMeasure.of(model.bundle)
        read = measure.read(data, strict=strict, limit=limit)
        for line in read.lines:
            print(line, file=sys.stderr)
        scoring = measure.scoring(model, read.examples)
        print(f"{len(read.examples)} texts of {data}, scored by {scoring.scored_by}, bundle {model.bundle.path}")
        rows = ((name, scoring.evaluate(model, name, batch_size=batch_size or 1, progress=True)) for name in names)
    results: dict[str, Evaluation | RankingEvaluation] = {}
    for name, result in rows:
        results[name] = result
        if len(results) == 1:
            print(_header(result))
        print(_row(name, result, results.get("full")))
    if write_report is not None:
        print("Measuring where the speed comes from", file=sys.stderr)
        about = f"{data.name}, {len(read.examples)} texts"
        write_report(model, measure, read.examples, results, data=about, num_threads=num_threads)
    if json_file is not None:
        written = {name: result.to_dict() for name, result in results.items()}
        with writing(json_file):
            json_file.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def _header(result: Evaluation | RankingEvaluation) -> str:
    metrics = "".join(f"{name:>13}" for name in _figures(result))
    return f"{'configuration':16}{metrics}{'p50 ms':>9}{'p95 ms':>9}   {next(iter(result.means))} against full"


def _row(name: str, result: Evaluation | RankingEvaluation, full: Evaluation | RankingEvaluation | None) -> str:
    """The row of a length configuration, compared with `full` if that was measured before it."""
    figures = "".join(f"{'-' if figure is None else f'{figure:.2f}':>13}" for figure in _figures(result).values())
    times = "".join(f"{'-' if ms is None else f'{ms:.1f}':>9}" for ms in map(result.latency_ms, (50, 95)))
    line = f"{name:16}{figures}{times}"
    if name != "full" and full is not None:
        difference, low, high = paired_bootstrap(result.scores, full.scores)
        line += f"   {difference:+.2f} [{low:+.2f}, {high:+.2f}]"
    return line


def _figures(result: Evaluation | RankingEvaluation) -> Mapping[str, Any]:
    """The figures of a row by the heads of their columns."""
    if isinstance(result, RankingEvaluation):
        return result.means
    kept = sum(result.mean_kept) / len(result.mean_kept)
    correlation = {} if result.correlation is None else {"correlation": result.correlation}
    return {**result.means, **correlation, "tokens": kept, "MMACs": result.mean_macs / 1e6}
