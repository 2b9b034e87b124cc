"""Graphs of one joined node, which run without OpenVINO's CPU plugin."""

import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
from openvino import opset13

from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.bundles.hub import default_reranker
from dynamic_tinybert.runtime.common.errors import InferenceError
from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.encoder.compilation import compile_graph
from dynamic_tinybert.runtime.encoder.joined_graph import JoinedGraphRequests, as_joined
from dynamic_tinybert.runtime.encoder.joined_ops import join_ops
from dynamic_tinybert.runtime.tasks.question_answering.task import QuestionAnsweringOutput

from support.embedded_graphs import embedded

pytestmark = pytest.mark.usefixtures("fused")
CONFIGS: list[Any] = ["full", "accurate", "balanced", "fast", [0.5, 0.5, 0.5, 0.3, 0.2, 0.2]]
BY_OPENVINO = {"ENABLE_CPU_PINNING": True}  # only OpenVINO pins threads


def tokens(batch: int, length: int) -> dict[str, npt.NDArray[np.int64]]:
    ids = np.random.default_rng(length).integers(1000, 20000, (batch, length))
    real = np.maximum(length - 7 * np.arange(batch), 1)[:, None]
    return {
        "input_ids": ids,
        "attention_mask": (np.arange(length) < real).astype(np.int64),
        "token_type_ids": np.broadcast_to(np.arange(length) > 9, ids.shape).astype(np.int64),
    }


def joined(model: LengthAdaptiveModel) -> bool:
    """Whether the compiled graphs of a model are of this kind."""
    graphs = [slot.graph for slot in model._graphs._graphs.values() if slot.graph is not None]
    (kind,) = {isinstance(graph._current(), JoinedGraphRequests) for graph in graphs}
    return kind


def assert_same(found: QuestionAnsweringOutput, expected: QuestionAnsweringOutput) -> None:
    np.testing.assert_array_equal(found.start_logits, expected.start_logits)
    np.testing.assert_array_equal(found.end_logits, expected.end_logits)
    assert found.kept_positions.keys() == expected.kept_positions.keys()
    for layer, positions in expected.kept_positions.items():
        np.testing.assert_array_equal(found.kept_positions[layer], positions)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_bits_of_openvino(threads: int) -> None:
    own = LengthAdaptiveModel.from_pretrained(num_threads=threads)
    other = LengthAdaptiveModel.from_pretrained(num_threads=threads, ov_config=BY_OPENVINO)
    for batch, length in ((1, 40), (3, 97), (1, 2), (2, 64), (1, 384), (1, 40)):  # memory is used again
        inputs = tokens(batch, length)
        for config in CONFIGS:
            assert_same(own(**inputs, length_config=config), other(**inputs, length_config=config))
        assert_same(own(**inputs, length_configs=["fast"] * batch), other(**inputs, length_configs=["fast"] * batch))
    assert joined(own)
    assert not joined(other)


def test_classifiers_heads_are_part_of_the_node() -> None:
    own = LengthAdaptiveModel.from_pretrained(default_reranker())
    other = LengthAdaptiveModel.from_pretrained(default_reranker(), ov_config=BY_OPENVINO)
    for batch, length in ((1, 40), (3, 97), (1, 3), (17, 24)):
        inputs = tokens(batch, length)
        for config in own.length_configs:
            found, expected = own(**inputs, length_config=config), other(**inputs, length_config=config)
            assert found.logits.shape == (batch, 1)
            np.testing.assert_array_equal(found.logits, expected.logits)
    assert joined(own)
    assert not joined(other)


def test_results_stay_when_memory_is_used_again() -> None:
    first = embedded()(**tokens(2, 60), length_config="fast")
    copies = QuestionAnsweringOutput(
        first.start_logits.copy(), first.end_logits.copy(), {k: v.copy() for k, v in first.kept_positions.items()}
    )
    embedded()(**tokens(2, 61), length_config="fast")
    assert_same(first, copies)


