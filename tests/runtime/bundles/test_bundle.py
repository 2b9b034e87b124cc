"""The bundle's format: what is written is read back, and whatever is damaged is refused by name."""

import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynamic_tinybert.runtime.bundles.bundle import NamedLengthConfig, check_length_configs, open_bundle, write_manifest
from dynamic_tinybert.runtime.bundles.manifest import read_manifest
from dynamic_tinybert.runtime.common.errors import (
    BundleCorruptError,
    BundleError,
    BundleFormatError,
    BundleNotFoundError,
    InvalidInputError,
    LengthConfigError,
)
from dynamic_tinybert.runtime.length_config import EncoderShape, LengthConfig

from support.manifests import rewrite_manifest

LAYERS = 3
CONFIG = {
    "model_type": "bert",
    "num_hidden_layers": LAYERS,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "vocab_size": 99,
    "type_vocab_size": 2,
}
FILES = {
    "config.json": json.dumps(CONFIG).encode(),
    "tokenizer.json": b"{}",
    "vocab.txt": b"[PAD]\n",
    "openvino_model.xml": b"<net/>",
    "openvino_model.bin": bytes(range(256)) * 8,
    "README.md": b"# A model card, which anyone may edit\n",
}
CHECKED = sorted(set(FILES) - {"README.md"})
LENGTH_CONFIGS = {
    "full": NamedLengthConfig(LengthConfig.full(LAYERS), {"f1": 82.25, "macs": 10**12}),
    "fast-1.5x": NamedLengthConfig(LengthConfig((0.9, 0.5, 0.25), (None, 0.125, None))),
}
QUANTIZATION = {"precision": "int8", "weight_bits": 8, "method": "static"}
VERSIONS = {"dynamic-tinybert": "0.1.0", "openvino": "2026.4.1"}
SOURCE = {"model": "someone/a-model", "license": "apache-2.0"}


