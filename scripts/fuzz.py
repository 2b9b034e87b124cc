"""Load damaged bundles and send random requests, in child processes; each must end in an answer or one of our errors.

    python scripts/fuzz.py [--mutations 1000] [--requests 10000] [--seed 0] [--children 2] [--bundle FOLDER]

A mutation changes one file of a tiny bundle in one to three places, corrects the digests, loads the bundle and asks it
a question. A request is a call of a model with random arrays and length configurations; each row of its output is
compared with the output for that row alone. The bundles are tiny and made on the spot; with --bundle, requests also go
to that bundle. Failures are printed with their seeds, and the exit code is then 1. Needs the extra `test`.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def main() -> int:
    """Run both and print the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=10000)
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the first mutation and request; those of the others follow"
    )
    parser.add_argument("--children", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds after which a job counts as hanging")
    parser.add_argument("--bundle", help="another bundle to send requests to")
    arguments = parser.parse_args()
    from fuzzing.answering import mutate_and_ask, request
    from fuzzing.children import run_all
    from fuzzing.mutations import mutate
    from fuzzing.samples import TOLERANCES, write_samples

    wrong = 0
    with TemporaryDirectory() as folder:
        bundles = {name: str(path) for name, path in write_samples(Path(folder)).items()}
        names, seeds = list(bundles), range(arguments.seed, arguments.seed + arguments.mutations)
        mutations = [(bundles[names[seed % len(names)]], seed) for seed in seeds]
        tolerances = {bundles[name]: TOLERANCES[name] for name in names}
        if arguments.bundle:
            tolerances[arguments.bundle] = TOLERANCES["embedded"]
        places = list(tolerances)
        seeds = range(arguments.seed, arguments.seed + arguments.requests)
        requests = [(place := places[seed % len(places)], seed, tolerances[place]) for seed in seeds]
        for what, job, calls in (("mutations", mutate_and_ask, mutations), ("requests", request, requests)):
            start, kinds, largest = monotonic(), Counter[str](), 0.0
            outcomes = run_all(job, calls, children=arguments.children, seconds=arguments.seconds)
            for call, outcome in zip(calls, outcomes, strict=True):
                kinds[outcome.kind if outcome.kind != "error" else outcome.detail.partition(":")[0]] += 1
                largest = max(largest, outcome.mib)
                if not outcome.is_right:
                    wrong += 1
                    about = f"{what} of seed {call[1]} on {Path(call[0]).name}"
                    if job is mutate_and_ask:
                        about += f" ({mutate(Path(call[0]), Path(folder) / f'wrong-{call[1]}', call[1])})"
                    print(f"{about}: {outcome.kind}: {outcome.detail}".encode("ascii", "replace").decode(), flush=True)
            print(
                f"{len(calls)} {what} in {monotonic() - start:.0f} s, at most {largest:.0f} MiB: {dict(kinds)}",
                flush=True,
            )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
