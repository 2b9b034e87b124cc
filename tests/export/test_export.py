"""Export from end to end: Python, command line, interruption, and what other tools make of the bundle."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch

from dynamic_tinybert.calibration.int8.tuning import LEAST_GAIN, OTHER_RANGES, STRENGTHS, Int8Setting, chosen
from dynamic_tinybert.export import export_model
from dynamic_tinybert.export.parity import random_batch
from dynamic_tinybert.modeling.scorer import Scorer, load_scorers, save_scorers
from dynamic_tinybert.runtime import LengthAdaptiveModel, QuestionAnswerer, cpu
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.common.errors import (
    BundleExistsError,
    CheckpointError,
    DataError,
    InvalidInputError,
    LengthConfigError,
)
from dynamic_tinybert.runtime.encoder.plain_graph import read_plain_graph
from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.tasks.question_answering.task import QUESTION_ANSWERING

from support.tiny import tiny_bert, tiny_tokenizer

CONTEXT = "the fox was in the box , and the cat was in the hat . who was in it ?"
WEIGHT_BITS = 7 if cpu.int8_products_saturate() else 8  # stock OpenVINO, which tests compare with, saturates
CONFIGS = {"half": (1, 0.7, 0.4), "paper": LengthConfig.parse("300,200,100@384")}


@pytest.fixture(scope="module")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_bert(hidden_size=64, num_attention_heads=2, intermediate_size=128).save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def squad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    articles = [
        {
            "title": title,
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {"id": f"{title}{k}", "question": f"what was in {letter} ?", "answers": [{"text": "the fox"}]}
                        for k, letter in enumerate(letters)
                    ],
                }
            ],
        }
        for title, letters in zip(("one", "two"), ("abcd", "efgh"), strict=True)
    ]
    file = tmp_path_factory.mktemp("data") / "squad.json"
    file.write_text(json.dumps({"data": articles}))
    return file


@pytest.fixture(scope="module")
def int8_bundle(tiny_checkpoint: Path, squad: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("bundles") / "int8"
    lines: list[str] = []
    report = export_model(
        tiny_checkpoint,
        output,
        calibration_data=squad,
        num_samples=3,
        tune=False,
        weight_bits=WEIGHT_BITS,
        length_configs=CONFIGS,
        say=lines.append,
    )
    assert lines
    assert report.path == output
    assert list(report.parity) == ["full", "half", "paper"]
    assert report.parity["half"].chosen_from > 0
    (step,) = report.int8_steps
    assert step.setting == Int8Setting(num_samples=3)
    assert step.change.questions == 4  # of the article that was not calibrated on
    assert step.change.f1 is None
    assert 0 < step.change.logit_error < 0.5
    return output


def test_bundle_answers_at_each_length_configuration(int8_bundle: Path) -> None:
    answerer = QuestionAnswerer.from_pretrained(int8_bundle)
    for name in ("full", "half", "paper"):
        answer = answerer(question="who was in the box ?", context=CONTEXT, length_config=name)
        assert answer["answer"]


def test_bundle_says_what_it_is(int8_bundle: Path, tiny_checkpoint: Path) -> None:
    bundle = open_bundle(int8_bundle)
    assert bundle.quantization["precision"] == "int8"
    assert bundle.quantization["weight_bits"] == WEIGHT_BITS
    assert bundle.quantization["num_samples"] == 3
    assert bundle.quantization["smooth_alpha"] == 0.75
    assert bundle.versions["openvino"] == version("openvino")
    assert bundle.length_configs["paper"].config.keep_ratios == (300 / 384, 200 / 384, 100 / 384)
    assert (int8_bundle / "config.json").read_bytes() == (tiny_checkpoint / "config.json").read_bytes()


def logits(bundle: Path, questions: list[str]) -> list[np.ndarray]:
    """Start and end logits over the context, by OpenVINO alone; float32 [2, tokens] for each question."""
    model = ov.Core().compile_model(
        read_plain_graph(open_bundle(bundle), QUESTION_ANSWERING), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    found = []
    for question in questions:
        encoding = tiny_tokenizer().encode(question, CONTEXT)
        inputs = {"input_ids": encoding.ids, "attention_mask": encoding.attention_mask}
        outputs = model({name: [row] for name, row in (inputs | {"token_type_ids": encoding.type_ids}).items()})
        inside = [i for i, part in enumerate(encoding.sequence_ids) if part == 1]
        found.append(np.stack([outputs["start_logits"][0, inside], outputs["end_logits"][0, inside]]))
    return found


@pytest.mark.slow
def test_a_tuned_bundle_is_the_best_of_what_was_tried(
    tiny_checkpoint: Path, squad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYNAMIC_TINYBERT_ISA", "scalar")  # a fused graph rounds elsewhere
    lines: list[str] = []
    report = export_model(
        tiny_checkpoint, tmp_path / "b", calibration_data=squad, validation=squad, num_samples=2, say=lines.append
    )
    steps = report.int8_steps
    settings = [step.setting for step in steps]
    assert [setting.smooth_alpha for setting in settings[: 1 + len(STRENGTHS)]] == [None, *STRENGTHS]
    assert set(OTHER_RANGES) < {setting.ranges for setting in settings}
    assert settings[-1].num_samples == 8  # all windows
    assert sum(line.startswith(("* ", "  0", "  none")) for line in lines) == len(steps)  # the rows of the table
    best = chosen(steps)
    assert best.change.moved <= min(step.change.moved for step in steps) + LEAST_GAIN  # which a step must gain
    assert best.change.f1 is not None  # the validation file has answers

    quantization = open_bundle(tmp_path / "b").quantization
    assert len(quantization["steps"]) == len(steps)
    assert quantization["smooth_alpha"] == best.setting.smooth_alpha
    assert quantization["num_samples"] == best.setting.num_samples

    export_model(tiny_checkpoint, tmp_path / "fp32", precision="fp32")
    questions = [f"what was in {letter} ?" for letter in "abcdefgh"]
    pairs = zip(logits(tmp_path / "b", questions), logits(tmp_path / "fp32", questions), strict=True)
    int8, fp32 = (torch.from_numpy(np.stack(rows)).softmax(-1) for rows in zip(*pairs, strict=True))
    moved = 50 * (int8 - fp32).abs().sum(-1).mean().item()
    assert moved == pytest.approx(best.change.moved, abs=0.02)  # lengths and batches differ from the search's


def test_weights_of_7_bits(tiny_checkpoint: Path, squad: Path, tmp_path: Path) -> None:
    export_model(tiny_checkpoint, tmp_path / "b", calibration_data=squad, num_samples=4, tune=False, weight_bits=7)
    model = ov.Core().read_model(tmp_path / "b/openvino_model.xml")
    encoder = [
        node.get_data()
        for node in model.get_ops()
        if node.get_type_name() == "Constant" and node.get_element_type() == ov.Type.i8
    ]
    encoder = [weights for weights in encoder if weights.shape != (100, 64)]  # the word embeddings
    assert len(encoder) == 18
    assert max(np.abs(weights.astype(int)).max() for weights in encoder) == 63


def test_stock_openvino_runs_the_bundle_without_our_extension(tiny_checkpoint: Path, tmp_path: Path) -> None:
    export_model(tiny_checkpoint, tmp_path / "b", precision="fp32", length_configs=CONFIGS)
    batch = random_batch([40, 21], 100)
    stock = ov.Core().compile_model(tmp_path / "b/openvino_model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(
        dict(batch)
    )
    ours = LengthAdaptiveModel.from_pretrained(tmp_path / "b")(**batch, length_config="full")
    real = batch["attention_mask"] == 1
    np.testing.assert_allclose(stock["start_logits"][real], ours.start_logits[real], atol=1e-5)


@pytest.mark.slow
def test_optimum_intel_loads_the_bundle(int8_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from optimum.intel import OVModelForQuestionAnswering

    monkeypatch.setenv("DYNAMIC_TINYBERT_ISA", "scalar")  # a fused graph rounds elsewhere
    batch = random_batch([48], 100)
    model = OVModelForQuestionAnswering.from_pretrained(int8_bundle, ov_config={"INFERENCE_PRECISION_HINT": "f32"})
    theirs = model(**{name: torch.from_numpy(array) for name, array in batch.items()})
    ours = LengthAdaptiveModel.from_pretrained(int8_bundle, precision="f32")(**batch, length_config="full")
    np.testing.assert_allclose(theirs.start_logits, ours.start_logits, atol=1e-4)
    np.testing.assert_allclose(theirs.end_logits, ours.end_logits, atol=1e-4)


@pytest.mark.slow
def test_our_graph_computes_what_optimum_intels_export_computes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from optimum.intel import OVModelForQuestionAnswering

    export_model(tiny_checkpoint, tmp_path / "b", precision="fp32")
    batch = random_batch([48], 100)
    model = OVModelForQuestionAnswering.from_pretrained(
        tiny_checkpoint, export=True, ov_config={"INFERENCE_PRECISION_HINT": "f32"}
    )
    theirs = model(**{name: torch.from_numpy(array) for name, array in batch.items()})
    ours = LengthAdaptiveModel.from_pretrained(tmp_path / "b", precision="f32")(**batch)
    np.testing.assert_allclose(theirs.start_logits, ours.start_logits, atol=1e-4)


def test_bad_arguments_are_refused_before_anything_is_written(
    tiny_checkpoint: Path, squad: Path, tmp_path: Path
) -> None:
    output = tmp_path / "b"
    with pytest.raises(InvalidInputError, match="calibration data"):
        export_model(tiny_checkpoint, output)
    with pytest.raises(LengthConfigError, match="2 keep ratios"):
        export_model(tiny_checkpoint, output, precision="fp32", length_configs={"short": (1, 0.5)})
    with pytest.raises(InvalidInputError, match="weight_bits"):
        export_model(tiny_checkpoint, output, calibration_data=squad, weight_bits=4)
    with pytest.raises(InvalidInputError, match="num_samples"):
        export_model(tiny_checkpoint, output, calibration_data=squad, num_samples=0)
    with pytest.raises(InvalidInputError, match="precision is 'INT8'"):
        export_model(tiny_checkpoint, output, precision="INT8", calibration_data=squad)
    broken = tmp_path / "broken.json"
    broken.write_text('{"data": []}')
    with pytest.raises(DataError, match=r"broken\.json"):
        export_model(tiny_checkpoint, output, calibration_data=broken)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.json"]


def test_an_existing_bundle_stays_unless_forced(tiny_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "b"
    export_model(tiny_checkpoint, output, precision="fp32")
    with pytest.raises(BundleExistsError, match="--force"):
        export_model(tiny_checkpoint, output, precision="fp32")
    export_model(tiny_checkpoint, output, precision="fp32", length_configs=CONFIGS, force=True)
    assert list(open_bundle(output).length_configs) == ["full", "half", "paper"]


def run_cli(*arguments: object) -> subprocess.Popen[str]:
    program = "import sys; from dynamic_tinybert.runtime.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "export", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_command_line(tiny_checkpoint: Path, squad: Path, tmp_path: Path) -> None:
    options = ("--calibration-data", squad, "--no-tune", "--length-config", "half=1,0.7,0.4")
    process = run_cli(tiny_checkpoint, tmp_path / "b", *options, "--length-config", "paper=300,200,100@384")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "INT8 against FP32" in out
    assert "Done in" in out
    assert list(open_bundle(tmp_path / "b").length_configs) == ["full", "half", "paper"]
    assert not err  # no noise of the libraries below
    refused = run_cli(tiny_checkpoint, tmp_path / "b", *options)
    _, err = refused.communicate()
    assert refused.returncode == 1
    assert "--force" in err


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_export_leaves_nothing(
    tiny_checkpoint: Path, squad: Path, tmp_path: Path, number: int, code: int
) -> None:
    process = run_cli(tiny_checkpoint, tmp_path / "b", "--calibration-data", squad)
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.5)
    os.kill(process.pid, number)
    process.communicate()
    assert process.returncode == code
    assert not list(tmp_path.iterdir())


def test_a_bundle_has_the_scorers_that_its_checkpoint_was_trained_with(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    torch.manual_seed(0)
    scorers = {layer: Scorer(64) for layer in (0, 2)}
    save_scorers(scorers, folder / "significance.safetensors")
    report = export_model(folder, tmp_path / "b", precision="fp32", length_configs={"half": (0.7, 0.7, 0.4)})
    assert report.parity["all scorers"].chosen_from > report.parity["half"].chosen_from / 2 > 0
    bundle = open_bundle(tmp_path / "b")
    assert bundle.significance == "learnt"
    assert bundle.scorers is not None
    for layer, scorer in load_scorers(bundle.scorers).items():
        for name, tensor in scorer.state_dict().items():
            assert torch.equal(tensor, scorers[layer].state_dict()[name])
    assert list(bundle.length_configs) == ["full", "half"]
    own_threshold = LengthConfig((0.7, 0.7, 0.4), (None, 0.5, None))
    with pytest.raises(LengthConfigError, match=r"layers \[1\] have a threshold but no significance scorer"):
        export_model(folder, tmp_path / "c", precision="fp32", length_configs={"half": own_threshold})
    save_scorers({1: Scorer(32)}, folder / "significance.safetensors")
    with pytest.raises(CheckpointError, match="has a scorer of layer 1 for states of 32"):
        export_model(folder, tmp_path / "c", precision="fp32")
    (folder / "significance.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="cannot load the scorers"):
        export_model(folder, tmp_path / "c", precision="fp32")
