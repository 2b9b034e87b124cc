"""Convert a bundle to a PyTorch checkpoint, to train its model further when the original checkpoint is not available.

    python scripts/checkpoint_of_bundle.py BUNDLE OUTPUT

The scorers and the tokenizer are copied. INT8 weights are dequantised: OUTPUT computes what the bundle's `full`
computes, except for the rounding of activations; that is not exactly what the exported checkpoint computed.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from dynamic_tinybert.modeling.bundle_model import model_of_bundle
from dynamic_tinybert.runtime.bundles.bundle import open_bundle
from dynamic_tinybert.runtime.bundles.files import OPTIONAL_TOKENIZER_FILES, SCORERS, TOKENIZER
from dynamic_tinybert.runtime.common.publish import publishing


def main(bundle: Path, output: Path) -> None:
    """Write a checkpoint that `train` and `export` accept."""
    model = model_of_bundle(open_bundle(bundle), rounding=False)
    with publishing(output) as folder:
        model.save_pretrained(folder)
        for name in (SCORERS, TOKENIZER, *OPTIONAL_TOKENIZER_FILES):
            if (bundle / name).exists():
                shutil.copy(bundle / name, folder / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("output", type=Path)
    main(**vars(parser.parse_args()))
