"""Check the input arrays of a model, and fill in those that the caller left out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dynamic_tinybert.runtime.bundles.bundle import Bundle
from dynamic_tinybert.runtime.common.errors import InvalidInputError


def checked_inputs(
    bundle: Bundle,
    input_ids: npt.ArrayLike,
    attention_mask: npt.ArrayLike | None,
    token_type_ids: npt.ArrayLike | None,
) -> dict[str, npt.NDArray[np.int64]]:
    """The three inputs of the graph, int64 [B, L], by name.

    Args:
        bundle: Limits the length and the ids.
        input_ids: Token ids, [B, L].
        attention_mask: 1 for real tokens, 0 for padding, [B, L]; None for all 1.
        token_type_ids: Segment of each token, [B, L]; None for all 0.

    Raises:
        InvalidInputError: An array does not hold integers, shapes do not match, a value is out of range, there are too
            many tokens, or a row has no real token.
    """
    ids = _integers("input_ids", input_ids)
    if ids.ndim != 2 or ids.size == 0:
        raise InvalidInputError(f"input_ids must have shape [batch, length] with at least one token, not {ids.shape}")
    if ids.shape[1] > bundle.max_length:
        raise InvalidInputError(
            f"{ids.shape[1]} tokens are more than this model's {bundle.max_length}; split the text into windows"
        )
    mask = np.ones_like(ids) if attention_mask is None else _integers("attention_mask", attention_mask)
    types = np.zeros_like(ids) if token_type_ids is None else _integers("token_type_ids", token_type_ids)
    limits = (
        ("input_ids", ids, bundle.vocab_size),
        ("attention_mask", mask, 2),
        ("token_type_ids", types, bundle.type_vocab_size),
    )
    for name, array, limit in limits:
        if array.shape != ids.shape:
            raise InvalidInputError(f"{name} has shape {array.shape}, but input_ids has {ids.shape}")
        # Negative values are the largest unsigned ones, so one pass finds both kinds of values outside the range.
        if array.view(np.uint64).max() >= limit:
            wrong = int(array.min() if array.min() < 0 else array.max())
            raise InvalidInputError(f"{name} holds {wrong}, which is outside 0..{limit - 1}")
    if attention_mask is not None and not mask.any(1).all():
        row = int(np.argmin(mask.any(1)))
        raise InvalidInputError(f"row {row} of attention_mask is all 0: a sequence needs at least one real token")
    return {name: array for name, array, _ in limits}


def _integers(name: str, values: npt.ArrayLike) -> npt.NDArray[np.int64]:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InvalidInputError(f"{name} is not a rectangular array: {error}") from error
    if array.dtype.kind not in "iu":
        raise InvalidInputError(f"{name} must hold integers, not {array.dtype}")
    return array.astype(np.int64, copy=False)


def padded_to(array: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    """Pad `array` [B, L] with zeros to [B, length]; np.pad takes ten times as long."""
    padded = np.zeros((array.shape[0], length), np.int64)
    padded[:, : array.shape[1]] = array
    return padded
