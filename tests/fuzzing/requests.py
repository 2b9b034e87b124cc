"""Random calls of a model by a seed: right ones, wrong ones, and those in between."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.bundles.bundle import Bundle, open_bundle
from dynamic_tinybert.runtime.common.errors import LengthConfigError
from dynamic_tinybert.runtime.length_config import LengthConfig

_SPECIALISED = 12  # length configurations of specialised graphs, each of which has to be compiled


@dataclass(frozen=True)
class Request:
    """The arguments of a call."""

    elastic: bool
    input_ids: Any
    attention_mask: Any
    token_type_ids: Any
    length_config: Any

    def arrays(self) -> dict[str, Any]:
        names = ("input_ids", "attention_mask", "token_type_ids")
        return {name: getattr(self, name) for name in names}

    def arguments(self) -> dict[str, Any]:
        return {**self.arrays(), "length_config": self.length_config}

    def real(self, row: int) -> npt.NDArray[np.bool_]:
        """Which tokens of a row are none of the padding, up to the last that is none."""
        if self.attention_mask is None:
            return np.ones(np.asarray(self.input_ids).shape[1], bool)
        real: npt.NDArray[np.bool_] = np.asarray(self.attention_mask)[row] == 1
        return real[: int(np.flatnonzero(real)[-1]) + 1]


@cache
def _opened(bundle: str) -> Bundle:
    return open_bundle(bundle)


@cache
def _selectable(bundle: str) -> tuple[int, ...]:
    """Layers that may select by a ratio."""
    opened = _opened(bundle)
    if opened.scorers is None:
        return tuple(range(opened.shape.num_layers))
    with opened.scorers.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return tuple(sorted({int(name.split(".")[1]) for name in header if name.endswith(".input.weight")}))


def random_request(bundle: str, seed: int) -> Request:
    """A request; about a third of all are wrong in some way."""
    generator, numbers, opened = random.Random(seed), np.random.default_rng(seed), _opened(bundle)
    rows = generator.choice((1, 1, 2, 3, 5))
    length = generator.choice((1, 2, 7, 8, 9, 16, 40, generator.randint(1, min(128, opened.max_length))))
    ids = numbers.integers(0, opened.vocab_size, (rows, length))
    mask: npt.NDArray[Any] | None = None
    if generator.random() < 0.8:
        lengths = numbers.integers(1, length + 1, rows)
        mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
        if generator.random() < 0.4:  # holes
            mask &= numbers.random((rows, length)) > generator.choice((0.05, 0.5))
            mask[np.arange(rows), numbers.integers(0, length, rows)] = 1
    types: npt.NDArray[Any] | None = None
    if generator.random() < 0.8:
        types = (np.arange(length) >= numbers.integers(0, length + 1, (rows, 1))).astype(np.int64)
    elastic = generator.random() < 0.5
    config = _config(bundle, opened, generator, elastic)
    if generator.random() < 0.25:
        ids, mask, types = _spoilt(generator, opened, ids, mask, types)
    return Request(elastic, ids, mask, types, config)


def _config(bundle: str, opened: Bundle, generator: random.Random, elastic: bool) -> Any:  # noqa: ANN401 - or a wrong one
    way = generator.random()
    layers = opened.shape.num_layers
    if way < 0.2:
        return generator.choice((None, *opened.length_configs))
    if way < 0.3:
        return generator.choice(
            (
                "",
                "nothing",
                0.5,
                (0.5,) * (layers + 1),
                (0.0,) * layers,
                (float("nan"),) * layers,
                (10**400,) * layers,
                ("x",) * layers,
                (0.5, *(1.0,) * (layers - 1)),
                (-1,) * layers,
                {},
                b"full",
                (True,) * layers,
                np.full(layers, 0.5),
                (1e-46,) * layers,
            )
        )
    if not elastic:
        generator = random.Random(generator.randrange(_SPECIALISED))
    ratio, ratios, thresholds = 1.0, [], []
    for layer in range(layers):
        if layer in _selectable(bundle) and generator.random() < 0.7:
            ratio *= generator.choice((1.0, 0.9, 0.5, 0.1, generator.random() + 1e-6))
        ratios.append(ratio)
        may = layer in _selectable(bundle) and generator.random() < 0.3
        thresholds.append(generator.choice((0.0, 0.5, 0.9, -1e30, 1e30)) if may else None)
    try:
        return LengthConfig(tuple(ratios), tuple(thresholds))
    except LengthConfigError:
        return tuple(ratios)


def _spoilt(
    generator: random.Random,
    opened: Bundle,
    ids: npt.NDArray[Any],
    mask: npt.NDArray[Any] | None,
    types: npt.NDArray[Any] | None,
) -> tuple[Any, Any, Any]:
    mask = np.ones_like(ids) if mask is None else mask
    types = np.zeros_like(ids) if types is None else types
    way = generator.randrange(14)
    if way == 0:
        ids[-1, -1] = generator.choice((-1, opened.vocab_size, 2**31, 2**63 - 1, -(2**63)))
    elif way == 1:
        mask[-1, -1] = generator.choice((-1, 2, 2**32, 2**63 - 1))
    elif way == 2:
        types[-1, -1] = generator.choice((-1, opened.type_vocab_size, 2**32))
    elif way == 3:
        mask[generator.randrange(len(mask))] = 0
    elif way == 4:
        return ids[:, :0], None, None
    elif way == 5:
        return ids[0], mask, types
    elif way == 6:
        return ids, mask[:, :-1], types
    elif way == 7:
        return ids, mask, types[:1].repeat(len(ids) + 1, 0)
    elif way == 8:
        return np.zeros((1, opened.max_length + generator.choice((1, 8, 10**6))), np.int8), None, None
    elif way == 9:
        kind = generator.choice(("f4", "?", "c8", "O", "U3", "M8[s]"))
        return ids.astype("i8").astype(kind), mask, types
    elif way == 10:  # right, but of another kind
        kind = generator.choice(("i4", "u8", "u4", "i8", ">i8"))
        return ids.astype(kind), mask.astype("u1"), types.astype("i2")
    elif way == 11:
        return ids.tolist(), mask.tolist(), types.tolist()
    elif way == 12:
        return np.asfortranarray(ids), mask[:, ::-1][:, ::-1], np.broadcast_to(types[:1], types.shape)
    else:
        return generator.choice((None, 7, "text", [[1], [1, 2]], [[]], {}, ids[None])), None, None
    return ids, mask, types