def write_bundle(folder: Path, changes: Mapping[str, Any] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    arguments: dict[str, Any] = {
        "significance": "attention",
        "length_configs": LENGTH_CONFIGS,
        "quantization": QUANTIZATION,
        "versions": VERSIONS,
        "source": SOURCE,
    }
    write_manifest(folder, **(arguments | dict(changes or {})))
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def test_what_is_written_is_read_back(bundle: Path) -> None:
    opened = open_bundle(str(bundle))
    assert opened.path == bundle
    assert opened.significance == "attention"
    assert opened.length_configs == LENGTH_CONFIGS
    assert opened.default_length_config == "full"
    assert (opened.quantization, opened.versions, opened.source) == (QUANTIZATION, VERSIONS, SOURCE)
    assert opened.shape == EncoderShape(num_layers=3, hidden_size=32, intermediate_size=64)
    assert (opened.num_attention_heads, opened.max_length) == (4, 128)
    assert (opened.vocab_size, opened.type_vocab_size) == (99, 2)
    assert opened.model_xml.read_bytes() == FILES["openvino_model.xml"]
    assert opened.tokenizer_json.read_bytes() == FILES["tokenizer.json"]
    assert opened.scorers is None


def test_writing_gives_the_bundle_that_opening_gives(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    (folder / "significance.safetensors").write_bytes(b"scorers")
    written = write_manifest(
        folder,
        significance="learnt",
        length_configs=LENGTH_CONFIGS,
        quantization=QUANTIZATION,
        versions=VERSIONS,
        source=SOURCE,
        default_length_config="fast-1.5x",
    )
    assert written == open_bundle(folder)
    assert written.scorers == folder / "significance.safetensors"
    assert written.default_length_config == "fast-1.5x"


def test_digests_are_those_of_sha256sum(bundle: Path) -> None:
    listed = read_manifest(bundle)["files"]
    assert sorted(listed) == CHECKED
    printed = subprocess.run(["sha256sum", *listed], cwd=bundle, capture_output=True, text=True, check=True).stdout
    assert {n: e["sha256"] for n, e in listed.items()} == {
        name: digest for digest, name in map(str.split, printed.splitlines())
    }


ratios = st.lists(st.floats(2**-20, 1), min_size=LAYERS, max_size=LAYERS).map(
    lambda values: tuple(sorted(values, reverse=True))
)
thresholds = st.tuples(*[st.none() | st.floats(-1e30, 1e30)] * LAYERS)
names = st.from_regex(r"[a-z0-9][a-z0-9._-]*", fullmatch=True).filter(lambda name: name != "full")
figures = st.none() | st.dictionaries(
    st.text(), st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(), max_size=3
)
length_configs = st.dictionaries(
    names, st.builds(NamedLengthConfig, st.builds(LengthConfig, ratios, thresholds), figures), max_size=3
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(named=length_configs)
def test_any_length_configurations_survive(bundle: Path, named: dict[str, NamedLengthConfig]) -> None:
    named = {"full": LENGTH_CONFIGS["full"], **named}
    write_bundle(bundle, {"length_configs": named})
    assert open_bundle(bundle).length_configs == named


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize("part", [0, 0.5, 0.999])
def test_truncated_files_are_refused_by_name(bundle: Path, name: str, part: float) -> None:
    size = int(part * len(FILES[name]))
    (bundle / name).write_bytes(FILES[name][:size])
    with pytest.raises(BundleCorruptError, match=rf"{name} has {size} bytes instead of {len(FILES[name])}:"):
        open_bundle(bundle)


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize("part", [0, 0.5, 0.999])
def test_files_with_one_flipped_bit_are_refused_by_name(bundle: Path, name: str, part: float) -> None:
    content = bytearray(FILES[name])
    content[int(part * len(content))] ^= 1
    (bundle / name).write_bytes(content)
    found, expected = hashlib.sha256(content).hexdigest(), hashlib.sha256(FILES[name]).hexdigest()
    with pytest.raises(BundleCorruptError, match=f"{name} was edited.* {found} instead of {expected}"):
        open_bundle(bundle)


@pytest.mark.parametrize("name", CHECKED)
def test_missing_files_are_refused_by_name(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleCorruptError, match=re.escape(name)):
        open_bundle(bundle)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_of_the_manifest_goes_unnoticed(bundle: Path, data: st.DataObject) -> None:
    file = bundle / "dynamic_tinybert.json"
    original = file.read_bytes()
    place = data.draw(st.integers(0, len(original) - 2))  # the last byte is a line feed
    if data.draw(st.booleans()):
        damaged = original[:place]
    else:
        damaged = original[:place] + bytes([data.draw(st.integers(0, 255))]) + original[place + 1 :]
    file.write_bytes(damaged)
    try:
        open_bundle(bundle)
    except BundleError:
        return
    finally:
        file.write_bytes(original)
    assert json.loads(damaged) == json.loads(original)


def test_an_edited_manifest_is_refused(bundle: Path) -> None:
    file = bundle / "dynamic_tinybert.json"
    file.write_text(file.read_text().replace("82.25", "99.25"))
    with pytest.raises(BundleCorruptError, match=r"dynamic_tinybert\.json was edited"):
        open_bundle(bundle)


@pytest.mark.parametrize("text", ["", "{", '{"format_version": 1, "files": {', "\xff", "[" * 100_000, "NaN"])
def test_a_manifest_that_is_not_json_is_refused(bundle: Path, text: str) -> None:
    (bundle / "dynamic_tinybert.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleCorruptError, match=r"dynamic_tinybert\.json cannot be read as JSON"):
        open_bundle(bundle)


def test_a_newer_format_is_refused_whatever_else_it_holds(bundle: Path) -> None:
    (bundle / "dynamic_tinybert.json").write_text('{"format_version": 3, "files": []}')
    with pytest.raises(BundleFormatError, match=r"format 3.*reads formats up to 2.*pip install --upgrade"):
        open_bundle(bundle)


def test_question_answering_is_written_as_format_1_and_other_tasks_as_format_2(tmp_path: Path) -> None:
    for task, version in (("question_answering", 1), ("reranking", 2)):
        folder = write_bundle(tmp_path / task, {"task": task})
        manifest = read_manifest(folder)
        assert (manifest["task"], manifest["format_version"]) == (task, version)
        assert open_bundle(folder).task == task


def test_a_manifest_that_names_no_task_is_of_question_answering(bundle: Path) -> None:
    described = open_bundle(bundle)
    rewrite_manifest(bundle, lambda manifest: manifest.pop("task"))
    assert "task" not in read_manifest(bundle)
    assert open_bundle(bundle) == described
    assert described.task == "question_answering"


def set_key(*path: str, to: object) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        for key in path[:-1]:
            manifest = manifest[key]
        manifest[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_key("format_version", to="1"), "format_version"),
        (set_key("format_version", to=True), "format_version"),
        (set_key("format_version", to=0), "format_version 0"),
        (set_key("task", to="reranking"), r"task must be one of \('question_answering',\), not 'reranking'"),
        (set_key("significance", to="magic"), "significance.*magic"),
        (set_key("default_length_config", to="slow"), "default_length_config.*slow"),
        (set_key("length_configs", to=[]), "length_configs"),
        (set_key("length_configs", "full", to=None), "full"),
        (set_key("length_configs", "full", "keep_ratios", to="111"), "keep_ratios"),
        (set_key("length_configs", "full", "keep_ratios", to=[1, 1, 0.5]), "'full' must keep all"),
        (set_key("length_configs", "full", "measured", to=82.0), "measured"),
        (set_key("length_configs", "fast-1.5x", "keep_ratios", to=[1, 0.5]), r"fast-1\.5x.*2 keep ratios"),
        (set_key("length_configs", "fast-1.5x", "keep_ratios", to=[0.5, 1, 1]), r"fast-1\.5x.*larger"),
        (set_key("length_configs", "fast-1.5x", "keep_ratios", to=[1, 1, "x"]), r"fast-1\.5x.*numbers"),
        (set_key("length_configs", "fast-1.5x", "keep_ratios", to=[10**400, 1, 1]), r"fast-1\.5x.*numbers"),
        (set_key("length_configs", "fast-1.5x", "thresholds", to=[None, -(10**400), 1]), r"fast-1\.5x.*numbers"),
        (set_key("length_configs", "fast-1.5x", "thresholds", to=[1, 1]), r"fast-1\.5x.*2 thresholds"),
        (set_key("length_configs", "fast-1.5x", "thresholds", to=[]), r"fast-1\.5x.*0 thresholds for 3 keep ratios"),
        (set_key("length_configs", "Fast", to={"keep_ratios": [1] * 3, "thresholds": [None] * 3}), "'Fast': a name"),
        (lambda manifest: manifest["length_configs"].pop("full"), "no length configuration 'full'"),
        (set_key("quantization", "precision", to="int4"), "precision.*int4"),
        (set_key("quantization", "weight_bits", to=4), "weight_bits.*4"),
        (set_key("quantization", "weight_bits", to=None), r"weight_bits must be one of \(8, 7\), not None"),
        (set_key("quantization", "precision", to="fp32"), r"weight_bits must be one of \(None,\), not 8"),
        (lambda manifest: manifest["quantization"].pop("weight_bits"), "weight_bits"),
        (lambda manifest: manifest.pop("source"), "source"),
        (lambda manifest: manifest.pop("versions"), "versions"),
        (lambda manifest: manifest.pop("files"), "files"),
        (set_key("files", "vocab.txt", to=[]), r"vocab\.txt"),
        (set_key("files", "vocab.txt", "size", to="6"), "size"),
        (
            set_key("files", "../secret", to={"size": 0, "sha256": ""}),
            r"lists the file '\.\./secret', which is not one of config\.json",
        ),
        (lambda manifest: manifest["files"].update({"README.md": manifest["files"]["vocab.txt"]}), r"README\.md"),
    ],
)
def test_a_manifest_against_the_rules_is_refused(
    bundle: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    rewrite_manifest(bundle, change)
    with pytest.raises(BundleFormatError, match=message):
        open_bundle(bundle)


def test_learnt_significance_needs_its_scorers(bundle: Path) -> None:
    rewrite_manifest(bundle, set_key("significance", to="learnt"))
    with pytest.raises(BundleCorruptError, match=r"no significance\.safetensors"):
        open_bundle(bundle)


def test_figures_may_be_left_out(bundle: Path) -> None:
    rewrite_manifest(bundle, lambda manifest: manifest["length_configs"]["full"].pop("measured"))
    assert open_bundle(bundle).length_configs["full"].measured is None


def test_additions_do_no_harm(bundle: Path) -> None:
    rewrite_manifest(bundle, set_key("added_later", to={"by": "someone"}))
    (bundle / ".gitattributes").write_text("*.bin filter=lfs\n")
    (bundle / "README.md").write_text("# Edited\n")
    assert open_bundle(bundle).length_configs == LENGTH_CONFIGS


def test_files_may_be_links(bundle: Path, tmp_path: Path) -> None:
    for name in FILES:
        (bundle / name).rename(tmp_path / name)
        (bundle / name).symlink_to(tmp_path / name)
    assert open_bundle(bundle).shape.num_layers == LAYERS


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "no folder"),
        ([], r"has no dynamic_tinybert\.json"),
        (
            ["config.json", "model.safetensors"],
            r"if it is a checkpoint.*dynamic-tinybert export .*place OUTPUT",
        ),
        (
            ["config.json", "openvino_model.xml"],
            r"from this model's checkpoint: dynamic-tinybert export MODEL OUTPUT",
        ),
    ],
)
def test_what_is_no_bundle_is_told_apart(tmp_path: Path, files: list[str] | None, message: str) -> None:
    place = tmp_path / "place"
    if files is not None:
        place.mkdir()
        for name in files:
            (place / name).touch()
    with pytest.raises(BundleNotFoundError, match=message):
        open_bundle(place)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "not a JSON object"),
        ('{"hidden_size": 0}', "hidden_size must be a positive integer, not 0"),
        ('{"hidden_size": "32"}', "hidden_size"),
        (
            '{"num_attention_heads": 6148914691236517206}',
            "num_attention_heads is 6148914691236517206, but at most 65536 is allowed",
        ),
        ('{"num_hidden_layers": 257}', "num_hidden_layers is 257, but at most 256 is allowed"),
        (
            '{"max_position_embeddings": ' + "9" * 4000 + "}",
            r"max_position_embeddings is 9+\.\.\.9+, but at most",
        ),
        ('{"vocab_size": 1e999}', "vocab_size must be a positive integer, not inf"),
        ('{"num_attention_heads": 5}', "hidden_size 768 is not a multiple of num_attention_heads 5"),
        (" " * (2**24 + 1), "has 16777217 bytes, but at most 16777216 are allowed"),
    ],
)
def test_config_without_usable_sizes_is_refused(bundle: Path, text: str, message: str) -> None:
    (bundle / "config.json").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    rewrite_manifest(bundle, set_key("files", "config.json", to={"size": len(text), "sha256": digest}))
    with pytest.raises((BundleFormatError, BundleCorruptError), match=rf"config\.json.*{message}"):
        open_bundle(bundle)


