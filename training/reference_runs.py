"""Run a model in training as it will be deployed, by the reference, on NumPy inputs; and compute its cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from transformers import BertPreTrainedModel

from dynamic_tinybert.modeling.reference import ReferenceModel, ReferenceOutput
from dynamic_tinybert.modeling.scorer import Scorer, scorer_weights, with_context_rule
from dynamic_tinybert.modeling.scorer_passes import keeping_all
from dynamic_tinybert.modeling.tasks import task_of
from dynamic_tinybert.runtime.batches import TokenSequence, stack
from dynamic_tinybert.runtime.encoder.scorer import macs_per_token
from dynamic_tinybert.runtime.length_config import EncoderShape, LengthConfig, executed_macs

_BATCH_SIZE = 32


def reference_of(model: BertPreTrainedModel, scorers: Mapping[int, Scorer]) -> ReferenceModel:
    """A model as it will be deployed: it drops tokens by its scorers and the context rule, or else by attention.

    Args:
        model: The plain model.
        scorers: Its scorers by layer; empty for attention significance.
    """
    if not scorers:
        return ReferenceModel(model)
    has_rule = task_of(model).context_rule
    deployed = with_context_rule(scorers, model.config.num_hidden_layers, has_rule=has_rule)
    return ReferenceModel(model, "learnt", deployed).to(model.device)


@torch.inference_mode()
def run_reference(
    reference: ReferenceModel, inputs: Mapping[str, npt.NDArray[np.int64]], length_config: LengthConfig
) -> ReferenceOutput:
    """Run a batch of model inputs, int64 `[B, L]` by name. The reference is put into evaluation mode."""
    reference.eval()
    device = reference.model.device
    tensors = {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}
    output: ReferenceOutput = reference(**tensors, length_config=length_config)
    return output


def sampled_significance(
    reference: ReferenceModel, sample: Sequence[TokenSequence]
) -> dict[int, npt.NDArray[np.float32]]:
    """The significance that scorers give to all real tokens when nothing is dropped, `[tokens]` by layer.

    Args:
        reference: The model with its scorers.
        sample: Model inputs.
    """
    layers = [int(layer) for layer in reference.scorers if int(layer) != reference.rule_layer]
    config = keeping_all(reference.model.config.num_hidden_layers, layers)
    found: dict[int, list[npt.NDArray[np.float32]]] = {layer: [] for layer in layers}
    by_length = sorted(sample, key=len, reverse=True)
    for first in range(0, len(by_length), _BATCH_SIZE):
        inputs = stack(by_length[first : first + _BATCH_SIZE])
        output = run_reference(reference, inputs, config)
        length = inputs["input_ids"].shape[1]
        for layer in layers:
            present = output.entering[layer] < length
            found[layer].append(output.significance[layer][present].cpu().numpy())
    return {layer: np.concatenate(values) for layer, values in found.items()}


def cost_function(reference: ReferenceModel, length_config: LengthConfig) -> Callable[[int, Sequence[int]], int]:
    """A function from an input's number of tokens, and how many each layer passes on, to its executed MACs."""
    bert = reference.model.config
    shape = EncoderShape(bert.num_hidden_layers, bert.hidden_size, bert.intermediate_size)
    learnt = reference.learnt_layers
    computing = length_config.selecting_layers if learnt is None else learnt.computed(length_config, shape.num_layers)
    significance = [reference.significance if i in computing else None for i in range(shape.num_layers)]
    scorers = {
        int(layer): macs_per_token(scorer_weights(cast(Scorer, scorer))) for layer, scorer in reference.scorers.items()
    }
    first_token_only = reference.task.first_token_only
    return lambda length, kept: executed_macs(
        shape, length, kept, significance, scorers, first_token_only=first_token_only
    )
