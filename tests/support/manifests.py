"""Manifests as writers other than ours might have written them."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def rewrite_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a bundle's manifest, and give it the right digest."""
    file = folder / "dynamic_tinybert.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    manifest.pop("manifest_sha256", None)
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    file.write_text(json.dumps(manifest | {"manifest_sha256": hashlib.sha256(canonical.encode()).hexdigest()}))
