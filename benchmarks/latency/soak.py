"""Does memory stay flat over many requests of random lengths at random length configurations?

python -m benchmarks.latency.soak BUNDLE [--elastic] [--requests 100000]
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from dynamic_tinybert.runtime import LengthAdaptiveModel, cpu

from benchmarks.common import argument_parser, resident_mib


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--elastic", action="store_true")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--longest", type=int, default=384, help="tokens")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    model = LengthAdaptiveModel.from_pretrained(
        arguments.bundle, num_threads=arguments.threads, elastic=arguments.elastic
    )
    generator = np.random.default_rng(0)
    words, longest = model.bundle.vocab_size, min(arguments.longest, model.max_length)
    names = list(model.length_configs)
    marks = {round(share * arguments.requests): 0.0 for share in (0.01, 0.1, 0.3, 0.6, 1)}
    for number in tqdm(range(1, arguments.requests + 1), disable=None):
        length = int(generator.integers(8, longest + 1))
        ids = generator.integers(words // 2, words, (1, length))
        types = (np.arange(length) >= 8).astype(np.int64)[None]
        model(ids, token_type_ids=types, length_config=names[generator.integers(len(names))])
        if number in marks:
            marks[number] = resident_mib()
    print(f"{cpu.name()}, {'elastic' if arguments.elastic else 'a graph for each configuration'}; MiB after requests:")
    for number, mib in marks.items():
        print(f"{number:8d} {mib:8.1f}")


if __name__ == "__main__":
    main()
