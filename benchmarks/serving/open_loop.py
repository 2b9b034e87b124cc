"""Do budgets keep requests in time when more arrive than `full` can serve? In one process, without HTTP.

    python -m benchmarks.serving.open_loop DATA.json OUTPUT [--bundle BUNDLE] [--loads 0.7 1.5 3] [--seconds 20]

First, single requests with `full` give its median time, its answers and their F1, and 4 callers that are always busy
give the number of requests a second that `full` can serve. Then questions of the data arrive at random times (Poisson)
at multiples of that rate, in a process of the answerer's own threads and one event loop: once with `full`, once with a
budget of 4 times the median, which is the timeout, too. Times are those that the caller sees, from the moment at which
a request was due. `open_loop_http` does the same over HTTP.

A table is printed; OUTPUT.json gets all requests, OUTPUT.png a plot.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
from collections.abc import Sequence
from itertools import count
from time import monotonic

import numpy as np

from dynamic_tinybert import AsyncQuestionAnswerer
from dynamic_tinybert.runtime.common.errors import DeadlineExceededError, OverloadedError
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.squad import f1

from benchmarks.common import measured_on
from benchmarks.serving.arrivals import poisson
from benchmarks.serving.open_loop_options import options_parser, questions_of
from benchmarks.serving.open_loop_runs import ANSWERED, REFUSED, Outcome, Run, plot, table, write_json

_CALLERS = 4


def main() -> None:
    asyncio.run(_measure(options_parser(__doc__).parse_args()))


async def _measure(arguments: argparse.Namespace) -> None:
    examples = questions_of(arguments)
    heading = measured_on()
    print(f"{heading}\n{len(examples)} questions, seed {arguments.seed}", flush=True)
    async with AsyncQuestionAnswerer.from_pretrained(
        arguments.bundle, num_threads=arguments.threads, max_queued=arguments.max_queued
    ) as service:
        service.answerer.latency_table()
        service.answerer.model.warm_up()
        p50, full_f1 = await _single(service, examples)
        capacity = await _capacity(service, examples, min(arguments.seconds, 10))
        budget_ms = 1e3 * arguments.budget * p50
        measured = (
            f"full: {capacity:.1f} requests/s, median {1e3 * p50:.1f} ms, F1 {np.mean(list(full_f1.values())):.2f}; "
            f"budget {budget_ms:.0f} ms; {arguments.seconds:g} s a run, at most {arguments.max_queued} waiting"
        )
        print(f"{measured}\n", flush=True)
        runs = []
        for load in arguments.loads:
            for budgets in (False, True):
                generator = np.random.default_rng(arguments.seed)  # the same arrivals and questions with and without
                arrivals = poisson(load * capacity, arguments.seconds, generator)
                order = [int(i) for i in generator.integers(len(examples), size=len(arrivals))]
                outcomes, queue = await _open_loop(service, examples, order, arrivals, budget_ms if budgets else None)
                runs.append(Run(load, budgets, load * capacity, budget_ms, outcomes, queue))
                print(f"done: {runs[-1].name}", file=sys.stderr)
    print(table(runs, full_f1))
    settings = {key: str(value) for key, value in vars(arguments).items()} | {"machine": heading, "full": measured}
    write_json(arguments.output.with_suffix(".json"), runs, settings)
    plot(arguments.output.with_suffix(".png"), runs, f"{heading}\n{measured}")


async def _single(service: AsyncQuestionAnswerer, examples: Sequence[Example]) -> tuple[float, dict[int, float]]:
    """Median seconds of `full`, one request at a time; and F1 in percent of its answer to each question."""
    seconds, scores = [], {}
    for number, example in enumerate(examples):
        start = monotonic()
        answer = await service(example.question, example.context, length_config="full")
        seconds.append(monotonic() - start)
        scores[number] = f1(answer["answer"], example.answers)
    return float(np.median(seconds)), scores


async def _capacity(service: AsyncQuestionAnswerer, examples: Sequence[Example], seconds: float) -> float:
    """Requests a second that `full` serves to callers that ask again at once."""
    numbers, start = count(), monotonic()

    async def ask() -> None:
        while monotonic() < start + seconds:
            example = examples[next(numbers) % len(examples)]
            await service(example.question, example.context, length_config="full")

    await asyncio.gather(*(ask() for _ in range(_CALLERS)))
    return next(numbers) / (monotonic() - start)


async def _open_loop(
    service: AsyncQuestionAnswerer,
    examples: Sequence[Example],
    order: Sequence[int],
    arrivals: Sequence[float],
    budget_ms: float | None,
) -> tuple[list[Outcome], list[tuple[float, int]]]:
    """What became of each request, and how many were inside at each arrival. With a budget that is the timeout, too."""
    gc.collect()
    start = monotonic()
    inside: list[tuple[float, int]] = []

    async def ask(question: int, due: float) -> Outcome:
        example, config = examples[question], "full"
        try:
            if budget_ms is None:
                answer = await service(example.question, example.context, length_config=config)
            else:
                # What is left of them: the loop may have begun late.
                left_ms = max(1e-3, budget_ms - 1e3 * (monotonic() - start - due))
                answer = await service(example.question, example.context, budget_ms=left_ms, timeout=left_ms / 1e3)
                config = answer["length_config"]
        except OverloadedError:
            return Outcome(question, due, monotonic() - start - due, REFUSED)
        except DeadlineExceededError:
            return Outcome(question, due, monotonic() - start - due, "late")
        seconds = monotonic() - start - due
        return Outcome(question, due, seconds, ANSWERED, config, f1(answer["answer"], example.answers))

    tasks = []
    for question, due in zip(order, arrivals, strict=True):
        await asyncio.sleep(max(0, start + due - monotonic()))
        tasks.append(asyncio.create_task(ask(question, due)))
        inside.append((due, service.queued + service.running))
    return await asyncio.gather(*tasks), inside


if __name__ == "__main__":
    main()
