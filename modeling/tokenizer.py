"""Load a checkpoint's tokenizer so that it gives the same tokens as transformers' AutoTokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dynamic_tinybert.runtime.bundles.files import TOKENIZER, VOCABULARY
from dynamic_tinybert.runtime.common.errors import CheckpointError

from .foreign import refuse_placeholder
from .tokenizer_check import first_difference

_SETTINGS = "tokenizer_config.json"
# Options of BERT's normalizer: their names in tokenizer_config.json, and those in tokenizer.json.
_NORMALIZER = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}


class OneTokenType(nn.Embedding):
    """Token types of a model whose tokenizer gives none: all tokens get the embedding of type 0.

    The runtime still feeds such a model types 0 and 1, because it tells the question from the context by them.
    """

    def __init__(self, types: nn.Embedding) -> None:
        """Use the weight [types, H] of another embedding."""
        super().__init__(types.num_embeddings, types.embedding_dim, _weight=types.weight.detach())

    def forward(self, input: Tensor) -> Tensor:
        """Row 0 for each of `input` [...], float32 [..., H]."""
        return super().forward(input * 0)


@dataclass(frozen=True)
class LoadedTokenizer:
    """A tokenizer whose tokens were compared with those of AutoTokenizer.

    Attributes:
        tokenizer: The tokenizer, as the runtime will read it.
        as_filed: Whether it is the checkpoint's tokenizer.json, unchanged.
        token_types: Whether the tokenizer gives types 0 and 1; if not, all are 0.
        notes: Remarks for the user, one line each.
    """

    tokenizer: Tokenizer
    as_filed: bool
    token_types: bool
    notes: tuple[str, ...]


def load_tokenizer(
    source: str, folder: Path, *, vocab_size: int, max_length: int, trust_remote_code: bool
) -> LoadedTokenizer:
    """Load the tokenizer of a checkpoint, with the same tokens as transformers' AutoTokenizer for the folder.

    If tokenizer.json gives other tokens, the explicit settings of tokenizer_config.json for case, accents, Chinese
    characters and added tokens are applied to it, as AutoTokenizer does.

    Args:
        source: Name of the checkpoint in error messages.
        folder: Holds tokenizer.json, vocab.txt or both.
        vocab_size: Size of the model's vocabulary; all its token ids are smaller.
        max_length: Longest input of the model in tokens.
        trust_remote_code: Run the checkpoint's own tokenizer code, if it has any.

    Raises:
        CheckpointError: There is no tokenizer, it cannot be read, the runtime cannot run it, its files contradict
            each other, or it gives ids that the model does not know.
    """
    filed = (folder / TOKENIZER).is_file()
    if not filed and not (folder / VOCABULARY).is_file():  # AutoTokenizer would invent an empty vocabulary
        raise CheckpointError(f"{source} has no tokenizer: neither {TOKENIZER} nor {VOCABULARY}")
    settings = _settings(source, folder)
    for name in (TOKENIZER, VOCABULARY):
        if (folder / name).is_file():
            refuse_placeholder(source, folder / name)
    truth = _auto_tokenizer(source, folder, trust_remote_code, settings)
    token_types = _gives_types(source, truth, settings)
    if filed:
        candidates = _candidates(source, folder, truth, settings, vocab_size)
    else:
        _refuse_unclear_case(source, truth, settings)
        candidates = iter([Tokenizer.from_str(truth.backend_tokenizer.to_str())])
    difference = None
    for number, tokenizer in enumerate(candidates):
        last = max(tokenizer.get_vocab().values(), default=0)
        if last >= vocab_size:
            raise CheckpointError(
                f"the tokenizer of {source} gives token ids up to {last}, but its model knows only "
                f"{vocab_size}; use the tokenizer that the model was trained with"
            )
        found = first_difference(truth, tokenizer, token_types=token_types, vocab_size=vocab_size)
        if found is None:
            as_filed = filed and number == 0
            notes = _notes(truth, max_length, corrected=filed and not as_filed, token_types=token_types)
            return LoadedTokenizer(tokenizer, as_filed, token_types, notes)
        difference = difference or found
    raise CheckpointError(
        f"the tokenizer of {source} is ambiguous: for {difference}; {_advice(truth, settings, filed=filed)}"
    )


def _settings(source: str, folder: Path) -> dict[str, Any]:
    file = folder / _SETTINGS
    if not file.is_file():
        return {}
    refuse_placeholder(source, file)
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{_SETTINGS} of {source} cannot be read: {error}") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{_SETTINGS} of {source} holds {type(settings).__name__}, not a JSON object")
    return settings


def _auto_tokenizer(source: str, folder: Path, trust_remote_code: bool, settings: Mapping[str, Any]) -> Any:  # noqa: ANN401
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except Exception as error:  # tokenizers raises plain Exception
        named = f" ({settings['tokenizer_class']})" if "tokenizer_class" in settings else ""
        raise CheckpointError(
            f"cannot load the tokenizer of {source}{named}: {str(error).strip():.300}; give it "
            f"a valid {TOKENIZER}, or set trust_remote_code if the tokenizer has code of its own"
        ) from error
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise CheckpointError(
            f"the tokenizer of {source} is a {type(tokenizer).__name__}, which runs in Python and cannot be part of a "
            f"bundle; use a tokenizer that the tokenizers library can save as {TOKENIZER}"
        )
    return tokenizer


def _gives_types(source: str, truth: PreTrainedTokenizerFast, settings: Mapping[str, Any]) -> bool:
    """Whether the tokenizer gives type 1 to the context."""
    templated = any(truth("a", "a", return_token_type_ids=True)["token_type_ids"])
    named = "token_type_ids" in truth.model_input_names
    generic = settings.get("tokenizer_class") == "PreTrainedTokenizerFast" and "model_input_names" not in settings
    if templated and generic and not named:
        raise CheckpointError(
            f"the tokenizer of {source} is ambiguous: {TOKENIZER} has token types, but for its tokenizer_class "
            f"PreTrainedTokenizerFast transformers 4 gave them and transformers 5 gives none; set in {_SETTINGS} what "
            'the model was trained with: "model_input_names": ["input_ids", "token_type_ids", "attention_mask"], or '
            'without "token_type_ids"'
        )
    return templated and named


def _candidates(
    source: str,
    folder: Path,
    truth: PreTrainedTokenizerFast,
    settings: Mapping[str, Any],
    vocab_size: int,
) -> Iterator[Tokenizer]:
    """The folder's tokenizer.json, then the same with the explicit settings of tokenizer_config.json."""
    try:
        text = (folder / TOKENIZER).read_text(encoding="utf-8")
        yield Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises plain Exception
        raise CheckpointError(f"cannot load the tokenizer of {source}: {error}; give it a valid {TOKENIZER}") from error
    content = json.loads(text)
    normalizer = content.get("normalizer") or {}
    if normalizer.get("type") == "BertNormalizer":
        normalizer |= {own: settings[name] for name, own in _NORMALIZER.items() if name in settings}
    tokenizer = Tokenizer.from_str(json.dumps(content))
    known = tokenizer.get_added_tokens_decoder()
    for token_id, token in sorted(truth.backend_tokenizer.get_added_tokens_decoder().items()):
        if token_id < vocab_size and known.get(token_id) != token:
            _add(tokenizer, token)
    yield tokenizer


