"""Rankings from questions in SQuAD's form: each question with the paragraphs that BM25 finds for it.

    python -m benchmarks.ranking.make_rankings DATA.json OUTPUT.jsonl [--documents 100]

The corpus is every different paragraph of the file. A question's documents are those that BM25 (Lucene's variant, k1
1.5, b 0.75, English stop words, no stemming) ranks highest among all of them, in its order; if the paragraph that the
question was asked of is not among them, it takes the place of the last. That paragraph alone counts as relevant.
Unanswerable questions are left out. The output is read by `dynamic-tinybert evaluate`; its first line has the corpus.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import bm25s

from dynamic_tinybert.runtime.common.errors import DataError
from dynamic_tinybert.runtime.common.publish import writing
from dynamic_tinybert.runtime.tasks.question_answering.example import Example
from dynamic_tinybert.runtime.tasks.question_answering.squad_files import read_squad
from dynamic_tinybert.runtime.tasks.sequence_classification.ranking import TOP, ndcg, reciprocal_rank

from benchmarks.common import argument_parser


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--documents", type=int, default=100, help="of each question")
    arguments = parser.parse_args()

    examples = [example for example in read_squad(arguments.data) if not example.is_impossible]
    corpus = list(dict.fromkeys(example.context for example in examples))
    count = min(arguments.documents, len(corpus))
    if count < 1:
        raise DataError(f"{arguments.data} holds no answerable question, or --documents is below 1")
    own = {context: i for i, context in enumerate(corpus)}
    found = bm25_order([example.question for example in examples], corpus, count)
    missed = 0
    rows: list[dict[str, object]] = []
    relevant = []  # the index of the right paragraph among the documents
    for example, documents in zip(examples, found, strict=True):
        if own[example.context] not in documents:
            documents[-1] = own[example.context]
            missed += 1
        relevant.append(documents.index(own[example.context]))
        rows.append(row(example, documents, relevant[-1]))
    with writing(arguments.output):
        lines = (json.dumps(line, ensure_ascii=False) for line in ({"corpus": corpus}, *rows))
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    grades = [[float(i == index) for i in range(count)] for index in relevant]
    print(f"{len(rows)} questions, {count} documents each, of {len(corpus)} paragraphs of {arguments.data.name}")
    print(f"BM25 misses the right paragraph of {missed}, which was added")
    print(
        f"BM25's own order: nDCG@{TOP} {100 * fmean(map(ndcg, grades)):.2f}, "
        f"MRR@{TOP} {100 * fmean(map(reciprocal_rank, grades)):.2f}"
    )


def row(example: Example, documents: Sequence[int], relevant: int) -> dict[str, object]:
    return {
        "id": example.id,
        "query": example.question,
        "documents": list(documents),
        "relevant": [relevant],
        "group": example.title or example.context,
    }


def bm25_order(queries: Sequence[str], corpus: Sequence[str], count: int) -> list[list[int]]:
    """For each query the indices of the `count` texts that BM25 ranks highest, best first."""
    words = bm25s.tokenize(list(corpus), show_progress=False)
    if not words.vocab:
        raise DataError("no paragraph has a word of two letters that is no stop word, which BM25 could find it by")
    index = bm25s.BM25()
    index.index(words, show_progress=False)
    tokens = bm25s.tokenize(list(queries), show_progress=False)
    indices, _ = index.retrieve(tokens, k=count, show_progress=False)
    return [list(map(int, own)) for own in indices]


if __name__ == "__main__":
    main()
