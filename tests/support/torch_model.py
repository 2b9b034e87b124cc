"""A PyTorch model with the interface of LengthAdaptiveModel, to test the code that uses one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import pytest

from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.question_answering.task import QuestionAnsweringOutput

if TYPE_CHECKING:
    from transformers import BertForQuestionAnswering, PreTrainedTokenizerFast

Kept = Mapping[int, npt.NDArray[np.int32]]


class TorchModel:
    """Runs a BertForQuestionAnswering; `kept` computes the kept positions of a batch from its attention mask."""

    def __init__(
        self,
        model: BertForQuestionAnswering,
        tokenizer_file: Path,
        kept: Callable[[npt.NDArray[np.int64]], Kept] = lambda mask: {},
    ) -> None:
        self.max_length: int = model.config.max_position_embeddings
        self.tokenizer_file = tokenizer_file
        self.bundle = SimpleNamespace(no_answer_threshold=None, task="question_answering")
        self.inputs: list[dict[str, npt.NDArray[np.int64]]] = []
        self._model = model
        self._kept = kept

    def resolve(self, length_config: object) -> LengthConfig:
        return LengthConfig.full(self._model.config.num_hidden_layers)

    def executed_macs(self, length_config: object, length: int, kept: Sequence[int]) -> int:
        return 1000 * length + sum(kept)

    def __call__(
        self, input_ids: npt.NDArray[np.int64], *, length_config: object, **others: npt.NDArray[np.int64]
    ) -> QuestionAnsweringOutput:
        inputs = {"input_ids": input_ids, **others}
        self.inputs.append(inputs)
        import torch

        with torch.inference_mode():
            output = self._model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        return QuestionAnsweringOutput(
            output.start_logits.numpy(), output.end_logits.numpy(), self._kept(others["attention_mask"])
        )

    def as_model(self) -> LengthAdaptiveModel:
        """Itself, for the type checker."""
        return cast(LengthAdaptiveModel, self)


def load_bert(checkpoint: Path) -> BertForQuestionAnswering:
    """The checkpoint's model in FP32, with eager attention, which is the reference in transformers."""
    torch = pytest.importorskip("torch", reason="PyTorch's model is what is compared with")
    from transformers import BertForQuestionAnswering

    return BertForQuestionAnswering.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")


def transformers_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a ``tokenizer.json`` as transformers uses it."""
    pytest.importorskip("transformers", reason="its tokenizer is what is compared with")
    from transformers import PreTrainedTokenizerFast

    specials = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_file=str(file), **specials)
