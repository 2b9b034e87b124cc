"""Models and answerers pickle as where they were loaded from."""

import copy
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dynamic_tinybert.runtime import LengthAdaptiveModel, QuestionAnswerer
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.common.errors import BundleNotFoundError
from dynamic_tinybert.runtime.length_config import LengthConfig

from support.tiny import tiny_bundle

QUESTION, CONTEXT = "what was in the box ?", "the fox was in the box and the cat was in the hat"
TOKEN = "hf_" + "x" * 34


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "bundle", {"half": LengthConfig((1, 0.7, 0.4))})


def test_an_answerer_pickles_to_another_process(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"num_threads": 1, "elastic": True, "max_compiled": 3, "ov_config": {"NUM_STREAMS": 2}}
    answerer = QuestionAnswerer.from_pretrained("bundle", token=TOKEN, compiled_cache_dir="cache", **options)
    expected = answerer(QUESTION, CONTEXT, length_config="half")
    text = pickle.dumps(answerer)
    assert TOKEN.encode() not in text
    assert len(text) < 2000
    (elsewhere := tmp_path / "elsewhere").mkdir()
    script = f"""
import pickle, sys
answerer = pickle.load(sys.stdin.buffer)
model = answerer.model
print(answerer({QUESTION!r}, {CONTEXT!r}, length_config="half") == {expected!r}, model.max_compiled, model._elastic,
      model._ov_config["INFERENCE_NUM_THREADS"], model._ov_config["NUM_STREAMS"], model._ov_config["CACHE_DIR"])
"""
    done = subprocess.run([sys.executable, "-c", script], input=text, capture_output=True, cwd=elsewhere, check=False)
    assert done.stdout.decode().split() == ["True", "3", "True", "1", "2", str(tmp_path / "cache")], done.stderr


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_model_made_of_a_bundle_and_the_embedded_one_can_be_copied(
    bundle: Path, copied: type[LengthAdaptiveModel]
) -> None:
    made = LengthAdaptiveModel(open_bundle(bundle), ov_config={"INFERENCE_NUM_THREADS": 1}, max_compiled=1)
    for model in (made, copied(made)):
        other: LengthAdaptiveModel = copied(model)
        assert other is not model
        assert other.bundle == model.bundle
        assert (other._ov_config, other.max_compiled) == (model._ov_config, 1)
        np.testing.assert_array_equal(other([[1, 2, 3]]).start_logits, model([[1, 2, 3]]).start_logits)
    embedded = LengthAdaptiveModel.from_pretrained()
    assert embedded._arguments["id_or_path"] is None  # wherever the package lies in the other process
    assert copied(embedded).bundle.path == embedded.bundle.path


def test_a_bundle_that_is_gone_is_missed(bundle: Path) -> None:
    text = pickle.dumps(LengthAdaptiveModel.from_pretrained(str(bundle)))
    shutil.rmtree(bundle)
    with pytest.raises(BundleNotFoundError, match=f"there is no folder {bundle}"):
        pickle.loads(text)
