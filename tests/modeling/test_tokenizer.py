"""The bundle feeds what the checkpoint's tokenizer gives: right, or refused with the first text that differs."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, BertForQuestionAnswering

from dynamic_tinybert.export import export_model
from dynamic_tinybert.modeling.checkpoint import load_checkpoint
from dynamic_tinybert.modeling.scorer import Scorer, save_scorers
from dynamic_tinybert.runtime import LengthAdaptiveModel
from dynamic_tinybert.runtime.batches import stack
from dynamic_tinybert.runtime.common.errors import CheckpointError
from dynamic_tinybert.runtime.tasks.windows import WindowTokenizer

from support.tiny import tiny_bert

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [chr(c) for c in range(ord("a"), ord("z") + 1)]
WORDS = [
    "who",
    "opened",
    "the",
    "bridge",
    "in",
    "was",
    "by",
    "ida",
    "kroll",
    "é",
    "e",
    "cafe",
    "café",
    "中",
    "国",
    "中国",
]
UNCASED = [*SPECIAL, *LETTERS, *(f"##{c}" for c in LETTERS), *WORDS, *".,?'[]-", "1", "##9", "##3", "##1"]
CASED = [*UNCASED, "Who", "Ida", "Kroll", "The", *(c.upper() for c in LETTERS), "É"]
QUESTION = "Who opened the Café in 中国?"
CONTEXT = "The bridge was opened by Ida Kroll in 1931, é e\u0301 [SEP] 中国 [MASK] x. " * 4


def tokenizer_json(
    vocabulary: list[str], cls: str = "[CLS]", sep: str = "[SEP]", second: int = 1, **normal: bool | None
) -> str:
    ids = {word: i for i, word in enumerate(dict.fromkeys(vocabulary))}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    options = {"lowercase": True, "strip_accents": None, "handle_chinese_chars": True, "clean_text": True, **normal}
    tokenizer.normalizer = normalizers.BertNormalizer(**options)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:{second} {sep}:{second}",
        special_tokens=[(cls, ids[cls]), (sep, ids[sep])],
    )
    tokenizer.add_special_tokens([token for token in (*SPECIAL, cls, sep) if token in ids])
    text: str = tokenizer.to_str()
    return text


def checkpoint(
    folder: Path,
    tokenizer: str | None,
    settings: dict[str, Any] | None = None,
    vocab: list[str] | None = None,
    **sizes: int,
) -> Path:
    tiny_bert(**{"vocab_size": 150, **sizes}).save_pretrained(folder)
    if tokenizer is not None:
        (folder / "tokenizer.json").write_text(tokenizer)
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if vocab is not None:
        (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(vocab)))
    return folder


def fed(folder: Path, tmp_path: Path) -> dict[str, Any]:
    """What a bundle's runtime feeds, written as the export writes it."""
    output = tmp_path / "output"
    output.mkdir()
    load_checkpoint(folder).copy_files(output)
    (window,) = WindowTokenizer(output / "tokenizer.json")(QUESTION, CONTEXT, max_seq_len=512, doc_stride=0)
    return {"ids": stack([window])["input_ids"][0].tolist(), "offsets": window.encoding.offsets}


def assert_feeds_what_transformers_does(folder: Path, tmp_path: Path) -> None:
    truth = AutoTokenizer.from_pretrained(folder)
    expected = truth(QUESTION, CONTEXT, return_offsets_mapping=True)
    given = fed(folder, tmp_path)
    assert given["ids"] == expected["input_ids"]
    assert given["offsets"] == expected["offset_mapping"]


UNCASED_JSON = tokenizer_json(UNCASED)
BERT = {"tokenizer_class": "BertTokenizer"}


