"""Join the ops of consecutive layers into one op, where nothing else reads what is between them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain
from typing import Any

import openvino as ov

from .graph_walk import replace_output
from .layer_op import encoder_layers
from .named_nodes import NamedNodes


@dataclass(frozen=True)
class Half:
    """Half of a layer as `fuse` has built it.

    Attributes:
        state: The state that it reads, float32 [B, L, H].
        readers: Its nodes that read the state.
        output: Its last node.
        constants: Constants of its `QuantizedLinears`.
        products: Their attributes, in the same order.
        attention: Attributes of its `Attention`; None for a feed-forward half.
        mask: Input of its `Attention`; None for a feed-forward half.
    """

    state: ov.Output
    readers: frozenset[str]
    output: ov.Node
    constants: tuple[ov.Output, ...]
    products: tuple[dict[str, Any], ...]
    attention: dict[str, Any] | None
    mask: ov.Output | None

    @classmethod
    def of(cls, output: ov.Node, readers: _Readers) -> Half | None:
        """Recognise a half by its last node; None for anything else."""
        if output.get_type_name() != "QuantizedLinears" or not output.get_attributes()["normalizes"]:
            return None
        rows, constants, *residual = output.input_values()
        products = output.get_attributes()
        if not residual:
            is_feed_forward = len(products["widths"]) == 2
            reads = frozenset({output.get_name()})
            return cls(rows, reads, output, (constants,), (products,), None, None) if is_feed_forward else None
        attention = rows.get_node()
        if attention.get_type_name() != "Attention" or len(attention.input_values()) > 2:
            return None
        projections, mask = attention.input_values()
        projected = projections.get_node()
        if projected.get_type_name() != "QuantizedLinears" or len(readers.of(rows) | readers.of(projections)) > 2:
            return None
        state, of_projections = projected.input_values()
        first = projected.get_attributes()
        if state != residual[0] or first["normalizes"] or len(first["widths"]) + len(products["widths"]) > 2:
            return None
        return cls(
            state,
            frozenset({projected.get_name(), output.get_name()}),
            output,
            (of_projections, constants),
            (first, products),
            attention.get_attributes(),
            mask,
        )

    def is_followed_by(self, other: Half, readers: _Readers) -> bool:
        """Whether `other` reads the result of this half, nothing else does, and both can be one op."""
        result = self.output.output(0)
        return (
            other.state == result
            and readers.of(result) == other.readers
            and all(product["isa"] == self.products[0]["isa"] for product in other.products)
        )


class _Readers:
    """Which nodes read an output. Nodes that `fuse` has replaced are still there, and read it in vain."""

    def __init__(self, model: ov.Model) -> None:
        self._names = {node.get_name() for node in model.get_ordered_ops()}

    def of(self, output: ov.Output) -> frozenset[str]:
        return frozenset(self._names.intersection(t.get_node().get_name() for t in output.get_target_inputs()))


def join_layers(model: ov.Model, num_layers: int, separate_after: Collection[int] = ()) -> None:
    """Replace chains of halves, of which at least one has attention, by one op each.

    Args:
        model: A graph with the other ops of `fuse`.
        num_layers: Layers of the encoder.
        separate_after: Layers that are not joined with the next one, so that their results can be read, or the graph
            can be cut after them.

    Raises:
        BundleFormatError: A node is not in the graph.
    """
    nodes, readers = NamedNodes(model), _Readers(model)
    names = [f"layer.{layer}.{end}" for layer in range(num_layers) for end in ("attention.output", "output")]
    ends = {f"layer.{layer}.output" for layer in separate_after}
    chains: list[list[Half]] = [[]]
    for name in names:
        half = Half.of(nodes[name], readers)
        if half is not None and _can_follow(chains[-1], half, readers):
            chains[-1].append(half)
        else:
            chains.append([] if half is None else [half])
        if name in ends:
            chains.append([])
    for found in reversed(chains):  # so that the state that a chain reads is not replaced before it is joined
        if any(half.attention for half in found):
            _join(found)


def _can_follow(halves: list[Half], half: Half, readers: _Readers) -> bool:
    """Whether a half can be joined to those before it, also to none: all have the same mask and number of heads."""
    if not halves:
        return True
    found = [(own.mask, own.attention["heads"]) for own in (*halves, half) if own.attention]
    same_attention = all(mask == found[0][0] and heads == found[0][1] for mask, heads in found)
    return halves[-1].is_followed_by(half, readers) and same_attention


def _join(halves: list[Half]) -> None:
    attention = [half.attention or {"heads": 0, "inv_scale": 0.0} for half in halves]
    mask = next(half.mask for half in halves if half.mask is not None)
    products = [product for half in halves for product in half.products]
    joined = encoder_layers(
        halves[0].state,
        mask,
        [constant for half in halves for constant in half.constants],
        inner_widths=[0 if half.attention else half.products[0]["widths"][0] for half in halves],
        heads=max(own["heads"] for own in attention),
        inv_scales=[own["inv_scale"] for own in attention],
        zero_points=list(chain.from_iterable(product["zero_points"] for product in products)),
        epsilons=[half.products[-1]["epsilon"] for half in halves],
        isa=products[0]["isa"],
        weight_bytes=list(chain.from_iterable(product["weight_bytes"] for product in products)),
    )
    output = halves[-1].output
    replace_output(output.output(0), joined.output(0))
    joined.set_friendly_name(output.get_friendly_name())
