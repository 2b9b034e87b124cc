from collections import Counter
from functools import partial

import numpy as np
import openvino as ov
import pytest

from dynamic_tinybert.export.ir import write_ir
from dynamic_tinybert.export.parity import random_batch
from dynamic_tinybert.modeling.scorer import Scorer, scorer_weights
from dynamic_tinybert.runtime.common.errors import BundleFormatError, LengthConfigError
from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.encoder import graph as selection
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.question_answering.task import QUESTION_ANSWERING

from support.tiny import tiny_bert

with_selection = partial(selection.with_selection, task=QUESTION_ANSWERING)


@pytest.fixture(scope="module")
def plain() -> ov.Model:
    model = tiny_bert()
    return write_ir(model)


def types(graph: ov.Model) -> Counter[str]:
    return Counter(node.get_type_name() for node in graph.get_ops())


def test_full_is_the_plain_graph(plain: ov.Model) -> None:
    assert types(with_selection(plain, LengthConfig.full(3), num_layers=3, num_heads=4)) == types(plain)


def test_layers_that_keep_everything_stay_untouched(plain: ov.Model) -> None:
    graph = with_selection(plain, LengthConfig((1, 0.5, 0.5), (None, None, 0.1)), num_layers=3, num_heads=4)
    counts = types(graph)
    assert counts["SelectTokens"] == counts["AttentionWithSignificance"] == 2
    assert counts["ScaledDotProductAttention"] == 1
    assert [o.get_any_name() for o in graph.outputs][2:] == ["kept_tokens.1", "kept_tokens.2"]


def test_a_layer_with_the_ratio_of_the_one_before_stays_untouched(plain: ov.Model) -> None:
    graph = with_selection(plain, LengthConfig((0.6, 0.6, 0.6)), num_layers=3, num_heads=4)
    assert types(graph)["SelectTokens"] == 1
    assert [o.get_any_name() for o in graph.outputs][2:] == ["kept_tokens.0"]


def test_the_plain_graph_is_not_changed(plain: ov.Model) -> None:
    before = types(plain)
    with_selection(plain, None, num_layers=3, num_heads=4)
    assert types(plain) == before


def test_elastic_graph_has_ratios_and_thresholds_as_inputs(plain: ov.Model) -> None:
    graph = with_selection(plain, None, num_layers=3, num_heads=4)
    assert {i.get_any_name(): i.get_partial_shape() for i in graph.inputs if i.get_element_type() == ov.Type.f32} == {
        "keep_ratios": ov.PartialShape([-1, 3]),
        "thresholds": ov.PartialShape([-1, 3]),
    }
    assert types(graph)["SelectTokens"] == 3


def test_kept_lengths_are_known_from_a_static_input(plain: ov.Model) -> None:
    model = plain.clone()
    model.reshape({name: [1, 100] for name in ("input_ids", "attention_mask", "token_type_ids")})
    graph = with_selection(model, LengthConfig((1, 0.5, 0.29)), num_layers=3, num_heads=4, multiple=16)
    shapes = {o.get_any_name(): o.get_partial_shape() for o in graph.outputs}
    assert shapes["kept_tokens.1"] == ov.PartialShape([1, 64])  # ceil(0.5 * 100) = 50
    assert shapes["kept_tokens.2"] == ov.PartialShape([1, 32])  # ceil(0.29 * 100) = 29, of the input's length
    assert shapes["start_logits"] == ov.PartialShape([1, 100])


def test_a_graph_without_our_names_is_refused() -> None:
    ids = [ov.opset13.parameter([1, 4], np.int64, name=n) for n in ("input_ids", "attention_mask", "token_type_ids")]
    foreign = ov.Model([ov.opset13.result(ids[0])], ids, "foreign")
    with pytest.raises(BundleFormatError, match="mask"):
        with_selection(foreign, LengthConfig((0.5,)), num_layers=1, num_heads=1)


def test_configurations_that_do_not_fit_are_refused(plain: ov.Model) -> None:
    with pytest.raises(LengthConfigError, match="2 keep ratios"):
        with_selection(plain, LengthConfig((1, 0.5)), num_layers=3, num_heads=4)
    with pytest.raises(LengthConfigError, match=r"layers \[1\] have a threshold but no significance scorer"):
        with_selection(plain, LengthConfig((1, 1, 1), (None, 0.5, None)), num_layers=3, num_heads=4, scorers={})


def test_a_layer_without_scorer_goes_by_the_one_before(plain: ov.Model) -> None:
    scorers = {1: scorer_weights(Scorer(32))}
    for ratios, selecting in (((0.9, 0.5, 0.5), [1]), ((0.9, 0.5, 0.4), [1, 2]), ((1, 1, 0.4), [2])):
        graph = with_selection(plain, LengthConfig(ratios), num_layers=3, num_heads=4, scorers=scorers)
        assert types(graph)["LearntSignificance"] == 1
        assert [o.get_any_name() for o in graph.outputs][2:] == [f"kept_tokens.{layer}" for layer in selecting]
    assert types(with_selection(plain, None, num_layers=3, num_heads=4, scorers=scorers))["SelectTokens"] == 2


def test_no_scorer_keeps_everything(plain: ov.Model) -> None:
    graph = with_selection(plain, LengthConfig((1, 0.5, 0.4)), num_layers=3, num_heads=4, scorers={})
    assert types(graph) == types(plain)


def test_static_shapes_give_what_dynamic_ones_give(plain: ov.Model) -> None:
    static = plain.clone()
    static.reshape({name: [2, 40] for name in ("input_ids", "attention_mask", "token_type_ids")})
    core = extension_library.core()
    config = LengthConfig((0.9, 0.5, 0.3))
    batch = random_batch([40, 23], 100)
    f32 = {"INFERENCE_PRECISION_HINT": "f32"}
    one, other = (
        core.compile_model(with_selection(graph, config, num_layers=3, num_heads=4), "CPU", f32)(dict(batch))
        for graph in (plain, static)
    )
    real = batch["attention_mask"] == 1
    for name in ("start_logits", "end_logits"):
        np.testing.assert_allclose(one[name][real], other[name][real], atol=1e-5)
