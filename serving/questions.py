"""Questions as the work of a request: cut into windows, run batch by batch, in a length configuration chosen late."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from typing import Any

from dynamic_tinybert.runtime.batches import batches_of, padded_length
from dynamic_tinybert.runtime.common.errors import OverloadedError
from dynamic_tinybert.runtime.tasks.question_answering.inference import WindowOutput
from dynamic_tinybert.runtime.tasks.question_answering.plan import Answered

from .pressure import Batch, Queue, Waiting, choose_under_pressure, is_at_risk, is_hopeless
from .requests import Work
from .runner import Runner
from .sharing import Config, SharedBatch

_MOST_REFUSED = 3
"""So many of those that wait are asked in vain whether they would make somebody late by sharing a batch. Then it is
likely that all others would, too."""


@dataclass(frozen=True, slots=True)
class _Left:
    """What is left of questions. Others may read it at any time, so it is never changed, but replaced.

    Attributes:
        batches: Indices of the windows of each batch.
        length: Tokens of the next batch's windows, as padded.
        ms: Predicted milliseconds of each batch, by length configuration; empty if unknown.
        config: The length configuration, once it is chosen.
    """

    batches: tuple[tuple[int, ...], ...]
    length: int
    ms: Mapping[str, Sequence[float]]
    config: Config | None

    def chosen_ms(self) -> Mapping[str, Sequence[float]]:
        """Of `ms`, what can still come true."""
        return self.ms_at(self.config)

    def ms_at(self, config: Config | None) -> Mapping[str, Sequence[float]]:
        """Of `ms`, what can come true if this length configuration is chosen, or None yet."""
        if config is None or not self.ms:
            return self.ms
        name = config if isinstance(config, str) else next(iter(self.ms))
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
        self._at_risk = False  # whether it could have been late for it
        self._outputs: dict[int, WindowOutput] = {}
        self._agreed: dict[Questions, Config] = {}  # length configurations of companions

    def prepare(self) -> None:
        """Cut the texts into windows, and predict how long they take."""
        questions, contexts, arrived, options = self._arguments
        answerer = self._runner.answerer
        plan = self._plan = answerer.plan(questions, contexts, arrived=arrived, **options)  # type: ignore[arg-type]
        self._windows = [window for own in plan.windows for window in own]
        lengths, size = plan.lengths, plan.options.batch_size
        batches = tuple(tuple(batch) for batch in batches_of(lengths, size))
        config: Config | None = None
        if plan.budgeted:
            predict = plan.budgeted.predict
        else:
            asked = plan.length_config
            if asked is None:
                asked = answerer.model.bundle.default_length_config
            resolved = answerer.model.resolve(asked)
            config = asked if isinstance(asked, str) else resolved
            slowest = config if isinstance(config, str) else "full"  # of others the time is unknown
            predict = partial(answerer.budgets.predict, [slowest])
        each = [predict([lengths[i] for i in batch], size) for batch in batches]
        self._left = self._after(batches, {name: [ms[name] for ms in each] for name in each[0]} if each else {}, config)

    def check(self, ahead: Sequence[Work[Any]], deadline: float) -> None:
        """Refuse the questions if they could not be answered by the deadline, even if all budgets ran at their fastest.

        Raises:
            OverloadedError: That is so. Without a latency table nobody knows, and nothing is refused.
        """
        self._deadline = deadline
        if deadline == math.inf or not self._left.ms:
            return
        runner = self._runner
        left_ms, running_ms = 1e3 * (deadline - monotonic()), runner.running_ms()
        own = Waiting(self._left.ms, self._usable(left_ms), left_ms)
        others = [other.waiting() for other in ahead if isinstance(other, Questions)]
        hopeless = is_hopeless(own, others, running_ms, runner.slowness)
        self._at_risk = is_at_risk(own, others, running_ms, runner.slowness)
        if self._at_risk:
            runner.price.learn(refused=hopeless)
        if hopeless:
            seconds = (running_ms + sum(sum(other.fastest) for other in others)) / 1e3
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
        share = 1 / self._runner.at_once  # others run at the same time
        ms = {name: [share * one for one in each] for name, each in self._left.ms_at(config).items()}
        return Waiting(ms, self._usable(self._slack_ms()), self._until_deadline_ms())

    def companions(self, waiting: Sequence[Work[Any]]) -> Sequence[int]:
        """Choose the length configuration, if it is not chosen yet, and who shares the next batch."""
        others = [(place, other) for place, other in enumerate(waiting) if isinstance(other, Questions)]
        if others and not self._outputs:
            self._refuse_if_late(len(others))
        queue = Queue([other.waiting() for _, other in others], self._runner.slowness)
        config = self._choice(queue)
        self._note(config)
        left, model = self._left, self._runner.answerer.model
        batch = Batch(self.waiting(), queue)
        # Compiling the elastic graph takes so long that only requests that need it should make others wait for it.
        shared = SharedBatch(model, left.length, len(left.batches[0]), config, mixed=model.has_elastic_graph)
        self._agreed = {}
        places, refused = [], 0
        for at, (place, other) in enumerate(others):
            theirs = other._left
            if not (theirs.batches and shared.has_room(theirs.length, len(theirs.batches[0]))):
                continue
            possible: Iterable[Config] = theirs.ms if theirs.config is None else [theirs.config]
            if not (any(map(shared.permits, possible)) and batch.has_time(queue.waiting[at])):
                continue  # whatever is chosen, which takes longer to find out
            choice = other._choice(queue, at)
            if shared.permits(choice) and batch.add(other._waiting_at(choice), at):
                shared.add(len(theirs.batches[0]), choice)
                places.append(place)
                self._agreed[other] = choice
            elif (refused := refused + 1) == _MOST_REFUSED:
                break
        return places

    def _refuse_if_late(self, waiting: int) -> None:
        """Leave the turn to those that wait, if the deadline would not be met: they can still be answered in time."""
        fastest_ms = min(map(sum, self._left.chosen_ms().values()), default=0.0)
        left_ms = self._until_deadline_ms()
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
        predicted = sum(ms[0] for left in lefts for ms in left.chosen_ms().values())
        alone = len(works) == 1 and isinstance(self._left.config, str)
        outputs = iter(self._runner.run(windows, configs, predicted, learn=alone))
        for work, left in zip(works, lefts, strict=True):
            work._outputs.update((i, next(outputs)) for i in left.batches[0])
            ms = {name: each[1:] for name, each in left.ms.items()}
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
        if self._promised and self._at_risk:
            self._runner.lateness.learn(happened=False)
        if self._plan.budgeted:
            self._plan.budgeted.finish(answered.answers)

    def _configs(self) -> list[Config]:
        """The length configuration of each window of the next batch."""
        config = self._left.config
        assert config is not None  # it is chosen before anything runs
        return [config] * len(self._left.batches[0])

    def _after(
        self, batches: tuple[tuple[int, ...], ...], ms: Mapping[str, Sequence[float]], config: Config | None
    ) -> _Left:
        longest = max((len(self._windows[i]) for i in batches[0]), default=0) if batches else 0
        return _Left(batches, padded_length(longest), ms, config)

    def _usable(self, ms: float) -> float:
        """Of the time that is left, what may be used while others wait."""
        return ms * (1 - self._runner.lateness.share)

    def _slack_ms(self) -> float:
        budgeted = self._plan.budgeted
        return min(self._until_deadline_ms(), budgeted.slack_ms if budgeted else math.inf)

    def _until_deadline_ms(self) -> float:
        return 1e3 * (self._deadline - monotonic())

    def _choice(self, queue: Queue, place: int | None = None) -> Config:
        """The length configuration: the one that it has, or the one to choose now; `place` is its own in the queue."""
        left, budgeted = self._left, self._plan.budgeted
        if left.config is not None:
            return left.config
        assert budgeted is not None  # others have a configuration from the start
        slack_ms = self._slack_ms() if queue.is_empty(place) else self._usable(self._slack_ms())
        own = Waiting(left.ms, slack_ms)
        return choose_under_pressure(own, budgeted.allowed, budgeted.limits, queue, self._runner.price, place)

    def _note(self, config: Config) -> None:
        """Run at this length configuration from now on, unless there is one already."""
        budgeted = self._plan.budgeted
        if self._left.config is None and budgeted is not None and isinstance(config, str):
            if budgeted.limits.budget_ms is not None:
                own = Waiting(self._left.ms)
                self._runner.price.note(sum(own.slowest) - sum(own.fastest))
            budgeted.take(config)
            self._left = replace(self._left, config=config)
