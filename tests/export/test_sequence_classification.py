"""BertForSequenceClassification: exported, run with selection, its last layer computed for [CLS] alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification

from dynamic_tinybert.calibration.int8.linears import QuantizedLinear
from dynamic_tinybert.export import export_model
from dynamic_tinybert.export.ir import quantize_rows, write_ir
from dynamic_tinybert.modeling import ReferenceModel, Scorer, save_scorers
from dynamic_tinybert.modeling.checkpoint import load_checkpoint
from dynamic_tinybert.modeling.new_head import NewHead
from dynamic_tinybert.modeling.tasks import model_task
from dynamic_tinybert.runtime import LengthAdaptiveModel, Reranker, TextClassifier
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.common.errors import BundleFormatError, CheckpointError
from dynamic_tinybert.runtime.encoder import extension_library
from dynamic_tinybert.runtime.encoder.graph import with_selection
from dynamic_tinybert.runtime.encoder.named_nodes import NamedNodes
from dynamic_tinybert.runtime.length_config import EncoderShape, LengthConfig, executed_macs
from dynamic_tinybert.runtime.tasks import task_named
from dynamic_tinybert.runtime.tasks.sequence_classification.labels import Labels

from support.classifiers import tiny_classifier
from support.tiny import tiny_tokenizer

NAME, LAYERS, HIDDEN = "sequence_classification", 4, 64
IN_FLOATS = {"INFERENCE_PRECISION_HINT": "f32"}
Batch = dict[str, npt.NDArray[np.int64]]


def classifier(labels: int = 3) -> BertForSequenceClassification:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 100,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
        "num_labels": labels,
        "attn_implementation": "eager",
    }
    model: BertForSequenceClassification = BertForSequenceClassification(BertConfig.from_dict(sizes))
    return cast(BertForSequenceClassification, model.eval())


@pytest.fixture(scope="module")
def model() -> BertForSequenceClassification:
    return classifier()


@pytest.fixture(scope="module")
def scorers() -> dict[int, Scorer]:
    torch.manual_seed(1)
    return {layer: Scorer(HIDDEN) for layer in (0, 2)}


def save(folder: Path, model: BertForSequenceClassification, scorers: Mapping[int, Scorer] | None = None) -> Path:
    model.save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    if scorers:
        save_scorers(scorers, folder / "significance.safetensors")
    return folder


def pairs(lengths: tuple[int, ...] = (60, 31, 7), first: int = 6) -> Batch:
    """Random ids; the first `first` tokens of each row are its first text, all if `first` is 0."""
    columns = np.arange(max(lengths))
    mask = (columns < np.array(lengths)[:, None]).astype(np.int64)
    ids = np.random.default_rng(3).integers(5, 100, mask.shape) * mask
    types = mask * (columns >= first) if first else mask * 0
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def tensors(batch: Batch) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def positions_of(row: npt.NDArray[np.int32], length: int) -> set[int]:
    return set(row[row < length].tolist())


@pytest.mark.parametrize("first", [6, 0], ids=["pairs", "single texts"])
@pytest.mark.parametrize("learnt", [True, False], ids=["learnt", "attention"])
def test_logits_are_those_of_the_reference(
    model: BertForSequenceClassification, scorers: dict[int, Scorer], tmp_path: Path, first: int, learnt: bool
) -> None:
    ratios = LengthConfig((0.8, 0.6, 0.3, 0.1))
    report = export_model(
        save(tmp_path / "c", model, scorers if learnt else None),
        tmp_path / "b",
        precision="fp32",
        length_configs={"half": ratios},
    )
    assert report.parity["half"].chosen_from > 0
    assert open_bundle(tmp_path / "b").task == NAME
    runtime = LengthAdaptiveModel.from_pretrained(tmp_path / "b", precision="f32")
    elastic = LengthAdaptiveModel.from_pretrained(tmp_path / "b", precision="f32", elastic=True)
    batch = pairs(first=first)
    full, half, adapted = (
        runtime(**batch, length_config="full"),
        runtime(**batch, length_config="half"),
        elastic(**batch, length_config="half"),
    )
    with torch.inference_mode():
        plain = model(**tensors(batch)).logits.numpy()
        reference = ReferenceModel(model, "learnt" if learnt else "attention", scorers if learnt else None)
        expected = reference(**tensors(batch), length_config=ratios)
    np.testing.assert_allclose(full.logits, plain, atol=1e-4)
    np.testing.assert_allclose(half.logits, expected.logits.numpy(), atol=1e-4)
    np.testing.assert_allclose(adapted.logits, half.logits, atol=1e-5)
    assert np.abs(half.logits - full.logits).max() > 0.01  # dropping changes the logits
    assert max(half.kept_positions) == LAYERS - 2  # the last layer has none to drop
    length = batch["input_ids"].shape[1]
    for layer, positions in half.kept_positions.items():
        assert (positions[:, 0] == 0).all()  # [CLS]
        for row, own in zip(positions, expected.kept[layer].numpy(), strict=True):
            assert positions_of(row, length) == positions_of(own, length)


def test_cls_stays_however_few_tokens_do(
    model: BertForSequenceClassification, scorers: dict[int, Scorer], tmp_path: Path
) -> None:
    """A ratio leaves room for one token only, or a threshold admits none."""
    thresholds = LengthConfig((1, 1, 1, 1), (0.1, None, 1e6, None))
    batch = pairs(lengths=(60, 50, 40, 30, 20, 10))
    for number, significance in enumerate([scorers, None]):
        bundle = tmp_path / f"b{number}"
        export_model(save(tmp_path / f"c{number}", model, significance), bundle, precision="fp32")
        runtime = LengthAdaptiveModel.from_pretrained(bundle, precision="f32")
        for config in (LengthConfig((0.01,) * LAYERS), *([thresholds] if significance else [])):
            kept = runtime(**batch, length_config=config).kept_positions
            last = kept[max(kept)]
            assert (last[:, 0] == 0).all()
            assert last.shape[1] == 1 or (last[:, 1:] == 60).all()


def test_protected_tokens(model: BertForSequenceClassification) -> None:
    """[CLS] and the last [SEP], and the first text only of a pair; the graph's nodes say the same as PyTorch."""
    graph = write_ir(model)
    wanted = task_named(NAME).protected(NamedNodes(graph))
    compiled = ov.compile_model(ov.Model([wanted], graph.get_parameters()), "CPU")
    types = np.array([[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]])
    mask = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 0, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]])
    expected = [[1, 1, 1, 0, 0, 1], [1, 0, 0, 1, 0, 0], [1, 0, 0, 1, 0, 0], [1, 0, 1, 0, 0, 0]]
    batch = {"input_ids": mask * 7, "attention_mask": mask, "token_type_ids": types}
    assert compiled(batch)[0].tolist() == expected
    assert model_task(NAME).protected(tensors(batch)).int().tolist() == expected


