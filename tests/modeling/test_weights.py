"""Checkpoints as people have them: what loads, and what the error says of what does not."""

import json
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save_file
from test_checkpoint import edit_config, save
from torch import Tensor
from transformers import BertForQuestionAnswering, BertForTokenClassification, BertModel

from dynamic_tinybert.modeling.checkpoint import load_checkpoint
from dynamic_tinybert.runtime.common.errors import CheckpointError

from support.tiny import tiny_bert

SAFETENSORS = "model.safetensors"
PICKLED = "pytorch_model.bin"


def weights_of(folder: Path) -> dict[str, Tensor]:
    return load((folder / SAFETENSORS).read_bytes())


def put(folder: Path, weights: dict[str, Tensor]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / SAFETENSORS, {"format": "pt"})


def data_parallel(folder: Path) -> None:
    model = torch.nn.DataParallel(BertForQuestionAnswering.from_pretrained(folder))
    torch.save(model.state_dict(), folder / PICKLED)
    (folder / SAFETENSORS).unlink()


def compiled(folder: Path) -> None:
    put(folder, {f"_orig_mod.{name}": tensor for name, tensor in weights_of(folder).items()})


def inside_another_class(folder: Path) -> None:
    class Wrapper(torch.nn.Module):
        def __init__(self, model: BertForQuestionAnswering) -> None:
            super().__init__()
            self.model = model

    put(folder, Wrapper(BertForQuestionAnswering.from_pretrained(folder)).state_dict())


def encoder_without_its_prefix(folder: Path) -> None:
    put(folder, {name.removeprefix("bert."): tensor for name, tensor in weights_of(folder).items()})
    edit_config(folder, architectures=["BertModel"])


def named_after_pretraining(folder: Path) -> None:
    edit_config(folder, architectures=["BertForMaskedLM"])


def architectures_as_text(folder: Path) -> None:
    edit_config(folder, architectures="BertForQuestionAnswering")


def names_of_tensorflow(folder: Path) -> None:
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    weights = weights_of(folder)
    for new, name in old.items():
        weights = {key.replace(new, name): tensor for key, tensor in weights.items()}
    torch.save(OrderedDict(weights), folder / PICKLED)
    (folder / SAFETENSORS).unlink()


def sharded(folder: Path) -> None:
    BertForQuestionAnswering.from_pretrained(folder).save_pretrained(folder, max_shard_size="20KB")
    (folder / SAFETENSORS).unlink(missing_ok=True)
    assert len(list(folder.glob("model-*.safetensors"))) > 1


def sharded_pickles(folder: Path) -> None:
    names = sorted(weights := weights_of(folder))
    shards = {"pytorch_model-1.bin": names[::2], "pytorch_model-2.bin": names[1::2]}
    for file, own in shards.items():
        torch.save({name: weights[name] for name in own}, folder / file)
    weight_map = {name: file for file, own in shards.items() for name in own}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / SAFETENSORS).unlink()


def old_pickle_format(folder: Path) -> None:
    torch.save(weights_of(folder), folder / PICKLED, _use_new_zipfile_serialization=False)
    (folder / SAFETENSORS).unlink()


def with_other_things_in_the_pickle(folder: Path) -> None:
    torch.save({**weights_of(folder), "epoch": 3, "arguments": {"lr": 1e-5}}, folder / PICKLED)
    (folder / SAFETENSORS).unlink()


def beside_other_weights(folder: Path) -> None:
    torch.save({name: tensor + 1 for name, tensor in weights_of(folder).items()}, folder / PICKLED)


@pytest.mark.parametrize(
    "change",
    [
        data_parallel,
        compiled,
        inside_another_class,
        encoder_without_its_prefix,
        named_after_pretraining,
        names_of_tensorflow,
        sharded,
        sharded_pickles,
        old_pickle_format,
        with_other_things_in_the_pickle,
        beside_other_weights,
    ],
)
def test_weights_of_other_forms_load(tmp_path: Path, change: Callable[[Path], None]) -> None:
    expected = weights_of(save(tmp_path))
    change(tmp_path)
    model = load_checkpoint(tmp_path).model
    assert not model.training
    assert model.state_dict().keys() == expected.keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions_load_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    stored = {name: tensor.to(dtype) for name, tensor in weights_of(save(tmp_path)).items()}
    put(tmp_path, stored)
    for name, tensor in load_checkpoint(tmp_path).model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, stored[name].float())


def lfs_pointer(name: str) -> Callable[[Path], None]:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 133466304\n"

    def put_pointer(folder: Path) -> None:
        (folder / name).write_text(pointer)

    return put_pointer


