"""What 8-bit products gain in time and lose by saturated sums, compared with the same weights converted to floats.

    python -m benchmarks.latency.float_weights BUNDLE SQUAD.json [--windows 96] [--threads 2]

Three graphs without selection take turns in stock OpenVINO: the exported one, whose 8-bit products saturate where the
CPU has no VNNI; one with weights as floats, which the runtime takes on such CPUs for products that it leaves to
OpenVINO; and one in FP32, which does not round activations either. Differences are those of logits from the logits with
float weights.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import openvino as ov

from dynamic_tinybert.calibration.report.fp32_graph import fp32_graph
from dynamic_tinybert.calibration.search.latency import interleaved_ms, spread
from dynamic_tinybert.runtime import cpu
from dynamic_tinybert.runtime.batches import stack
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.encoder.compilation import LENGTH_MULTIPLE
from dynamic_tinybert.runtime.encoder.compiled import Arrays, CompiledGraph
from dynamic_tinybert.runtime.encoder.plain_graph import give_float_weights
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad

from benchmarks.common import argument_parser, first_windows_of, latency_properties


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("bundle")
    parser.add_argument("data")
    parser.add_argument("--windows", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    bundle = open_bundle(arguments.bundle)
    windows = first_windows_of(bundle, spread(read_squad(arguments.data), arguments.windows))
    inputs = [stack([window], multiple=LENGTH_MULTIPLE) for window in windows]

    exported = extension_library.core().read_model(bundle.model_xml)
    floats = exported.clone()
    give_float_weights(floats)
    properties = latency_properties(arguments.threads, "f32")
    graphs = {
        name: CompiledGraph(partial(extension_library.core().compile_model, graph, "CPU", properties))
        for name, graph in {"as exported": exported, "float weights": floats, "FP32": fp32_graph(exported)}.items()
    }
    logits = {name: [logits_of(graph.infer(given)) for given in inputs] for name, graph in graphs.items()}  # warms up
    requests = [partial(lambda graph, i: graph.infer(inputs[i]), graph) for graph in graphs.values()]
    ms = interleaved_ms(requests, len(inputs), repeats=arguments.repeats)

    print(f"{cpu.name()}, {arguments.threads} threads, {len(inputs)} windows, OpenVINO {ov.__version__}")
    print("| Products | p50 ms | time / as exported | logits: mean difference | largest |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, own_ms in zip(graphs, ms, strict=True):
        apart = [np.abs(a - b) for a, b in zip(logits[name], logits["float weights"], strict=True)]
        print(
            f"| {name} | {np.median(own_ms):.1f} | {own_ms.sum() / ms[0].sum():.2f} | "
            f"{np.mean([one.mean() for one in apart]):.4f} | {max(one.max() for one in apart):.2f} |"
        )


def logits_of(outputs: Arrays) -> np.ndarray:
    return np.stack([outputs["start_logits"], outputs["end_logits"]])


if __name__ == "__main__":
    main()
