"""Scorers of learnt significance, one small network per layer, and the file that stores them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from dynamic_tinybert.runtime.common.errors import BundleCorruptError, InvalidInputError
from dynamic_tinybert.runtime.common.publish import writing
from dynamic_tinybert.runtime.encoder.scorer import ContextRule as RuntimeContextRule
from dynamic_tinybert.runtime.encoder.scorer import LayerSignificance, LearntScorer
from dynamic_tinybert.runtime.encoder.scorer_file import CONTEXT_RULE, load_scorer_tensors


class Scorer(nn.Module):
    """Significance of each token of one layer, from its state, the protected tokens and its neighbours.

    Args:
        hidden_size: Width H of the states.
        width: Width W of the scorer.
        kernel_sizes: Odd size, in tokens, of each depthwise convolution.
        heads: Number of heads that each compute a similarity of a token with the protected tokens.
        head_size: Size of the vectors that a head compares.

    Raises:
        InvalidInputError: A kernel size is even.

    """

    def __init__(
        self,
        hidden_size: int,
        width: int = 64,
        kernel_sizes: Sequence[int] = (9, 17, 65, 65),
        *,
        heads: int = 4,
        head_size: int = 32,
    ) -> None:
        super().__init__()
        if any(size % 2 == 0 for size in kernel_sizes):
            raise InvalidInputError(f"kernel sizes {tuple(kernel_sizes)} must be odd, to centre on a token")
        self.kernel_sizes = tuple(kernel_sizes)
        self.heads = heads
        self.input = nn.Linear(2 * hidden_size, width)
        self.match_token = nn.Linear(hidden_size, heads * head_size, bias=False)
        self.match_question = nn.Linear(hidden_size, heads * head_size, bias=False)
        # Both start as the same rotation: words of the question are found in the context from the first step on.
        nn.init.orthogonal_(self.match_token.weight)
        self.match_question.weight.data.copy_(self.match_token.weight)
        self.match = nn.Linear(heads, width, bias=False)
        self.convolution = nn.ModuleList(
            _Neighbourhood(width, width, size, padding=size // 2, groups=width) for size in kernel_sizes
        )
        self.mix = nn.ModuleList(nn.Linear(width, width) for _ in kernel_sizes)
        self.pool = nn.Linear(width, width, bias=False) if kernel_sizes else None
        self.output = nn.Linear(width, 1)

    def forward(self, state: Tensor, protected: Tensor, real: Tensor) -> Tensor:
        """Significance `[B, L]`: in [0, 1], plus 1 for protected tokens. `logits` describes the arguments."""
        return torch.sigmoid(self.logits(state, protected, real)) + protected

    def logits(self, state: Tensor, protected: Tensor, real: Tensor) -> Tensor:
        """Raw scores `[B, L]`, before the sigmoid and without the 1 of protected tokens.

        Args:
            state: `[B, L, H]`, the states after attention's LayerNorm.
            protected: `[B, L]`, 1 for protected tokens, else 0. In question answering these are [CLS], the question and
                its [SEP].
            real: `[B, L]`, 0 for padding, else 1.

        """
        mean = protected[:, None] @ state / protected.sum(1).clamp(min=1)[:, None, None]
        by_state, by_mean = self.input.weight.chunk(2, 1)  # of [state, mean]; the mean is the same for all tokens
        matched = self.match(self._similarity(state, protected))
        hidden = functional.relu(state @ by_state.T + (mean @ by_mean.T + self.input.bias) + matched)
        context = (real * (1 - protected))[..., None]
        for k, (convolution, mix) in enumerate(zip(self.convolution, self.mix, strict=True)):
            mixed = mix(convolution(hidden * real[..., None]))
            if self.pool is not None and k == len(self.mix) - 1:  # a token also competes with distant ones
                mixed = mixed + self.pool((hidden * context).amax(1, keepdim=True))
            hidden = hidden + functional.relu(mixed)
        logits: Tensor = self.output(hidden)
        return logits[..., 0]

    def _similarity(self, state: Tensor, protected: Tensor) -> Tensor:
        """Similarity of each token to its most similar protected token, `[B, L, heads]`; 0 if none is protected."""
        columns = protected.any(0)  # few tokens are protected, most are not
        if not columns.any():
            return state.new_zeros(*protected.shape, self.heads)
        tokens, question_keys = (
            layer(rows).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, rows in ((self.match_token, state), (self.match_question, state[:, columns]))
        )
        there = protected[:, None, None, columns] > 0
        similarity: Tensor = tokens @ question_keys.mT / math.sqrt(tokens.shape[3])
        highest: Tensor = similarity.masked_fill(~there, -math.inf).amax(3).masked_fill(~there.any(3), 0.0)
        return highest.mT


class _Neighbourhood(nn.Conv1d):
    """Depthwise convolution of features `[B, L, W]` over their positions."""

    def forward(self, features: Tensor) -> Tensor:
        image, kernel = features.mT[:, :, None], self.weight[:, :, None]  # 2-D convolutions run faster on CPUs
        padding = (0, self.kernel_size[0] // 2)
        return functional.conv2d(image, kernel, self.bias, padding=padding, groups=self.groups)[:, :, 0].mT


RULE_THRESHOLD = 0.5
"""Threshold of a layer with the context rule, whose significance is 0 or 1."""


class ContextRule(nn.Module):
    """Significance that drops the words of the question, after the last layer that needs them; it has no parameters.

    [CLS] and the [SEP] after the question stay, as heads direct the attention to them that no other token gets.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer(CONTEXT_RULE, torch.ones(1))

    def forward(self, state: Tensor, protected: Tensor, real: Tensor) -> Tensor:  # same signature as Scorer.forward
        """Significance `[B, L]`: 0 for protected tokens between two protected ones, if there is a context; else 1."""
        protected = protected * real
        before, after = functional.pad(protected, (1, 1)).unfold(1, 3, 1)[..., ::2].unbind(-1)
        has_context = (real * (1 - protected)).any(1, keepdim=True)
        return 1 - before * protected * after * has_context


