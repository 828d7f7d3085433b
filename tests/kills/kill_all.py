"""`python tests/kills/kill_all.py --count 50 --seed 1`: every command that writes a result, killed at random moments.

What is left has to be the old result or the new one, whole, and no child may live on. Now and then the command is
asked once more, from what the kill left: it has to end with the new result, and to clear the rest.
"""

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

from killed_commands import COMMANDS, NEW, OLD, lay_out
from killing import Scene

MOST: Final = 2
"""Tries of a kill at most: one that comes after the command's end tells nothing."""


def main() -> int:
    """Exit code 1 where anything was left that is not whole, or alive."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--command", choices=[*COMMANDS], action="append", help="default: all")
    parser.add_argument(
        "--count", type=int, default=50, help="kills of each command that come before its end"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--again-every", type=int, default=5, help="kills after which it is asked once more")
    asked = parser.parse_args()
    faults = 0
    for name in asked.command or COMMANDS:
        with tempfile.TemporaryDirectory(prefix="kills-") as folder:
            inputs = Path(folder) / "inputs"
            inputs.mkdir()
            lay_out(inputs)
            scene, rng = Scene(COMMANDS[name], Path(folder), inputs), random.Random(f"{asked.seed}/{name}")
            outcomes, after, within = [], [], 0
            while within < asked.count and len(outcomes) < MOST * asked.count:
                outcomes.append(scene.kill(rng))
                within += not outcomes[-1].ended
                if len(outcomes) % asked.again_every == 0 or within == asked.count:
                    after.append(scene.again())
            again = Counter(wrong or "the new result" for wrong in after)
        left = Counter(outcome.left for outcome in outcomes)
        writing = sum(outcome.while_writing and not outcome.ended for outcome in outcomes)
        ended = sum(outcome.ended for outcome in outcomes)
        wrong = {what: count for what, count in left.items() if what not in (OLD, NEW, "between")}
        faults += sum(wrong.values()) + sum(map(bool, after))
        told = ", ".join(f"{count} {what}" for what, count in left.most_common())
        print(
            f"{name}: {len(outcomes)} kills of {scene.takes_s:.1f} s, {writing} while it wrote, {ended} after its end: "
            f"{told}; asked again: {', '.join(f'{count} {what}' for what, count in again.items())}",
            flush=True,
        )
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
