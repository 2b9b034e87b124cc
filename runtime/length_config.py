"""Length configurations: which tokens each layer keeps, and the cost in multiply-accumulates (MACs)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .common.errors import LengthConfigError


@dataclass(frozen=True)
class LengthConfig:
    """A rule that decides, for each layer, which tokens it keeps.

    Attributes:
        keep_ratios: One ratio in (0, 1] per layer, non-increasing. Layer i keeps at most
            ``max(1, ceil(ratio * length - 1e-4))`` tokens, where `length` is the number of real tokens of the input.
            With learnt significance, layers before the first scorer keep all tokens (`LengthAdaptiveModel.resolve`).
        thresholds: One significance per layer, or None for a layer without a threshold; empty means no thresholds.
            Only tokens whose significance reaches the threshold are kept, but at least the most significant one.

    Raises:
        LengthConfigError: There is no ratio, a ratio is outside (0, 1] or larger than the one before, a threshold is
            not a finite number, or ratios and thresholds differ in length.
    """

    keep_ratios: tuple[float, ...]
    thresholds: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        try:
            ratios = tuple(float(r) for r in self.keep_ratios)
            thresholds = tuple(None if t is None else float(t) for t in self.thresholds)
        except (TypeError, ValueError, OverflowError) as error:  # OverflowError: integers too large for a float
            raise LengthConfigError(f"keep ratios and thresholds must be numbers: {error}") from error
        thresholds = thresholds or (None,) * len(ratios)
        object.__setattr__(self, "keep_ratios", ratios)
        object.__setattr__(self, "thresholds", thresholds)
        if not ratios:
            raise LengthConfigError("a length configuration needs one keep ratio per layer, and none was given")
        for layer, ratio in enumerate(ratios):
            if not (0 < ratio <= 1 and np.float32(ratio) > 0):  # also refuses NaN, and ratios that the op rounds to 0
                raise LengthConfigError(f"keep ratio {ratio} of layer {layer} is outside (0, 1]")
            if layer and ratio > ratios[layer - 1]:
                raise LengthConfigError(
                    f"keep ratio {ratio} of layer {layer} is larger than {ratios[layer - 1]} of the layer before; "
                    "a dropped token cannot come back, so ratios must not grow"
                )
        if len(thresholds) != len(ratios):
            raise LengthConfigError(
                f"{len(thresholds)} thresholds for {len(ratios)} keep ratios; give one per layer, or None"
            )
        for layer, threshold in enumerate(thresholds):
            if threshold is not None and not abs(threshold) <= np.finfo(np.float32).max:
                raise LengthConfigError(
                    f"threshold {threshold} of layer {layer} is not finite; use None for no threshold"
                )

    @classmethod
    def full(cls, num_layers: int) -> LengthConfig:
        """The configuration that keeps every token in all `num_layers` layers."""
        return cls((1.0,) * num_layers)

    @classmethod
    def parse(cls, text: str) -> LengthConfig:
        """Read ``1,0.9,0.7`` (keep ratios) or ``315,251,242@384`` (token counts of a window of 384 tokens).

        Raises:
            LengthConfigError: The text is neither, or its values are not valid keep ratios.
        """
        numbers, at, window = text.partition("@")
        try:
            values = [float(v) for v in numbers.split(",")]
            size = int(window) if at else 1
            ratios = tuple(v / size for v in values) if size > 0 else ()
        except (ValueError, OverflowError) as error:
            raise LengthConfigError(
                f"cannot read the length configuration {text!r}: give keep ratios like 1,0.9,0.5 "
                "or token counts with their window like 384,300,120@384"
            ) from error
        if size < 1:
            raise LengthConfigError(f"the window {size} in {text!r} must be at least 1 token")
        if not at and max(values) > 1:
            raise LengthConfigError(f"{text!r} has a value above 1: token counts need their window, as in {text}@384")
        return cls(ratios)

    def check_layers(self, num_layers: int) -> None:
        """Raise LengthConfigError unless there is one keep ratio for each of a model's layers."""
        if len(self.keep_ratios) != num_layers:
            raise LengthConfigError(
                f"the length configuration has {len(self.keep_ratios)} keep ratios {self.keep_ratios}, "
                f"but the model has {num_layers} layers; give one ratio per layer"
            )

    @property
    def selecting_layers(self) -> tuple[int, ...]:
        """Layers that may drop a token, in order: those with a threshold or a smaller ratio than the layer before."""
        before = (1.0, *self.keep_ratios)
        return tuple(
            i
            for i, (ratio, threshold) in enumerate(zip(self.keep_ratios, self.thresholds, strict=True))
            if ratio < before[i] or threshold is not None
        )

    def without_last_selection(self) -> LengthConfig:
        """The same, with a last layer that passes on what the layer before does."""
        if len(self.keep_ratios) - 1 not in self.selecting_layers:
            return self
        before = (1.0, *self.keep_ratios)[-2]
        return LengthConfig((*self.keep_ratios[:-1], before), (*self.thresholds[:-1], None))

    def most_kept(self, length: int) -> tuple[int, ...]:
        """Maximum number of tokens that each layer keeps of an input with `length` real tokens."""
        return tuple(max(1, math.ceil(ratio * length - 1e-4)) for ratio in self.keep_ratios)


@dataclass(frozen=True)
class EncoderShape:
    """The sizes of a BERT encoder that determine its cost."""

    num_layers: int
    hidden_size: int
    intermediate_size: int


def executed_macs(
    shape: EncoderShape,
    length: int,
    kept: Sequence[int],
    significance: Sequence[str | None],
    scorer_macs_per_token: Mapping[int, int],
    *,
    first_token_only: bool = False,
) -> int:
    """Multiply-accumulates that the encoder executes for one sequence.

    Args:
        shape: Sizes of the encoder.
        length: Real tokens that enter layer 0.
        kept: Number of tokens that each layer passes on.
        significance: The significance that each layer computes: "attention", "learnt" (by its scorer), or None.
        scorer_macs_per_token: For each layer with "learnt" significance, the multiply-accumulates of its scorer per
            token that enters the layer.
        first_token_only: The last layer computes only the first token, from the keys and values of all tokens.
    """
    h, f = shape.hidden_size, shape.intermediate_size
    total, before = 0, length
    for layer, (after, kind) in enumerate(zip(kept, significance, strict=True)):
        if first_token_only and layer == len(kept) - 1:
            return total + 2 * before * h * h + 2 * before * h + 2 * h * h + 2 * h * f
        projected = after if kind == "attention" else before  # attention drops before the output projection
        total += 3 * before * h * h + 2 * before * before * h + projected * h * h + 2 * after * h * f
        if kind == "learnt":
            total += before * scorer_macs_per_token[layer]
        before = after
    return total
