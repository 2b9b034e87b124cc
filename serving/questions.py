"""Questions as the work of a request: cut into windows, run batch by batch, in a length configuration chosen late."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic, perf_counter
from typing import Any

from dynamic_tinybert.runtime.batches import batches_of, padded_length
from dynamic_tinybert.runtime.common.errors import OverloadedError
from dynamic_tinybert.runtime.tasks.question_answering.answerer import QuestionAnswerer
from dynamic_tinybert.runtime.tasks.question_answering.inference import WindowOutput, run_batch
from dynamic_tinybert.runtime.tasks.question_answering.plan import Answered
from dynamic_tinybert.runtime.tasks.windows import Window

from .pressure import (
    Price,
    Slowness,
    Waiting,
    choose_under_pressure,
    is_hopeless,
    may_join,
    reserve_against_lateness,
)
from .requests import Work
from .sharing import Config, SharedBatch


class Runner:
    """What the questions of one asynchronous answerer share: the model, and how fast it was lately.

    Attributes:
        answerer: What answers.
        at_once: Number of turns that run at the same time.
        slowness: How predictions compare with what turns took.
        lateness: The reserve against lateness.
        price: What time costs.
        turn_ends: Time of `time.monotonic` at which the latest turn is predicted to end; 0 once one has ended.
    """

    def __init__(self, answerer: QuestionAnswerer, at_once: int) -> None:
        self.answerer = answerer
        self.at_once = at_once
        self.slowness = Slowness()
        self.lateness = reserve_against_lateness()
        self.price = Price()
        self.turn_ends = 0.0

    def run(
        self, windows: Sequence[Window], configs: Sequence[Config], predicted_ms: float, *, learn: bool
    ) -> list[WindowOutput]:
        """Run windows in one call.

        One configuration of a name runs in a graph of its own, any others in the elastic graph.

        Args:
            windows: The windows.
            configs: The length configuration of each.
            predicted_ms: Milliseconds that this is predicted to take; 0 if unknown.
            learn: Whether to compare the prediction with what it takes.
        """
        model = self.answerer.model
        started = perf_counter()
        self.turn_ends = monotonic() + self.slowness.typical * predicted_ms / 1e3
        one = isinstance(configs[0], str) and len(set(configs)) == 1
        compiled = not one or model.is_compiled(configs[0])
        how: dict[str, Any] = {"length_config": configs[0]} if one else {"length_configs": configs}
        try:
            outputs = run_batch(model, windows, **how)
        finally:
            self.turn_ends = 0.0
        if learn and compiled:  # what compiling takes says nothing about further turns
            self.slowness.learn(predicted_ms, 1e3 * (perf_counter() - started))
        return outputs


@dataclass(frozen=True, slots=True)
class _Left:
    """What is left of questions. Others may read it at any time, so it is never changed, but replaced.

    Attributes:
        batches: Indices of the windows of each batch.
        length: Tokens of the next batch's windows, as padded.
        ms: Predicted milliseconds by length configuration; empty if unknown.
        config: The length configuration, once it is chosen.
    """

    batches: tuple[tuple[int, ...], ...]
    length: int
    ms: Mapping[str, float]
    config: Config | None

    def chosen_ms(self) -> Mapping[str, float]:
        """Of `ms`, what can still come true."""
        if self.config is None or not self.ms:
            return self.ms
        name = self.config if isinstance(self.config, str) else next(iter(self.ms))
        return {name: self.ms[name]}


class Questions:
    """The questions of one call."""

    def __init__(
        self, runner: Runner, questions: object, contexts: object, arrived: float, options: dict[str, Any]
    ) -> None:
        """Answer questions.

        Args:
            runner: Runs them.
            questions: As for `QuestionAnswerer.answer_batch`.
            contexts: Likewise.
            arrived: Time of `time.monotonic` at which the time of a budget began.
            options: Further options of `QuestionAnswerer.answer_batch`.
        """
        self._runner = runner
        self._arguments = (questions, contexts, arrived, options)
        self._deadline = math.inf
        self._promised = False  # whether it was predicted to be in time for its deadline
        self._outputs: dict[int, WindowOutput] = {}
        self._agreed: dict[Questions, Config] = {}  # length configurations of companions

    def prepare(self) -> None:
        """Cut the texts into windows, and predict how long they take."""
        questions, contexts, arrived, options = self._arguments
        answerer = self._runner.answerer
        plan = self._plan = answerer.plan(questions, contexts, arrived=arrived, **options)  # type: ignore[arg-type]
        self._windows = [window for own in plan.windows for window in own]
        batches = tuple(tuple(batch) for batch in batches_of(plan.lengths, plan.options.batch_size))
        if plan.budgeted:
            self._left = self._after(batches, plan.budgeted.predict(plan.lengths, plan.options.batch_size), None)
            return
        config = plan.length_config
        if config is None:
            config = answerer.model.bundle.default_length_config
        resolved = answerer.model.resolve(config)
        config = config if isinstance(config, str) else resolved
        slowest = config if isinstance(config, str) else "full"  # of others the time is unknown
        ms = answerer.budgets.predict([slowest], plan.lengths, plan.options.batch_size)
        self._left = self._after(batches, ms, config)

    def check(self, ahead: Sequence[Work[Any]], deadline: float) -> None:
        """Refuse the questions if they could not be answered by the deadline, even if all budgets ran at their fastest.

        Raises:
            OverloadedError: That is so. Without a latency table nobody knows, and nothing is refused.
        """
        self._deadline = deadline
        if deadline == math.inf or not self._left.ms:
            return
        left_ms = 1e3 * (deadline - monotonic())
        own = Waiting(self._left.ms, self._usable(left_ms), len(self._left.batches))
        running_ms = max(0.0, 1e3 * (self._runner.turn_ends - monotonic()))
        others = [other.waiting() for other in ahead if isinstance(other, Questions)]
        hopeless = is_hopeless(own, others, running_ms, self._runner.slowness)
        self._runner.price.learn(refused=hopeless)
        if hopeless:
            seconds = (running_ms + math.fsum(other.fastest_ms for other in others)) / 1e3
            running = ["the batch that is being run"] if running_ms else []
            waiting = [f"{len(ahead)} waiting requests"] if ahead else []
            raise OverloadedError(
                f"behind {' and '.join(running + waiting)} this request would not be answered in the "
                f"{max(left_ms, 0) / 1e3:.3f} s that are left, even at the fastest length configurations; try "
                f"again in about {seconds:.2g} s, allow more time, or send fewer requests at once",
                retry_after_s=seconds,
            )
        self._promised = True

    @property
    def done(self) -> bool:
        """Whether all batches were run."""
        return not self._left.batches

    def waiting(self) -> Waiting:
        """What is left of it, as others see it that consider what waits."""
        return self._waiting_at(self._left.config)

    def _waiting_at(self, config: Config | None) -> Waiting:
        left = replace(self._left, config=config)
        share = 1 / self._runner.at_once  # others run at the same time
        ms = {name: share * value for name, value in left.chosen_ms().items()}
        return Waiting(ms, self._usable(self._slack_ms()), max(1, len(left.batches)))

    def companions(self, waiting: Sequence[Work[Any]]) -> Sequence[int]:
        """Choose the length configuration, if it is not chosen yet, and who shares the next batch."""
        others = [(place, other) for place, other in enumerate(waiting) if isinstance(other, Questions)]
        views = {other: other.waiting() for _, other in others}
        if others and not self._outputs:
            self._refuse_if_late(len(others))
        config = self._choice(list(views.values()))
        self._note(config)
        left, places, batch = self._left, [], [self.waiting()]
        model, slowness = self._runner.answerer.model, self._runner.slowness
        # Compiling the elastic graph takes so long that only requests that need it should make others wait for it.
        shared = SharedBatch(model, left.length, len(left.batches[0]), config, mixed=model.has_elastic_graph)
        self._agreed = {}
        for place, other in others:
            theirs = other._left
            if not theirs.batches or not shared.has_room(theirs.length, len(theirs.batches[0])):
                continue
            behind = [view for another, view in views.items() if another is not other]
            choice = other._choice(behind)
            joining = other._waiting_at(choice)
            if may_join(batch, joining, behind, slowness) and shared.add(len(theirs.batches[0]), choice):
                places.append(place)
                batch.append(joining)
                self._agreed[other] = choice
                del views[other]
        return places

    def _refuse_if_late(self, waiting: int) -> None:
        """Leave the turn to those that wait, if the deadline would not be met: they can still be answered in time."""
        fastest_ms = min(self._left.chosen_ms().values(), default=0.0)
        left_ms = 1e3 * (self._deadline - monotonic())
        needed_ms = self._runner.slowness.typical * fastest_ms
        if needed_ms > left_ms:
            raise OverloadedError(
                f"this request waited so long that {max(left_ms, 0) / 1e3:.3f} s are left of its time, in which it "
                f"would not be answered even at the fastest length configuration, and {waiting} requests wait behind "
                "it; allow more time, or send fewer requests at once",
                retry_after_s=waiting * needed_ms / 1e3,
            )

    def run(self, companions: Sequence[Work[Any]]) -> None:
        """Run the next batch, with those of companions."""
        works = [self, *(other for other in companions if isinstance(other, Questions))]
        for other in works[1:]:
            other._note(self._agreed[other])
        lefts = [work._left for work in works]
        windows = [work._windows[i] for work, left in zip(works, lefts, strict=True) for i in left.batches[0]]
        configs = [config for work in works for config in work._configs()]
        predicted = [sum(left.chosen_ms().values()) / len(left.batches) for left in lefts]
        alone = len(works) == 1 and isinstance(self._left.config, str)
        outputs = iter(self._runner.run(windows, configs, sum(predicted), learn=alone))
        for work, left in zip(works, lefts, strict=True):
            work._outputs.update((i, next(outputs)) for i in left.batches[0])
            share = 1 - 1 / len(left.batches)
            ms = {name: share * value for name, value in left.ms.items()}
            work._left = work._after(left.batches[1:], ms, left.config)

    def result(self) -> Answered:
        """The answers, and what computing them took."""
        outputs = [self._outputs[index] for index in range(len(self._windows))]
        return self._plan.answered(self._runner.answerer.model, outputs, self._left.config)

    def note_late(self) -> None:
        """Learn from it, if it was accepted, that it was given up at its deadline or shortly before."""
        if self._promised:
            self._runner.lateness.learn(happened=True)

    def note_end(self, answered: Answered) -> None:
        """Say in the answers how long all took until now, when the caller gets them; learn that it was in time."""
        if self._promised:
            self._runner.lateness.learn(happened=False)
        if self._plan.budgeted:
            self._plan.budgeted.finish(answered.answers)

    def _configs(self) -> list[Config]:
        """The length configuration of each window of the next batch."""
        config = self._left.config
        assert config is not None  # it is chosen before anything runs
        return [config] * len(self._left.batches[0])

    def _after(self, batches: tuple[tuple[int, ...], ...], ms: Mapping[str, float], config: Config | None) -> _Left:
        longest = max((len(self._windows[i]) for i in batches[0]), default=0) if batches else 0
        return _Left(batches, padded_length(longest), ms, config)

    def _usable(self, ms: float) -> float:
        """Of the time that is left, what may be used while others wait."""
        return ms * (1 - self._runner.lateness.share)

    def _slack_ms(self) -> float:
        budgeted = self._plan.budgeted
        until_deadline = 1e3 * (self._deadline - monotonic())
        return min(until_deadline, budgeted.slack_ms) if budgeted else until_deadline

    def _choice(self, others: Sequence[Waiting]) -> Config:
        """The length configuration: the one that it has, or the one to choose now."""
        left, budgeted = self._left, self._plan.budgeted
        if left.config is not None:
            return left.config
        assert budgeted is not None  # others have a configuration from the start
        slack_ms = self._usable(self._slack_ms()) if others else self._slack_ms()
        own = Waiting(left.ms, slack_ms, len(left.batches))
        return choose_under_pressure(
            own, budgeted.allowed, budgeted.limits, others, self._runner.slowness, self._runner.price
        )

    def _note(self, config: Config) -> None:
        """Run at this length configuration from now on, unless there is one already."""
        if self._left.config is None and self._plan.budgeted is not None and isinstance(config, str):
            self._plan.budgeted.take(config)
            self._left = replace(self._left, config=config)
