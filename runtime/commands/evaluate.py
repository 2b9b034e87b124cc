"""``dynamic-tinybert evaluate``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.tasks.question_answering.options import SQUAD

from .options import SequenceLengthOption, StrideOption, ThreadsOption

if TYPE_CHECKING:
    from dynamic_tinybert.runtime.tasks.question_answering.evaluation_result import Evaluation

_HEADER = f"{'configuration':16}{'F1':>7}{'EM':>7}{'tokens':>8}{'MMACs':>8}{'p50 ms':>8}{'p95 ms':>8}   F1 against full"


class _Task(StrEnum):
    QUESTION_ANSWERING = "question_answering"
    SEQUENCE_CLASSIFICATION = "sequence_classification"


def evaluate_command(
    data: Annotated[
        Path,
        typer.Option(
            help="Questions with answers: SQuAD v1.1 or v2 JSON, or rows of questions. For a classifier labelled texts "
            "(.tsv, .jsonl, .csv, .parquet), or rankings (.jsonl)."
        ),
    ],
    bundle: Annotated[
        str | None,
        typer.Option(
            help="Folder or Hub id of a bundle; by default the one of --task, or for rankings the reranker, that comes "
            "with the package."
        ),
    ] = None,
    task: Annotated[
        _Task | None, typer.Option(help="What the model is for; by default what the bundle is for.")
    ] = None,
    length_config: Annotated[
        str | None,
        typer.Option(help="Name of a length configuration, or 'all'; by default the bundle's default."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read only this many questions, texts or rankings.")] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Number of windows to run at once, {SQUAD.batch_size} by default, for rankings 8; above 1 no times "
            "are measured, but those of rankings.",
        ),
    ] = None,
    max_answer_len: Annotated[
        int | None,
        typer.Option(min=1, help=f"Maximum length of an answer in tokens, {SQUAD.max_answer_len} by default."),
    ] = None,
    max_seq_len: SequenceLengthOption = None,
    doc_stride: StrideOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse data with a question or text that is too long or invalid.")
    ] = False,
    num_threads: ThreadsOption = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this JSON file.")] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write an HTML page with charts.")] = None,
) -> None:
    """Measure F1, exact match, cost and latency on questions with answers.

    For a classifier accuracy on labelled texts, or nDCG and MRR on rankings.
    """
    from dynamic_tinybert.runtime.model import LengthAdaptiveModel
    from dynamic_tinybert.runtime.tasks.question_answering.evaluation import TREATMENT, evaluate
    from dynamic_tinybert.runtime.tasks.question_answering.measure import QuestionAnsweringMeasure
    from dynamic_tinybert.runtime.tasks.question_answering.question_checks import check_questions
    from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad
    from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing

    for file in (json_file, report):  # fail now, not after the evaluation
        if file is not None and not file.parent.is_dir():
            raise InvalidInputError(f"there is no folder {file.parent} to write {file.name} to")
    place, chosen = _bundle_for(bundle, task, data)
    if chosen == _Task.SEQUENCE_CLASSIFICATION:
        from .evaluate_texts import evaluate_classifier

        given = {"--max-seq-len": max_seq_len, "--doc-stride": doc_stride, "--max-answer-len": max_answer_len}
        if unfit := [name for name, value in given.items() if value is not None]:
            raise InvalidInputError(f"{place} is a bundle of a classifier, for which there is no {unfit[0]}")
        evaluate_classifier(
            LengthAdaptiveModel.from_pretrained(place, num_threads=num_threads),
            data,
            length_config=length_config,
            limit=limit,
            batch_size=batch_size,
            strict=strict,
            json_file=json_file,
            write_report=None if report is None else partial(_report_writer(batch_size or 1), path=report),
            num_threads=num_threads,
        )
        return
    batch_size = batch_size or SQUAD.batch_size
    write_report = None if report is None else _report_writer(batch_size)
    examples = read_squad(data, limit=limit)
    model = LengthAdaptiveModel.from_pretrained(place, num_threads=num_threads)
    windowing = Windowing.of(model, max_seq_len, doc_stride)
    for line in check_questions(examples, TREATMENT, windowing, name=data.name, strict=strict).lines:
        print(line, file=sys.stderr)
    default = length_config or model.bundle.default_length_config
    results: dict[str, Evaluation] = {}
    for name in list(model.length_configs) if default == "all" else [default]:
        results[name] = evaluate(
            model,
            examples,
            length_config=name,
            batch_size=batch_size,
            max_answer_len=max_answer_len or SQUAD.max_answer_len,
            max_seq_len=max_seq_len,
            doc_stride=doc_stride,
            progress=True,
        )
        if len(results) == 1:
            print(f"{len(results[name].ids)} questions of {data}, bundle {model.bundle.path}")
            print(_HEADER)
        _print_row(name, results[name], results.get("full"))
    if json_file is not None:
        _write_json(json_file, results)
    if write_report is not None:
        print("Measuring where the speed comes from", file=sys.stderr)
        about = f"{data.name}, {len(results[name].ids)} questions"
        measure = QuestionAnsweringMeasure(windowing)
        write_report(model, measure, examples, results, report, data=about, num_threads=num_threads)


def _bundle_for(bundle: str | None, task: str | None, data: Path) -> tuple[str | Path, str]:
    """Where the bundle to evaluate is, by default one of the package, and its task.

    Raises:
        InvalidInputError: It is for another task than `task`, or for one that has no rankings, and the data are some.
    """
    from dynamic_tinybert.runtime.bundles.hub import default_bundle, default_reranker, resolve_bundle
    from dynamic_tinybert.runtime.bundles.manifest import read_manifest, task_of
    from dynamic_tinybert.runtime.tasks.sequence_classification.ranking_files import is_ranking_file

    place: str | Path
    if bundle is not None:
        place = bundle
    elif task == _Task.SEQUENCE_CLASSIFICATION or (task is None and is_ranking_file(data)):
        place = default_reranker()
    else:
        place = default_bundle()
    own = task_of(read_manifest(resolve_bundle(place)))
    if task is not None and task != own:
        raise InvalidInputError(
            f"{place} is a bundle for {own!r}, and --task is {str(task)!r}; give a bundle for that, or leave out one "
            "of the two options"
        )
    if own != _Task.SEQUENCE_CLASSIFICATION and is_ranking_file(data):
        raise InvalidInputError(
            f"{data} holds rankings, and {place} is a bundle for {own!r}; give the bundle of a reranker, or leave out "
            "--bundle and --task for the one that comes with the package"
        )
    return place, own


def _print_row(name: str, result: Evaluation, full: Evaluation | None) -> None:
    """Print the row of a length configuration, compared with `full` if that was measured before it."""
    from dynamic_tinybert.runtime.common.bootstrap import paired_bootstrap

    mean_kept = sum(result.mean_kept) / len(result.mean_kept)
    latencies = "".join(f"{'-' if ms is None else f'{ms:.1f}':>8}" for ms in map(result.latency_ms, (50, 95)))
    scores = f"{result.f1:7.2f}{result.exact_match:7.2f}"
    line = f"{name:16}{scores}{mean_kept:8.1f}{result.mean_macs / 1e6:8.0f}{latencies}"
    if name != "full" and full is not None:
        difference, low, high = paired_bootstrap(result.question_f1, full.question_f1)
        line += f"   {difference:+.2f} [{low:+.2f}, {high:+.2f}]"
    print(line)
    if (figures := result.squad_v2) is not None:
        print(_about_no_answer(figures, result.no_answer_threshold))


def _about_no_answer(figures: Mapping[str, float], threshold: float | None) -> str:
    """The figures of SQuAD v2's evaluation in one line."""
    groups = [
        f"{figures[f'{prefix}total']:.0f} {what}: F1 {figures[f'{prefix}f1']:.2f}, EM {figures[f'{prefix}exact']:.2f}"
        for prefix, what in (("HasAns_", "with an answer"), ("NoAns_", "without"))
        if f"{prefix}total" in figures
    ]
    best = f"best F1 {figures['best_f1']:.2f} at {figures['best_f1_thresh']:.3f}"
    return f"  {'; '.join(groups)}; no-answer threshold {threshold:.3f}, {best}"


def _write_json(file: Path, results: Mapping[str, Evaluation]) -> None:
    from dynamic_tinybert.runtime.common.publish import writing

    written = {name: result.to_dict() for name, result in results.items()}
    with writing(file):
        file.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def _report_writer(batch_size: int) -> Callable[..., None]:
    """The function that writes the report of an evaluation; it needs an optional extra."""
    if batch_size > 1:
        raise InvalidInputError(
            f"--report shows latencies, which are not measured with --batch-size {batch_size}; leave out one of them"
        )
    (entry,) = entry_points(group="dynamic_tinybert.reports", name="html")
    writer: Callable[..., None] = entry.load()
    return writer
