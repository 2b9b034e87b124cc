"""Tiny random models of BertForSequenceClassification, as checkpoints and as bundles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import openvino as ov
import torch
from tokenizers import Tokenizer
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from dynamic_tinybert.export.ir import write_ir
from dynamic_tinybert.modeling import Scorer, save_scorers
from dynamic_tinybert.runtime.bundles.bundle import NamedLengthConfig, write_manifest
from dynamic_tinybert.runtime.length_config import LengthConfig

from support.tiny import tiny_tokenizer

WORDS = ["who", "what", "where", "the", "was", "in", "of", "and", "1", "2", "3", *"abcdefghij"]


def tiny_classifier(labels: int = 3, seed: int = 0, **config: Any) -> BertForSequenceClassification:  # noqa: ANN401
    """A random BertForSequenceClassification, by default 3 layers of 32, in evaluation mode."""
    sizes = {
        "vocab_size": 100,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,
        "num_labels": labels,
        "attn_implementation": "eager",
    }
    torch.manual_seed(seed)
    model: BertForSequenceClassification = BertForSequenceClassification(BertConfig.from_dict({**sizes, **config}))
    return cast(BertForSequenceClassification, model.eval())


def save_classifier(folder: Path, model: BertForSequenceClassification) -> Path:
    """Write the checkpoint of a model, with a tokenizer."""
    model.save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def classifier_bundle(
    folder: Path,
    model: BertForSequenceClassification,
    length_configs: Mapping[str, LengthConfig] | None = None,
    scorers: Mapping[int, Scorer] | None = None,
) -> Path:
    """Write a model as an FP32 bundle, without the checks of an export."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    ov.save_model(write_ir(model), folder / "openvino_model.xml", compress_to_fp16=False)
    if scorers:
        save_scorers(scorers, folder / "significance.safetensors")
    full = LengthConfig.full(model.config.num_hidden_layers)
    write_manifest(
        folder,
        significance="learnt" if scorers else "attention",
        length_configs={name: NamedLengthConfig(c) for name, c in {"full": full, **(length_configs or {})}.items()},
        quantization={"precision": "fp32", "weight_bits": None},
        versions={},
        source={"model": "tiny"},
        task="sequence_classification",
    )
    return folder


def transformers_tokenizer(max_length: int = 128) -> PreTrainedTokenizerFast:
    """The same tokenizer in transformers, with the inputs of BERT."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tiny_tokenizer().to_str()),
        model_max_length=max_length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
    )


def texts(count: int, seed: int = 0, words: tuple[int, int] = (3, 40)) -> list[str]:
    """Random texts of words that the tokenizer knows."""
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(*words))) for _ in range(count)]
