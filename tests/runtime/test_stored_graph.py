"""Graphs that `dynamic-tinybert compile` stores, run by programs that know OpenVINO and the extension alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest

from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.bundles.hub import default_bundle, default_reranker
from dynamic_tinybert.runtime.common.errors import BundleExistsError, InferenceError, LengthConfigError
from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.stored_graph import STORED_GRAPH, store_graph

from support.tiny import tiny_bundle

Arrays = dict[str, npt.NDArray[Any]]

STOCK = """
import json, os, sys
import numpy as np, openvino as ov

folder, extension, inputs, outputs, *isas = sys.argv[1:]
core = ov.Core()
if extension:
    core.add_extension(extension)
properties = json.load(open(f"{folder}/dynamic_tinybert_graph.json"))["ov_config"]
arrays = dict(np.load(inputs))
for isa in isas:
    os.environ["DYNAMIC_TINYBERT_ISA"] = isa
    compiled = core.compile_model(core.read_model(f"{folder}/openvino_model.xml"), "CPU", properties)
    for _ in range(2):
        found = compiled(arrays)
    np.savez(f"{outputs}.{isa}", **{output.get_any_name(): found[output] for output in compiled.outputs})
assert "dynamic_tinybert" not in sys.modules
"""


def run_stock(folder: Path, inputs: Arrays, isas: tuple[str, ...], *, extension: bool = True) -> dict[str, Arrays]:
    """Outputs by instruction set of a stored graph in a process that has OpenVINO and at most the extension."""
    np.savez(folder.parent / "inputs.npz", **inputs)
    library = str(extension_library.extension_path()) if extension else ""
    files = (str(folder.parent / "inputs.npz"), str(folder.parent / "outputs"))
    command = [sys.executable, "-c", STOCK, str(folder), library, *files, *isas]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {isa: dict(np.load(folder.parent / f"outputs.{isa}.npz")) for isa in isas}


def batch(model: LengthAdaptiveModel, length: int) -> Arrays:
    """Two sequences, the second one half as long."""
    positions = np.arange(length)
    mask = (positions < np.array([[length], [length // 2]])).astype(np.int64)
    ids = np.random.default_rng(length).integers(0, model.bundle.vocab_size, (2, length)) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": (positions >= 7) * mask}


def assert_same(model: LengthAdaptiveModel, config: Any, inputs: Arrays, found: Arrays) -> None:  # noqa: ANN401
    given = dict(inputs)
    expected = model(given.pop("input_ids"), length_config=config, **given)
    length = inputs["input_ids"].shape[1]
    np.testing.assert_array_equal(found["start_logits"], expected.start_logits)
    np.testing.assert_array_equal(found["end_logits"], expected.end_logits)
    kept = {int(name.partition(".")[2]): value for name, value in found.items() if name.startswith("kept_tokens.")}
    assert kept.keys() == expected.kept_positions.keys()
    for layer, origins in kept.items():
        np.testing.assert_array_equal(np.where(origins > 0, origins - 1, length), expected.kept_positions[layer])


VECTORS = tuple(isa for isa in extension_library.available_isas() if isa != "scalar")


@pytest.mark.skipif(not VECTORS, reason="this CPU has no AVX2, so that graphs are not fused")
@pytest.mark.parametrize("config", ["fast", (1, 0.9, 0.7, 0.7, 0.5, 0.25)])
def test_the_embedded_bundle_on_every_path(config: Any, tmp_path: Path) -> None:  # noqa: ANN401
    model = LengthAdaptiveModel.from_pretrained()
    described = store_graph(model, tmp_path / "graph", length_config=config)
    xml = (tmp_path / "graph" / "openvino_model.xml").read_text()
    assert 'isa="any"' in xml
    assert not any(f'isa="{isa}"' in xml for isa in VECTORS)
    inputs = batch(model, 128)
    assert len(model(inputs["input_ids"], length_config=config).kept_positions) >= 2
    for found in run_stock(tmp_path / "graph", inputs, VECTORS).values():
        assert_same(model, config, inputs, found)
    assert json.loads((tmp_path / "graph" / STORED_GRAPH).read_text()) == json.loads(json.dumps(described))
    assert described["written_on"]["fused"]
    assert "QuantizedLinears" in described["ops_of_the_extension"]
    assert not described["exact_only_with_vnni"]


@pytest.mark.skipif(not VECTORS, reason="this CPU has no AVX2, so that graphs are not fused")
def test_the_head_of_an_int8_reranker_is_not_rounded_to_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where bfloat16 is the faster precision, as on CPUs with AMX."""
    monkeypatch.setattr("dynamic_tinybert.runtime.cpu.best_float_precision", lambda: "bf16")
    model = LengthAdaptiveModel.from_pretrained(default_reranker())
    described = store_graph(model, tmp_path / "graph", length_config="full")
    assert described["ov_config"] == {"INFERENCE_PRECISION_HINT": "f32"}
    assert described["ov_config"].items() <= model.execution.items()
    answering = LengthAdaptiveModel.from_pretrained(tiny_bundle(tmp_path / "bundle"))
    described = store_graph(answering, tmp_path / "other")
    assert described["ov_config"] == {"INFERENCE_PRECISION_HINT": "bf16"}


