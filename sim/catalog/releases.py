"""How the steps of an engine's releases lay beside what is priced: `release_steps.csv`.

`python -m sim.validation.releases` writes the file, from published services of the training half.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from statistics import median
from typing import Final

from sim.catalog import hardware
from sim.catalog.facts import numbers, version

FILE: Final = "release_steps.csv"
LEAST_LAYOUTS: Final = 3
"""Of which a release has its own answer; with fewer it gets that of all releases."""
ALL: Final = "all"


@dataclass(frozen=True, slots=True)
class ReleaseSteps:
    """Published steps over simulated ones, by layout; the host's time of the release is in the simulated ones."""

    engine: str
    generation: str
    """Of the GPUs, such as blackwell."""
    release: str
    """From which on; `all`: of all releases that are known."""
    middle: float
    """Median over layouts."""
    low: float
    """What a tenth of the layouts lies below."""
    high: float
    layouts: int


@cache
def known() -> tuple[ReleaseSteps, ...]:
    """Every line of the file."""
    text = resources.files("sim.catalog").joinpath(FILE).read_text(encoding="utf-8")
    lines = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return tuple(
        ReleaseSteps(
            line["engine"], line["generation"], line["release"], float(line["middle"]), float(line["low"]),
            float(line["high"]), int(line["layouts"]),
        )
        for line in lines
    )  # fmt: skip


def generation_of(gpu: str) -> str:
    """Of a GPU by its name. Raises UnknownName."""
    return hardware.gpu(gpu).generation


def release_steps(engine: str, generation: str, release: str | None) -> ReleaseSteps | None:
    """What is known of a release, by the newest line that it has reached; of one that is not stated (None), or of
    which fewer than `LEAST_LAYOUTS` layouts are known, the middle and the range of all. None: nothing is known."""
    lines = [one for one in known() if (one.engine, one.generation) == (engine, generation)]
    asked = numbers(release or "")
    # A candidate such as 1.2.0rc6 is of 1.2.
    reached = [one for one in lines if asked[: len(at := numbers(one.release))] >= at]
    own = max(reached, key=lambda one: version(one.release), default=None)
    if own and own.layouts >= LEAST_LAYOUTS:
        return own
    return together(lines)


def together(lines: Iterable[ReleaseSteps]) -> ReleaseSteps | None:
    """The middle of several releases, and the range that holds all of theirs."""
    found = list(lines)
    if not found:
        return None
    middle = median(one.middle for one in found for _ in range(one.layouts))
    low, high = min(one.low for one in found), max(one.high for one in found)
    layouts = sum(one.layouts for one in found)
    return replace(found[0], release=ALL, middle=middle, low=low, high=high, layouts=layouts)
