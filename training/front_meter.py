"""F1 and MACs of a model in PyTorch, at some length configurations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import fmean
from typing import Any, cast

import numpy as np
import torch
from tqdm import tqdm
from transformers import BertForQuestionAnswering

from dynamic_tinybert.calibration.search.schedules import Schedule
from dynamic_tinybert.calibration.significance.thresholds import SignificanceSample
from dynamic_tinybert.modeling.reference import ReferenceModel, ReferenceOutput
from dynamic_tinybert.modeling.scorer import Scorer, scorer_weights, with_context_rule
from dynamic_tinybert.runtime.encoder.scorer import macs_per_token
from dynamic_tinybert.runtime.length_config import EncoderShape, LengthConfig, executed_macs
from dynamic_tinybert.runtime.tasks.question_answering.evaluation import score_f1
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.inference import WindowOutput, run_windows, stack_windows
from dynamic_tinybert.runtime.tasks.question_answering.task import QuestionAnsweringOutput
from dynamic_tinybert.runtime.tasks.question_answering.windowing import Windowing
from dynamic_tinybert.runtime.tasks.question_answering.windows import Window, WindowTokenizer

ATTENTION_SHARES = (0.8, 0.7, 0.6, 0.5, 0.42, 0.35, 0.27, 0.2, 0.15, 0.11)
"""Shares that the last layer keeps, in a front by attention; those of the layers before fall to them evenly."""

LEARNT_SHARES = (0.5, 0.42, 0.36, 0.31, 0.27, 0.235, 0.205, 0.18, 0.155, 0.13)
"""Shares that the last layer with a scorer keeps. The first keeps twice as many, as in configurations that calibrations
choose; those between fall evenly."""

_BATCH = 32


@dataclass(frozen=True)
class Point:
    """What a length configuration gives and costs.

    Attributes:
        name: Of the configuration.
        question_f1: F1 of each question in percent.
        macs: Executed multiply-accumulates of a question with all its windows, in the mean.
        keep_ratios: Of the configuration.
        thresholds: Of the configuration.
    """

    name: str
    question_f1: tuple[float, ...]
    macs: float
    keep_ratios: tuple[float, ...]
    thresholds: tuple[float | None, ...]

    @property
    def f1(self) -> float:
        """Mean F1 in percent."""
        return fmean(self.question_f1)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Point:
        """What `to_dict` gave, also by way of JSON."""
        found: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in values.items()}
        return cls(**found)

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


class FrontMeter:
    """Measures models on the same questions: `full` and a row of configurations that keep less and less.

    Thresholds come from other questions than those that are scored.
    """

    def __init__(
        self,
        tokenize: WindowTokenizer,
        scored: Sequence[Example],
        sample: Sequence[Example],
        *,
        max_length: int,
        max_seq_len: int | None = None,
    ) -> None:
        """Cut the questions into windows.

        Args:
            tokenize: Cuts the windows.
            scored: Questions with answers, or unanswerable; those that the models cannot read score 0. Where some are
                unanswerable, SQuAD v2's rules hold, with a threshold of 0.
            sample: Questions that thresholds are taken from.
            max_length: Most tokens that the models read.
            max_seq_len: Tokens of a window, by default at most 384.

        Raises:
            DataError: None of the scored questions can be read.
        """
        windows_of = Windowing(tokenize, max_length, max_seq_len)
        self._scored = scored
        self._threshold = 0.0 if any(example.is_impossible for example in scored) else None
        self._windows, self._sample = ([windows_of(e) for e in examples] for examples in (scored, sample))
        if not any(self._windows):
            raise windows_of.refuse_all(f"any of the {len(scored)} questions")

    def front(
        self,
        reference: ReferenceModel,
        more: Mapping[str, LengthConfig] | None = None,
        *,
        every: int = 1,
    ) -> list[Point]:
        """Points of `full`, of each `every`-th of a row of configurations, named by their last share, and of more."""
        configs = self._configs(reference, every) | dict(more or {})
        return [self.point(reference, name, c) for name, c in tqdm(configs.items(), desc="Measuring", disable=None)]

    def point(self, reference: ReferenceModel, name: str, config: LengthConfig) -> Point:
        """Answer the questions at one configuration."""
        outputs = run_windows(partial(_answer, reference), self._windows, length_config=config, batch_size=_BATCH)
        cost = _cost(reference, config)
        question_f1, macs = [], []
        for example, windows, own in zip(self._scored, self._windows, outputs, strict=True):
            question_f1.append(score_f1(example, windows, own, no_answer_threshold=self._threshold))
            macs.append(sum(cost(len(window), output) for window, output in zip(windows, own, strict=True)))
        return Point(name, tuple(question_f1), fmean(macs), config.keep_ratios, config.thresholds)

    def _configs(self, reference: ReferenceModel, every: int) -> dict[str, LengthConfig]:
        num_layers = reference.model.config.num_hidden_layers
        configs = {"full": LengthConfig.full(num_layers)}
        if reference.significance == "attention":
            for last in ATTENTION_SHARES[::every]:
                ratios = falling_shares(num_layers, range(num_layers), last ** (1 / num_layers), last)
                configs[f"{last:g}"] = LengthConfig(ratios.shares)
            return configs
        windows = [window for own in self._sample for window in own]
        sample = SignificanceSample(_significance(reference, windows), num_layers, rule_layer=reference.rule_layer)
        for last in LEARNT_SHARES[::every]:
            configs[f"{last:g}"] = sample.length_config(falling_shares(num_layers, sample.layers, 2 * last, last))
        return configs


def reference_of(model: BertForQuestionAnswering, scorers: Mapping[int, Scorer]) -> ReferenceModel:
    """A model as deployed: by its scorers, if it has some, and the rule that calibration adds, or else by attention."""
    if not scorers:
        return ReferenceModel(model)
    return ReferenceModel(model, "learnt", with_context_rule(scorers, model.config.num_hidden_layers)).to(model.device)


def falling_shares(num_layers: int, selecting: Collection[int], first: float, last: float) -> Schedule:
    """Shares that fall by the same factor from one selecting layer to the next; a single one keeps `last`."""
    shares = np.geomspace(last, first, len(selecting))[::-1].tolist()
    return Schedule.of_layers(num_layers, dict(zip(sorted(selecting), shares, strict=True)))


def keeping_all(num_layers: int, scored: Collection[int]) -> LengthConfig:
    """The configuration that keeps everything, but for which scorers are asked: no significance is below 0."""
    return LengthConfig((1.0,) * num_layers, tuple(-1.0 if i in scored else None for i in range(num_layers)))


def _significance(reference: ReferenceModel, windows: Sequence[Window]) -> dict[int, np.ndarray]:
    """By layer the significance of all real tokens when nothing is dropped."""
    layers = [int(layer) for layer in reference.scorers if int(layer) != reference.rule_layer]
    config = keeping_all(reference.model.config.num_hidden_layers, layers)
    found: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}
    by_length = sorted(windows, key=len)
    for first in range(0, len(by_length), _BATCH):
        output = _forward(reference, stack_windows(by_length[first : first + _BATCH]), config)
        for layer in layers:
            present = output.entering[layer] < output.start_logits.shape[1]
            found[layer].append(output.significance[layer][present].cpu().numpy())
    return {layer: np.concatenate(values) for layer, values in found.items()}


def _answer(reference: ReferenceModel, *, length_config: LengthConfig, **inputs: np.ndarray) -> QuestionAnsweringOutput:
    """What `LengthAdaptiveModel` gives."""
    output = _forward(reference, inputs, length_config)
    start, end = output.start_logits.cpu().numpy(), output.end_logits.cpu().numpy()
    return QuestionAnsweringOutput(start, end, {layer: kept.int().cpu().numpy() for layer, kept in output.kept.items()})


@torch.inference_mode()
def _forward(reference: ReferenceModel, arrays: Mapping[str, np.ndarray], config: LengthConfig) -> ReferenceOutput:
    reference.eval()
    device = reference.model.device
    inputs = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    output: ReferenceOutput = reference(**inputs, length_config=config)
    return output


def _cost(reference: ReferenceModel, config: LengthConfig) -> Callable[[int, WindowOutput], int]:
    """Executed multiply-accumulates of a window, from its tokens and its output."""
    bert = reference.model.config
    shape = EncoderShape(bert.num_hidden_layers, bert.hidden_size, bert.intermediate_size)
    learnt = reference.learnt_layers
    computing = config.selecting_layers if learnt is None else learnt.computed(config, shape.num_layers)
    significance = [reference.significance if i in computing else None for i in range(shape.num_layers)]
    scorers = {
        int(layer): macs_per_token(scorer_weights(cast(Scorer, scorer))) for layer, scorer in reference.scorers.items()
    }
    return lambda length, output: executed_macs(
        shape, length, output.kept_by_layer(length, shape.num_layers), significance, scorers
    )
