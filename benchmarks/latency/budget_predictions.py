"""How well does the latency table, by which calls with a budget choose, predict requests of random lengths?

    python -m benchmarks.latency.budget_predictions DATA.json [--bundle BUNDLE] [--threads N]

The table is measured anew, as at the first call with a budget. Each request is a question of the data with a text of
random length, made of contexts of the data, from a line to several windows; it runs at a random length configuration,
from windows to answers. Times are medians of some runs in a row.
"""

from __future__ import annotations

import random
from statistics import median
from time import perf_counter

from dynamic_tinybert import QuestionAnswerer
from dynamic_tinybert.runtime import cpu
from dynamic_tinybert.runtime.batches import batches_of
from dynamic_tinybert.runtime.tasks.question_answering.answers import pipeline_answers
from dynamic_tinybert.runtime.tasks.question_answering.inference import run_windows
from dynamic_tinybert.runtime.tasks.question_answering.options import PIPELINE
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing

from benchmarks.common import argument_parser, random_sample

_WORDS = (20, 1500)  # of a text, fewest and most


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data")
    parser.add_argument("--bundle", help="by default the embedded one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each request")
    arguments = parser.parse_args()

    qa = QuestionAnswerer.from_pretrained(arguments.bundle, num_threads=arguments.threads)
    start = perf_counter()
    table = qa.latency_table("off")
    took = perf_counter() - start
    windowing, generator = Windowing.of(qa.model), random.Random(0)
    examples = random_sample(read_squad(arguments.data))
    words = [word for example in examples for word in example.context.split()]

    rows: list[tuple[str, int, float, float]] = []  # configuration, windows, predicted and measured ms
    for k in range(arguments.requests):
        name = generator.choice(list(table.ms))
        example = examples[k % len(examples)]
        count = round(_WORDS[0] * (_WORDS[1] / _WORDS[0]) ** generator.random())
        first = generator.randrange(max(1, len(words) - count))
        own = example.context.split()
        text = " ".join([*own, *words[first : first + count]][:count])
        windows = windowing.cut(example.question, text)
        lengths = [len(window) for window in windows]
        batches = [(max(lengths[i] for i in batch), len(batch)) for batch in batches_of(lengths, PIPELINE.batch_size)]
        seconds = []
        for _ in range(1 + arguments.repeats):
            before = perf_counter()
            (outputs,) = run_windows(qa.model, [windows], length_config=name, batch_size=PIPELINE.batch_size)
            pipeline_answers(text, windows, outputs, PIPELINE)
            seconds.append(perf_counter() - before)
        rows.append((name, len(windows), table.predict(name, batches), 1e3 * median(seconds[1:])))

    print(f"{cpu.name()}, {arguments.threads} threads, {arguments.requests} requests; table measured in {took:.1f} s\n")
    print("| Length configuration | Requests | Median error | Median of predicted / measured | Slower than predicted |")
    print("| --- | ---: | ---: | ---: | ---: |")
    groups = {name: [row for row in rows if row[0] == name] for name in table.ms}
    groups |= {"all, one window": [row for row in rows if row[1] == 1]}
    groups |= {"all, several windows": [row for row in rows if row[1] > 1], "all": rows}
    for name, group in groups.items():
        if not group:
            continue
        ratios = [predicted / measured for _, _, predicted, measured in group]
        error = median(abs(ratio - 1) for ratio in ratios)
        slower = sum(ratio < 1 for ratio in ratios) / len(ratios)
        print(f"| {name} | {len(group)} | {100 * error:.0f} % | {median(ratios):.2f} | {100 * slower:.0f} % |")


if __name__ == "__main__":
    main()
