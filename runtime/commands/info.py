"""``dynamic-tinybert info``."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING

from dynamic_tinybert.runtime import cpu

from .options import BundleOption, JsonOption

if TYPE_CHECKING:
    from dynamic_tinybert.runtime.bundles.bundle import Bundle, NamedLengthConfig


def info(
    bundle: BundleOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show versions, the kernels that run on this CPU, and the contents of a bundle."""
    from dynamic_tinybert.runtime.bundles.bundle import open_bundle
    from dynamic_tinybert.runtime.bundles.hub import default_bundle, resolve_bundle

    opened = open_bundle(default_bundle() if bundle is None else resolve_bundle(bundle))
    facts = _facts(opened)
    if as_json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    for section, values in facts.items():
        if not isinstance(values, dict):
            print(f"{section}: {values}")
            continue
        print(f"{section}:")
        for key, value in values.items():
            if key == "length_configs":
                print("  length configurations:")
                for name, named in opened.length_configs.items():
                    print(f"    {name:16} {_described(named)}")
            else:
                print(f"  {key.replace('_', ' ')}: {_plain(value)}")


def _facts(opened: Bundle) -> dict[str, object]:
    from dynamic_tinybert.runtime.encoder import extension_library
    from dynamic_tinybert.runtime.encoder.compilation import is_fused

    return {
        "versions": {name: version(name) for name in ("dynamic-tinybert", "openvino", "tokenizers", "numpy")},
        "cpu": {
            "name": cpu.name(),
            "kernels": extension_library.isa(),
            "kernels_available": extension_library.available_isas(),
            "kernels_refused_by_system": extension_library.refused_isas(),
            "kernels_that_failed": extension_library.distrusted_isas(),
            "float_precision": cpu.best_float_precision(),
        },
        "extension": str(extension_library.extension_path()),
        "bundle": {
            "path": str(opened.path),
            "source": dict(opened.source),
            "task": opened.task,
            "significance": opened.significance,
            "quantization": dict(opened.quantization),
            "computed_in_integers": is_fused(opened),
            "layers": opened.shape.num_layers,
            "hidden_size": opened.shape.hidden_size,
            "default_length_config": opened.default_length_config,
            "length_configs": {
                name: {
                    "keep_ratios": c.config.keep_ratios,
                    "thresholds": c.config.thresholds,
                    "measured": c.measured,
                }
                for name, c in opened.length_configs.items()
            },
        },
    }


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items() if v is not None and not isinstance(v, (list, dict)))
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _described(named: NamedLengthConfig) -> str:
    """What was measured for a length configuration and, if on another machine, on which CPU."""
    figures = named.measured or {}
    score = next((name for name in figures if f"{name}_against_full" in figures), "f1")
    if score not in figures:
        return f"not measured, keep ratios {', '.join(f'{ratio:g}' for ratio in named.config.keep_ratios)}"
    parts = [f"{'F1' if score == 'f1' else score} {figures[score]}"]
    if f"{score}_against_full" in figures:
        parts[0] += f" ({figures[f'{score}_against_full'][0]:+.2f})"
    if "macs_fewer" in figures:
        parts.append(f"{figures['macs_fewer']:.2f}x fewer MACs")
    if "latency_p50_ms" in figures:
        parts.append(f"p50 {figures['latency_p50_ms']} ms")
    if figures.get("cpu", cpu.name()) != cpu.name():
        parts.append(f"times were measured on another machine, {figures['cpu']}")
    return ", ".join(parts)