@pytest.mark.parametrize("streams", [1, 2])
def test_callers_of_many_threads_get_their_own_results(streams: int) -> None:
    model = LengthAdaptiveModel.from_pretrained(num_streams=streams, ov_config={"ENABLE_CPU_PINNING": False})
    assert model.parallel_requests in (1, streams)  # one CPU has one
    inputs = [tokens(1 + k % 3, 20 + 5 * k) for k in range(12)]
    expected = [model(**own, length_config="fast") for own in inputs]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda own: model(**own, length_config="fast"), inputs * 6))
    for k, own in enumerate(found):
        assert_same(own, expected[k % 12])
    assert joined(model)


def graph_of(config: Any = "fast") -> ov.Model:  # noqa: ANN401
    return embedded().specialised_graph(config)


def compiled(graph: ov.Model) -> JoinedGraphRequests:
    requests = compile_graph(graph, {"INFERENCE_NUM_THREADS": 2})
    assert isinstance(requests, JoinedGraphRequests)
    return requests


def test_errors_of_ops_are_raised_and_the_request_is_lent_again() -> None:
    requests, inputs = compiled(graph_of()), tokens(1, 30)
    expected = requests.infer(inputs)
    for _ in range(2):
        with pytest.raises(
            InferenceError, match=r"(?s)running the graph failed.*QuantizedEmbeddings: ids hold 2147483647"
        ):
            requests.infer({**inputs, "input_ids": np.full((1, 30), 2**31 - 1)})
    for name, values in requests.infer(inputs).items():
        np.testing.assert_array_equal(values, expected[name])


@pytest.mark.parametrize("shape", [(30,), (1, 30, 1), ()])
def test_an_input_of_another_rank_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InferenceError, match=r"token_type_ids must have 2 dimensions"):
        compiled(graph_of()).infer({**tokens(1, 30), "token_type_ids": np.zeros(shape, np.int64)})


def test_an_input_without_dimensions() -> None:
    """The threshold of a selection may be one number for all rows."""
    parameters = [opset13.parameter([-1, -1], np.float32), opset13.parameter([], np.float32)]
    body = {"parameters": parameters, "results": [opset13.result(opset13.add(*parameters))]}
    outer = [opset13.parameter([-1, -1], np.float32, name="x"), opset13.parameter([], np.float32, name="y")]
    for node in outer:
        node.output(0).get_tensor().set_names({node.get_friendly_name()})
    joined_node = extension_library.node_factory().create("JoinedOps", outer, {"body": body})
    joined_node.output(0).get_tensor().set_names({"sum"})
    graph = as_joined(ov.Model(joined_node.outputs(), outer))
    assert graph is not None
    found = JoinedGraphRequests(graph, 1, 1).infer(
        {"x": np.ones((2, 3), np.float32), "y": np.full((), 0.5, np.float32)}
    )
    assert found["sum"].tolist() == [[1.5] * 3] * 2
    with pytest.raises(InferenceError, match="y must have 0 dimensions"):
        JoinedGraphRequests(graph, 1, 1).infer({"x": np.ones((2, 3), np.float32), "y": np.ones(1, np.float32)})


@pytest.mark.parametrize("properties", [BY_OPENVINO, {}])
def test_a_graph_is_compiled_again(properties: dict[str, object]) -> None:
    """As in a forked process, of the graphs of stages."""
    graph = graph_of()
    kinds = {type(compile_graph(graph, properties)) for _ in range(3)}
    assert len(kinds) == 1


def test_values_of_unknown_rank_are_openvinos() -> None:
    x = opset13.parameter(ov.PartialShape.dynamic(), np.float32)
    body = {"parameters": [x], "results": [opset13.result(opset13.add(x, x))]}
    outer = opset13.parameter(ov.PartialShape.dynamic(), np.float32)
    node = extension_library.node_factory().create("JoinedOps", [outer.output(0)], {"body": body})
    assert as_joined(ov.Model(node.outputs(), [outer])) is None


def test_graphs_that_openvino_compiles_are_found_in_its_cache(tmp_path: Path) -> None:
    properties = {**BY_OPENVINO, "CACHE_DIR": str(tmp_path), "INFERENCE_PRECISION_HINT": "f32"}
    for _ in range(2):
        assert isinstance(compile_graph(graph_of(), properties), ov.CompiledModel)
        assert len(list(tmp_path.glob("*.blob"))) == 1