def test_sizes_that_config_leaves_out_are_those_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig()
    folder = tmp_path / "bundle"
    write_bundle(folder)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    bundle = write_manifest(
        folder,
        significance="attention",
        length_configs={"full": NamedLengthConfig(LengthConfig.full(config.num_hidden_layers))},
        quantization=QUANTIZATION,
        versions=VERSIONS,
        source=SOURCE,
    )
    assert bundle.shape == EncoderShape(config.num_hidden_layers, config.hidden_size, config.intermediate_size)
    assert bundle.num_attention_heads == config.num_attention_heads
    assert bundle.max_length == config.max_position_embeddings
    assert (bundle.vocab_size, bundle.type_vocab_size) == (config.vocab_size, config.type_vocab_size)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"length_configs": {}}, BundleFormatError),
        ({"significance": "learnt"}, BundleCorruptError),
        ({"source": {"f1": float("nan")}}, InvalidInputError),
        ({"source": {"path": Path("x")}}, InvalidInputError),
        ({"default_length_config": "none"}, BundleFormatError),
        ({"quantization": {"precision": "int8", "weight_bits": None}}, BundleFormatError),
    ],
)
def test_nothing_unreadable_is_written(tmp_path: Path, changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        write_bundle(tmp_path / "bundle", changes)
    assert not (tmp_path / "bundle/dynamic_tinybert.json").exists()


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ({"full": LengthConfig.full(3), "": LengthConfig.full(3)}, "a name is made of"),
        ({"full": LengthConfig.full(3), "A": LengthConfig.full(3)}, "'A'.*a name is made of"),
        ({"full": LengthConfig.full(3), "a\n": LengthConfig.full(3)}, "a name is made of"),
        ({"full": LengthConfig.full(2)}, "'full'.*2 keep ratios"),
        ({"full": LengthConfig((1, 1, 0.9))}, "'full' must keep all"),
        ({"full": LengthConfig((1, 1, 1), (0.5, None, None))}, "'full' must keep all"),
        ({"fast": LengthConfig((1, 1, 0.9))}, "no length configuration 'full'.*fast"),
    ],
)
def test_length_configs_that_do_not_fit_are_refused(configs: dict[str, LengthConfig], message: str) -> None:
    with pytest.raises(LengthConfigError, match=message):
        check_length_configs(configs, 3)


