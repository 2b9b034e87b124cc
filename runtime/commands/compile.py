"""``dynamic-tinybert compile``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def compile_command(
    bundle: Annotated[str, typer.Argument(help="Folder or Hub id of a bundle.")],
    output: Annotated[Path, typer.Argument(help="Folder to write.")],
    length_config: Annotated[
        str | None,
        typer.Option(
            help="Name of a length configuration in the bundle, or a keep ratio for each layer, separated by commas; "
            "by default the bundle's default."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a folder that this command wrote.")] = False,
) -> None:
    """Write the graph of one length configuration as OpenVINO IR, for OpenVINO Model Server and other programs."""
    from dynamic_tinybert.runtime.model import LengthAdaptiveModel
    from dynamic_tinybert.runtime.stored_graph import store_graph

    model = LengthAdaptiveModel.from_pretrained(bundle)
    config = length_config if length_config in model.length_configs else _ratios(length_config)
    described = store_graph(model, output, length_config=config, force=force)
    print(output)
    if ops := described["ops_of_the_extension"]:
        needed = f"needs {described['extension']['path']}, for OpenVINO {described['extension']['openvino']}"
        print(f"{needed}: it has {', '.join(ops)}", file=sys.stderr)
    else:
        print("needs no extension", file=sys.stderr)


def _ratios(text: str | None) -> str | tuple[float, ...] | None:
    """Numbers separated by commas; any other text is a name, which the model may not know."""
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        return text