def web_page(folder: Path) -> None:
    (folder / SAFETENSORS).write_text("<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>")


def empty_weights(folder: Path) -> None:
    (folder / SAFETENSORS).write_bytes(b"")


def whole_model(folder: Path) -> None:
    torch.save(BertForQuestionAnswering.from_pretrained(folder), folder / PICKLED)
    (folder / SAFETENSORS).unlink()


class Exploit:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.proof,)


def training_state(folder: Path) -> None:
    torch.save({"epoch": 3, "state_dict": weights_of(folder), "optimizer": {}}, folder / PICKLED)
    (folder / SAFETENSORS).unlink()


def truncated_pickle(folder: Path) -> None:
    torch.save(weights_of(folder), folder / PICKLED)
    (folder / PICKLED).write_bytes((folder / PICKLED).read_bytes()[:-2000])
    (folder / SAFETENSORS).unlink()


def zip_of_something_else(folder: Path) -> None:
    with zipfile.ZipFile(folder / PICKLED, "w") as archive:
        archive.writestr("readme.txt", "hello")
    (folder / SAFETENSORS).unlink()


def missing_shard(folder: Path) -> None:
    sharded(folder)
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


def shard_elsewhere(folder: Path) -> None:
    index = {"weight_map": dict.fromkeys(weights_of(folder), "../model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / SAFETENSORS).rename(folder.parent / SAFETENSORS)


def broken_index(folder: Path) -> None:
    (folder / SAFETENSORS).unlink()
    (folder / "model.safetensors.index.json").write_text("[]")


def changed(folder: Path, name: str, value: float) -> None:
    weights = weights_of(folder)
    weights[name].view(-1)[5] = value
    put(folder, weights)


def not_a_number(folder: Path) -> None:
    changed(folder, "bert.encoder.layer.1.output.dense.weight", float("nan"))


def infinite(folder: Path) -> None:
    changed(folder, "bert.embeddings.LayerNorm.bias", float("-inf"))


def adapter_alone(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "b"}))
    save_file({"base_model.model.bert.x.lora_A.weight": torch.zeros(2, 2)}, folder / "adapter_model.safetensors")


def adapter_beside(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))


def adapter_among_weights(folder: Path) -> None:
    name = "bert.encoder.layer.0.attention.self.query.lora_A.default.weight"
    put(folder, {**weights_of(folder), name: torch.zeros(4, 32)})


def only(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / SAFETENSORS).rename(folder / name)

    return change


def only_checkpoints_of_a_training(folder: Path) -> None:
    inner = folder / "checkpoint-500"
    inner.mkdir()
    for file in list(folder.iterdir()):
        if file != inner:
            file.rename(inner / file.name)


def sentence_transformers(folder: Path) -> None:
    save(folder / "0_Transformer")
    for file in (folder / "config.json", folder / SAFETENSORS):
        file.unlink()
    (folder / "modules.json").write_text("[]")


def sentence_transformers_of_today(folder: Path) -> None:
    BertModel(tiny_bert(vocab_size=11).config).save_pretrained(folder)
    (folder / "modules.json").write_text("[]")


def token_classifier(folder: Path) -> None:
    BertForTokenClassification(tiny_bert(vocab_size=11).config).save_pretrained(folder)


def bundle(folder: Path) -> None:
    (folder / SAFETENSORS).unlink()
    (folder / "dynamic_tinybert.json").write_text("{}")


def original_tensorflow(folder: Path) -> None:
    for name in ("config.json", SAFETENSORS):
        (folder / name).unlink()
    (folder / "bert_config.json").write_text("{}")
    (folder / "bert_model.ckpt.index").write_bytes(b"index")


