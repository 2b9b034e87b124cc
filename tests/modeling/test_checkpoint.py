import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import BertForQuestionAnswering, BertTokenizer

from dynamic_tinybert.modeling.checkpoint import load_checkpoint
from dynamic_tinybert.runtime.common.errors import CheckpointError, StorageError

from support.hub_server import serve_hub
from support.tiny import tiny_bert

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "who", "wrote", "it", "ada", "##s", "?")


def save(folder: Path, **sizes: int) -> Path:
    """Write a random question-answering checkpoint with its tokenizer."""
    tiny_bert(**{"vocab_size": len(WORDS), **sizes}).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizer({word: i for i, word in enumerate(WORDS)}).save_pretrained(folder)
    assert (folder / "tokenizer.json").is_file()
    return folder


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def logits(model: BertForQuestionAnswering) -> torch.Tensor:
    with torch.no_grad():
        start_logits: torch.Tensor = model(torch.tensor([[2, 5, 6, 7, 3, 8, 3]])).start_logits
    return start_logits


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("offline")
def test_a_local_folder_gives_model_tokenizer_and_files_without_network(tmp_path: Path) -> None:
    folder = save(tmp_path / "checkpoint")
    checkpoint = load_checkpoint(folder)
    plain = BertForQuestionAnswering.from_pretrained(folder)
    torch.testing.assert_close(logits(checkpoint.model), logits(plain))
    assert not checkpoint.model.training
    assert checkpoint.model.dtype == torch.float32
    assert checkpoint.model.config._attn_implementation == "eager"
    assert checkpoint.tokenizer.encode("who wrote it?").tokens[1:-1] == ["who", "wrote", "it", "?"]
    assert (checkpoint.folder, checkpoint.source, checkpoint.commit) == (folder, str(folder), None)


@pytest.mark.parametrize(("layers", "hidden", "heads"), [(1, 4, 1), (4, 12, 3), (6, 24, 12)])
def test_any_depth_and_width_loads(tmp_path: Path, layers: int, hidden: int, heads: int) -> None:
    save(tmp_path, num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads)
    model = load_checkpoint(tmp_path).model
    assert isinstance(model, BertForQuestionAnswering)
    assert (len(model.bert.encoder.layer), model.qa_outputs.in_features) == (layers, hidden)


def test_half_precision_pickles_with_the_extra_keys_of_tinybert_load(tmp_path: Path) -> None:
    weights = save(tmp_path) / "model.safetensors"
    half = {name: tensor.half() for name, tensor in load_file(weights).items()}
    extra = {"bert.pooler.dense.weight": torch.zeros(32, 32), "fit_dense.weight": torch.zeros(64, 32)}
    torch.save({**half, **extra}, tmp_path / "pytorch_model.bin")
    weights.unlink()
    edit_config(tmp_path, cell={}, emb_size=312, structure=[], pre_trained="", training="", architectures=None)
    loaded = load_checkpoint(str(tmp_path)).model.state_dict()
    assert loaded.keys() == half.keys()
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in half.items())


