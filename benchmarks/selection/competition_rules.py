"""Which windows of a long document could leave, and what tells so: the figures behind `compete`.

    python -m benchmarks.selection.competition_rules DATA.json [--per-article 15]

All paragraphs of an article become one document, and all windows run. The first table says how often the window that
wins is among the first ones by BM25 or by the largest learnt significance that a token of the context has in a layer.
It wins by the pipeline's probability, by the sum of its logits, by its advantage over no answer, or by that with a
prior. The second table varies the prior and the largest advantage that a waiting window is trusted to have.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops
from tqdm import tqdm

from dynamic_tinybert import QuestionAnswerer
from dynamic_tinybert.runtime.encoder.compilation import compile_graph
from dynamic_tinybert.runtime.encoder.compiled import Arrays, CompiledGraph
from dynamic_tinybert.runtime.encoder.graph import kept_positions
from dynamic_tinybert.runtime.loading import with_defaults
from dynamic_tinybert.runtime.tasks.question_answering.answers import pipeline_answers
from dynamic_tinybert.runtime.tasks.question_answering.competition import PRIOR, ROUND
from dynamic_tinybert.runtime.tasks.question_answering.example import Example, article_of
from dynamic_tinybert.runtime.tasks.question_answering.inference import WindowOutput, run_batch
from dynamic_tinybert.runtime.tasks.question_answering.matching import matches
from dynamic_tinybert.runtime.tasks.question_answering.options import AnswerOptions
from dynamic_tinybert.runtime.tasks.question_answering.spans import advantages
from dynamic_tinybert.runtime.tasks.question_answering.squad import f1
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad
from dynamic_tinybert.runtime.tasks.question_answering.task import QUESTION_ANSWERING
from dynamic_tinybert.runtime.tasks.windows import Window

from benchmarks.common import argument_parser, measured_on
from benchmarks.selection.competing_windows import one_document_per_article

PRIORS = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0)
MOST = (8.0, 10.0, 12.0, 14.0, 15.0, 16.0, 18.0)
OPTIONS = AnswerOptions(align_to_words=False)
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Question:
    """What all windows of a question gave.

    Attributes:
        rules: The value of each window's best span by each rule, [n].
        signals: What may tell early which window wins, [n].
        places: The characters of each window's best span.
        f1: F1 of each place.
        macs: Of each window, [n].
        known_after: The share of these that was spent when a signal is known.
    """

    rules: Mapping[str, Numbers]
    signals: Mapping[str, Numbers]
    places: Sequence[tuple[int, int]]
    f1: Mapping[tuple[int, int], float]
    macs: Numbers
    known_after: Mapping[str, float]


def main(data: Path, bundle: Path | None, length_config: str, per_article: int) -> None:
    answerer = QuestionAnswerer.from_pretrained(bundle)
    graph, layers = with_significance(answerer.model.specialised_graph(length_config))
    compiled = CompiledGraph(partial(compile_graph, graph, with_defaults(None)))
    articles: dict[str, list[Example]] = {}
    for example in one_document_per_article([e for e in read_squad(data) if e.answers]):
        articles.setdefault(article_of(example), []).append(example)
    draw = random.Random(0)
    examples = [e for own in articles.values() for e in draw.sample(own, min(per_article, len(own)))]
    questions = [ask(answerer, length_config, compiled, layers, example) for example in tqdm(examples)]
    windows = np.mean([len(question.places) for question in questions])
    print(f"{data.name}, {len(questions)} questions of {windows:.1f} windows, {length_config}; {measured_on()}\n")
    print_ranks(questions)
    print_rules(questions)


def with_significance(graph: ov.Model) -> tuple[ov.Model, list[int]]:
    """The graph with the significance of each scorer as an output, and the layers of the scorers."""
    layers = []
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "LearntSignificance":
            layers.append(int(node.input_value(0).get_node().get_friendly_name().split(".")[1]))
            node.output(0).get_tensor().add_names({f"significance.{layers[-1]}"})
            graph.add_results([ops.result(node.output(0))])
    return graph, layers


def ask(
    answerer: QuestionAnswerer, name: str, compiled: CompiledGraph, layers: Sequence[int], example: Example
) -> Question:
    """Run all windows of a question."""
    plan = answerer.plan(example.question, example.context, length_config=name)
    (windows,) = plan.windows
    found: list[WindowOutput] = []
    signals: dict[str, list[float]] = {f"layer {layer}": [] for layer in layers}
    for begin in range(0, len(windows), 8):
        batch = windows[begin : begin + 8]
        seen: list[Arrays] = []

        def model(input_ids: npt.NDArray[np.int64], seen: list[Arrays] = seen, **inputs: Any) -> Any:  # noqa: ANN401
            seen.append(compiled.infer({"input_ids": input_ids, **inputs}))
            length = input_ids.shape[1]
            return QUESTION_ANSWERING.output(seen[0], length, kept_positions(seen[0], length))

        found += run_batch(model, batch)
        for layer, row in product(layers, range(len(batch))):
            signals[f"layer {layer}"].append(most_significant(seen[0], layer, row, batch[row]))
    return described(plan.contexts[0], windows, found, signals, answerer, name, example)


def most_significant(arrays: Arrays, layer: int, row: int, window: Window) -> float:
    """The largest significance that a layer's scorer gives to a token of a window's context."""
    values = arrays[f"significance.{layer}"][row]
    kept = kept_positions(arrays, len(window))
    before = [earlier for earlier in sorted(kept) if earlier < layer]
    positions = kept[before[-1]][row] if before else np.arange(len(values))
    of_context = (positions >= window.context.start) & (positions < window.context.stop)
    return float(values[of_context].max(initial=0))


def described(
    context: str,
    windows: Sequence[Window],
    outputs: Sequence[WindowOutput],
    signals: Mapping[str, Sequence[float]],
    answerer: QuestionAnswerer,
    name: str,
    example: Example,
) -> Question:
    """The values of all rules."""
    probability, logits, advantage, places, macs = [], [], [], [], []
    spent = dict.fromkeys(signals, 0)
    for window, output in zip(windows, outputs, strict=True):
        (answer,) = pipeline_answers(context, [window], [output], OPTIONS)
        ((place, best),) = advantages(window, output, count=1, max_answer_len=OPTIONS.max_answer_len).items()
        probability.append(answer["score"])
        advantage.append(best)
        logits.append(best + float(output.start_logits[0] + output.end_logits[0]))
        places.append(place)
        kept = output.kept_by_layer(len(window), answerer.model.bundle.shape.num_layers)
        macs.append(answerer.model.executed_macs(name, len(window), kept))
        for signal in spent:  # before the layer's feed-forward part
            layer = int(signal.split()[1])
            until = (*kept[:layer], *(0,) * (len(kept) - layer))
            spent[signal] += answerer.model.executed_macs(name, len(window), until)
    rules = {"probability": probability, "logits": logits, "advantage": advantage}
    return Question(
        {rule: np.array(values) for rule, values in rules.items()},
        {"BM25": matches(windows), **{layer: np.array(values) for layer, values in signals.items()}},
        places,
        {place: f1(context[slice(*place)], example.answers) for place in set(places)},
        np.array(macs, np.float64),
        {"BM25": 0.0, **{signal: value / sum(macs) for signal, value in spent.items()}},
    )


def scores(question: Question, prior: float) -> Numbers:
    """Advantages with a prior."""
    match = question.signals["BM25"]
    values: Numbers = question.rules["advantage"] + prior * (match - match.max())
    return values


def print_ranks(questions: Sequence[Question]) -> None:
    print("| the winner by | F1 | signal | known after | first | of 3 | of 5 | of 8 |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    with_prior = [replace(q, rules={**q.rules, f"advantage, prior {PRIOR:.0f}": scores(q, PRIOR)}) for q in questions]
    for rule, signal in product(with_prior[0].rules, with_prior[0].signals):
        ranks, points = [], []
        for question in with_prior:
            answer = question.places[int(question.rules[rule].argmax())]
            order = np.argsort(-question.signals[signal], kind="stable").tolist()
            ranks.append(min(k for k, index in enumerate(order) if question.places[index] == answer))
            points.append(question.f1[answer])
        shares = " | ".join(f"{np.mean(np.array(ranks) < count):.2f}" for count in (1, 3, 5, 8))
        known_after = np.mean([question.known_after[signal] for question in questions])
        print(f"| {rule} | {np.mean(points):.1f} | {signal} | {known_after:.3f} | {shares} |")


def print_rules(questions: Sequence[Question]) -> None:
    print("\n| prior | F1, all | " + " | ".join(f"most {most:.0f}" for most in MOST) + " |")
    print("| ---: | ---: |" + " --- |" * len(MOST))
    for prior in PRIORS:
        cells = []
        for most in MOST:
            same, share, points, every = np.mean([replayed(question, prior, most) for question in questions], 0)
            cells.append(f"{100 * same:.1f} % at {share:.3f}, F1 {points:.1f}")
        print(f"| {prior:.0f} | {every:.1f} | " + " | ".join(cells) + " |")


def replayed(question: Question, prior: float, most: float) -> tuple[float, float, float, float]:
    """Whether the answer is that of all windows, the share of MACs, F1, and F1 of all windows."""
    values, match = scores(question, prior), question.signals["BM25"]
    order, ran = np.argsort(-match, kind="stable"), 0
    while ran < len(order) and (
        not ran or values[order[:ran]].max() < most + prior * (match[order[ran]] - match.max())
    ):
        ran += ROUND
    best = order[:ran][values[order[:ran]].argmax()]
    answer, of_all = question.places[best], question.places[int(values.argmax())]
    share = question.macs[order[:ran]].sum() / question.macs.sum()
    return float(answer == of_all), float(share), question.f1[answer], question.f1[of_all]


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", type=Path, help="by default the embedded one")
    parser.add_argument("--length-config", default="balanced")
    parser.add_argument("--per-article", type=int, default=15)
    main(**vars(parser.parse_args()))
