"""Tiny random models built in code, for tests in which the weights do not matter.

Tests of the runtime also run without PyTorch: `tiny_bundle` does not need it, and helpers that need it skip the test.
"""

from __future__ import annotations

import shutil
import string
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import openvino as ov
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers.implementations import BertWordPieceTokenizer

from dynamic_tinybert.runtime.bundles.bundle import NamedLengthConfig, write_manifest
from dynamic_tinybert.runtime.length_config import LengthConfig

if TYPE_CHECKING:
    from transformers import BertForQuestionAnswering

    from dynamic_tinybert.modeling import Scorer

TINY_BUNDLE = Path(__file__).parents[1] / "data" / "tiny_bundle"
"""config.json and graph of `tiny_bert()`, written by `python tests/support/store_tiny_bundle.py`."""


def tiny_bert(seed: int = 0, **sizes: int) -> BertForQuestionAnswering:
    """A random BertForQuestionAnswering, by default 3 layers of 32 with 4 heads, in evaluation mode."""
    defaults = {
        "vocab_size": 100,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
    }
    # a larger range than BERT's own makes attention, and so significance, differ between tokens
    return random_bert({**defaults, **sizes, "initializer_range": 0.2}, seed)


def random_bert(config: Mapping[str, object], seed: int = 0) -> BertForQuestionAnswering:
    """A random BertForQuestionAnswering with these entries of a config.json, in evaluation mode."""
    torch = pytest.importorskip("torch", reason="random models are made by PyTorch")
    from transformers import BertConfig, BertForQuestionAnswering

    torch.manual_seed(seed)
    model = BertForQuestionAnswering(BertConfig.from_dict({**config, "attn_implementation": "eager"}))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:  # all 0 or all 1 otherwise, so that a test would not notice if two were swapped
            torch.nn.init.normal_(parameter, mean=float(name.endswith("LayerNorm.weight")), std=0.1)
    model.eval()
    return model


def tiny_tokenizer() -> Tokenizer:
    """A WordPiece tokenizer of 100 tokens: BERT's special ones, letters and a few words."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = ["who", "what", "where", "the", "was", "in", "of", "and", ".", ",", "?", "1", "2", "3"]
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{c}" for c in letters),
        *words,
    ]
    return BertWordPieceTokenizer({token: i for i, token in enumerate(vocabulary)}, lowercase=True)


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


def tiny_bundle(folder: Path, length_configs: Mapping[str, LengthConfig] | None = None) -> Path:
    """Write the bundle of `tiny_bert()` in FP32 with attention significance, from a stored graph, so without PyTorch.

    If the folder has a tokenizer already, it is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in TINY_BUNDLE.iterdir():
        shutil.copyfile(file, folder / file.name)
    _write_rest(folder, "attention", {"full": LengthConfig.full(3), **(length_configs or {})})
    return folder


def write_tiny_bundle(
    folder: Path,
    model: BertForQuestionAnswering,
    length_configs: Mapping[str, LengthConfig] | None = None,
    scorers: Mapping[int, Scorer] | None = None,
) -> Path:
    """Write a model as an FP32 bundle, without the checks of an export."""
    from dynamic_tinybert.export.ir import write_ir
    from dynamic_tinybert.modeling import save_scorers

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(model.config.to_json_string())
    ov.save_model(write_ir(model), folder / "openvino_model.xml", compress_to_fp16=False)
    if scorers is not None:
        save_scorers(scorers, folder / "significance.safetensors")
    configs = {"full": LengthConfig.full(model.config.num_hidden_layers), **(length_configs or {})}
    _write_rest(folder, "attention" if scorers is None else "learnt", configs)
    return folder


def _write_rest(folder: Path, significance: str, configs: Mapping[str, LengthConfig]) -> None:
    if not (folder / "tokenizer.json").exists():
        tiny_tokenizer().save(str(folder / "tokenizer.json"))
    write_manifest(
        folder,
        significance=significance,
        length_configs={name: NamedLengthConfig(c) for name, c in configs.items()},
        quantization={"precision": "fp32", "weight_bits": None},
        versions={},
        source={"model": "tiny"},
    )
