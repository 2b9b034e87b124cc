from pathlib import Path

import numpy as np
import pytest

from dynamic_tinybert.calibration.recalibrated import write_recalibrated
from dynamic_tinybert.modeling import Scorer, save_scorers
from dynamic_tinybert.runtime import LengthAdaptiveModel, LengthConfig
from dynamic_tinybert.runtime.bundles.bundle import NamedLengthConfig, open_bundle

from support.tiny import tiny_bert, write_tiny_bundle

CONFIGS = {"full": NamedLengthConfig(LengthConfig.full(3)), "half": NamedLengthConfig(LengthConfig((1, 1, 0.5)))}


@pytest.mark.parametrize("learnt", [True, False])
def test_model_and_card_stay_and_significance_changes(tmp_path: Path, learnt: bool) -> None:
    before = {1: Scorer(32)} if not learnt else None
    source = open_bundle(write_tiny_bundle(tmp_path / "old", tiny_bert(), scorers=before))
    (source.path / "README.md").write_text("a card")
    scorers = None
    if learnt:
        scorers = tmp_path / "scorers"
        save_scorers({2: Scorer(32)}, scorers)
    (tmp_path / "new").mkdir()
    write_recalibrated(source, tmp_path / "new", scorers, CONFIGS)

    written = open_bundle(tmp_path / "new")
    assert written.significance == ("learnt" if learnt else "attention")
    assert written.length_configs == CONFIGS
    assert (written.path / "README.md").read_text() == "a card"
    assert (written.source, written.quantization) == (source.source, source.quantization)
    assert (written.scorers is not None) == learnt
    ids = np.arange(20)[None]
    old, new = (LengthAdaptiveModel.from_pretrained(b.path, precision="f32")(ids) for b in (source, written))
    np.testing.assert_array_equal(old.start_logits, new.start_logits)
    dropping = LengthAdaptiveModel.from_pretrained(written.path)(
        ids, token_type_ids=np.repeat([0, 1], [2, 18])[None], length_config="half"
    )
    assert (dropping.kept_positions[2] < 20).sum() == 10
