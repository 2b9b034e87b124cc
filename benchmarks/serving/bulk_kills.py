"""Does `dynamic-tinybert answer` give the same file after kills, and is it as fast as `evaluate --batch-size 8`?

    python -m benchmarks.serving.bulk_kills DATA.json [--rows 20000] [--kills 5] [--bundle BUNDLE]

The questions of DATA, repeated in random order, are the rows of a JSON-lines file. It is answered once undisturbed;
then again, killed (SIGKILL) at random moments and continued with --resume. Both outputs must have the same bytes.

For the throughput, both commands take turns on the same rows with the same options. The time of a command over a single
row, which is its start, is measured in the same way and taken off.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
from tqdm import tqdm

from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.options import PIPELINE
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad

from benchmarks.common import argument_parser, measured_on

COMMAND = (sys.executable, "-c", "from dynamic_tinybert.runtime.cli import main; main()")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", help="by default the embedded one")
    parser.add_argument("--length-config", default="full")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--timed-rows", type=int, default=3_000, help="rows of a run for the throughput")
    parser.add_argument("--passes", type=int, default=5, help="runs of each command for the throughput")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the order of rows and of the moments of kills")
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    examples = [example for example in read_squad(arguments.data) if example.answers]
    options = ["--length-config", arguments.length_config, "--num-threads", str(arguments.threads)]
    options += ["--bundle", arguments.bundle] if arguments.bundle else []
    print(measured_on())
    print(
        f"{arguments.rows} rows, {arguments.length_config}, {arguments.threads} threads, seed {arguments.seed}",
        flush=True,
    )
    with TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_rows(folder / "rows.jsonl", examples, arguments.rows, generator)
        same = kill_and_resume(rows, options, arguments.kills, generator)
        compare_throughput(folder, examples, options, arguments, generator)
    if not same:
        sys.exit("the output after kills differs from the undisturbed one")


def write_rows(path: Path, examples: list[Example], count: int, generator: np.random.Generator) -> Path:
    """Write `count` rows that both commands read: all questions once in random order, then again in another order."""
    with path.open("w", encoding="utf-8") as stream:
        for number in range(count):
            if number % len(examples) == 0:
                order = generator.permutation(len(examples))
            example = examples[order[number % len(examples)]]
            answers = [{"text": text, "answer_start": None} for text in example.answers]
            row = {"id": str(number), "question": example.question, "context": example.context, "answers": answers}
            stream.write(json.dumps(row) + "\n")
    return path


def kill_and_resume(rows: Path, options: list[str], kills: int, generator: np.random.Generator) -> bool:
    """Answer the rows undisturbed and with kills; whether both outputs are the same."""
    expected, output = rows.with_name("undisturbed.jsonl"), rows.with_name("killed.jsonl")
    needed = seconds_of(["answer", str(rows), str(expected), *options])
    print(f"undisturbed: {needed:.1f} s")
    command = [*COMMAND, "answer", str(rows), str(output), *options, "--resume"]
    moments = np.sort(generator.uniform(0, needed, kills))
    done = 0
    for number, wait in enumerate(np.diff(moments, prepend=0.0), 1):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            _, errors = process.communicate(timeout=wait)
        except subprocess.TimeoutExpired:
            pass
        else:  # as it should if the machine is faster than it was before, and only then
            if process.returncode:
                sys.exit(f"run {number} failed with status {process.returncode}: {errors[-1000:]}")
            print(f"run {number} was finished in {wait:.1f} s, before it was to be killed; {number - 1} kills")
            break
        finally:
            process.kill()
            process.communicate()
        before, done = done, finished_rows(output)
        print(f"kill {number}: {wait:.1f} s after the start; {done - before} more rows on disk, {done} in all")
        if output.exists():
            sys.exit(f"{output} appeared although the run was killed before its end")
    if not output.exists():
        needed = seconds_of(["answer", str(rows), str(output), *options, "--resume"])
        print(f"last run: {needed:.1f} s")
    same = expected.read_bytes() == output.read_bytes()
    print(f"output {'the same' if same else 'DIFFERENT'}, {expected.stat().st_size} bytes", flush=True)
    return same


def finished_rows(output: Path) -> int:
    """Rows that killed runs have written."""
    try:
        with output.with_name(f"{output.name}.answering").joinpath("answers.jsonl").open("rb") as stream:
            return sum(1 for _ in stream)
    except FileNotFoundError:
        return 0


def compare_throughput(
    folder: Path,
    examples: list[Example],
    options: list[str],
    arguments: argparse.Namespace,
    generator: np.random.Generator,
) -> None:
    rows = write_rows(folder / "timed.jsonl", examples, arguments.timed_rows, generator)
    one = write_rows(folder / "one.jsonl", examples, 1, generator)
    output = folder / "timed-output.jsonl"
    same_options = ["--max-answer-len", str(PIPELINE.max_answer_len), *options]

    def commands(path: Path) -> dict[str, list[str]]:
        return {
            "answer": ["answer", str(path), str(output), "--force", *same_options],
            "evaluate --batch-size 8": ["evaluate", "--data", str(path), "--batch-size", "8", *same_options],
        }

    net: dict[str, list[float]] = {name: [] for name in commands(one)}
    starts: dict[str, list[float]] = {name: [] for name in net}
    for command in commands(one).values():  # warms the page cache
        seconds_of(command)
    for number in tqdm(range(arguments.passes), disable=None):
        for name in list(net)[:: -1 if number % 2 else 1]:
            starts[name].append(seconds_of(commands(one)[name]))
            net[name].append(seconds_of(commands(rows)[name]) - starts[name][-1])
    print(f"\nMedians of {arguments.passes} runs over {arguments.timed_rows} rows, in turns:\n")
    print("| Command | start, s | rows/s after the start |\n| --- | ---: | ---: |")
    for name, seconds in net.items():
        print(f"| {name} | {median(starts[name]):.2f} | {arguments.timed_rows / median(seconds):.1f} |")
    ratios = [b / a for a, b in zip(net["answer"], net["evaluate --batch-size 8"], strict=True)]
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    print(f"\nthroughput of answer / evaluate: {middle:.3f} (quartiles {low:.3f} to {high:.3f}); target 0.95")


def seconds_of(arguments: list[str]) -> float:
    """Seconds that a command takes; it must succeed."""
    start = perf_counter()
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"dynamic-tinybert {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return perf_counter() - start


if __name__ == "__main__":
    main()
