"""Does the first visit of each input length cost time? The first pass over real questions against the second.

    python benchmarks/first_pass.py SQUAD.json [--bundle FOLDER] [--length-config NAME] [--limit N]

One process for each length configuration, nothing warmed up but the compiled graph. Times are those of a question
from text to answer; the ratio is of the passes' total times.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from time import perf_counter

import numpy as np

from dynamic_tinybert.runtime import LengthAdaptiveModel, cpu
from dynamic_tinybert.runtime.inference import run_windows
from dynamic_tinybert.runtime.spans import squad_answer
from dynamic_tinybert.runtime.squad import read_squad
from dynamic_tinybert.runtime.windows import WindowTokenizer, window_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--bundle")
    parser.add_argument("--length-config", help="by default each of the bundle")
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    model = LengthAdaptiveModel.from_pretrained(arguments.bundle, num_threads=arguments.threads)
    if arguments.length_config is None:
        print(f"{cpu.name()}, {arguments.threads} threads, {arguments.limit} questions")
        for name in model.length_configs:
            subprocess.run([sys.executable, *sys.argv, "--length-config", name], check=True)
        return

    examples = read_squad(arguments.data, limit=arguments.limit)
    tokenize = WindowTokenizer(model.tokenizer_file)
    max_seq_len, doc_stride = window_size(model.max_length)
    model([[101, 102]], length_config=arguments.length_config)  # compiles the graph
    passes = []
    for _ in range(3):
        times = []
        for example in examples:
            start = perf_counter()
            windows = tokenize(example.question, example.context, max_seq_len=max_seq_len, doc_stride=doc_stride)
            (outputs,) = run_windows(model, [windows], length_config=arguments.length_config, batch_size=1)
            squad_answer(example.context, windows, outputs)
            times.append(1000 * (perf_counter() - start))
        passes.append(times)
    first, second, third = (sum(times) for times in passes)
    p50 = ", ".join(f"{np.median(times):.2f}" for times in passes)
    print(
        f"{arguments.length_config:16} p50 ms {p50}; first/second {first / second:.3f}, "
        f"third/second {third / second:.3f}"
    )


if __name__ == "__main__":
    main()