def test_files_are_copied_byte_for_byte(tmp_path: Path) -> None:
    folder, output = save(tmp_path / "checkpoint"), tmp_path / "output"
    (folder / "config.json").write_text((folder / "config.json").read_text().replace("\n", "\r\n"))
    output.mkdir()
    load_checkpoint(folder).copy_files(output)
    assert sorted(f.name for f in output.iterdir()) == [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    assert all(f.read_bytes() == (folder / f.name).read_bytes() for f in output.iterdir())
    with pytest.raises(StorageError, match="nowhere"):
        load_checkpoint(folder).copy_files(tmp_path / "nowhere")


def test_a_missing_tokenizer_json_is_built_from_the_vocabulary(tmp_path: Path) -> None:
    folder, output = save(tmp_path / "checkpoint"), tmp_path / "output"
    original = Tokenizer.from_file(str(folder / "tokenizer.json"))
    (folder / "tokenizer.json").unlink()
    output.mkdir()
    load_checkpoint(folder).copy_files(output)
    rebuilt = Tokenizer.from_file(str(output / "tokenizer.json"))
    text, pair = "Who WROTE its?", "Ada"
    assert rebuilt.encode(text, pair).ids == original.encode(text, pair).ids
    assert not (folder / "tokenizer.json").exists()


def test_tokenizer_code_of_a_checkpoint_runs_only_when_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = save(tmp_path / "checkpoint")
    (folder / "tokenizer.json").unlink()
    own = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "tokenization_own.OwnTokenizer"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    (folder / "tokenization_own.py").write_text(
        "from transformers import BertTokenizer\n"
        "class OwnTokenizer(BertTokenizer):\n"
        "    def __init__(self, *args, **kwargs):\n"
        "        super().__init__(*args, **{**kwargs, 'do_lower_case': False})\n"
    )
    with pytest.raises(CheckpointError, match="trust_remote_code"):
        load_checkpoint(folder)
    tokenizer = load_checkpoint(folder, trust_remote_code=True).tokenizer
    assert tokenizer.encode("who WHO").tokens == ["[CLS]", "who", "[UNK]", "[SEP]"]


def distilbert(folder: Path) -> None:
    edit_config(save(folder), model_type="distilbert", architectures=["DistilBertForQuestionAnswering"])


def without_head_in_name(folder: Path) -> None:
    without_head_in_weights(folder)
    edit_config(folder, architectures=["BertForMaskedLM"])


def without_head_in_weights(folder: Path) -> None:
    weights = save(folder) / "model.safetensors"
    plain = {name: tensor for name, tensor in load_file(weights).items() if not name.startswith("qa_outputs")}
    save_file(plain, weights, {"format": "pt"})


def three_outputs(folder: Path) -> None:
    save(folder, num_labels=3)


def fewer_layers_than_config(folder: Path) -> None:
    edit_config(save(folder), num_hidden_layers=4)


def more_layers_than_config(folder: Path) -> None:
    edit_config(save(folder), num_hidden_layers=2)


def other_width(folder: Path) -> None:
    edit_config(save(folder), hidden_size=16)


def truncated_weights(folder: Path) -> None:
    weights = save(folder) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def no_weights(folder: Path) -> None:
    (save(folder) / "model.safetensors").unlink()


def no_config(folder: Path) -> None:
    (save(folder) / "config.json").unlink()


def broken_config(folder: Path) -> None:
    (save(folder) / "config.json").write_text("{")


def deep_config(folder: Path) -> None:
    (save(folder) / "config.json").write_text("[" * 100_000)


def one_token_type(folder: Path) -> None:
    save(folder, type_vocab_size=1)


def no_tokenizer(folder: Path) -> None:
    save(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").unlink()


def broken_tokenizer(folder: Path) -> None:
    (save(folder) / "tokenizer.json").write_text("{}")


def larger_vocabulary(folder: Path) -> None:
    save(folder, vocab_size=len(WORDS) - 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (distilbert, r"DistilBertForQuestionAnswering\) has model_type 'distilbert'.*supported are BertFor"),
        (without_head_in_name, "is a BertForMaskedLM and has no question-answering head"),
        (without_head_in_weights, "no question-answering head of two outputs"),
        (three_outputs, "no question-answering head of two outputs"),
        (fewer_layers_than_config, r"do not fit its config.json: missing \['bert.encoder.layer.3"),
        (more_layers_than_config, r"do not fit its config.json: .* unknown \['bert.encoder.layer.2"),
        (other_width, r"do not fit its config.json: bert\.\S+ is \[.*\], and should be \["),
        (truncated_weights, r"model\.safetensors of .* is truncated or damaged \(\d+ bytes\)"),
        (no_weights, r"has no weights, neither model\.safetensors nor pytorch_model\.bin"),
        (no_config, r"no readable config\.json"),
        (broken_config, r"no readable config\.json"),
        (deep_config, r"no readable config\.json"),
        (one_token_type, "type_vocab_size 1, and 2 are needed"),
        (no_tokenizer, r"neither tokenizer\.json nor vocab\.txt"),
        (broken_tokenizer, "cannot load the tokenizer"),
        (larger_vocabulary, "token ids up to 10, but its model knows only 10"),
    ],
)
def test_a_checkpoint_that_cannot_be_exported_is_refused(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    make(tmp_path)
    with pytest.raises(CheckpointError, match=f"(?s){message}") as caught:
        load_checkpoint(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "roberta"),
        ("hidden_act", "relu"),
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
        ("add_cross_attention", True),
    ],
)
def test_what_the_graph_would_not_compute_is_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    edit_config(save(tmp_path), **{key: value})
    with pytest.raises(CheckpointError, match=f"{key} {value!r}, and only .* is supported"):
        load_checkpoint(tmp_path)


@pytest.mark.usefixtures("offline")
def test_a_missing_folder_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no folder"):
        load_checkpoint(tmp_path / "nothing")
    for text in ("", str(tmp_path / "nothing")):
        with pytest.raises(CheckpointError, match="not a local folder"):
            load_checkpoint(text)


CLIENT = """
import json, sys
from dynamic_tinybert.modeling.checkpoint import load_checkpoint
from dynamic_tinybert.runtime.common.errors import DynamicTinyBertError
for source, options in json.loads(sys.argv[1]):
    try:
        checkpoint = load_checkpoint(source, **options)
        answer = {"commit": checkpoint.commit, "weight": checkpoint.model.qa_outputs.weight.sum().item()}
    except DynamicTinyBertError as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print("ANSWER", json.dumps(answer))
"""
Call = tuple[str, dict[str, object]]


