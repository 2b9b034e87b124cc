"""The command line: ``dynamic-tinybert``.

Exit codes: 0 done, 1 an error, explained on standard error, 2 wrong usage, 130 interrupted, 143 terminated.
Commands of other folders are found by the entry points ``dynamic_tinybert.commands``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.metadata import entry_points, version
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer
from rich.console import Console

from . import cpu, ops
from .bootstrap import paired_bootstrap
from .bundle import NamedLengthConfig, open_bundle
from .errors import DynamicTinyBertError, InvalidInputError
from .evaluation import evaluate
from .explanation import explain
from .explanation_view import show
from .hub import default_bundle, resolve_bundle
from .model import LengthAdaptiveModel
from .plain_graph import computed_in_floats
from .publish import writing
from .question_answering import QuestionAnswerer
from .squad import read_squad

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Length-adaptive BERT question answering on Intel CPUs.",
)

BundleOption = Annotated[
    str | None,
    typer.Option("--bundle", help="Folder or Hub id of a bundle; by default the one in the package."),
]
QuestionArgument = Annotated[str, typer.Argument(help="What to ask.")]
ContextArgument = Annotated[str | None, typer.Argument(help="Text that holds the answer.")]
ContextFileOption = Annotated[Path | None, typer.Option(help="File with the text instead; - reads standard input.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print a JSON object.")]
ThreadsOption = Annotated[int | None, typer.Option("--num-threads", min=1, help="CPU threads; by default all cores.")]


def main() -> None:
    """Run the command line."""
    try:
        for command in entry_points(group="dynamic_tinybert.commands"):
            app.command(command.name)(command.load())
        app()
    except DynamicTinyBertError as error:
        print(f"dynamic-tinybert: {error}", file=sys.stderr)
        sys.exit(1)


@app.command()
def ask(
    question: QuestionArgument,
    context: ContextArgument = None,
    context_file: ContextFileOption = None,
    bundle: BundleOption = None,
    length_config: Annotated[str | None, typer.Option(help="Name in the bundle; by default its own default.")] = None,
    num_threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a question from a text."""
    text = _context(context, context_file)
    answerer = QuestionAnswerer.from_pretrained(bundle, num_threads=num_threads)
    answerer(question, text, length_config=length_config)  # compiles the graph, so that the time below is an answer's
    start = perf_counter()
    answer = answerer(question, text, length_config=length_config)
    milliseconds = 1000 * (perf_counter() - start)
    config = length_config or answerer.model.bundle.default_length_config
    if as_json:
        print(
            json.dumps(
                {**answer, "length_config": config, "milliseconds": round(milliseconds, 2)},
                ensure_ascii=False,
            )
        )
        return
    print(answer["answer"])
    place = f"characters {answer['start']}-{answer['end']}"
    print(
        f"score {answer['score']:.3f}, {place}, length configuration {config}, {milliseconds:.1f} ms",
        file=sys.stderr,
    )


