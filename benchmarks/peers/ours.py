"""Our runtime: a bundle at one of its length configurations."""

from __future__ import annotations

from dynamic_tinybert.runtime import LengthAdaptiveModel

from .model import Inputs, Model, Outputs


def load(bundle: str, config: str, threads: int, cache: str | None = None) -> Model:
    model = LengthAdaptiveModel.from_pretrained(bundle, num_threads=threads, compiled_cache_dir=cache)

    def call(inputs: Inputs) -> Outputs:
        output = model(**inputs, length_config=config)
        return Outputs(output.start_logits, output.end_logits, output.kept_positions)

    return call
