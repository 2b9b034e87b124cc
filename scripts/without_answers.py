"""Write the questions of a SQuAD file without their answers, as a user's own questions are.

    python scripts/without_answers.py DATA.json OUTPUT.json [--questions N] [--seed 0]

With --questions, N of them drawn at random; articles and paragraphs without any are left out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np


def main(data: Path, output: Path, questions: int | None, seed: int) -> None:
    """Read DATA, and write OUTPUT."""
    articles = json.loads(data.read_text(encoding="utf-8"))["data"]
    ids = [qa["id"] for article in articles for paragraph in article["paragraphs"] for qa in paragraph["qas"]]
    order = np.random.default_rng(seed).permutation(len(ids))[:questions]
    kept = {ids[i] for i in order}
    found = []
    for article in articles:
        paragraphs = []
        for paragraph in article["paragraphs"]:
            qas = [{"id": qa["id"], "question": qa["question"]} for qa in paragraph["qas"] if qa["id"] in kept]
            if qas:
                paragraphs.append({"context": paragraph["context"], "qas": qas})
        if paragraphs:
            found.append({"title": article.get("title", ""), "paragraphs": paragraphs})
    output.write_text(json.dumps({"data": found}), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--questions", type=int)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
