"""The nodes of a bundle's graph by name."""

from __future__ import annotations

from typing import NoReturn

import openvino as ov

from dynamic_tinybert.runtime.common.errors import BundleFormatError


class NamedNodes(dict[str, ov.Node]):
    """All nodes of a graph by their friendly names.

    Raises:
        BundleFormatError: On access to a name that the graph does not have.
    """

    def __init__(self, model: ov.Model) -> None:
        super().__init__({node.get_friendly_name(): node for node in model.get_ordered_ops()})

    def __missing__(self, name: str) -> NoReturn:
        raise BundleFormatError(
            f"the graph has no node named {name!r}, so tokens cannot be selected in it; export the checkpoint again"
        )