@pytest.mark.parametrize(
    ("tokenizer", "settings", "vocab", "corrected"),
    [
        (UNCASED_JSON, None, None, False),
        (UNCASED_JSON, BERT, UNCASED, False),
        (tokenizer_json(CASED, lowercase=False), {"do_lower_case": False}, None, False),
        (tokenizer_json(CASED), {"do_lower_case": False}, CASED, True),
        (tokenizer_json(CASED, lowercase=False), {"do_lower_case": True}, None, True),
        (UNCASED_JSON, {"strip_accents": False}, None, True),
        (tokenizer_json(UNCASED, strip_accents=True), {"strip_accents": True}, None, False),
        (UNCASED_JSON, {"tokenize_chinese_chars": False}, None, True),
        (tokenizer_json(CASED), {"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast",
                                 "model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}, None, False),
        (tokenizer_json([*UNCASED, "<s>", "</s>"], "<s>", "</s>"), {"cls_token": "<s>", "sep_token": "</s>"},
         None, False),
        (UNCASED_JSON, {"additional_special_tokens": ["Kroll"]}, None, True),
        (tokenizer_json([*UNCASED[1:], "[PAD]"]), BERT, None, False),  # the id of [PAD] is not 0
        (UNCASED_JSON, {"pad_token": "a"}, None, True),
        (None, None, UNCASED, True),
        (None, {"do_lower_case": False}, CASED, True),
        (None, {"do_lower_case": True}, CASED, True),
        (None, {"strip_accents": False}, UNCASED, True),
    ],
)  # fmt: skip
def test_a_bundle_feeds_what_transformers_does(
    tmp_path: Path, tokenizer: str | None, settings: dict[str, Any] | None, vocab: list[str] | None, corrected: bool
) -> None:
    folder = checkpoint(tmp_path / "checkpoint", tokenizer, settings, vocab)
    assert_feeds_what_transformers_does(folder, tmp_path)
    written = (tmp_path / "output/tokenizer.json").read_text(encoding="utf-8")
    assert (written != tokenizer) == corrected
    # Other libraries that load the bundle's tokenizer are given the same.
    (tmp_path / "output/config.json").write_bytes((folder / "config.json").read_bytes())
    again = AutoTokenizer.from_pretrained(tmp_path / "output")
    assert (
        again(QUESTION, CONTEXT)["input_ids"] == AutoTokenizer.from_pretrained(folder)(QUESTION, CONTEXT)["input_ids"]
    )


def with_own_pre_tokenizer() -> str:
    tokenizer = Tokenizer.from_str(UNCASED_JSON)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return str(tokenizer.to_str())


CASES: dict[str, tuple[Any, Any, Any, str]] = {
    "cased tokenizer.json, unsaid": (
        tokenizer_json(CASED, lowercase=False), None, None,
        r"for 'Who opened the Harbour.*' transformers' AutoTokenizer gives \['\[CLS\]', 'who', .*, and tokenizer\.json "
        r"by itself \['\[CLS\]', 'Who', .*set do_lower_case",
    ),
    "cased vocab.txt alone": (
        None, None, CASED,
        r"for 'Kroll' transformers' AutoTokenizer gives \['kroll'\], .* vocab\.txt has 'Kroll' and \d+ .*do_lower_case",
    ),
    "own pre-tokenizer": (with_own_pre_tokenizer(), BERT, None, r"AutoTokenizer gives .*'\?'.*make them agree"),
    "other special tokens": (
        tokenizer_json([*UNCASED, "<s>", "</s>"]), {"cls_token": "<s>", "sep_token": "</s>"}, None,
        r"AutoTokenizer gives \['<s>', .* by itself \['\[CLS\]'",
    ),
    "truncation from the left": (UNCASED_JSON, {"truncation_side": "left"}, None, r'"left" in .* are not supported'),
    "padding on the left": (UNCASED_JSON, {"padding_side": "left"}, None, r'"left" in .* are not supported'),
    "special tokens split": (
        UNCASED_JSON, {"split_special_tokens": True}, None,
        r"for 'the \[\w+\]is \[\w+\] x\[\w+\]' .*split_special_tokens in tokenizer_config\.json is not supported",
    ),
    "types that changed with transformers 5": (
        UNCASED_JSON, {"tokenizer_class": "PreTrainedTokenizerFast"}, None,
        r'transformers 5 gives none.*"model_input_names"',
    ),
    "a tokenizer in Python": (
        None, {"tokenizer_class": "BertJapaneseTokenizer"}, UNCASED, "is a BertJapaneseTokenizer, which runs in Python",
    ),
    "settings that are no object": (UNCASED_JSON, [], None, r"tokenizer_config\.json of .* holds list"),
    "an unknown class with a vocabulary": (
        None, {"tokenizer_class": "PreTrainedTokenizerFast"}, UNCASED,
        r"\(PreTrainedTokenizerFast\).*give it a valid tok",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_tokenizer_that_contradicts_itself_is_refused(tmp_path: Path, name: str) -> None:
    tokenizer, settings, vocab, message = CASES[name]
    folder = checkpoint(tmp_path, tokenizer, settings, vocab)
    with pytest.raises(CheckpointError, match=f"(?s){message}") as caught:
        load_checkpoint(folder)
    assert str(folder) in str(caught.value)


def test_an_added_token_beyond_the_embeddings_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_str(UNCASED_JSON)
    tokenizer.add_tokens([AddedToken("velmora")])
    folder = checkpoint(tmp_path, tokenizer.to_str(), vocab_size=len(set(UNCASED)))
    with pytest.raises(CheckpointError, match=rf"token ids up to {len(set(UNCASED))}, but its model knows only"):
        load_checkpoint(folder)


def no_names(settings: dict[str, Any]) -> str:
    settings["model_input_names"] = ["input_ids", "attention_mask"]
    return UNCASED_JSON


def distilbert(settings: dict[str, Any]) -> str:
    settings["tokenizer_class"] = "DistilBertTokenizer"
    return UNCASED_JSON


def roberta(settings: dict[str, Any]) -> str:
    settings["tokenizer_class"] = "RobertaTokenizer"
    tokenizer = Tokenizer.from_str(tokenizer_json([*UNCASED, "<s>", "</s>"]))
    ids = ((token, tokenizer.token_to_id(token)) for token in ("</s>", "<s>"))
    tokenizer.post_processor = processors.RobertaProcessing(*ids, trim_offsets=False, add_prefix_space=False)
    return str(tokenizer.to_str())


def types_of_zero(settings: dict[str, Any]) -> str:
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    return tokenizer_json(UNCASED, second=0)


@pytest.mark.parametrize("make", [no_names, distilbert, roberta, types_of_zero])
def test_a_tokenizer_without_token_types_feeds_type_0(tmp_path: Path, make: Callable[[dict[str, Any]], str]) -> None:
    settings: dict[str, Any] = {}
    folder = checkpoint(tmp_path / "checkpoint", make(settings), settings)
    torch.manual_seed(1)
    save_scorers({0: Scorer(32), 2: Scorer(32)}, folder / "significance.safetensors")
    said: list[str] = []
    export_model(
        folder, tmp_path / "bundle", precision="fp32", length_configs={"half": (0.6, 0.6, 0.5)}, say=said.append
    )
    assert any("no token types" in line for line in said)
    encoded = AutoTokenizer.from_pretrained(folder)(QUESTION, CONTEXT, return_tensors="pt")
    assert not encoded.get("token_type_ids", torch.zeros(1)).any()
    with torch.inference_mode():
        expected = BertForQuestionAnswering.from_pretrained(folder).eval()(**encoded)
    model = LengthAdaptiveModel.from_pretrained(tmp_path / "bundle", precision="f32")
    (window,) = WindowTokenizer(tmp_path / "bundle/tokenizer.json")(QUESTION, CONTEXT, max_seq_len=128, doc_stride=0)
    batch = stack([window])
    assert batch["input_ids"].tolist() == encoded["input_ids"].tolist()
    for inputs in (batch, {**batch, "token_type_ids": np.zeros_like(batch["input_ids"])}):
        given = model(**inputs, length_config="full")
        np.testing.assert_allclose(given.start_logits, expected.start_logits, atol=1e-5)
        np.testing.assert_allclose(given.end_logits, expected.end_logits, atol=1e-5)
    # The question is known all the same: all of it goes on, and tokens of the context do not.
    kept = set(model(**batch, length_config="half").kept_positions[2][0].tolist())
    assert set(range(window.context.start)) < kept
    assert len(kept) < len(window)


def test_a_model_without_token_types_is_trained_without(tmp_path: Path) -> None:
    settings: dict[str, Any] = {}
    model = load_checkpoint(checkpoint(tmp_path, no_names(settings), settings)).model
    assert isinstance(model, BertForQuestionAnswering)
    ids = torch.tensor([[2, 5, 6, 3, 7, 8, 3]])
    types = torch.tensor([[0, 0, 0, 0, 1, 1, 1]])
    before = model.bert.embeddings.token_type_embeddings.weight.clone()
    model(ids, token_type_ids=types).start_logits.sum().backward()
    gradient = model.bert.embeddings.token_type_embeddings.weight.grad
    assert gradient is not None
    assert gradient[0].any()
    assert not gradient[1:].any()
    assert torch.equal(model(ids, token_type_ids=types).start_logits, model(ids).start_logits)
    assert model.state_dict()["bert.embeddings.token_type_embeddings.weight"].equal(before)


def test_a_short_model_max_length_is_said(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "short", UNCASED_JSON, {"model_max_length": 64})
    assert any("model_max_length is 64" in note for note in load_checkpoint(folder).notes)
    assert not load_checkpoint(checkpoint(tmp_path / "long", UNCASED_JSON, {"model_max_length": 512})).notes


def test_the_real_checkpoint_is_as_filed(checkpoint: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    assert loaded.tokenizer_as_filed
    assert not loaded.notes


def test_what_the_error_shows_is_what_both_give(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, tokenizer_json(CASED, lowercase=False))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    text = re.search(r"for '(.*?)' transformers", str(caught.value))
    assert text is not None
    theirs = AutoTokenizer.from_pretrained(folder).tokenize(text[1])
    ours = Tokenizer.from_str((folder / "tokenizer.json").read_text()).encode(text[1], add_special_tokens=False).tokens
    assert theirs != ours
    for tokens in (theirs, ours):
        assert ", ".join(map(repr, tokens)) in str(caught.value)
