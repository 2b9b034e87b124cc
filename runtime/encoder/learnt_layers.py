"""Which layers of a model with learnt significance have a scorer or the context rule, and which of them are needed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dynamic_tinybert.runtime.common.errors import LengthConfigError
from dynamic_tinybert.runtime.length_config import LengthConfig


@dataclass(frozen=True)
class LearntLayers:
    """The layers of a model with learnt significance that compute a significance of their own.

    A layer without one selects by the significance of the nearest layer before it. The context rule only tells tokens
    to keep (1) from tokens to drop (0). Where the kept tokens must be ranked as well, they get 1 + the significance
    that they had in the layer before.

    Attributes:
        scorers: Layers with a learnt scorer, which ranks tokens.
        rules: Layers with the context rule.
    """

    scorers: frozenset[int]
    rules: frozenset[int]

    def carried_out(self, length_config: LengthConfig) -> LengthConfig:
        """A length configuration as this model can execute it: no layer before the first scorer can rank tokens.

        Those layers pass on all tokens, whatever their keep ratio; later layers then drop the surplus.

        Raises:
            LengthConfigError: A layer without a scorer or the rule has a threshold.
        """
        thresholds = length_config.thresholds
        of_their_own = self.scorers | self.rules
        if missing := [i for i, t in enumerate(thresholds) if t is not None and i not in of_their_own]:
            raise LengthConfigError(
                f"layers {missing} have a threshold but no significance scorer to compare it with; only layers "
                f"{sorted(of_their_own)} can have thresholds, others only a keep ratio"
            )
        first = min(self.scorers, default=len(thresholds))
        ratios = (1.0,) * first + length_config.keep_ratios[first:]
        return replace(length_config, keep_ratios=ratios)

    def computed(self, length_config: LengthConfig | None, num_layers: int) -> dict[int, bool]:
        """The layers whose scorer or rule must be computed, and whether the tokens that the rule keeps must be ranked.

        Args:
            length_config: A result of `carried_out`; None for the elastic graph, which takes any configuration.
            num_layers: Layers of the model.
        """
        computed: dict[int, bool] = {}
        wanted = length_config is None  # whether a later layer needs the significance of this one
        for layer in reversed(range(num_layers)):
            selects = length_config is None or layer in length_config.selecting_layers
            if layer in self.rules:
                ranked = wanted or (selects and length_config is not None and not _applies_rule(length_config, layer))
                if selects or ranked:
                    computed[layer] = ranked
                wanted = ranked
            elif layer in self.scorers:
                if selects or wanted:
                    computed[layer] = False
                wanted = length_config is None
            else:
                wanted = wanted or selects
        return computed

    def selecting(self, num_layers: int) -> tuple[int, ...]:
        """Layers that may drop tokens in some length configuration."""
        first = min(self.scorers, default=num_layers)
        return tuple(sorted(self.rules.union(range(first, num_layers))))


def _applies_rule(length_config: LengthConfig, layer: int) -> bool:
    """Whether a layer selects by a threshold alone, which a significance of 1 reaches: then no ranking is needed."""
    before = (1.0, *length_config.keep_ratios)[layer]
    threshold = length_config.thresholds[layer]
    return length_config.keep_ratios[layer] == before and threshold is not None and threshold <= 1
