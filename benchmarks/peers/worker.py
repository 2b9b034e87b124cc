"""One system in a process of its own. It reads commands from standard input and writes replies, one JSON per line.

    python -m benchmarks.peers.worker LOADER OPTIONS

{"text": {"tokenizer", "question", "context", "size", "stride"}, "pad_to"}   replies with the logits of the first window
    of a question; the worker tokenises it itself, because that is part of a start
{"run": [[{"ids", "context"}, ...], ...], "pad_to", "outputs": bool}   runs questions, given as their windows; replies
    with the time of each, which is that of the model's calls for all its windows, and with the logits if `outputs`
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from time import perf_counter
from typing import Any

import numpy as np

from .model import Inputs, Model, Outputs


def main(loader: str, options: str) -> None:
    replies, sys.stdout = sys.stdout, sys.stderr  # keeps what libraries print out of the replies
    model: Model = import_module(f"benchmarks.peers.{loader}").load(**json.loads(options))
    for line in sys.stdin:
        match json.loads(line):
            case {"text": text, "pad_to": pad_to}:
                window = _first_window(**text)
                reply: dict[str, Any] = {"outputs": _readable(model(_inputs(window, pad_to)), window)}
            case {"run": questions, "pad_to": pad_to, "outputs": wanted}:
                seconds, outputs = _run(model, [[_inputs(window, pad_to) for window in own] for own in questions])
                reply = {"seconds": seconds}
                if wanted:
                    reply["outputs"] = [list(map(_readable, *both)) for both in zip(outputs, questions, strict=True)]
        print(json.dumps(reply), file=replies, flush=True)


def _run(model: Model, questions: list[list[Inputs]]) -> tuple[list[float], list[list[Outputs]]]:
    seconds, outputs = [], []
    for windows in questions:
        started = perf_counter()
        answers = [model(inputs) for inputs in windows]
        seconds.append(perf_counter() - started)
        outputs.append(answers)
    return seconds, outputs


def _inputs(window: dict[str, Any], pad_to: int) -> Inputs:
    ids, context = window["ids"], window["context"]  # token ids, and the index of the first token of the context
    length = max(len(ids), pad_to)
    inputs = {name: np.zeros((1, length), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    inputs["input_ids"][0, : len(ids)] = ids
    inputs["attention_mask"][0, : len(ids)] = 1
    inputs["token_type_ids"][0, context : len(ids)] = 1
    return inputs


def _first_window(tokenizer: str, question: str, context: str, size: int, stride: int) -> dict[str, Any]:
    """Tokenise with `tokenizers` alone, so that the start of a peer does not include the import of our package."""
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(tokenizer)
    loaded.no_padding()
    loaded.enable_truncation(size, stride=stride, strategy="only_second")
    encoding = loaded.encode(question, context)
    return {"ids": encoding.ids, "context": encoding.sequence_ids.index(1)}


def _readable(outputs: Outputs, window: dict[str, Any]) -> dict[str, Any]:
    length, padded = len(window["ids"]), outputs.start.shape[1]
    kept = {layer: int((positions[0] < padded).sum()) for layer, positions in outputs.kept_positions.items()}
    return {"start": outputs.start[0, :length].tolist(), "end": outputs.end[0, :length].tolist(), "kept": kept}


if __name__ == "__main__":
    main(*sys.argv[1:])
