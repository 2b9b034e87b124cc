"""``dynamic-tinybert classify``."""

from __future__ import annotations

import json
import sys
from time import perf_counter
from typing import Annotated

import typer

from .options import LengthConfigOption, RequiredBundleOption, ThreadsOption


def classify(
    text: Annotated[str, typer.Argument(help="The text.")],
    bundle: RequiredBundleOption,
    text_pair: Annotated[str | None, typer.Option(help="The second text of a pair.")] = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of labels, best first; by default all.")
    ] = None,
    truncation: Annotated[bool, typer.Option("--truncation", help="Cut a text that is too long.")] = False,
    length_config: LengthConfigOption = None,
    num_threads: ThreadsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list of objects.")] = False,
) -> None:
    """Classify a text. Standard output has a line for each label: its score and its name."""
    from dynamic_tinybert.runtime.tasks.sequence_classification.classifier import TextClassifier

    classifier = TextClassifier.from_pretrained(bundle, num_threads=num_threads)
    given = {"text": text} if text_pair is None else {"text": text, "text_pair": text_pair}
    for _ in range(2):  # the first call compiles the graph, which is not part of the time
        start = perf_counter()
        (scores,) = classifier.classify_batch(given, top_k=top_k, truncation=truncation, length_config=length_config)
        milliseconds = 1000 * (perf_counter() - start)
    if as_json:
        print(json.dumps(scores, ensure_ascii=False))
    else:
        for own in scores:
            print(f"{own['score']:.4f}\t{own['label']}")
    config = length_config or classifier.model.bundle.default_length_config
    print(f"length configuration {config}, {milliseconds:.1f} ms", file=sys.stderr)
