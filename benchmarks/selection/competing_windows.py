"""What windows that compete save on articles as one document, and what that costs.

    python -m benchmarks.selection.competing_windows DATA.json [--bundle BUNDLE] [--length-config NAME]

All paragraphs of an article become one document. Each question is answered with all windows and with windows that
compete, in turns whose order changes; times include tokenizing and choosing answers. The answers of all windows are
chosen in both ways: as windows compete, over the whole document, and as transformers' pipeline does, over each window.
Intervals are of 95 %, over questions and over articles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from dynamic_tinybert import QuestionAnswerer
from dynamic_tinybert.runtime.tasks.question_answering.answers import Answer
from dynamic_tinybert.runtime.tasks.question_answering.competition import run_competing
from dynamic_tinybert.runtime.tasks.question_answering.example import Example, article_of
from dynamic_tinybert.runtime.tasks.question_answering.inference import WindowOutput, run_windows
from dynamic_tinybert.runtime.tasks.question_answering.plan import AnswerPlan
from dynamic_tinybert.runtime.tasks.question_answering.squad import f1
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad

from benchmarks.common import argument_parser, measured_on, random_sample

_SAMPLES = 10_000


@dataclass(frozen=True)
class Measured:
    """What one question gave: with windows that compete, with all windows, and by the pipeline's rule."""

    article: str
    windows: int
    ran: int
    macs: int
    all_macs: int
    seconds: float
    all_seconds: float
    same: bool
    f1: float
    all_f1: float
    pipeline_f1: float


def main(data: Path, bundle: Path | None, length_config: str, questions: int | None, threads: int | None) -> None:
    answerer = QuestionAnswerer.from_pretrained(bundle, num_threads=threads)
    examples = random_sample(one_document_per_article([e for e in read_squad(data) if e.answers]), questions)
    measure(answerer, length_config, examples[0], first=True)  # compiles
    found = [measure(answerer, length_config, example, first=i % 2 == 0) for i, example in enumerate(tqdm(examples))]
    print(f"{data.name}, {len(found)} questions, {length_config}")
    print(measured_on())
    report(found)


def one_document_per_article(examples: Sequence[Example]) -> list[Example]:
    """The same questions, each with all paragraphs of its article as the context, joined by blank lines."""
    paragraphs: dict[str, dict[str, None]] = {}
    for example in examples:
        paragraphs.setdefault(article_of(example), {})[example.context] = None
    documents = {article: "\n\n".join(contexts) for article, contexts in paragraphs.items()}
    return [replace(example, context=documents[article_of(example)], answer_starts=()) for example in examples]


def measure(answerer: QuestionAnswerer, name: str, example: Example, *, first: bool) -> Measured:
    """Answer a question in both ways, `first` with windows that compete."""
    own = run(answerer, name, example, competing=True) if first else None
    plan, all_outputs, all_answer, all_seconds = run(answerer, name, example, competing=False)
    _, outputs, answer, seconds = own or run(answerer, name, example, competing=True)
    ((pipeline_answer,),) = replace(plan, options=replace(plan.options, compete=False)).answers([all_outputs])
    macs = [
        answerer.model.executed_macs(
            name, len(window), output.kept_by_layer(len(window), answerer.model.bundle.shape.num_layers)
        )
        for window, output in zip(plan.windows[0], all_outputs, strict=True)
        if output is not None
    ]
    return Measured(
        article=example.title or example.context[:40],
        windows=len(outputs),
        ran=sum(output is not None for output in outputs),
        macs=sum(own for own, output in zip(macs, outputs, strict=True) if output is not None),
        all_macs=sum(macs),
        seconds=seconds,
        all_seconds=all_seconds,
        same=(answer["start"], answer["end"]) == (all_answer["start"], all_answer["end"]),
        f1=f1(answer["answer"], example.answers),
        all_f1=f1(all_answer["answer"], example.answers),
        pipeline_f1=f1(pipeline_answer["answer"], example.answers),
    )


def run(
    answerer: QuestionAnswerer, name: str, example: Example, *, competing: bool
) -> tuple[AnswerPlan, Sequence[WindowOutput | None], Answer, float]:
    """What is asked, the output for each window, the answer, and the seconds that all took."""
    started = perf_counter()
    plan = answerer.plan(example.question, example.context, length_config=name, compete=True)
    outputs: Sequence[Sequence[WindowOutput | None]]
    if competing:
        outputs = run_competing(answerer.model, plan.windows, plan.options, length_config=name)
    else:
        size = plan.options.batch_size
        outputs = run_windows(answerer.model, plan.windows, length_config=name, batch_size=size)
    ((answer,),) = plan.answers(outputs)
    return plan, outputs[0], answer, perf_counter() - started


def report(found: Sequence[Measured]) -> None:
    """Print what was measured, with intervals over questions and over articles."""
    articles = np.unique([one.article for one in found], return_inverse=True)[1]

    def column(name: str) -> npt.NDArray[np.float64]:
        return np.array([getattr(one, name) for one in found], np.float64)

    def line(text: str, values: npt.NDArray[np.float64], digits: int) -> None:
        intervals = (_interval(values, groups) for groups in (np.arange(len(values)), articles))
        ends = " ".join(f"[{low:.{digits}f}, {high:.{digits}f}]" for low, high in intervals)
        print(f"{text}: {values.mean():.{digits}f} {ends}")

    windows, ran = column("windows"), column("ran")
    print(f"windows of a question: {windows.mean():.1f} (up to {windows.max():.0f}), of which {ran.mean():.1f} ran")
    line("MACs, share of all windows, mean of questions", column("macs") / column("all_macs"), 3)
    seconds, every = column("seconds"), column("all_seconds")
    print(
        f"MACs, all questions together: {column('macs').sum() / column('all_macs').sum():.3f}\n"
        f"time: medians {np.median(seconds):.3f} s and {np.median(every):.3f} s, "
        f"ratio {np.median(seconds) / np.median(every):.3f}; median of the ratios {np.median(seconds / every):.3f}; "
        f"all questions together {seconds.sum() / every.sum():.3f}"
    )
    line("same answers, %", 100 * column("same"), 1)
    line("F1, windows that compete", column("f1"), 2)
    line("F1, all windows", column("all_f1"), 2)
    line("F1, all windows by the pipeline's rule", column("pipeline_f1"), 2)
    line("F1, competing minus all", column("f1") - column("all_f1"), 2)
    line("F1, competing minus the pipeline's rule", column("f1") - column("pipeline_f1"), 2)


def _interval(values: npt.NDArray[np.float64], groups: npt.NDArray[np.integer]) -> tuple[float, float]:
    """The 95 % bootstrap interval of a mean, resampling groups."""
    counts, sums = np.bincount(groups), np.bincount(groups, values)
    drawn = np.random.default_rng(0).integers(len(counts), size=(_SAMPLES, len(counts)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", type=Path, help="by default the embedded one")
    parser.add_argument("--length-config", default="balanced")
    parser.add_argument("--questions", type=int, help="number of questions, chosen at random; by default all")
    parser.add_argument("--threads", type=int)
    main(**vars(parser.parse_args()))