def _add(tokenizer: Tokenizer, token: AddedToken) -> None:
    if token.special:
        tokenizer.add_special_tokens([token])
    else:
        tokenizer.add_tokens([token])


def _refuse_unclear_case(source: str, truth: PreTrainedTokenizerFast, settings: Mapping[str, Any]) -> None:
    """Refuse a vocabulary with capital letters, which the default lower-casing could never produce."""
    if "do_lower_case" in settings or not getattr(truth, "do_lower_case", False):
        return
    vocabulary = truth.get_vocab()
    special = set(truth.all_special_tokens)
    cased = [word for word in vocabulary if word.removeprefix("##").isalpha() and word != word.lower()]
    cased = sorted(word for word in cased if word not in special)
    if 100 * len(cased) > len(vocabulary):
        shown = max(cased, key=len)
        text = shown.removeprefix("##")
        raise CheckpointError(
            f"the tokenizer of {source} is ambiguous: for {text!r} transformers' AutoTokenizer gives "
            f"{truth.tokenize(text)}, because it lower-cases if {_SETTINGS} does not set do_lower_case, but "
            f"{VOCABULARY} has {shown!r} and {len(cased) - 1} other words with capitals; write {_SETTINGS} with "
            '"do_lower_case": false, or true if the model was trained on lower-cased text'
        )


def _advice(truth: PreTrainedTokenizerFast, settings: Mapping[str, Any], *, filed: bool) -> str:
    if "left" in (truth.padding_side, truth.truncation_side):
        return f'padding_side and truncation_side "left" in {_SETTINGS} are not supported; remove them'
    if truth.init_kwargs.get("split_special_tokens"):
        return f"split_special_tokens in {_SETTINGS} is not supported; remove it"
    if filed and "do_lower_case" not in settings:
        return (
            f"make them agree: set do_lower_case in {_SETTINGS} as the model was trained (the default is true), "
            "or save the tokenizer again with save_pretrained"
        )
    return "make them agree: save the tokenizer that the model was trained with again, with save_pretrained"


def _notes(truth: PreTrainedTokenizerFast, max_length: int, *, corrected: bool, token_types: bool) -> tuple[str, ...]:
    notes = []
    if corrected:
        notes.append(f"{TOKENIZER} is corrected by the settings in {_SETTINGS}, as transformers' AutoTokenizer does")
    if not token_types:
        notes.append("The tokenizer gives no token types, so the model receives type 0 for all tokens")
    if truth.model_max_length < min(384, max_length):
        size = truth.model_max_length
        notes.append(
            f"The tokenizer's model_max_length is {size}, and transformers' pipeline cut windows to that length; give "
            f"max_seq_len={size} (--max-seq-len) to do the same here"
        )
    return tuple(notes)
