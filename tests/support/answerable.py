"""Tiny checkpoints and questions that they can learn to answer."""

import json
from pathlib import Path

import numpy as np

from support.tiny import tiny_bert, tiny_tokenizer


def write_checkpoint(folder: Path, seed: int = 0, **sizes: int) -> Path:
    tiny_bert(seed, **sizes).save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def write_questions(path: Path, count: int = 60, seed: int = 0) -> Path:
    """Contexts of sentences like "the b was in 2 .", and questions like "where was the b ?"."""
    random = np.random.default_rng(seed)
    paragraphs = []
    for k in range(count):
        letters = random.permutation(list("abcdefghijklm"))[: random.integers(4, 10)]
        places = [f"{random.integers(1, 4)} {random.integers(1, 4)}" for _ in letters]
        sentences = [f"the {letter} was in {place} ." for letter, place in zip(letters, places, strict=True)]
        asked = int(random.integers(len(letters)))
        start = len(" ".join([*sentences[:asked], ""])) + len(f"the {letters[asked]} was in ")
        answer = {"text": places[asked], "answer_start": start}
        question = {"id": str(k), "question": f"where was the {letters[asked]} ?", "answers": [answer]}
        paragraphs.append({"context": " ".join(sentences), "qas": [question]})
    path.write_text(json.dumps({"data": [{"title": "places", "paragraphs": paragraphs}]}))
    return path