def nothing(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def two_models(folder: Path) -> None:
    weights = weights_of(folder)
    both = {f"{of}.{name}": tensor.clone() for of in ("student", "teacher") for name, tensor in weights.items()}
    put(folder, both)


def eight_bits(folder: Path) -> None:
    name = "bert.encoder.layer.0.attention.self.query.weight"
    put(folder, {**weights_of(folder), name: torch.zeros(32, 32, dtype=torch.int8)})


def quantized_by_config(folder: Path) -> None:
    edit_config(folder, quantization_config={"load_in_8bit": True, "quant_method": "bitsandbytes"})


def heads_that_do_not_divide(folder: Path) -> None:
    edit_config(folder, num_attention_heads=5)


def sizes_as_text(folder: Path) -> None:
    edit_config(folder, hidden_size="32")


def shorter_vocabulary(folder: Path) -> None:
    edit_config(folder, vocab_size=10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lfs_pointer(SAFETENSORS), r"model\.safetensors of .* is a Git LFS pointer.*; run git lfs pull"),
        (lfs_pointer("config.json"), r"config\.json of .* is a Git LFS pointer"),
        (lfs_pointer("tokenizer.json"), r"tokenizer\.json of .* is a Git LFS pointer"),
        (web_page, r"model\.safetensors of .* is a web page"),
        (empty_weights, r"model\.safetensors of .* is empty"),
        (whole_model, r"holds Python objects \(transformers\.\S*BertForQuestionAnswering\), as torch\.save\(model\)"),
        (training_state, r"holds a mapping of 'epoch', 'state_dict', 'optimizer', not weights by name"),
        (truncated_pickle, r"pytorch_model\.bin of .* is truncated or damaged"),
        (zip_of_something_else, r"pytorch_model\.bin of .* is truncated or damaged"),
        (missing_shard, r"model-00002-of-\d+\.safetensors of model\.safetensors\.index\.json is missing"),
        (shard_elsewhere, r"\.\./model\.safetensors of model\.safetensors\.index\.json is outside its folder"),
        (broken_index, r"model\.safetensors\.index\.json of .* is not an index of weights"),
        (
            not_a_number,
            r"bert\.encoder\.layer\.1\.output\.dense\.weight of .* holds NaN or infinite numbers, 1 of 2048",
        ),
        (infinite, r"bert\.embeddings\.LayerNorm\.bias of .* holds NaN or infinite numbers, 1 of 32"),
        (adapter_alone, "LoRA or other PEFT adapter.*merge it into its base model first: .*merge_and_unload"),
        (adapter_beside, r"merge it into its base model first.*or remove its files \(adapter_config\.json\)"),
        (
            adapter_among_weights,
            r"adapter and its base model, not merged \(.*lora_A.*merge it into its base model first",
        ),
        (only("tf_model.h5"), "its weights are TensorFlow's.*save_pretrained"),
        (only("flax_model.msgpack"), "its weights are Flax's"),
        (only("model.onnx"), "it holds an ONNX model"),
        (only("openvino_model.xml"), "it holds an OpenVINO model"),
        (only("model.gguf"), "it holds a GGUF model"),
        (only("model.fp16.safetensors"), r"it has model\.fp16\.safetensors; if those are the model's weights"),
        (only("best.pt"), r"it has best\.pt; if those are the model's weights"),
        (only_checkpoints_of_a_training, r"checkpoints in its subfolders \(checkpoint-500\): give the path of one"),
        (sentence_transformers, "sentence-transformers model, which makes embeddings"),
        (sentence_transformers_of_today, "is a BertModel and has no question-answering head"),
        (token_classifier, "is a BertForTokenClassification and has no question-answering head"),
        (bundle, "it is a bundle already"),
        (original_tensorflow, "its weights are those of TensorFlow 1"),
        (nothing, "it is empty"),
        (two_models, r"the weights of several models \(student\.qa_outputs\.weight, teacher\.qa_outputs\.weight\)"),
        (eight_bits, r"self\.query\.weight of .* is stored as torch\.int8: the checkpoint is quantised"),
        (quantized_by_config, r"is already quantised \(quantization_config in config\.json\)"),
        (heads_that_do_not_divide, r"cannot load the model of .*hidden size \(32\).*heads \(5\)"),
        (architectures_as_text, "cannot load the model of .*'architectures' expected a list"),
        (sizes_as_text, "cannot load the model of .*hidden_size"),
        (shorter_vocabulary, r"word_embeddings\.weight is \[11, 32\], and should be \[10, 32\]"),
    ],
)
def test_the_error_names_the_cause(tmp_path: Path, change: Callable[[Path], None], message: str) -> None:
    folder = save(tmp_path / "checkpoint")
    change(folder)
    with pytest.raises(CheckpointError, match=f"(?s){message}") as caught:
        load_checkpoint(folder)
    assert str(folder) in str(caught.value)


def test_code_in_a_pickle_does_not_run(tmp_path: Path) -> None:
    folder = save(tmp_path / "checkpoint")
    torch.save({**weights_of(folder), "extra": Exploit(tmp_path / "proof")}, folder / PICKLED)
    (folder / SAFETENSORS).unlink()
    with pytest.raises(CheckpointError, match="reading them would run code"):
        load_checkpoint(folder)
    assert not (tmp_path / "proof").exists()


def test_a_file_in_place_of_its_folder_is_said_to_be_one(tmp_path: Path) -> None:
    file = save(tmp_path) / SAFETENSORS
    for path in (file, str(file)):
        with pytest.raises(CheckpointError, match="is a file; give the folder that it is in"):
            load_checkpoint(path)