def test_inputs_that_are_no_plain_arrays() -> None:
    """Views with steps, and other integers, are copied."""
    requests, inputs = compiled(graph_of()), tokens(2, 40)
    expected = requests.infer(inputs)
    views = {name: np.repeat(array, 2, axis=1).astype(np.int16)[:, ::2] for name, array in inputs.items()}
    for name, values in requests.infer(views).items():
        np.testing.assert_array_equal(values, expected[name])


def with_another_node() -> ov.Model:
    graph = graph_of()
    logits = graph.output("start_logits").get_node().input_value(0)
    doubled = opset13.multiply(logits, np.float32(2))
    exponential = opset13.exp(doubled)
    exponential.output(0).get_tensor().set_names({"exponential"})
    graph.add_results([opset13.result(exponential, name="exponential")])
    return graph


def with_truth_values() -> ov.Model:
    """A result that a conversion makes of what the node writes."""
    graph = graph_of()
    types = next(node for node in graph.get_parameters() if node.get_friendly_name() == "token_type_ids")
    first = opset13.equal(types, np.int64(0))
    first.output(0).get_tensor().set_names({"first"})
    graph.add_results([opset13.result(first, name="first")])
    return graph


def returning_an_input() -> ov.Model:
    graph = graph_of()
    types = next(node for node in graph.get_parameters() if node.get_friendly_name() == "token_type_ids")
    graph.add_results([opset13.result(types, name="again")])
    return graph


@pytest.mark.parametrize("make", [with_another_node, with_truth_values, returning_an_input])
def test_other_graphs_are_openvinos(make: Any) -> None:  # noqa: ANN401
    graph = make()
    join_ops(graph)
    assert as_joined(graph) is None
    assert isinstance(compile_graph(make(), {"INFERENCE_NUM_THREADS": 1}), ov.CompiledModel)


def test_a_graph_without_our_ops_is_openvinos() -> None:
    x = opset13.parameter([-1], np.float32, name="x")
    assert as_joined(ov.Model([opset13.abs(x)], [x])) is None


def test_outputs_that_are_returned_twice() -> None:
    graph = graph_of()
    logits = graph.output("start_logits").get_node().input_value(0)
    graph.add_results([opset13.result(logits, name="again")])
    again = graph.get_results()[-1].output(0)
    again.get_tensor().set_names({"again"})
    found: Mapping[str, Any] = compiled(graph).infer(tokens(1, 25))
    np.testing.assert_array_equal(found["again"], found["start_logits"])


def test_the_cpu_plugin_is_not_loaded() -> None:
    script = """
from dynamic_tinybert.runtime import QuestionAnswerer
import os, signal
answerer = QuestionAnswerer.from_pretrained()
found = answerer("Who wrote it?", "Jane Austen wrote it.")["answer"]
pid = os.fork()
if pid == 0:
    signal.alarm(60)
    os._exit(answerer("Who wrote it?", "Jane Austen wrote it.")["answer"] != found)
assert os.waitpid(pid, 0)[1] == 0
print(found, "intel_cpu_plugin" in open("/proc/self/maps").read())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("Jane Austen False\n", "")


def test_memory_does_not_grow_with_the_number_of_callers() -> None:
    """A web service may call from dozens of threads, each of which lives on."""
    script = """
import threading
from pathlib import Path
import numpy as np
from dynamic_tinybert.runtime import LengthAdaptiveModel

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

model = LengthAdaptiveModel.from_pretrained()
ids = np.random.default_rng(0).integers(1000, 20000, (8, 256))
types = np.broadcast_to(np.arange(256) > 9, ids.shape).astype(np.int64)

def call():
    for config in ("full", "fast"):
        model(ids, token_type_ids=types, length_config=config)

called, over = threading.Barrier(25), threading.Event()

def call_and_wait():
    call()
    called.wait()
    over.wait()

call()
before = resident()
threads = [threading.Thread(target=call_and_wait) for _ in range(24)]
for thread in threads:
    thread.start()
called.wait()
after = resident()
over.set()
assert after - before < 60, (before, after)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
