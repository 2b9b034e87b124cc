"""What does a calibration from unlabelled questions of a domain gain over scorers that never saw the domain?

    python -m benchmarks.selection.domains TRAIN.json OUTPUT [--domain Filtered_Reddit_Comments] [--minutes 20]

Articles of TRAIN.json whose titles begin with --domain are the domain. Half of them give --questions (500) questions
without their answers, by `scripts/without_answers.py`; the other half is for reporting, and the only labels that are
read are theirs. The scorers that are compared at equal shares of tokens:

- others: fitted on all other articles of TRAIN.json, so that the domain is held out;
- domain: fitted on the unlabelled questions of the domain alone, as `calibrate` fits a bundle without scorers;
- further: `others` fitted further on the unlabelled questions of the domain, as `calibrate` fits a bundle with scorers;
- bundle: those of the bundle, if it has any. They may have been fitted on the domain, too.

Fits begin at scorers that the bundle has: give one without, so that nothing has seen the domain. Thresholds of all come
from the unlabelled questions. The named configurations of the bundle are measured as well, with the thresholds that it
has. OUTPUT keeps the files of questions and the fitted scorers: a second run with the same options fits nothing.
`dynamic-tinybert calibrate` can be run on the files itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dynamic_tinybert.calibration.recalibrated import write_recalibrated
from dynamic_tinybert.calibration.search.schedules import Schedule
from dynamic_tinybert.calibration.significance.learnt import fit_or_load_scorers
from dynamic_tinybert.runtime import LengthAdaptiveModel, LengthConfig, cpu
from dynamic_tinybert.runtime.bundles.bundle import Bundle, NamedLengthConfig, open_bundle
from dynamic_tinybert.runtime.bundles.hub import default_bundle
from dynamic_tinybert.runtime.tasks.question_answering.evaluation import evaluate
from dynamic_tinybert.runtime.tasks.question_answering.evaluation_result import Evaluation
from dynamic_tinybert.runtime.tasks.question_answering.example import Example, article_of
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad

from benchmarks.common import ROOT, argument_parser, mean_change, random_sample

BATCH = 8
SHARES = ["0:0.54,3:0.24", "0:0.4,3:0.24", "0:0.33,3:0.24", "0:0.33,3:0.16"]

Article = dict[str, Any]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("train", type=Path, metavar="TRAIN.json")
    parser.add_argument("output", type=Path, metavar="OUTPUT")
    parser.add_argument("--domain", default="Amazon_Reviews", help="how the titles of its articles begin")
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="by default the embedded one")
    parser.add_argument("--questions", type=int, default=500, help="of the domain, to calibrate from")
    parser.add_argument("--report", type=int, default=3000, help="largest number of questions to report on")
    parser.add_argument("--minutes", type=float, default=20, help="longest time for each of both fits")
    parser.add_argument("--steps", type=int, help="steps of each fit, whatever time they take")
    parser.add_argument("--shares", nargs="+", default=SHARES, help="LAYER:SHARE of tokens kept, with commas")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.output.mkdir(exist_ok=True)
    others, domain, report = write_parts(arguments.train, arguments.output, arguments)
    bundle = open_bundle(arguments.bundle)
    schedules = {text: schedule_of(text, bundle.shape.num_layers) for text in arguments.shares}
    scorers: dict[str, Path] = {}
    for name, own in {"others": others, "domain": domain, "further": domain}.items():
        with TemporaryDirectory() as place:
            begun = with_scorers_of(bundle, scorers["others"], Path(place) / name) if name == "further" else bundle
            fit = fit_or_load_scorers(
                begun,
                own,
                arguments.output / f"fit-{name}",
                60 * arguments.minutes,
                arguments.seed,
                steps=arguments.steps,
            )
        scorers[name] = fit.scorers
        print(f"{name}, {len(own)} questions: {fit.line}", flush=True)
    print(
        f"{len(report)} questions of {len(set(map(article_of, report)))} articles of {arguments.domain}; {cpu.name()}"
    )
    print("| Scorers | Shares kept | MACs, x fewer | F1 | against `full` | over articles | against `others` |")
    print("| --- | --- | ---: | ---: | --- | --- | --- |")
    articles = [article_of(example) for example in report]
    with TemporaryDirectory() as place:
        full = evaluate(LengthAdaptiveModel(bundle), report, length_config="full", batch_size=BATCH)
        print_row("any", "full", full, full, None, articles)
        first: dict[str, Evaluation] = {}
        for name, file in {**scorers, "bundle": bundle.scorers}.items():
            if file is None:
                continue
            carrier = with_scorers_of(bundle, file, Path(place) / name)
            taken = fit_or_load_scorers(
                carrier, domain, Path(place) / f"sample-{name}", 0, arguments.seed, trained=True
            )
            model = LengthAdaptiveModel(
                with_scorers_of(bundle, taken.scorers, Path(place) / f"ruled-{name}"), elastic=True
            )
            configs = {
                text.replace(":", ": ").replace(",", ", "): taken.sample.length_config(schedule)
                for text, schedule in schedules.items()
            }
            if name == "bundle":
                named = {key: own.config for key, own in bundle.length_configs.items() if key != "full"}
                configs |= {f"as in `{key}`": config for key, config in named.items()}
            for what, config in configs.items():
                result = evaluate(model, report, length_config=config, batch_size=BATCH)
                print_row(name, what, result, full, first.setdefault(what, result), articles)


def write_parts(
    train: Path,
    folder: Path,
    arguments: Any,  # noqa: ANN401 - a namespace
) -> tuple[list[Example], list[Example], list[Example]]:
    """Write the questions of the others, of the domain to calibrate from and to report on, and read them again."""
    of_domain: list[Any] = []
    others: list[Any] = []
    for article in json.loads(train.read_text(encoding="utf-8"))["data"]:
        (of_domain if article["title"].startswith(arguments.domain) else others).append(article)
    of_domain = random_sample(list(finest(of_domain)), seed=arguments.seed)
    half = len(of_domain) // 2
    if not half or not others:
        raise SystemExit(
            f"{train} has {len(of_domain)} articles that begin with {arguments.domain!r}, and {len(others)} others"
        )
    write(folder / "labelled.json", of_domain[:half])
    write(folder / "report.json", of_domain[half:])
    write(folder / "others-labelled.json", others)
    remove_answers(folder / "others-labelled.json", folder / "others.json")
    remove_answers(
        folder / "labelled.json", folder / "domain.json", "--questions", arguments.questions, "--seed", arguments.seed
    )
    report = random_sample(read_squad(folder / "report.json", require_answers=True), arguments.report)
    return read_squad(folder / "others.json"), read_squad(folder / "domain.json"), report


def finest(articles: Sequence[Article]) -> Iterator[Article]:
    """The articles; if all paragraphs are under one title, each paragraph as an article of its own."""
    if len({article["title"] for article in articles}) > 1:
        yield from articles
        return
    for article in articles:
        for number, paragraph in enumerate(article["paragraphs"]):
            yield {"title": f"{article['title']}, {number}", "paragraphs": [paragraph]}


def write(path: Path, articles: Sequence[Article]) -> None:
    path.write_text(json.dumps({"data": articles}), encoding="utf-8")


def remove_answers(labelled: Path, output: Path, *options: object) -> None:
    script = ROOT / "scripts" / "without_answers.py"
    subprocess.run([sys.executable, script, labelled, output, *map(str, options)], check=True)


def with_scorers_of(bundle: Bundle, scorers: Path, folder: Path) -> Bundle:
    """The bundle with other scorers."""
    folder.mkdir()
    full = NamedLengthConfig(LengthConfig.full(bundle.shape.num_layers))
    return write_recalibrated(bundle, folder, scorers, {"full": full})


def schedule_of(text: str, num_layers: int) -> Schedule:
    """The schedule of a text such as "0:0.33,3:0.24"."""
    return Schedule.of_layers(
        num_layers, {int(layer): float(share) for layer, share in (part.split(":") for part in text.split(","))}
    )


def print_row(
    name: str, what: str, result: Evaluation, full: Evaluation, others: Evaluation | None, articles: Sequence[str]
) -> None:
    """One line of the table."""
    fewer = full.mean_macs / result.mean_macs
    changes = ["", "", ""]
    if others is not None:
        changes = [
            mean_change(result.question_f1, full.question_f1),
            mean_change(result.question_f1, full.question_f1, articles),
            "" if result is others else mean_change(result.question_f1, others.question_f1),
        ]
    print(f"| {name} | {what} | {fewer:.2f} | {result.f1:.2f} | {' | '.join(changes)} |", flush=True)


if __name__ == "__main__":
    main()