@pytest.mark.parametrize("labels", [1, 2, 5])
def test_int8_last_layer_for_cls_alone_is_exact(labels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits as the graph that computes all tokens in its last layer."""
    model = classifier(labels)
    graph = write_ir(model, quantized(model, smoothed=labels > 1))
    batch = pairs()
    results = []
    for first_token_only in (True, False):
        task = task_named(NAME)
        monkeypatch.setattr(type(task), "first_token_only", first_token_only)
        config = LengthConfig.full(LAYERS)
        fused = with_selection(graph, config, task=task, num_layers=LAYERS, num_heads=4, fused=True)
        types = [node.get_type_name() for node in fused.get_ops()]
        assert types.count("Attention") == first_token_only  # all other layers are joined
        assert types.count("EncoderLayers") == 1
        assert types.count("FakeQuantize") == 0
        results.append(extension_library.core().compile_model(fused, "CPU", IN_FLOATS)(batch)["logits"])
    assert results[0].shape == (3, labels)
    np.testing.assert_array_equal(*results)


def quantized(model: BertForSequenceClassification, *, smoothed: bool) -> dict[str, QuantizedLinear]:
    """The encoder's linear layers in INT8 by hand."""
    linears = {}
    smoothing = np.random.default_rng(0).uniform(0.5, 2, HIDDEN).astype(np.float32) if smoothed else None
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name.startswith("bert.encoder"):
            weight = module.weight.detach().numpy()
            own = smoothing if weight.shape[1] == HIDDEN else None
            table = weight if own is None else weight / own
            linears[name] = QuantizedLinear(*quantize_rows(table), 16 / 255, 128, own)
    return linears


def test_macs_of_the_last_layer_for_one_token() -> None:
    shape, length = EncoderShape(num_layers=6, hidden_size=384, intermediate_size=1536), 160
    every = executed_macs(shape, length, [length] * 6, [None] * 6, {})
    first = executed_macs(shape, length, [length] * 6, [None] * 6, {}, first_token_only=True)
    assert every / first == pytest.approx(7 / 6, rel=0.02)


def test_a_head_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "c", classifier(3))
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"LABEL_2"', '"LABEL_2", "3": "LABEL_3"', 1))
    with pytest.raises(CheckpointError, match="classification head"):
        export_model(folder, tmp_path / "b", precision="fp32")


