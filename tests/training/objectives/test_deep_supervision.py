from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.training.objectives.base import TrainingStep
from dynamic_tinybert.training.objectives.deep_supervision import DeepSupervision

from support.classifiers import tiny_classifier
from support.tiny import tiny_bert

STEP = TrainingStep(0, 10, 0)


@pytest.fixture
def batch() -> Mapping[str, Tensor]:
    torch.manual_seed(0)
    ids = torch.randint(5, 20, (6, 9))
    types = torch.zeros_like(ids)
    types[:, 4:] = 1
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": types, "class": labels}


def test_heads_learn_labels_and_the_models_own_answers(batch: Mapping[str, Tensor]) -> None:
    model = tiny_classifier(3).eval()
    objective = DeepSupervision(model).eval()
    losses = objective(batch, STEP)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    outputs = model(**inputs, output_hidden_states=True)
    assert len(objective.early_heads) == model.config.num_hidden_layers - 1
    expected = []
    for layer, head in enumerate(objective.early_heads, 1):
        logits = head(outputs.hidden_states[layer][:, 0])
        expected.append(functional.cross_entropy(logits, batch["class"]))
        expected.append(functional.cross_entropy(logits, outputs.logits.softmax(1)))
    torch.testing.assert_close(losses["early"], torch.stack(expected).mean())
    torch.testing.assert_close(losses["answers"], functional.cross_entropy(outputs.logits, batch["class"]))


def test_the_models_answers_are_no_worse_for_teaching(batch: Mapping[str, Tensor]) -> None:
    model = tiny_classifier(3).eval()
    DeepSupervision(model).eval()(batch, STEP)["early"].backward()
    assert model.classifier.weight.grad is None  # what the heads learn from the last layer does not pull it to them
    first = model.bert.encoder.layer[0].output.dense.weight.grad
    assert first is not None
    assert first.abs().max() > 0


def test_models_without_an_early_exit_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"is for classification and ranking.*question_answering"):
        DeepSupervision(tiny_bert())
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=30)
    with pytest.raises(InvalidInputError, match="at least two layers"):
        DeepSupervision(BertForSequenceClassification(config))
