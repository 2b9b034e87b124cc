"""Groups to train a reranker on, from questions in SQuAD's form: each with its paragraph and hard negatives.

    python -m benchmarks.ranking.make_groups DATA.json OUTPUT.jsonl [--negatives 3] [--among 20] [--questions N]

The corpus is every different paragraph of the file. A question's negatives are drawn at random from the paragraphs that
BM25 ranks highest for it (`--among`), as `make_rankings` finds them. Its own paragraph is none, nor is any that holds
one of its answers, ignoring case: it may answer the question, too. Unanswerable questions are left out, and those for
which too few negatives are left. The output is read by `dynamic-tinybert train`; its first line has the corpus.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dynamic_tinybert.runtime.common.checks import require_int
from dynamic_tinybert.runtime.common.errors import DataError
from dynamic_tinybert.runtime.common.publish import writing
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad

from benchmarks.common import argument_parser
from benchmarks.ranking.make_rankings import bm25_order, row


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--negatives", type=int, default=3, help="of each question")
    parser.add_argument("--among", type=int, default=20, help="number of paragraphs of BM25 to draw negatives from")
    parser.add_argument("--questions", type=int, help="draw this many at random instead of taking all")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    require_int("negatives", arguments.negatives, 1)
    require_int("among", arguments.among, arguments.negatives)

    examples = [example for example in read_squad(arguments.data) if not example.is_impossible]
    corpus = list(dict.fromkeys(example.context for example in examples))
    if len(corpus) <= arguments.negatives:
        raise DataError(f"{arguments.data} has {len(corpus)} paragraphs, too few for negatives")
    random = np.random.default_rng(arguments.seed)
    if arguments.questions is not None:
        count = min(require_int("questions", arguments.questions, 1), len(examples))
        examples = [examples[i] for i in sorted(random.choice(len(examples), count, replace=False))]
    found = bm25_order([example.question for example in examples], corpus, min(arguments.among, len(corpus)))
    place = {context: i for i, context in enumerate(corpus)}
    folded = [context.casefold() for context in corpus]
    rows: list[dict[str, object]] = []
    for example, documents in zip(examples, found, strict=True):
        negatives = hard_negatives(example, documents, folded, place[example.context])
        if len(negatives) >= arguments.negatives:
            chosen = random.choice(negatives, arguments.negatives, replace=False).tolist()
            rows.append(row(example, [place[example.context], *chosen], 0))
    if not rows:
        raise DataError(f"{arguments.data}: no question has {arguments.negatives} paragraphs without its answer")
    with writing(arguments.output):
        lines = (json.dumps(line, ensure_ascii=False) for line in ({"corpus": corpus}, *rows))
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(
        f"{len(rows)} of {len(examples)} questions, each with {arguments.negatives} of the {arguments.among} "
        f"paragraphs that BM25 ranks highest of {len(corpus)} in {arguments.data.name}"
    )


def hard_negatives(example: Example, documents: Sequence[int], folded: Sequence[str], own: int) -> list[int]:
    """Of the documents that were found, those that do not contain an answer.

    Args:
        example: The question.
        documents: Indices of the paragraphs that were found.
        folded: All paragraphs in lower case.
        own: Index of the question's paragraph.
    """
    answers = [answer.strip().casefold() for answer in example.answers if answer.strip()]
    return [i for i in documents if i != own and not any(answer in folded[i] for answer in answers)]


if __name__ == "__main__":
    main()