def test_the_documented_manifest_has_the_keys_of_a_written_one(bundle: Path) -> None:
    document = Path(__file__).parents[3] / "docs/bundle-format.md"
    examples = re.findall(r"```json\n(.*?)```", document.read_text(), re.DOTALL)
    assert len(examples) == 1
    documented, written = json.loads(examples[0]), read_manifest(bundle)
    assert set(documented) == set(written)
    assert set(documented["length_configs"]["full"]) == set(written["length_configs"]["full"])
    assert set(documented["files"]["config.json"]) == set(written["files"]["config.json"])


@pytest.mark.parametrize("task", [None, 1, "", "Re-ranking", "../other", "a" + "\n"])
def test_format_2_needs_the_name_of_a_task(tmp_path: Path, task: object) -> None:
    folder = write_bundle(tmp_path, {"task": "reranking"})
    rewrite_manifest(folder, set_key("task", to=task))
    with pytest.raises(BundleFormatError, match="task"):
        open_bundle(folder)
    with pytest.raises(BundleFormatError, match="task"):
        write_bundle(tmp_path, {"task": task})


def test_the_threshold_of_no_answer_may_be_there_or_not(tmp_path: Path) -> None:
    without = write_bundle(tmp_path / "without")
    assert "no_answer_threshold" not in json.loads((without / "dynamic_tinybert.json").read_text())
    assert open_bundle(without).no_answer_threshold is None
    for value in (-2.5, 0.0, 3, 1e6):
        made = write_bundle(tmp_path / "made", {"no_answer_threshold": value})
        assert open_bundle(made).no_answer_threshold == value
    rewrite_manifest(without, lambda manifest: manifest.update(no_answer_threshold=None))
    assert open_bundle(without).no_answer_threshold is None


@pytest.mark.parametrize("value", ["0", True, [], 1.1e6, -(10**400)])
def test_a_threshold_of_no_answer_that_cannot_be_is_refused(bundle: Path, value: object) -> None:
    rewrite_manifest(bundle, lambda manifest: manifest.update(no_answer_threshold=value))
    with pytest.raises(BundleFormatError, match="no_answer_threshold must be null or a number between -1e6 and 1e6"):
        open_bundle(bundle)
