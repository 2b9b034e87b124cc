"""A PyTorch model in the place of LengthAdaptiveModel, to test what is built on top of one."""

import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertForQuestionAnswering, PreTrainedTokenizerFast

from dynamic_tinybert.runtime.length_config import LengthConfig
from dynamic_tinybert.runtime.model import LengthAdaptiveModel
from dynamic_tinybert.runtime.tasks.question_answering.task import QuestionAnsweringOutput

torch.set_num_threads(1)  # more threads only get in each other's way on inputs this small

Kept = Mapping[int, npt.NDArray[np.int32]]


class TorchModel:
    """Runs a BertForQuestionAnswering; `kept` makes the kept positions of a batch from its attention mask."""

    def __init__(
        self,
        model: BertForQuestionAnswering,
        tokenizer_file: Path,
        kept: Callable[[npt.NDArray[np.int64]], Kept] = lambda mask: {},
    ) -> None:
        self.max_length: int = model.config.max_position_embeddings
        self.tokenizer_file = tokenizer_file
        self.bundle = SimpleNamespace(no_answer_threshold=None)
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
        with torch.inference_mode():
            output = self._model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        return QuestionAnsweringOutput(
            output.start_logits.numpy(), output.end_logits.numpy(), self._kept(others["attention_mask"])
        )

    def as_model(self) -> LengthAdaptiveModel:
        """Itself, for the type checker."""
        return cast(LengthAdaptiveModel, self)


def load_bert(checkpoint: Path) -> BertForQuestionAnswering:
    """The checkpoint's model in FP32, with the attention that transformers means as the reference."""
    return BertForQuestionAnswering.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")


def transformers_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a ``tokenizer.json`` as transformers uses it."""
    specials = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_file=str(file), **specials)


def letter_tokenizer(folder: Path) -> Path:
    """Write a BERT tokenizer whose pieces are single letters, digits and marks; all else is [UNK]."""
    letters = string.ascii_lowercase + string.digits + "éß日本🙂"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + x for x in letters), *".,?!-'"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.add_special_tokens(pieces[:5])
    file = folder / "tokenizer.json"
    tokenizer.save(str(file))
    return file