@app.command("explain")
def explain_command(
    question: QuestionArgument,
    length_config: Annotated[str, typer.Option(help="Name in the bundle.")],
    context: ContextArgument = None,
    context_file: ContextFileOption = None,
    bundle: BundleOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a question, and show which words of it and of the text each layer drops; layers count from 0."""
    text = _context(context, context_file)
    explanation = explain(LengthAdaptiveModel.from_pretrained(bundle), question, text, length_config=length_config)
    if as_json:
        print(json.dumps(explanation.to_dict(), ensure_ascii=False))
    else:
        show(explanation, Console())


@app.command("evaluate")
def evaluate_command(
    data: Annotated[Path, typer.Option(help="SQuAD v1.1 JSON with answers.")],
    bundle: BundleOption = None,
    length_config: Annotated[
        str | None, typer.Option(help="Name in the bundle, or all; by default its default.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many questions.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows at once; above 1 no latencies are measured.")] = 1,
    num_threads: ThreadsOption = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write a page with pictures.")] = None,
) -> None:
    """Measure F1, exact match, cost and latency on questions with answers."""
    for file in (json_file, report):  # found out now, not after the evaluation
        if file is not None and not file.parent.is_dir():
            raise InvalidInputError(f"there is no folder {file.parent} to write {file.name} to")
    write_report = None if report is None else _report_writer(batch_size)
    examples = read_squad(data, require_answers=True, limit=limit)
    model = LengthAdaptiveModel.from_pretrained(bundle, num_threads=num_threads)
    default = length_config or model.bundle.default_length_config
    names = list(model.length_configs) if default == "all" else [default]
    results = {}
    print(f"{len(examples)} questions of {data}, bundle {model.bundle.path}")
    print(
        f"{'configuration':16}{'F1':>7}{'EM':>7}{'tokens':>8}{'MMACs':>8}{'p50 ms':>8}{'p95 ms':>8}   F1 against full"
    )
    for name in names:
        result = results[name] = evaluate(model, examples, length_config=name, batch_size=batch_size, progress=True)
        mean_kept = sum(result.mean_kept) / len(result.mean_kept)
        latencies = "".join(f"{'-' if ms is None else f'{ms:.1f}':>8}" for ms in map(result.latency_ms, (50, 95)))
        scores = f"{result.f1:7.2f}{result.exact_match:7.2f}"
        line = f"{name:16}{scores}{mean_kept:8.1f}{result.mean_macs / 1e6:8.0f}{latencies}"
        if name != "full" and "full" in results:
            difference, low, high = paired_bootstrap(result.question_f1, results["full"].question_f1)
            line += f"   {difference:+.2f} [{low:+.2f}, {high:+.2f}]"
        print(line)
    if json_file is not None:
        figures = {name: result.to_dict() for name, result in results.items()}
        with writing(json_file):
            json_file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if write_report is not None:
        print("Measuring where the speed comes from", file=sys.stderr)
        about = f"{data.name}, {len(examples)} questions"
        write_report(model, examples, results, report, data=about, num_threads=num_threads)


@app.command()
def info(
    bundle: BundleOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show versions, what runs on this CPU, and what a bundle holds."""
    opened = open_bundle(default_bundle() if bundle is None else resolve_bundle(bundle))
    facts = {
        "versions": {name: version(name) for name in ("dynamic-tinybert", "openvino", "tokenizers", "numpy")},
        "cpu": {
            "name": cpu.name(),
            "kernels": ops.isa(),
            "kernels_available": ops.available_isas(),
            "float_precision": cpu.best_float_precision(),
            "int8_products_saturate": cpu.int8_products_saturate(),
        },
        "extension": str(ops.extension_path()),
        "bundle": {
            "path": str(opened.path),
            "source": dict(opened.source),
            "significance": opened.significance,
            "quantization": dict(opened.quantization),
            "computed_in_floats": opened.quantization["precision"] == "fp32" or computed_in_floats(opened),
            "layers": opened.shape.num_layers,
            "hidden_size": opened.shape.hidden_size,
            "default_length_config": opened.default_length_config,
            "length_configs": {
                name: {
                    "keep_ratios": c.config.keep_ratios,
                    "thresholds": c.config.thresholds,
                    "measured": c.measured,
                }
                for name, c in opened.length_configs.items()
            },
        },
    }
    if as_json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    for section, values in facts.items():
        if not isinstance(values, dict):
            print(f"{section}: {values}")
            continue
        print(f"{section}:")
        for key, value in values.items():
            if key == "length_configs":
                print("  length configurations:")
                for name, named in opened.length_configs.items():
                    print(f"    {name:16} {_described(named)}")
            else:
                print(f"  {key.replace('_', ' ')}: {_plain(value)}")


def _report_writer(batch_size: int) -> Callable[..., None]:
    """The function that writes the page of an evaluation; it comes with an extra."""
    if batch_size > 1:
        raise InvalidInputError(
            f"--report shows latencies, which --batch-size {batch_size} does not measure; leave one of them out"
        )
    (entry,) = entry_points(group="dynamic_tinybert.reports", name="html")
    writer: Callable[..., None] = entry.load()
    return writer


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items() if v is not None and not isinstance(v, (list, dict)))
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _described(named: NamedLengthConfig) -> str:
    """What was measured of a length configuration and, if that was not here, where."""
    figures = named.measured or {}
    if "f1" not in figures:
        return f"not measured, keep ratios {', '.join(f'{ratio:g}' for ratio in named.config.keep_ratios)}"
    parts = [f"F1 {figures['f1']}"]
    if "f1_against_full" in figures:
        parts[0] += f" ({figures['f1_against_full'][0]:+.2f})"
    if "macs_fewer" in figures:
        parts.append(f"{figures['macs_fewer']:.2f}x fewer MACs")
    if "latency_p50_ms" in figures:
        parts.append(f"p50 {figures['latency_p50_ms']} ms")
    if figures.get("cpu", cpu.name()) != cpu.name():
        parts.append(f"times are from another machine, {figures['cpu']}")
    return ", ".join(parts)


def _context(context: str | None, file: Path | None) -> str:
    if (context is None) == (file is None):
        raise InvalidInputError("give the text either as the second argument or with --context-file")
    if context is not None:
        return context
    assert file is not None
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"cannot read {file} as UTF-8 text: {error}") from error
