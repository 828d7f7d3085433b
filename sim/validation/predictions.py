"""What was expected of published services before they were simulated, beside what was found.

    python -m sim.validation.predictions

`data/predictions-DATE.yaml`: families of rows, and where the median of their signed errors would lie. What was found
is read from the shipped digest; VALIDATION.md shows the same table.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, Final

import yaml

from sim.validation.case import Case
from sim.validation.digest import FILE, cases_of
from sim.validation.rows import Row
from sim.validation.table import shipped_rows

FOLDER: Final = Path(__file__).parent / "data"
METRICS: Final = {"tpot": "tpot", "throughput": "total_tput_per_gpu"}
"""Quantity of a prediction -> metric of a case."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Rows of one kind, and what was expected of them."""

    made: str
    """Day of the prediction."""
    name: str
    ranges: Mapping[str, tuple[float, float]]
    """By quantity: where the median of the signed errors was expected."""
    why: str
    rows: frozenset[str]
    """Ids of the rows that it speaks of."""

    def found(self, quantity: str, cases: Sequence[Case]) -> tuple[float, int] | None:
        """Median of the signed errors, and how many there are; None before they were simulated."""
        errors = [case.error for case in cases if case.metric == METRICS[quantity] and case.id in self.rows]
        return (median(errors), len(errors)) if errors else None


def _columns(row: Row) -> dict[str, Any]:
    return {
        "model": row.model,
        "disaggregated": row.disaggregated,
        "hardware": row.hardware,
        "engine": row.engine,
        "attention": "ranks" if row.decoding.dp_attention else "whole",
        "drafts": row.spec != "none",
    }


@cache
def predictions() -> list[Prediction]:
    """Every prediction of every file, oldest file first."""
    rows = shipped_rows()
    found = []
    for path in sorted(FOLDER.glob("predictions-*.yaml")):
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        for told in data["families"]:
            wanted = {**data["of"], **told["when"]}.items()
            mine = frozenset(row.id for row in rows if wanted <= _columns(row).items())
            drafts = "with drafts" if told["when"]["drafts"] else "without drafts"
            when = {**told["when"], "drafts": drafts, "attention": f"attention {told['when']['attention']}"}
            name = " ".join([data["of"]["model"], *when.values()])
            ranges = {quantity: (told[quantity][0], told[quantity][1]) for quantity in METRICS}
            found.append(Prediction(str(data["made"]), name, ranges, told["why"], mine))
    return found


def compared(cases: Sequence[Case]) -> Iterator[list[str]]:
    """A line of text cells per prediction: day, family, and by quantity what was expected and what was found."""
    for prediction in predictions():
        cells = []
        for quantity, (low, high) in prediction.ranges.items():
            told = prediction.found(quantity, cases)
            inside = "" if told is None or low <= told[0] <= high else ", outside"
            shown = "not simulated yet" if told is None else f"{told[0]:+.0%} ({told[1]} rows){inside}"
            cells += [f"{low:+.0%} to {high:+.0%}", shown]
        yield [prediction.made, prediction.name, *cells, prediction.why]


COLUMNS: Final = ("expected on", "family", "TPOT expected", "found", "throughput expected", "found", "why")


def main() -> None:
    """Print the table, from the shipped digest."""
    cases = cases_of(json.loads(FILE.read_text(encoding="utf-8")))
    for cells in compared(cases):
        print(" | ".join(cells))


if __name__ == "__main__":
    main()
