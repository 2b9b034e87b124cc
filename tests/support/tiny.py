"""Tiny random models built in code, for tests in which the weights do not matter."""

from collections.abc import Mapping
from pathlib import Path

import openvino as ov
import torch
from tokenizers import Tokenizer
from tokenizers.implementations import BertWordPieceTokenizer
from transformers import BertConfig, BertForQuestionAnswering

from dynamic_tinybert.export.ir import write_ir
from dynamic_tinybert.modeling import Scorer, save_scorers
from dynamic_tinybert.runtime.bundles.bundle import NamedLengthConfig, write_manifest
from dynamic_tinybert.runtime.length_config import LengthConfig


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
    torch.manual_seed(seed)
    model = BertForQuestionAnswering(BertConfig.from_dict({**config, "attn_implementation": "eager"}))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:  # else all 0 or all 1, and nobody would see them swapped
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


def write_tiny_bundle(
    folder: Path,
    model: BertForQuestionAnswering,
    length_configs: Mapping[str, LengthConfig] | None = None,
    scorers: Mapping[int, Scorer] | None = None,
) -> Path:
    """Write a model as an FP32 bundle, without the checks of an export."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(model.config.to_json_string())
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    ov.save_model(write_ir(model), folder / "openvino_model.xml", compress_to_fp16=False)
    if scorers is not None:
        save_scorers(scorers, folder / "significance.safetensors")
    configs = {"full": LengthConfig.full(model.config.num_hidden_layers), **(length_configs or {})}
    write_manifest(
        folder,
        significance="attention" if scorers is None else "learnt",
        length_configs={name: NamedLengthConfig(c) for name, c in configs.items()},
        quantization={"precision": "fp32", "weight_bits": None},
        versions={},
        source={"model": "tiny"},
    )
    return folder