@pytest.mark.parametrize("kind", ["attention", "learnt", "int8-attention", "int8-learnt"])
def test_tiny_bundles(kind: str, samples: dict[str, Path], tmp_path: Path) -> None:
    model, isa = LengthAdaptiveModel.from_pretrained(samples[kind]), extension_library.isa()
    store_graph(model, tmp_path / "graph", length_config="half")
    inputs = batch(model, 40)
    assert_same(model, "half", inputs, run_stock(tmp_path / "graph", inputs, (isa,))[isa])


def test_full_in_fp32_needs_no_extension(tmp_path: Path) -> None:
    model = LengthAdaptiveModel.from_pretrained(tiny_bundle(tmp_path / "bundle"))
    described = store_graph(model, tmp_path / "new" / "graph")
    assert described["ops_of_the_extension"] == []
    assert described["length_config"] == {"name": "full", "keep_ratios": (1, 1, 1), "thresholds": (None,) * 3}
    assert described["bundle"]["path"] == str(tmp_path / "bundle")
    assert sorted(described["files"]) == ["openvino_model.bin", "openvino_model.xml"]
    inputs = batch(model, 24)
    assert_same(model, "full", inputs, run_stock(tmp_path / "new" / "graph", inputs, ("",), extension=False)[""])


def test_int8_without_fusion_says_where_it_is_exact(
    samples: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYNAMIC_TINYBERT_ISA", "scalar")
    model = LengthAdaptiveModel.from_pretrained(samples["int8-attention"])
    described = store_graph(model, tmp_path / "graph", length_config="half")
    assert not described["written_on"]["fused"]
    saturates = "avx512_vnni" not in VECTORS and "avx_vnni" not in VECTORS  # and weights are floats already
    assert described["exact_only_with_vnni"] != saturates


def test_without_the_extension_openvino_names_what_is_missing(tmp_path: Path) -> None:
    model = LengthAdaptiveModel.from_pretrained(tiny_bundle(tmp_path / "bundle", {"half": LengthConfig((1, 0.5, 0.5))}))
    store_graph(model, tmp_path / "graph", length_config="half")
    program = f"import openvino as ov; ov.Core().read_model({str(tmp_path / 'graph' / 'openvino_model.xml')!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "dynamic_tinybert" in done.stderr


def test_the_folder_is_replaced_only_by_force(tmp_path: Path) -> None:
    bundle, output = tiny_bundle(tmp_path / "bundle"), tmp_path / "graph"
    model = LengthAdaptiveModel.from_pretrained(bundle)
    store_graph(model, output)
    with pytest.raises(BundleExistsError, match=r"exists already; .* --force"):
        store_graph(model, output)
    store_graph(model, output, length_config=(1, 0.5, 0.5), force=True)
    written = json.loads((output / STORED_GRAPH).read_text())
    assert written["length_config"] == {"name": None, "keep_ratios": [1, 0.5, 0.5], "thresholds": [None] * 3}
    with pytest.raises(BundleExistsError, match=f"has files but no {STORED_GRAPH}: it is not a stored graph"):
        store_graph(model, bundle, force=True)
    assert (bundle / "dynamic_tinybert.json").exists()


@pytest.mark.parametrize("config", ["half", (1, 0.5), (1, 0.5, float("nan"))])
def test_an_unusable_configuration_leaves_nothing(config: Any, tmp_path: Path) -> None:  # noqa: ANN401
    model = LengthAdaptiveModel.from_pretrained(tiny_bundle(tmp_path / "bundle"))
    with pytest.raises(LengthConfigError):
        store_graph(model, tmp_path / "new" / "graph", length_config=config)
    assert not (tmp_path / "new").exists()


def test_a_graph_that_computes_something_else_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = LengthAdaptiveModel.from_pretrained(tiny_bundle(tmp_path / "bundle"))
    graph_of = model.specialised_graph

    def other(length_config: tuple[float, ...], *, portable: bool = False) -> ov.Model:
        return graph_of((1, 0.5, 0.1) if portable else length_config)

    monkeypatch.setattr(model, "specialised_graph", other)
    with pytest.raises(InferenceError, match=r"gives other outputs than the model: .*start_logits"):
        store_graph(model, tmp_path / "graph", length_config=(1, 0.9, 0.2))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def command_line(*arguments: object) -> subprocess.CompletedProcess[str]:
    program = "import sys; from dynamic_tinybert.runtime.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command(tmp_path: Path) -> None:
    bundle, output = tiny_bundle(tmp_path / "bundle", {"half": LengthConfig((1, 0.5, 0.5))}), tmp_path / "graph"
    done = command_line("compile", bundle, output, "--length-config", "half")
    assert (done.returncode, done.stdout) == (0, f"{output}\n")
    assert str(extension_library.extension_path()) in done.stderr
    assert "SelectTokens" in done.stderr
    taken = command_line("compile", bundle, output)
    assert (taken.returncode, taken.stdout) == (1, "")
    assert "exists already" in taken.stderr
    unknown = command_line("compile", bundle, output, "--length-config", "fast", "--force")
    assert unknown.returncode == 1
    assert "unknown length configuration 'fast'; this bundle has: full, half" in unknown.stderr
    ratios = command_line("compile", bundle, output, "--length-config", "1,0.75,0.5", "--force")
    assert ratios.returncode == 0, ratios.stderr
    assert json.loads((output / STORED_GRAPH).read_text())["length_config"]["keep_ratios"] == [1, 0.75, 0.5]


@pytest.mark.slow
def test_benchmark_app_runs_it(tmp_path: Path) -> None:
    pytest.importorskip("openvino.tools.benchmark.main", reason="this OpenVINO comes without benchmark_app")
    model = LengthAdaptiveModel.from_pretrained(default_bundle())
    store_graph(model, tmp_path / "graph", length_config="fast")
    inputs = batch(model, 64)
    for name, array in inputs.items():
        np.save(tmp_path / f"{name}.npy", array)
    program = "from openvino.tools.benchmark.main import main; main()"
    graph, extension = tmp_path / "graph" / "openvino_model.xml", extension_library.extension_path()
    options = ["-m", graph, "-extensions", extension, "-d", "CPU", "-infer_precision", "f32", "-niter", "10"]
    files = ",".join(f"{name}:{tmp_path / name}.npy" for name in inputs)
    command = [sys.executable, "-c", program, *map(str, options), "-i", files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Throughput:" in done.stdout
