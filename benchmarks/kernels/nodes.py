"""Where the time of one request goes: the nodes of a bundle's graph by kind, and its products and joined layers.

    python -m benchmarks.kernels.nodes BUNDLE [--length-config NAME] [--length 171] [--threads 2]

Batch 1; random tokens, of which 16 are the question. The call is timed in a graph without profiling, after a call of
the same length and after one of another length; it takes turns with a profiled graph, for which OpenVINO reports the
mean time of each node. For comparison, the least time that the CPU could need comes from the same run: the request's
multiply-accumulates at the rate of a loop of INT8 dot products.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt
import openvino as ov

from dynamic_tinybert.runtime import cpu
from dynamic_tinybert.runtime.bundles.bundle import Bundle, open_bundle
from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.encoder.compilation import LENGTH_MULTIPLE, kept_multiple
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.question_answering.inference import WindowOutput

from benchmarks.common import argument_parser, latency_properties, plain_graph, selecting_graph
from benchmarks.kernels.cpu_limits import measure_cpu_limits

Ids = npt.NDArray[np.int64]
WARM_UP, REQUESTS, TURNS, QUESTION = 5, 20, 10, 16
PRODUCTS = ("FullyConnected", "QuantizedLinears", "EncoderLayers")


def compiled(bundle: Bundle, config: str, threads: int, *, profiled: bool) -> tuple[ov.InferRequest, Mapping[str, str]]:
    """A request, and the types of the graph's nodes by their names."""
    config_of_graph = bundle.length_configs[config].config
    graph = selecting_graph(bundle, plain_graph(bundle), config_of_graph, kept_multiple(bundle))
    properties = {**latency_properties(threads), "PERF_COUNT": profiled}
    kinds = {node.get_friendly_name(): node.get_type_name() for node in graph.get_ordered_ops()}
    return extension_library.core().compile_model(graph, "CPU", properties).create_infer_request(), kinds


def executed_macs(bundle: Bundle, config: str, ids: Ids, types: Ids) -> int:
    model, length = LengthAdaptiveModel(bundle), ids.shape[1]
    output = model(ids, token_type_ids=types, length_config=config)
    kept = {layer: int((positions < length).sum()) for layer, positions in output.kept_positions.items()}
    window = WindowOutput(output.start_logits[0], output.end_logits[0], kept)
    return model.executed_macs(config, length, window.kept_by_layer(length, bundle.shape.num_layers))


def random_inputs(bundle: Bundle, length: int) -> dict[str, Ids]:
    ids = np.random.default_rng(0).integers(bundle.vocab_size // 2, bundle.vocab_size, (1, length))
    types = (np.arange(length) >= QUESTION).astype(np.int64)[None]
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": types}


def kind_of(node: ov.ProfilingInfo, kinds: Mapping[str, str]) -> str:
    """The type of a node; OpenVINO calls all of ours "Reference"."""
    return str(node.node_type) if node.node_type != "Reference" else kinds[node.node_name]


def microseconds(request: ov.InferRequest, before: dict[str, Ids], inputs: dict[str, Ids]) -> list[float]:
    """Times in microseconds of calls with `inputs`, each after a call with `before`."""
    found = []
    for _ in range(WARM_UP + REQUESTS):
        request.infer(before, share_inputs=True)
        started = perf_counter()
        request.infer(inputs, share_inputs=True)
        found.append(1e6 * (perf_counter() - started))
    return found[WARM_UP:]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--length-config", default="full")
    parser.add_argument("--length", type=int, default=171, help="tokens")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    bundle, length = open_bundle(arguments.bundle), arguments.length
    inputs, longer = (random_inputs(bundle, tokens) for tokens in (length, length + LENGTH_MULTIPLE))
    ids, types = inputs["input_ids"], inputs["token_type_ids"]
    (timed, _), (profiled, types_by_name) = (
        compiled(bundle, arguments.length_config, arguments.threads, profiled=profiled) for profiled in (False, True)
    )
    calls, changed = [], []
    for _ in range(TURNS):
        for _ in range(REQUESTS):
            profiled.infer(inputs, share_inputs=True)
        calls += microseconds(timed, inputs, inputs)
        changed += microseconds(timed, longer, inputs)
    wall, after_another = float(np.median(calls)), float(np.median(changed))
    kinds: defaultdict[str, list[float]] = defaultdict(list)
    for node in profiled.profiling_info:
        if node.status == ov.ProfilingInfo.Status.EXECUTED:
            kinds[kind_of(node, types_by_name)].append(node.real_time.total_seconds() * 1e6)
    limits = measure_cpu_limits(arguments.threads)
    print(
        f"{bundle.path.name}, {arguments.length_config}, {length} tokens; {cpu.name()}, {arguments.threads} threads; "
        f"{limits}"
    )
    print("| Nodes | number | µs |\n| --- | ---: | ---: |")
    for kind, times in sorted(kinds.items(), key=lambda item: -sum(item[1])):
        if sum(times) >= 1:
            print(f"| {kind} | {len(times)} | {sum(times):.0f} |")
    products = sum(sum(times) for kind, times in kinds.items() if kind in PRODUCTS)
    macs = executed_macs(bundle, arguments.length_config, ids, types)
    in_int8 = bundle.quantization["precision"] == "int8"
    best = 1e6 * (limits.seconds(macs, 0) if in_int8 else limits.seconds(0, macs))
    print(
        f"a call {wall:.0f} µs, {after_another:.0f} after one of {length + LENGTH_MULTIPLE} tokens; its products "
        f"and joined layers {products:.0f} µs, {wall / products:.2f}x; {macs / 1e6:.0f} million "
        f"multiply-accumulates, at best {best:.0f} µs, {best / wall:.0%} of the call"
    )


if __name__ == "__main__":
    main()
