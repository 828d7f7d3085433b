"""`python -m tests.fuzz [--kind traces] --cases 10000 --seed 1 [--runs 1000]`: mutated input, and what breaks.

`--all` is every kind with as many cases as a release has to survive; `make fuzz` runs that.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_case import KINDS, PAGES, SCENARIOS
from fuzz_workers import judged

ALL: Final = {
    SCENARIOS: (26_000, 3000), "traces": (5000, 0), "configs": (2000, 0), "records": (200, 0), "profiles": (200, 0),
    PAGES: (200, 0), "sweeps": (500, 0), "plans": (500, 0), "anchors": (500, 0), "benches": (500, 0),
    "launches": (1000, 0), "steps": (500, 0), "tables": (500, 0),
}  # fmt: skip
"""Cases of each kind, and short runs among them: an eighth of the scenarios pass the check."""


def main() -> int:
    """Exit code 1 where anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every kind, thousands of cases")
    parser.add_argument("--kind", choices=KINDS, default=SCENARIOS, help="what is mutated")
    parser.add_argument("--cases", type=int, default=1000, help="cases through load and check")
    parser.add_argument(
        "--runs", type=int, default=0, help="of those that pass, so many through explain and a short run"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first case: one case alone is --first N --cases 1"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds that one command may take")
    parser.add_argument("--memory-gb", type=float, default=4.0, help="of a process")
    parser.add_argument("--show", type=int, default=1, help="examples of each fault to print in full")
    asked = parser.parse_args()
    wanted = ALL if asked.all else {asked.kind: (asked.cases, asked.runs)}
    return int(sum(_faults(asked, kind, cases, runs) for kind, (cases, runs) in wanted.items()) > 0)


def _faults(asked: argparse.Namespace, kind: str, cases: int, runs: int) -> int:
    """How many cases of one kind broke something; each kind of fault is printed with its first example."""
    passed, found = 0, Counter[str]()
    verdicts = judged(
        cases,
        runs,
        asked.seed,
        asked.workers,
        asked.limit,
        int(asked.memory_gb * 2**30),
        asked.first,
        kind=kind,
    )
    for done, verdict in enumerate(verdicts, start=1):
        passed += verdict.passed
        if verdict.fault:
            found[verdict.fault] += 1
            if found[verdict.fault] <= asked.show:
                print(
                    f"--- case {verdict.number} ({verdict.base}): {verdict.fault}\n{verdict.detail}\n",
                    flush=True,
                )
        if done % 500 == 0:
            print(
                f"{done:,} of {cases:,}; {passed:,} passed the check; {found.total():,} faults",
                file=sys.stderr,
                flush=True,
            )
    print(
        f"{cases:,} {kind} of seed {asked.seed}: {passed:,} passed the check, "
        f"{found.total():,} faults of {len(found)} kinds"
    )
    for fault, count in found.most_common():
        print(f"{count:6,}  {fault}")
    return found.total()


if __name__ == "__main__":
    sys.exit(main())
