"""Put token selection into a plain full-length graph, so that its layers drop tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops

from dynamic_tinybert.runtime.length_config import LengthConfig

from .compiled import Arrays
from .first_token import keep_first_token
from .fusion import fuse, projections
from .named_nodes import NamedNodes
from .ops import attention_with_significance, select_tokens
from .scorer import LayerSignificance, carried_out, learnt_layers, score
from .task_graph import Rows, TaskGraph

KEPT = "kept_tokens."
"""The name of an output that says which tokens a layer passed on starts with this; the layer follows."""


def with_selection(
    model: ov.Model,
    length_config: LengthConfig | None,
    *,
    task: TaskGraph,
    num_layers: int,
    num_heads: int,
    scorers: Mapping[int, LayerSignificance] | None = None,
    multiple: int = 1,
    fused: bool = False,
    float_weights: bool = False,
    portable: bool = False,
    separate_after: Collection[int] = (),
) -> ov.Model:
    """Copy a bundle's plain graph, with layers that drop tokens.

    Args:
        model: The bundle's graph, whose nodes are found by their names (docs/bundle-format.md). It is not changed. If
            its input shapes are static and the configuration has no thresholds, all other shapes are static, too.
        length_config: The configuration, after `carried_out`. Its numbers become constants, and layers that keep
            everything stay untouched (a specialised graph). With None, `keep_ratios` and `thresholds`, float32
            [num_layers] (-inf: no threshold), are inputs, and every layer that can select does (the elastic graph).
        task: Determines which tokens are protected from learnt significance, connects the head, and says whether the
            first token is kept always, and is the only one that the last layer computes.
        num_layers: Layers of the encoder.
        num_heads: Attention heads.
        scorers: Learnt significance by layer; None selects by the attention that a token receives.
        multiple: Numbers of kept tokens are padded to a multiple of this, so that fewer shapes occur.
        fused: Also apply `fuse`, which makes INT8 graphs faster.
        float_weights: See `fuse`; used with `fused` only.
        portable: Likewise.
        separate_after: Likewise.

    Returns:
        The graph with one more output per selecting layer, `kept_tokens.{layer}` int32 [B, n]: 1 + the position in
        the input of each token that went on; 0 for a filler.

    Raises:
        LengthConfigError: The number of layers differs, or a layer without a scorer has a threshold.
        BundleFormatError: A node is not in the graph.
    """
    if length_config is not None:
        length_config = carried_out(length_config, num_layers, scorers, first_token_only=task.first_token_only)
        selecting = length_config.selecting_layers
    else:
        able = range(num_layers - 1) if task.first_token_only else range(num_layers)
        selecting = tuple(able) if scorers is None else learnt_layers(scorers).selecting(len(able))
    model = model.clone()
    if task.first_token_only:
        keep_first_token(NamedNodes(model), num_layers - 1)
        model.validate_nodes_and_infer_types()
    if selecting:
        nodes = NamedNodes(model)
        limits = _Limits(model, nodes, length_config, num_layers, multiple)
        _Selection(model, nodes, task, limits, num_layers, num_heads, scorers, fused).apply(selecting)
    elif fused:  # for a head of our own
        nodes = NamedNodes(model)
        task.put_head(nodes, Rows(nodes[f"layer.{num_layers - 1}.output"].output(0), ()))
    if fused:
        fuse(
            model,
            num_layers=num_layers,
            num_heads=num_heads,
            float_weights=float_weights,
            portable=portable,
            separate_after=separate_after,
        )
    return model


def bounds(*length_configs: LengthConfig) -> dict[str, npt.NDArray[np.float32]]:
    """The inputs `keep_ratios` and `thresholds` of an elastic graph, float32 [B, num_layers].

    Args:
        length_configs: A configuration for each row, or one for all, after `carried_out`.
    """
    thresholds = [[-np.inf if t is None else t for t in config.thresholds] for config in length_configs]
    return {
        "keep_ratios": np.array([config.keep_ratios for config in length_configs], np.float32),
        "thresholds": np.array(thresholds, np.float32),
    }


def kept_positions(outputs: Arrays, length: int) -> dict[int, npt.NDArray[np.int32]]:
    """Positions of the tokens that each selecting layer passed on, int32 [B, n], from the graph's outputs.

    Args:
        outputs: The graph's outputs by name.
        length: Number of tokens of the input before padding; fillers get this position.
    """
    filler = np.uint32(length)
    return {
        # Outputs hold 1 + the position, and 0 for a filler: as an unsigned number, 0 - 1 is larger than any length,
        # so the minimum makes it `length`. np.where would be clearer, but takes a fifth longer in every call.
        int(name.removeprefix(KEPT)): np.minimum((tokens - 1).view(np.uint32), filler).view(np.int32)
        for name, tokens in outputs.items()
        if name.startswith(KEPT)
    }


class _Limits:
    """How many tokens each layer may pass on: keep ratios and thresholds as constants, or as inputs of the graph."""

    def __init__(
        self,
        model: ov.Model,
        nodes: NamedNodes,
        length_config: LengthConfig | None,
        num_layers: int,
        multiple: int,
    ) -> None:
        self.length_config = length_config
        self.multiple = multiple
        self.num_real_tokens = ops.convert(ops.reduce_sum(nodes["attention_mask"], [1]), np.int32).output(0)
        shape = nodes["input_ids"].get_output_partial_shape(0)
        by_ratios = length_config is not None and not any(t is not None for t in length_config.thresholds)
        self.static_length: int | None = shape[1].get_length() if shape.is_static and by_ratios else None
        self._elastic_inputs: list[ov.Output] = []
        if length_config is None:
            self._elastic_inputs = [_new_input(model, name, num_layers) for name in ("keep_ratios", "thresholds")]

    def of_layer(self, layer: int) -> tuple[ov.Output, ov.Output]:
        """Keep ratio and threshold of a layer, float32: scalars, or one for each row as inputs of the graph are."""
        if self.length_config is None:
            ratio, threshold = (ops.gather(values, layer, 1).output(0) for values in self._elastic_inputs)
        else:
            ratio, threshold = (ops.constant(b[0, layer]).output(0) for b in bounds(self.length_config).values())
        return ratio, threshold


def _new_input(model: ov.Model, name: str, num_layers: int) -> ov.Output:
    parameter = ops.parameter([-1, num_layers], np.float32, name=name)
    parameter.output(0).get_tensor().set_names({name})
    model.add_parameters([parameter])
    return parameter.output(0)


class _Selection:
    """The rewriting of one graph, from the first layer to the last.

    `mask`, `origins`, `protected` and `significance` always describe the tokens that remain.
    """

    def __init__(
        self,
        model: ov.Model,
        nodes: NamedNodes,
        task: TaskGraph,
        limits: _Limits,
        num_layers: int,
        num_heads: int,
        scorers: Mapping[int, LayerSignificance] | None,
        fused: bool,
    ) -> None:
        self.model = model
        self.nodes = nodes
        self.task = task
        self.limits = limits
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.scorers = scorers
        self.fused = fused
        self.computed = {} if scorers is None else learnt_layers(scorers).computed(limits.length_config, num_layers)
        self.mask: ov.Output = nodes["mask"].output(0)
        self.origins: ov.Output | None = None
        self.protected: ov.Output | None = None if scorers is None else task.protected(nodes)
        self.significance: ov.Output | None = None  # the last learnt significance
        self.results: list[ov.op.Result] = []
        self.all_states: ov.Output | None = None
        self.fewer: list[tuple[ov.Output, ov.Output]] = []

    def apply(self, selecting: tuple[int, ...]) -> None:
        for layer in range(self.num_layers):
            selects = layer in selecting
            if selects:
                self.note_states(layer)
            if selects and self.scorers is None:
                self.select_by_attention(layer)
            elif selects or layer in self.computed:
                self.select_by_scorer(layer, selects=selects)
            if selects:
                self.mask_later_attention(layer)
                self.model.validate_nodes_and_infer_types()  # later layers now have fewer rows
        self.note_states(self.num_layers)
        assert self.all_states is not None  # one layer selects
        self.task.put_head(self.nodes, Rows(self.all_states, self.fewer))
        self.model.add_results(self.results)
        self.model.validate_nodes_and_infer_types()

    @staticmethod
    def input_name(layer: int) -> str:
        return f"layer.{layer - 1}.output" if layer else "embeddings.output"

    def select(self, layer: int, significance: ov.Output, *rows: ov.Output) -> list[ov.Output]:
        static_length = self.limits.static_length
        positions, mask, origins = select_tokens(
            significance,
            self.mask,
            self.limits.num_real_tokens,
            *self.limits.of_layer(layer),
            multiple=self.limits.multiple,
            static=static_length is not None,
            window=static_length or 0,
            origins=self.origins,
            keep_first=self.task.first_token_only,
        )
        self.mask, self.origins = mask, origins
        result = ops.result(origins, name=f"{KEPT}{layer}")
        result.input_value(0).get_tensor().add_names({f"{KEPT}{layer}"})
        self.results.append(result)
        if self.protected is not None:
            self.protected = _at(self.protected, positions)
            self.significance = _at(significance, positions)
        return [_at(row, positions) for row in rows]

    def select_by_attention(self, layer: int) -> None:
        context, significance = attention_with_significance(
            projections(self.nodes, layer), self.mask, self.num_heads, int16=self.fused
        )
        residual = self.nodes[f"layer.{layer}.attention.residual"].input(1)
        kept_context, kept_state = self.select(layer, significance, context, residual.get_source_output())
        for target in self.nodes[f"layer.{layer}.context"].output(0).get_target_inputs():
            target.replace_source_output(kept_context)
        residual.replace_source_output(kept_state)

    def select_by_scorer(self, layer: int, *, selects: bool) -> None:
        state = self.nodes[f"layer.{layer}.attention.output"].output(0)
        consumers = state.get_target_inputs()
        if layer in self.computed:
            self.significance = self.score(layer, state)
        if selects:
            assert self.significance is not None  # `computed` guarantees it
            (kept_state,) = self.select(layer, self.significance, state)
            for target in consumers:
                target.replace_source_output(kept_state)

    def score(self, layer: int, state: ov.Output) -> ov.Output:
        assert self.scorers is not None
        assert self.protected is not None
        own = score(state, self.protected, self.mask, self.scorers[layer], int12=self.fused)
        if not self.computed[layer] or self.significance is None:
            return own
        return ops.multiply(own, ops.add(self.significance, np.float32(1))).output(0)  # rank what the rule keeps

    def mask_later_attention(self, layer: int) -> None:
        over_heads_and_queries = ops.unsqueeze(self.mask, [1, 2]).output(0)
        for later in range(layer + 1, self.num_layers):
            self.nodes[f"layer.{later}.attention"].input(3).replace_source_output(over_heads_and_queries)

    def note_states(self, layer: int) -> None:
        """Record the states that enter a layer before it drops some, or that leave the last one."""
        state = self.nodes[self.input_name(layer)].output(0)
        if self.origins is None:
            self.all_states = state
        else:
            self.fewer.append((state, self.origins))


def _at(values: ov.Output, positions: ov.Output) -> ov.Output:
    """`values` [B, L, ...] at `positions` [B, n]; Gather gives 0 for a filler, whose position is L."""
    return ops.gather(values, positions, 1, batch_dims=1).output(0)
