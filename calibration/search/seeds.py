"""The schedules that a search starts from: what is known to be good.

A seed gives the share of the tokens that is left after each sixth of a model's depth; a model of another depth drops
them after the same share of its depth. Good ones come first, so that those which they beat are rejected early.
"""

from __future__ import annotations

from collections.abc import Mapping

Seed = tuple[float, float, float, float, float, float]

_SIXTHS = 6


def _seed(left_after: Mapping[int, float]) -> Seed:
    """The seed in which only some sixths drop tokens, given the share that each of them leaves."""
    left = [1.0]
    for sixth in range(_SIXTHS):
        left.append(left_after.get(sixth, left[-1]))
    return left[1], left[2], left[3], left[4], left[5], left[6]


# Scorers of the first layer know what later layers need, those of the second half where the answer is. Each layer that
# selects costs time, so one or two do, rarely three.
LEARNT: tuple[Seed, ...] = tuple(
    map(
        _seed,
        (
            {0: 0.33, 3: 0.24},
            {0: 0.33, 3: 0.16},
            {0: 0.54, 3: 0.24},
            {0: 0.42, 3: 0.2},
            {0: 0.25, 3: 0.12},
            {0: 0.7, 3: 0.32},
            {0: 0.4},
            {0: 0.55},
            {0: 0.28},
            {1: 0.5, 3: 0.25},
            {1: 0.36, 3: 0.18},
            {1: 0.42},
            {0: 0.5, 1: 0.32},
            {0: 0.36, 2: 0.22},
            {2: 0.4},
            {3: 0.25},
            {0: 0.5, 1: 0.35, 3: 0.22},
            {0: 0.38, 1: 0.28, 3: 0.15},
        ),
    )
)
"""For scorers that are fitted or trained."""

ATTENTION: tuple[Seed, ...] = (
    (315 / 384, 251 / 384, 242 / 384, 159 / 384, 142 / 384, 33 / 384),  # Dynamic-TinyBERT's, as ratios
    (269 / 384, 253 / 384, 252 / 384, 202 / 384, 104 / 384, 34 / 384),
    (1, 0.9, 0.7, 0.5, 0.3, 0.12),
    (1, 0.9, 0.6, 0.35, 0.25, 0.15),
    (1, 0.8, 0.5, 0.35, 0.25, 0.15),
    (1, 0.65, 0.45, 0.3, 0.2, 0.12),
    (1, 1, 0.65, 0.45, 0.3, 0.2),
    (1, 0.75, 0.75, 0.35, 0.35, 0.35),
    (1, 0.6, 0.6, 0.25, 0.25, 0.25),
    (1, 1, 1, 1, 0.5, 0.2),  # late drops cost least
    (1, 1, 1, 1, 0.2, 0.1),
    (0.9,) * 6,
    (0.8,) * 6,
    (0.7,) * 6,
    (0.6,) * 6,
)
"""For the attention that tokens receive, which knows little in early layers and costs little: many layers drop."""


def shares_at(seed: Seed, num_layers: int) -> list[float]:
    """The share of tokens that each layer of a model passes on if it drops them after the same share of its depth."""
    left = (1.0, *seed)
    return [left[(layer + 1) * _SIXTHS // num_layers] for layer in range(num_layers)]
