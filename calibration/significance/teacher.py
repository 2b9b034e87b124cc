"""What scorers are fitted to: their inputs and targets, computed from windows by the frozen model itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynamic_tinybert.modeling.bundle_model import model_of_bundle
from dynamic_tinybert.modeling.importance import token_importance, zero_attention_biases
from dynamic_tinybert.modeling.reference import ReferenceModel, ReferenceOutput
from dynamic_tinybert.modeling.scorer import ContextRule, Scorer, with_context_rule
from dynamic_tinybert.modeling.scorer_passes import dropping
from dynamic_tinybert.modeling.scorer_targets import at_positions, early_layers, scorer_targets
from dynamic_tinybert.runtime import cpu
from dynamic_tinybert.runtime.batches import TokenSequence
from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.common.errors import BundleFormatError
from dynamic_tinybert.runtime.length_config import LengthConfig

from .states import StateReader, States

_LARGEST_DIFFERENCE = 0.25  # of the outputs, by the task's scale of them; rounding makes about 0.02


@dataclass(frozen=True)
class ScorerExamples:
    """Inputs and targets of one layer's scorer, for a batch of B windows of which R tokens enter the layer.

    Attributes:
        state: States after attention's LayerNorm, `[B, R, H]`, in float16 to save memory.
        protected: 1 for tokens that no layer drops by learnt significance, else 0, float32 `[B, R]`.
        real: 0 for padding, else 1, float32 `[B, R]`.
        keep: For each token the probability that it should be kept, float32 `[B, R]`.
        weight_of_kept: Weight of tokens that should be kept, relative to others.
    """

    state: Tensor
    protected: Tensor
    real: Tensor
    keep: Tensor
    weight_of_kept: float

    @property
    def droppable(self) -> Tensor:
        """1 for the tokens that scorers decide about, float32 `[B, R]`."""
        return self.real * (1 - self.protected)


class ScorerTeacher:
    """A bundle's model, which teaches its scorers which tokens it needs. No labels are used.

    States at full length and the teacher's outputs (soft labels) come from the bundle's own graph, in integers if it is
    INT8; token importance, which needs gradients, and passes that drop tokens come from its PyTorch twin, in bfloat16
    where the CPU multiplies it fast.

    Args:
        bundle: The bundle.
        layers: The layers that get a scorer.

    Raises:
        BundleFormatError: No PyTorch twin can be made of the graph.
    """

    def __init__(self, bundle: Bundle, layers: Sequence[int]) -> None:
        self._num_layers = bundle.shape.num_layers
        self._layers = layers
        self._early = early_layers(layers, self._num_layers)
        self._read = StateReader(bundle, layers)
        self._reference = ReferenceModel(model_of_bundle(bundle, rounding=False), "learnt")

    @property
    def late_layers(self) -> list[int]:
        """The layers whose scorers also learn from passes that drop tokens."""
        return [layer for layer in self._layers if layer not in self._early]

    def check(self, windows: Sequence[TokenSequence]) -> None:
        """Check on some windows that the twin computes what the graph does.

        Raises:
            BundleFormatError: It does not.
        """
        states = self._read(windows)
        with torch.no_grad():
            output = self._run(states, {})
        real = states.real > 0
        for name, found in output.outputs.items():
            expected = states.outputs[name]
            difference = np.abs(found.float().numpy() - expected)
            counted = difference[real] if difference.shape == real.shape else difference
            scale = self._reference.task.output_scale(self._reference.model, torch.from_numpy(expected))
            if not counted.mean() <= _LARGEST_DIFFERENCE * scale:
                raise BundleFormatError(
                    f"the graph's {name} differ by {counted.mean():.3g} on average from those of the PyTorch model "
                    "with its weights, so the graph holds something else than this model; export the checkpoint "
                    "again, or calibrate with attention significance"
                )

    def full(self, windows: Sequence[TokenSequence]) -> tuple[States, dict[int, ScorerExamples]]:
        """The graph's results for windows of which nothing is dropped, and what the scorers of all layers learn."""
        states = self._read(windows)
        importance = self._importance(states) if self._early else None
        protected, real = torch.from_numpy(states.protected), torch.from_numpy(states.real)
        targets = scorer_targets(self._significance(states), self._layers, self._num_layers, importance)
        return states, {
            layer: ScorerExamples(torch.from_numpy(states.by_layer[layer]).half(), protected, real, *target)
            for layer, target in targets.items()
        }

    @torch.no_grad()
    def dropped(
        self, states: States, scorers: Mapping[int, Scorer], shares: Mapping[int, float]
    ) -> dict[int, ScorerExamples]:
        """What the scorers of late layers learn from a pass that drops tokens as the deployed model does.

        Args:
            states: The graph's results for the windows.
            scorers: The scorers by layer, as they are now.
            shares: For some layers, the share of the batch's tokens that they pass on.
        """
        learning = [layer for layer in self.late_layers if layer in shares]
        if not learning:
            return {}
        self._reference.scorers = torch.nn.ModuleDict(
            {str(layer): scorer for layer, scorer in self._with_rule(scorers).items()}
        )
        seen: dict[int, tuple[Tensor, ...]] = {}

        def note(layer: int) -> Any:  # noqa: ANN401 - a hook
            return lambda _, arguments: seen.update({layer: arguments})

        hooks = [scorers[layer].register_forward_pre_hook(note(layer)) for layer in learning]
        try:
            output = self._run(states, shares)
        finally:
            for hook in hooks:
                hook.remove()
        significance = self._significance(states)
        examples = {}
        for layer, target in scorer_targets(significance, learning, self._num_layers).items():
            state, protected, real = seen[layer]
            keep = at_positions(target.keep, output.entering[layer])
            examples[layer] = ScorerExamples(state.half(), protected.float(), real.float(), keep, target.weight_of_kept)
        return examples

    def _with_rule(self, scorers: Mapping[int, Scorer]) -> dict[int, Scorer | ContextRule]:
        return with_context_rule(scorers, self._num_layers, has_rule=self._reference.task.context_rule)

    def _importance(self, states: States) -> dict[int, Tensor]:
        biases = zero_attention_biases(_tensors(states)["input_ids"], self._num_layers)
        output = self._run(states, {}, biases)
        scalar = self._reference.task.importance_scalar(output.outputs, _outputs(states), _tensors(states))
        return token_importance(scalar, biases)

    def _significance(self, states: States) -> Tensor:
        droppable = torch.from_numpy(states.real - states.protected)
        return self._reference.task.significance_targets(_outputs(states), droppable).float()

    def _run(
        self, states: States, shares: Mapping[int, float], biases: Mapping[int, Tensor] | None = None
    ) -> ReferenceOutput:
        config = LengthConfig.full(self._num_layers)
        if shares:
            config = dropping(self._num_layers, list(shares), self._reference.rule_layer)
        with torch.autocast("cpu", torch.bfloat16, enabled=cpu.multiplies_bfloat16()):
            output: ReferenceOutput = self._reference(
                **_tensors(states), length_config=config, shares=shares, attention_bias=biases
            )
        return output


def _tensors(states: States) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in states.inputs.items()}


def _outputs(states: States) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in states.outputs.items()}