def with_context_rule(
    scorers: Mapping[int, Scorer], num_layers: int, *, has_rule: bool
) -> dict[int, Scorer | ContextRule]:
    """Add the context rule to the last layer but one, if that has no scorer and comes after one of the `scorers`.

    Args:
        scorers: Scorers by layer.
        num_layers: Number of layers of the model.
        has_rule: Whether the model's task has the rule; see `ModelTask.context_rule`.
    """
    rules = {num_layers - 2: ContextRule()} if has_rule and num_layers - 2 > min(scorers) else {}
    return {**rules, **scorers}


def scorer_weights(scorer: Scorer | ContextRule) -> LayerSignificance:
    """Convert a scorer or the context rule to the type that the runtime uses."""
    if isinstance(scorer, ContextRule):
        return RuntimeContextRule()
    return LearntScorer({name: tensor.cpu().numpy() for name, tensor in scorer.state_dict().items()})


def save_scorers(scorers: Mapping[int, Scorer | ContextRule], path: Path) -> None:
    """Write the scorers of some layers to a safetensors file, as ``layer.{i}.{name in the state dict}``.

    Raises:
        StorageError: The file cannot be written.

    """
    tensors = {
        f"layer.{layer}.{name}": tensor.contiguous()
        for layer, scorer in scorers.items()
        for name, tensor in scorer.state_dict().items()
    }
    with writing(path):
        save_file(tensors, path)


def load_scorers(path: Path) -> dict[int, Scorer]:
    """Read the scorers of a file that `save_scorers` wrote, by layer; context rules in it are left out.

    Raises:
        BundleCorruptError: The file is missing, is not safetensors, or its tensors are not those of scorers.

    """
    try:
        layers = sorted(load_scorer_tensors(path).items())
        return {layer: _scorer_from(learnt) for layer, learnt in layers if isinstance(learnt, LearntScorer)}
    except (KeyError, RuntimeError, ValueError) as error:
        raise BundleCorruptError(f"{path} does not hold scorers of learnt significance: {error}") from error


def _scorer_from(learnt: LearntScorer) -> Scorer:
    state = {name: torch.from_numpy(tensor) for name, tensor in learnt.tensors.items()}
    width, twice_hidden = state["input.weight"].shape
    heads = state["match.weight"].shape[1]
    count = sum(name.startswith("convolution.") for name in state) // 2
    sizes = [state[f"convolution.{k}.weight"].shape[-1] for k in range(count)]
    head_size = len(state["match_token.weight"]) // heads
    scorer = Scorer(twice_hidden // 2, width, sizes, heads=heads, head_size=head_size)
    scorer.load_state_dict(state)
    return scorer
