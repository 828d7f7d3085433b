"""`python tests/kills/kill_all.py --count 50 --seed 1`: every command that writes a result, killed at random moments.

What is left has to be the old result or the new one, whole, and no child may live on. A command that is killed for the
last time is asked once more: it has to end with the new result, and to clear what the killed ones left.
"""

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from killed_commands import COMMANDS, NEW, OLD, lay_out
from killing import Scene


def main() -> int:
    """Exit code 1 where anything was left that is not whole, or alive."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--command", choices=[*COMMANDS], action="append", help="default: all")
    parser.add_argument("--count", type=int, default=50, help="kills of each command")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    faults = 0
    for name in asked.command or COMMANDS:
        with tempfile.TemporaryDirectory(prefix="kills-") as folder:
            inputs = Path(folder) / "inputs"
            inputs.mkdir()
            lay_out(inputs)
            scene, rng = Scene(COMMANDS[name], Path(folder), inputs), random.Random(f"{asked.seed}/{name}")
            outcomes = [scene.kill(rng) for _ in range(asked.count)]
            after = scene.again()
        left = Counter(outcome.left for outcome in outcomes)
        writing = sum(outcome.while_writing and not outcome.ended for outcome in outcomes)
        ended = sum(outcome.ended for outcome in outcomes)
        wrong = {what: count for what, count in left.items() if what not in (OLD, NEW, "between")}
        faults += sum(wrong.values()) + bool(after)
        told = ", ".join(f"{count} {what}" for what, count in left.most_common())
        print(
            f"{name}: {len(outcomes)} kills of {scene.takes_s:.1f} s, {writing} while it wrote, {ended} after its end: "
            f"{told}; asked again: {after or 'the new result'}",
            flush=True,
        )
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
