"""Store the graph of `tiny_bert()`, which `tiny_bundle` copies. Run it after a change of the graphs that export writes.

    PYTHONPATH=tests python tests/support/store_tiny_bundle.py

Do not run it after every change: that the stored graph still runs shows that older bundles do.
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
