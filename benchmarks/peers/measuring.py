"""The protocol: cold starts, a first visit of every question, then later passes; systems take turns in blocks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from tqdm import tqdm

from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.inference import WindowOutput
from dynamic_tinybert.runtime.tasks.question_answering.options import window_size
from dynamic_tinybert.runtime.tasks.question_answering.spans import squad_answer
from dynamic_tinybert.runtime.tasks.windows import Window

from .process import WorkerProcess
from .systems import System
from .turns import turns

WARM_UP = 3
"""Questions run before each block, always the first of all; they do not count as a first visit."""


@dataclass(frozen=True)
class Protocol:
    """Counts of the protocol.

    Attributes:
        threads: Threads of each system, set by its own option.
        timed: Number of questions, the first in the random order, of the later passes.
        passes: Number of later passes.
        block: Number of questions that a system answers before it is the next system's turn.
        starts: Number of process starts of each kind.
    """

    threads: int
    timed: int
    passes: int
    block: int
    starts: int


@dataclass
class Measurement:
    """The measurements of one system; lists are in the order of the questions.

    Attributes:
        first_visit: Seconds of each question at its first visit.
        later: In each later pass, seconds of each timed question.
        answers: The answer to each question.
        kept: For each window of each question, the number of tokens that each selecting layer passed on, by the
            layer's number as a string.
        cold_start: Seconds from process start to the first answer.
        warm_start: The same if an earlier process has cached its compiled graphs; None for systems without a cache.
        resident_bytes: Resident memory after all passes.
    """

    first_visit: list[float] = field(default_factory=list)
    later: list[list[float]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    kept: list[list[dict[str, int]]] = field(default_factory=list)
    cold_start: list[float] = field(default_factory=list)
    warm_start: list[float] | None = None
    resident_bytes: int = 0


def measure(
    systems: Sequence[System],
    bundle: Bundle,
    examples: Sequence[Example],
    windows: Sequence[Sequence[Window]],
    protocol: Protocol,
) -> dict[str, Measurement]:
    """Measure systems on examples in random order; `windows` are theirs, cut by the tokenizer of `bundle`."""
    questions = [[{"ids": window.encoding.ids, "context": window.context.start} for window in own] for own in windows]
    padding = {system.name: system.pad_to for system in systems}
    measured = {system.name: Measurement() for system in systems}
    for system in tqdm(systems, desc="starts", disable=None):
        _measure_starts(measured[system.name], system, bundle, examples[0], windows[0][:1], protocol)
    processes: dict[str, WorkerProcess] = {}

    def run(name: str, block: range, *, outputs: bool) -> dict[str, Any]:
        process, pad_to = processes[name], padding[name]
        process.ask(run=questions[:WARM_UP], pad_to=pad_to, outputs=False)
        return process.ask(run=questions[block.start : block.stop], pad_to=pad_to, outputs=outputs)

    with ExitStack() as stack:
        for system in tqdm(systems, desc="loading", disable=None):
            processes[system.name] = stack.enter_context(system_process(system, protocol.threads))
            processes[system.name].ask(run=questions[:1], pad_to=system.pad_to, outputs=False)

        counts = {system.name: len(examples) if system.scored else protocol.timed for system in systems}
        for name, block in turns(counts, protocol.block, "first visit"):
            result, reply = measured[name], run(name, block, outputs=True)
            result.first_visit += reply["seconds"]
            for number, outputs in zip(block, reply["outputs"], strict=True):
                result.answers.append(_answer(examples[number], windows[number], outputs))
                result.kept.append([output["kept"] for output in outputs])
        counts = dict.fromkeys(counts, protocol.timed)
        for _ in range(protocol.passes):
            for result in measured.values():
                result.later.append([])
            for name, block in turns(counts, protocol.block, "later pass"):
                measured[name].later[-1] += run(name, block, outputs=False)["seconds"]

        for name, process in processes.items():
            measured[name].resident_bytes = process.resident_bytes()
    return measured


def system_process(system: System, threads: int, cache: str | None = None) -> WorkerProcess:
    """A process that runs a system (see worker.py)."""
    options = {**system.options, "threads": threads} | ({"cache": cache} if cache else {})
    arguments = (system.loader, json.dumps(options))
    return WorkerProcess("benchmarks.peers.worker", *arguments, environment=system.environment)


def _measure_starts(
    result: Measurement,
    system: System,
    bundle: Bundle,
    example: Example,
    windows: Sequence[Window],
    protocol: Protocol,
) -> None:
    size, stride = window_size(bundle.max_length)
    text = {
        "tokenizer": str(bundle.tokenizer_json),
        "question": example.question,
        "context": example.context,
        "size": size,
        "stride": stride,
    }

    def start(cache: str | None = None) -> float:
        started = perf_counter()
        with system_process(system, protocol.threads, cache) as process:
            reply = process.ask(text=text, pad_to=system.pad_to)
            _answer(example, windows, [reply["outputs"]])
            return perf_counter() - started

    result.cold_start = [start() for _ in range(protocol.starts)]
    if system.cached:
        with TemporaryDirectory() as cache:
            start(cache)
            result.warm_start = [start(cache) for _ in range(protocol.starts)]


def _answer(example: Example, windows: Sequence[Window], outputs: Sequence[dict[str, Any]]) -> str:
    logits = [[np.asarray(output[side], np.float32) for side in ("start", "end")] for output in outputs]
    return squad_answer(example.context, windows, [WindowOutput(start, end, {}) for start, end in logits])
