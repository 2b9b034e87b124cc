"""Scripts that make or unmake bundles."""

from pathlib import Path

import pytest
import torch

from dynamic_tinybert.export import export_model
from dynamic_tinybert.export.checkpoint import load_checkpoint

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_bundle_gives_its_checkpoint_back(
    precision: str, tiny_checkpoint: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    from checkpoint_of_bundle import main

    if precision == "fp32":
        export_model(tiny_checkpoint, tmp_path / "bundle", precision="fp32")
    else:  # SmoothQuant included
        export_model(
            tiny_checkpoint,
            tmp_path / "bundle",
            calibration_data=questions,
            validation=questions,
            num_samples=4,
            tune=False,
        )
    main(tmp_path / "bundle", tmp_path / "back")
    expected, actual = (load_checkpoint(folder) for folder in (tiny_checkpoint, tmp_path / "back"))
    assert actual.tokenizer.get_vocab() == expected.tokenizer.get_vocab()
    weights = actual.model.state_dict()
    assert weights.keys() == expected.model.state_dict().keys()
    for name, tensor in expected.model.state_dict().items():
        if precision == "fp32":
            assert torch.equal(weights[name], tensor), name
        else:
            assert float((weights[name] - tensor).norm()) <= 0.03 * float(tensor.norm()), name
