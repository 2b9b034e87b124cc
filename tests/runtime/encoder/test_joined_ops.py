from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
from openvino import opset13

from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.encoder import compilation, extension_library
from dynamic_tinybert.runtime.encoder.joined_ops import join_ops
from dynamic_tinybert.runtime.encoder.ops import attention, select_tokens
from dynamic_tinybert.runtime.encoder.plain_graph import read_plain_graph
from dynamic_tinybert.runtime.encoder.scorer_file import load_scorer_tensors
from dynamic_tinybert.runtime.tasks.question_answering.task import QUESTION_ANSWERING

from support.embedded_graphs import embedded, types

Arrays = dict[str, npt.NDArray[Any]]
CONFIGS: list[Any] = ["full", "accurate", "balanced", "fast", [0.5, 0.5, 0.5, 0.3, 0.2, 0.2]]


def compiled(model: ov.Model, threads: int = 1) -> ov.CompiledModel:
    return extension_library.core().compile_model(
        model, "CPU", {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    )


def joined(model: ov.Model) -> ov.Model:
    copy = model.clone()
    join_ops(copy)
    return copy


def token_inputs(batch: int, length: int) -> Arrays:
    ids = np.random.default_rng(length).integers(1000, 20000, (batch, length))
    ids[:, 0] = 101
    real = np.maximum(length - 7 * np.arange(batch), 1)[:, None]
    return {
        "input_ids": ids,
        "attention_mask": (np.arange(length) < real).astype(np.int64),
        "token_type_ids": np.broadcast_to(np.arange(length) > 9, ids.shape).astype(np.int64),
    }


def results(model: ov.CompiledModel, inputs: Arrays) -> Arrays:
    return {output.get_any_name(): found for output, found in model(inputs).items()}


def assert_same(found: Arrays, expected: Arrays) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_bits_as_separate_nodes(fused: None, config: Any, threads: int) -> None:  # noqa: ANN401
    graph = embedded().specialised_graph(config)
    one = joined(graph)
    own = {name for name in types(graph) if name in ("EncoderLayers", "LearntSignificance", "RestoreLogits")}
    assert own
    assert own.isdisjoint(types(one))
    assert types(one)["JoinedOps"] == 1
    found, expected = compiled(one, threads), compiled(graph, threads)
    for batch, length in ((1, 40), (3, 97), (1, 2), (2, 64), (1, 384)):  # memory of earlier calls is used again
        inputs = token_inputs(batch, length)
        assert_same(results(found, inputs), results(expected, inputs))


def test_inputs_of_one_shape(fused: None) -> None:
    """Where all shapes are known, they stay so."""
    bundle = embedded().bundle
    plain = read_plain_graph(bundle, QUESTION_ANSWERING)
    plain.reshape({name: [2, 48] for name in token_inputs(1, 1)})
    config = embedded().resolve([0.5, 0.5, 0.5, 0.3, 0.2, 0.2])
    assert bundle.scorers is not None
    scorers = load_scorer_tensors(bundle.scorers, bundle.shape)
    graph = compilation.selecting_graph(bundle, QUESTION_ANSWERING, plain, scorers, config)
    one, inputs = joined(graph), token_inputs(2, 48)
    assert all(output.get_partial_shape().is_static for output in one.outputs)
    assert_same(results(compiled(one), inputs), results(compiled(graph), inputs))


def test_the_elastic_graph(fused: None, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, configs = token_inputs(2, 50), [embedded().resolve(name) for name in ("fast", "balanced")]
    found = embedded()(**inputs, length_configs=configs)
    with monkeypatch.context() as patch:
        patch.setattr(compilation, "join_ops", lambda _: None)
        expected = LengthAdaptiveModel.from_pretrained()(**inputs, length_configs=configs)
    np.testing.assert_array_equal(found.start_logits, expected.start_logits)
    for layer, kept in expected.kept_positions.items():
        np.testing.assert_array_equal(found.kept_positions[layer], kept)


def test_nodes_of_openvino_divide_what_is_joined(fused: None) -> None:
    graph = embedded().specialised_graph([1, 1, 1, 0.5, 0.5, 0.5], separate_after=[1])
    state = next(node for node in graph.get_ordered_ops() if node.get_type_name() == "EncoderLayers").output(0)
    readers = state.get_target_inputs()
    absolute = opset13.abs(state)
    for reader in readers:
        reader.replace_source_output(absolute.output(0))
    one, inputs = joined(graph), token_inputs(2, 30)
    assert types(one)["JoinedOps"] == 2
    assert_same(results(compiled(one), inputs), results(compiled(graph), inputs))


def test_states_that_something_else_reads_stay_outputs(fused: None) -> None:
    graph = embedded().specialised_graph("fast")
    state = next(node for node in graph.get_ordered_ops() if node.get_type_name() == "EncoderLayers").output(0)
    state.get_tensor().set_names({"seen"})
    graph.add_results([opset13.result(state, name="seen")])
    one, inputs = joined(graph), token_inputs(1, 60)
    assert_same(results(compiled(one), inputs), results(compiled(graph), inputs))


def test_types_that_openvino_replaces(fused: None) -> None:
    """The CPU plugin computes with 32-bit integers where a graph says 64, and with bytes for truth values."""
    graph = embedded().specialised_graph("fast")
    types_of_tokens = next(node for node in graph.get_parameters() if node.get_friendly_name() == "token_type_ids")
    is_first = opset13.equal(types_of_tokens, np.int64(0))
    others = opset13.convert(opset13.logical_not(is_first), np.int64)  # out of what is joined, and into the rest
    twice = opset13.add(others, others)
    for name, node in (("first", is_first), ("twice", twice)):
        node.output(0).get_tensor().set_names({name})
        graph.add_results([opset13.result(node, name=name)])
    one, inputs = joined(graph), token_inputs(2, 20)
    assert types(one)["JoinedOps"] == 1
    found = results(compiled(one), inputs)
    assert_same(found, results(compiled(graph), inputs))
    np.testing.assert_array_equal(found["first"], inputs["token_type_ids"] == 0)
    np.testing.assert_array_equal(found["twice"], 2 * inputs["token_type_ids"])


def test_graphs_without_integer_products_stay_as_they_are() -> None:
    significance, mask = (opset13.parameter([-1, -1], np.float32) for _ in range(2))
    length = opset13.parameter([-1], np.int32)
    positions, kept_mask, origins = select_tokens(
        significance.output(0),
        mask.output(0),
        length.output(0),
        opset13.constant(np.float32(0.5)).output(0),
        opset13.constant(np.float32(-np.inf)).output(0),
    )
    again, *_ = select_tokens(
        opset13.gather(significance, positions, 1, batch_dims=1).output(0),
        kept_mask,
        length.output(0),
        opset13.constant(np.float32(0.3)).output(0),
        opset13.constant(np.float32(-np.inf)).output(0),
        origins=origins,
    )
    graph = ov.Model([again], [significance, mask, length])
    assert types(joined(graph)) == types(graph)


def test_many_requests_at_once(fused: None) -> None:
    graph = embedded().specialised_graph("fast")
    all_inputs = [token_inputs(1 + i % 3, 20 + 9 * i) for i in range(12)]
    separate = compiled(graph)
    expected = [results(separate, inputs) for inputs in all_inputs]
    one = extension_library.core().compile_model(joined(graph), "CPU", {"NUM_STREAMS": 2, "INFERENCE_NUM_THREADS": 2})

    def infer(inputs: Arrays) -> Arrays:
        return {o.get_any_name(): values for o, values in one.create_infer_request().infer(inputs).items()}

    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for found, own in zip(pool.map(infer, all_inputs), expected, strict=True):
                assert_same(found, own)


def test_stored_and_read_back(fused: None, tmp_path: Path) -> None:
    graph = embedded().specialised_graph("fast")
    one = joined(graph)
    ov.save_model(one, tmp_path / "model.xml", compress_to_fp16=False)
    again = extension_library.core().read_model(tmp_path / "model.xml")
    inputs = token_inputs(2, 70)
    assert_same(results(compiled(again), inputs), results(compiled(graph), inputs))


def body(parameters: list[ov.Node], *outputs: ov.Output) -> dict[str, Any]:
    return {"body": {"parameters": parameters, "results": [opset13.result(own) for own in outputs]}}


def sum_of_two() -> tuple[list[ov.Node], ov.Output]:
    parameters = [opset13.parameter([-1, 3], np.float32) for _ in range(2)]
    return parameters, opset13.add(*parameters).output(0)


def test_a_value_may_be_several_outputs_and_inputs_may_be_outputs() -> None:
    parameters, total = sum_of_two()
    constant = opset13.constant(np.arange(3, dtype=np.float32)).output(0)
    outer = [opset13.parameter([-1, 3], np.float32) for _ in range(2)]
    node = extension_library.node_factory().create(
        "JoinedOps",
        [own.output(0) for own in outer],
        body(parameters, total, total, parameters[0].output(0), opset13.multiply(total, total).output(0), constant),
    )
    model = compiled(ov.Model(node.outputs(), outer))
    for rows in (4, 1, 0, 7):
        a, b = np.random.default_rng(rows).random((2, rows, 3), np.float32)
        expected = [a + b, a + b, a, (a + b) ** 2, np.arange(3, dtype=np.float32)]
        for found, own in zip(model([a, b]).values(), expected, strict=True):
            np.testing.assert_array_equal(found, own)


def test_errors_of_nodes_are_passed_on_and_the_next_call_works(fused: None) -> None:
    graph = embedded().specialised_graph("fast")
    model, inputs = compiled(joined(graph), threads=2), token_inputs(1, 20)
    expected = results(model, inputs)
    with pytest.raises(RuntimeError, match="QuantizedEmbeddings"):
        model(inputs | {"input_ids": inputs["input_ids"] + 10**6})
    assert_same(results(model, inputs), expected)


def without_body() -> tuple[list[ov.Node], dict[str, Any]]:
    return [opset13.parameter([-1, 3], np.float32)], {}


def too_few_inputs() -> tuple[list[ov.Node], dict[str, Any]]:
    return [opset13.parameter([-1, 3], np.float32)], body(*sum_of_two())


def another_type() -> tuple[list[ov.Node], dict[str, Any]]:
    return [opset13.parameter([-1, 3], np.float32), opset13.parameter([-1, 3], np.int32)], body(*sum_of_two())


def another_shape() -> tuple[list[ov.Node], dict[str, Any]]:
    return [opset13.parameter([-1, 3], np.float32), opset13.parameter([-1, 4], np.float32)], body(*sum_of_two())


def a_node_that_cannot_be_evaluated() -> tuple[list[ov.Node], dict[str, Any]]:
    state = opset13.parameter([-1, -1, 4], np.float32)
    similar = opset13.scaled_dot_product_attention(state, state, state)
    return [opset13.parameter([-1, -1, 4], np.float32)], body([state], similar.output(0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (without_body, "there is no body"),
        (too_few_inputs, "1 inputs for a body of 2 parameters"),
        (another_type, "input 1 is i32"),
        (another_shape, r"input 1 is f32 \[\?,4\] where the body has f32 \[\?,3\]"),
        (a_node_that_cannot_be_evaluated, "of type ScaledDotProductAttention cannot be evaluated by itself"),
    ],
)
def test_refused_bodies(make: Callable[[], tuple[list[ov.Node], dict[str, Any]]], message: str) -> None:
    inputs, attributes = make()
    with pytest.raises(RuntimeError, match=message):
        extension_library.node_factory().create("JoinedOps", [own.output(0) for own in inputs], attributes)


def test_attention_without_integer_products_alone_stays(fused: None) -> None:
    projections, mask = opset13.parameter([-1, -1, 24], np.float32), opset13.parameter([-1, -1], np.float32)
    graph = ov.Model([attention(projections.output(0), mask.output(0), 2, int16=True)], [projections, mask])
    assert types(joined(graph)) == types(graph)
