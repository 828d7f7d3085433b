"""How published steps moved from release to release, beside the simulated ones, by engine and generation of GPU.

    python -m sim.validation.releases

Of the training half's aggregated rows without drafts: TPOT published over TPOT simulated, the median of each layout,
every layout once. Read from the shipped digest; it simulates nothing. Writes `sim/catalog/release_steps.csv`.
"""

import csv
import json
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Final

import numpy as np

import sim.catalog
from sim.catalog.engines import described
from sim.catalog.facts import version
from sim.catalog.releases import FILE, ReleaseSteps, generation_of
from sim.validation.case import Case
from sim.validation.digest import FILE as DIGEST
from sim.validation.digest import cases_of
from sim.validation.errors import grouped
from sim.validation.rows import read_rows
from sim.validation.table import SHIPPED

HEAD: Final = (
    "# Published over simulated time per token of InferenceX rows (DeepSeek-R1, aggregated, without drafts, training\n"
    "# half), by layout: median and 10 to 90% of the layouts. Host times of the release are in the simulated ones.\n"
    "# Written by python -m sim.validation.releases.\n"
)
COLUMNS: Final = ("engine", "generation", "release", "middle", "low", "high", "layouts")
DIGITS: Final = 3
ENDS: Final = (0.1, 0.9)


def moved(cases: Iterable[Case]) -> list[ReleaseSteps]:
    """A line per engine, generation and release, oldest release first."""
    groups = grouped(
        cases,
        lambda c: (c.engine, generation_of(c.gpu), c.release or described(c.engine)["default"]),
    )
    found = []
    for (engine, generation, release), group in groups.items():
        layouts = grouped(group, lambda c: c.layout).values()
        ratios = [float(np.median([c.published / c.simulated for c in mine])) for mine in layouts]
        low, high = (round(float(np.quantile(ratios, end)), DIGITS) for end in ENDS)
        middle = round(float(np.median(ratios)), DIGITS)
        found.append(ReleaseSteps(engine, generation, release, middle, low, high, len(ratios)))
    return sorted(found, key=lambda one: (one.engine, one.generation, version(one.release)))


def fitted_on() -> list[Case]:
    """The cases of the shipped digest that the lines are of."""
    rows = {row.id for row in read_rows(SHIPPED) if not row.disaggregated and row.spec == "none"}
    cases = cases_of(json.loads(DIGEST.read_text(encoding="utf-8")))
    return [c for c in cases if c.id in rows and c.split == "train" and c.metric == "tpot"]


def written(lines: Sequence[ReleaseSteps]) -> str:
    """The file."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([getattr(line, name) for name in COLUMNS] for line in lines)
    return HEAD + text.getvalue()


if __name__ == "__main__":
    path = Path(sim.catalog.__file__).with_name(FILE)
    path.write_text(written(moved(fitted_on())), encoding="utf-8")