IDENTITY, TANH = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Tanh"


def describe(folder: Path, **entries: object) -> Path:
    """Put the file of current sentence-transformers beside a checkpoint."""
    others: dict[str, object] = {
        "__version__": {},
        "model_type": "CrossEncoder",
        "prompts": {},
        "default_prompt_name": None,
    }
    (folder / "config_sentence_transformers.json").write_text(json.dumps(others | entries))
    return folder


@pytest.mark.parametrize(
    ("own", "beside", "function"),
    [
        ({}, {"activation_fn": IDENTITY}, "none"),
        ({}, {"activation_fn": "torch.nn.modules.activation.Sigmoid"}, "sigmoid"),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"}, {"activation_fn": IDENTITY},
         "none"),
        ({"sentence_transformers": {"version": "4.1.0", "activation_fn": TANH}}, {"activation_fn": IDENTITY}, "none"),
        ({"sentence_transformers": {"activation_fn": IDENTITY}}, {}, "none"),
        ({}, {"activation_fn": None}, "sigmoid"),
        ({}, {"activation_fn": IDENTITY, "model_type": "SentenceTransformer"}, "sigmoid"),
        ({}, {"activation_fn": IDENTITY, "prompts": {"query": "query: "}}, "none"),
        ({}, {"activation_fn": IDENTITY, "prompts": {"query": ""}, "default_prompt_name": "query"}, "none"),
    ],
)  # fmt: skip
def test_the_activation_of_a_cross_encoder_is_in_the_bundle(
    own: dict[str, object], beside: dict[str, object], function: str, tmp_path: Path
) -> None:
    folder = describe(save(tmp_path / "c", tiny_classifier(1, **own)), **beside)
    config = (folder / "config.json").read_bytes()
    export_model(folder, tmp_path / "b", precision="fp32")
    reranker = Reranker.from_pretrained(tmp_path / "b")
    assert reranker.labels.cross_encoder_function == function
    pairs = [("who was", text) for text in ("the a", "in the b")]
    given = Reranker.from_pretrained(tmp_path / "b", function_to_apply=function)
    np.testing.assert_array_equal(reranker.predict(pairs), given.predict(pairs))
    assert (folder / "config.json").read_bytes() == config
    written = json.loads((tmp_path / "b" / "config.json").read_text())
    named = written.pop("sentence_transformers", {})
    original = json.loads(config)
    kept = original.pop("sentence_transformers", {})
    assert written == original
    assert named == kept | {key: value for key, value in named.items() if key == "activation_fn"}
    load_checkpoint(folder).model.save_pretrained(tmp_path / "trained")  # what a training writes
    assert Labels.in_folder(tmp_path / "trained").cross_encoder_function == function


def test_a_prompt_that_a_bundle_would_leave_out_is_refused(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "find: "}, "default_prompt_name": "query"}
    folder = describe(save(tmp_path / "c", tiny_classifier(1)), **prompts)
    with pytest.raises(
        CheckpointError, match=r"the prompt 'find: ' before each query .*set default_prompt_name to nul"
    ):
        export_model(folder, tmp_path / "b", precision="fp32")
    assert not (tmp_path / "b").exists()
    with_new_head = load_checkpoint(folder, new_head=NewHead.of(NAME))  # the file describes the old one
    assert "sentence_transformers" not in vars(with_new_head.model.config)
    for content, message in (("[", "cannot be read"), ("[]", "list, not an object"), ("", "is empty")):
        (folder / "config_sentence_transformers.json").write_text(content)
        with pytest.raises(CheckpointError, match=f"config_sentence_transformers.json of .*{message}"):
            load_checkpoint(folder)


def test_a_bundle_with_another_activation_is_loaded_where_it_does_not_matter(tmp_path: Path) -> None:
    export_model(
        describe(save(tmp_path / "c", tiny_classifier(1)), activation_fn=TANH), tmp_path / "b", precision="fp32"
    )
    ((found,),) = TextClassifier.from_pretrained(tmp_path / "b").classify_batch("a b")
    assert found["label"] == "LABEL_0"
    assert Reranker.from_pretrained(tmp_path / "b", function_to_apply="none").predict(("a", "b")).shape == ()
    with pytest.raises(BundleFormatError, match=f"the activation '{TANH}' is not known"):
        Reranker.from_pretrained(tmp_path / "b")
