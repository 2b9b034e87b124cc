"""A new head for the encoder of a checkpoint."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification, BertModel

from dynamic_tinybert.modeling.checkpoint import load_checkpoint
from dynamic_tinybert.modeling.new_head import NewHead
from dynamic_tinybert.modeling.tasks.task import encoder_of
from dynamic_tinybert.runtime.common.errors import CheckpointError, InvalidInputError

from support.classifiers import save_classifier, tiny_classifier
from support.tiny import tiny_tokenizer


def test_the_encoder_of_a_reader_becomes_a_reranker(tiny_checkpoint: Path, tmp_path: Path) -> None:
    before = load_checkpoint(tiny_checkpoint)
    torch.manual_seed(3)
    made = load_checkpoint(tiny_checkpoint, new_head=NewHead.of("sequence_classification"))
    assert made.task.name == "sequence_classification"
    assert isinstance(made.model, BertForSequenceClassification)
    assert made.model.config.num_labels == 1
    assert made.model.classifier.weight.shape == (1, 32)
    for name, tensor in encoder_of(before.model).state_dict().items():
        assert torch.equal(encoder_of(made.model).state_dict()[name], tensor), name

    torch.manual_seed(3)
    again = load_checkpoint(tiny_checkpoint, new_head=NewHead.of("sequence_classification"))
    assert torch.equal(again.model.get_parameter("classifier.weight"), made.model.get_parameter("classifier.weight"))
    made.copy_files(tmp_path)
    made.model.save_pretrained(tmp_path)
    saved = load_checkpoint(tmp_path)
    assert saved.task.name == "sequence_classification"
    assert torch.equal(saved.model.get_parameter("classifier.weight"), made.model.get_parameter("classifier.weight"))


def test_an_encoder_without_any_head_keeps_its_pooler(tmp_path: Path) -> None:
    config = tiny_classifier().config
    torch.manual_seed(0)
    encoder = BertModel(BertConfig.from_dict({**config.to_dict(), "id2label": {0: "a", 1: "b", 2: "c"}}))
    encoder.save_pretrained(tmp_path)
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="has no question-answering head"):
        load_checkpoint(tmp_path)
    made = load_checkpoint(tmp_path, new_head=NewHead.of("sequence_classification", ["good", "bad"]))
    assert made.model.config.id2label == {0: "good", 1: "bad"}
    assert made.model.config.label2id == {"good": 0, "bad": 1}
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(encoder_of(made.model).state_dict()[name], tensor), name


def test_what_belonged_to_another_head_is_gone(tmp_path: Path) -> None:
    save_classifier(tmp_path, tiny_classifier(3, problem_type="multi_label_classification"))
    config = json.loads((tmp_path / "config.json").read_text())
    entry = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}
    (tmp_path / "config.json").write_text(json.dumps(config | entry))
    made = load_checkpoint(tmp_path, new_head=NewHead.of("sequence_classification"))
    made.model.save_pretrained(tmp_path / "new")
    written = json.loads((tmp_path / "new" / "config.json").read_text())
    assert written.get("problem_type") is None
    assert written.get("sentence_transformers") is None
    assert written["id2label"] == {"0": "LABEL_0"}
    assert "num_labels" not in written


def test_an_encoder_that_is_not_whole_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    load_checkpoint(tiny_checkpoint).copy_files(tmp_path)
    weights = load_file(tiny_checkpoint / "model.safetensors")
    missing = "bert.encoder.layer.1.output.dense.weight"
    save_file({name: tensor for name, tensor in weights.items() if name != missing}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing .*layer\.1\.output\.dense\.weight"):
        load_checkpoint(tmp_path, new_head=NewHead.of("sequence_classification"))


def test_heads_that_cannot_be() -> None:
    with pytest.raises(InvalidInputError, match="there is no task 'magic'"):
        NewHead.of("magic")
    for labels in (["one"], ["a", "a"], ["a", " "]):
        with pytest.raises(InvalidInputError, match="at least two different names"):
            NewHead.of("sequence_classification", labels)
    with pytest.raises(InvalidInputError, match="question answering has no labels"):
        NewHead.of("question_answering", ["a", "b"])
