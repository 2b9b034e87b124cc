"""Write the graph of `tiny_bert()` that `tiny_bundle` copies, after a change of the graphs that an export writes.

    PYTHONPATH=tests python tests/support/store_tiny_bundle.py

Not after every change: that a stored graph still runs shows that bundles made before do.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from support.tiny import TINY_BUNDLE, tiny_bert, write_tiny_bundle

if __name__ == "__main__":
    TINY_BUNDLE.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder:
        write_tiny_bundle(Path(folder), tiny_bert())
        for name in ("config.json", "openvino_model.xml", "openvino_model.bin"):
            shutil.copyfile(Path(folder, name), TINY_BUNDLE / name)
