"""The arguments of the open loops, over HTTP and in one process, and the questions that they name."""

from __future__ import annotations

import argparse
from pathlib import Path

from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad

from benchmarks.common import argument_parser, random_sample


def options_parser(documentation: str | None) -> argparse.ArgumentParser:
    """The command line of a script with this docstring."""
    parser = argument_parser(documentation)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path, help="without a suffix")
    parser.add_argument("--bundle", help="by default the embedded one")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.7, 1.5, 3.0], help="multiples of full's rate")
    parser.add_argument("--seconds", type=float, default=20.0, help="of a run")
    parser.add_argument("--questions", type=int, default=400, help="different ones")
    parser.add_argument("--budget", type=float, default=4.0, help="multiple of the median time of full")
    parser.add_argument("--max-queued", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def questions_of(options: argparse.Namespace) -> list[Example]:
    """Answerable questions of the data, in random order."""
    answerable = [example for example in read_squad(options.data) if example.answers]
    return random_sample(answerable, options.questions, options.seed)