def ask(*calls: Call, **environment: str) -> list[dict[str, object]]:
    """Load checkpoints in a process of its own, for huggingface_hub reads its environment when imported."""
    cleared = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
    command = [sys.executable, "-c", CLIENT, json.dumps(calls)]
    done = subprocess.run(command, env=cleared | environment, stdout=subprocess.PIPE, text=True, check=True)
    lines = done.stdout.splitlines()
    return [json.loads(line.removeprefix("ANSWER ")) for line in lines if line.startswith("ANSWER ")]


@pytest.mark.slow
def test_the_hub_is_used_through_its_environment_variables(tmp_path: Path) -> None:
    root, home = tmp_path / "hub", str(tmp_path / "home")
    public, private, foreign = (save(root / "ada" / name) for name in ("public", "private", "foreign"))
    model = BertForQuestionAnswering.from_pretrained(public)
    for folder in (public, private):
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (private / "model.safetensors").unlink()
    edit_config(foreign, model_type="roberta", architectures=["RobertaForQuestionAnswering"])
    (tmp_path / "file").touch()
    with serve_hub(root) as hub:
        hub.tokens["ada/private"] = "secret"
        commit = hub.commit("ada/public")
        loaded, cached, unlocked, locked, missing, no_revision, unsupported, uncached, no_token, unstored = ask(
            ("ada/public", {}),
            ("ada/public", {"revision": commit, "local_files_only": True}),
            ("ada/private", {"token": "secret", "cache_dir": str(tmp_path / "cache")}),
            ("ada/private", {}),
            ("ada/nothing", {}),
            ("ada/public", {"revision": "v2"}),
            ("ada/foreign", {}),
            ("ada/public", {"local_files_only": True, "cache_dir": str(tmp_path / "empty")}),
            ("ada/public", {"token": True}),
            ("ada/public", {"cache_dir": str(tmp_path / "file")}),
            HF_ENDPOINT=hub.endpoint,
            HF_HOME=home,
        )
        fetched = {request.removeprefix("GET /ada/") for request in hub.requests if "/resolve/" in request}
        hub.requests.clear()
        offline, never_seen = ask(
            ("ada/public", {}),
            ("ada/nothing", {}),
            HF_HUB_OFFLINE="1",
            HF_ENDPOINT=hub.endpoint,
            HF_HOME=home,
        )
        assert hub.requests == []
        weight = model.qa_outputs.weight.sum().item()
        assert loaded == cached == offline == {"commit": commit, "weight": weight}
        assert unlocked == {"commit": hub.commit("ada/private"), "weight": weight}
    assert (tmp_path / "cache" / "models--ada--private").is_dir()
    for answer, message in [
        (locked, "Repository Not Found"),
        (missing, "Repository Not Found"),
        (no_revision, "'ada/public' (revision v2)"),
        (unsupported, "RobertaForQuestionAnswering) has model_type 'roberta'"),
        (uncached, "outgoing traffic has been disabled"),
        (never_seen, "HF_HUB_OFFLINE"),
        (no_token, "no token found"),
    ]:
        assert str(answer["error"]).startswith("CheckpointError")
        assert message in str(answer["error"])
    assert "StorageError: ada/public could not be stored in the Hub's cache" in str(unstored["error"])
    # Of two formats only one is fetched, and nothing large of what is not supported.
    assert f"public/resolve/{commit}/model.safetensors" in fetched
    assert not any(name.startswith("public") and name.endswith(".bin") for name in fetched)
    assert not any(name.startswith("foreign") and name.endswith(".safetensors") for name in fetched)


def test_a_repository_that_is_no_question_answering_model_is_refused_before_its_weights_are_fetched(
    tmp_path: Path,
) -> None:
    root = tmp_path / "hub"
    headless, renamed, adapter, onnx = (
        save(root / "ada" / name) for name in ("headless", "renamed", "adapter", "onnx")
    )
    without_head_in_weights(headless)  # written anew
    for folder in (headless, renamed):
        edit_config(folder, architectures=["BertForMaskedLM"])
    for file in list(adapter.iterdir()):
        file.unlink()
    (adapter / "adapter_config.json").write_text("{}")
    (onnx / "model.safetensors").rename(onnx / "model.onnx")
    with serve_hub(root) as hub:
        names = ("headless", "renamed", "adapter", "onnx")
        answers = ask(
            *((f"ada/{name}", {}) for name in names), HF_ENDPOINT=hub.endpoint, HF_HOME=str(tmp_path / "home")
        )
        fetched = [request for request in hub.requests if "GET /ada/headless/resolve" in request]
    assert "is a BertForMaskedLM and has no question-answering head" in str(answers[0]["error"])
    assert answers[1]["commit"]
    assert "merge it into its base model first" in str(answers[2]["error"])
    assert "it holds an ONNX model" in str(answers[3]["error"])
    # Asked for once, for its header: the server of the test knows no ranges and sends the whole.
    assert sum(request.endswith(".safetensors") for request in fetched) <= 1
