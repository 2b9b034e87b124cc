"""The stored graph that tests of the runtime use computes what an export of the same model computes."""

from pathlib import Path

import numpy as np

from dynamic_tinybert.export.parity import random_batch
from dynamic_tinybert.runtime import LengthAdaptiveModel, LengthConfig

from support.tiny import tiny_bert, tiny_bundle, write_tiny_bundle


def test_the_stored_graph_is_that_of_the_model(tmp_path: Path) -> None:
    configs = {"half": LengthConfig((1, 0.7, 0.4))}
    stored, exported = (
        LengthAdaptiveModel.from_pretrained(folder)
        for folder in (
            tiny_bundle(tmp_path / "stored", configs),
            write_tiny_bundle(tmp_path / "exported", tiny_bert(), configs),
        )
    )
    batch = random_batch([100, 17], 100)
    for name in ("full", "half"):
        found, expected = (model(**batch, length_config=name) for model in (stored, exported))
        np.testing.assert_allclose(found.start_logits, expected.start_logits, rtol=0, atol=1e-5)
        np.testing.assert_allclose(found.end_logits, expected.end_logits, rtol=0, atol=1e-5)
        for layer, kept in expected.kept_positions.items():
            np.testing.assert_array_equal(found.kept_positions[layer], kept)
