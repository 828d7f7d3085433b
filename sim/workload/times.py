"""When the requests of a file arrived: dates, or numbers whose unit has to be found out.

Milliseconds that are read as seconds make a busy service an idle one, and nothing else would show it. So a unit that
neither the column's name, nor the scenario, nor the size of the numbers tells is taken only if the requests then arrive
at a rate that a service has; otherwise the question is asked. `traces.yaml` has the thresholds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sim.scenario.errors import DeploymentError, Problem
from sim.workload.columns import TRACE_KEY, Columns, index
from sim.workload.dates import Undecided, day_first, like_a_date, microseconds
from sim.workload.table import FileTable, real

Floats = NDArray[np.float64]

UNIT_S: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
LARGEST: Final = 1e20
"""Of a stamp in any unit: the year 5000 in nanoseconds."""
DATES: Final = "dates"
KEY: Final = ("workload", "time_unit")


@dataclass(frozen=True)
class Unit:
    """What the stamps of a file count."""

    name: str
    """s, ms, us, ns, or `dates`."""
    told_by: str
    """In words: who or what says so."""
    sure: bool = True
    """Neither guessed nor by custom."""

    @property
    def seconds(self) -> float:
        """Of one."""
        return UNIT_S["us"] if self.name == DATES else UNIT_S[self.name]


def reading_of(table: FileTable, column: str) -> Callable[[object], float]:
    """How a stamp is read: as a number, or as a date with a time of day.

    Raises DeploymentError where nothing tells the order of day and month.
    """
    if not _holds_dates(table, column):
        return _number
    try:
        order = day_first(table.columns[column])
    except Undecided as example:
        says = f"day or month first? {column} has dates such as {str(example)[:40]}, and no row tells"
        raise DeploymentError(
            [Problem(TRACE_KEY, f"'{table.file}': {says}; expected the year first, such as 2026-11-02 10:00")]
        ) from None
    return lambda cell: microseconds(cell, order)


def _holds_dates(table: FileTable, column: str) -> bool:
    first = next((cell for cell in table.columns[column] if cell not in (None, "")), None)
    try:
        real(first)
    except ValueError:
        return like_a_date(first)
    return False


def unit_of(table: FileTable, columns: Columns, stamps: Floats, asked: str | None) -> Unit:
    """The unit of the stamps of `columns.arrival`. `asked`: what the scenario says.

    Raises DeploymentError, which asks for `workload.time_unit`, where nothing tells it and no guess is plausible.
    """
    assert columns.arrival is not None
    if _holds_dates(table, columns.arrival):
        if asked is not None:
            raise DeploymentError(
                [Problem(KEY, f"{columns.arrival} holds dates, which need no unit; leave it out")]
            )
        return Unit(DATES, "dates with a time of day")
    if asked is not None:
        return Unit(asked, "as asked for")
    if columns.unit is not None:
        return Unit(columns.unit, "the column's name says so")
    middle = float(np.median(stamps))
    low, high = index()["times"]["epoch_s"]
    for name, seconds in UNIT_S.items():
        if low <= middle * seconds < high:
            return Unit(name, "counted since 1970")
    custom = index()["times"]["whole_numbers_are_ms"]
    if all(getattr(columns, role) == name for role, name in custom.items()) and not (stamps % 1).any():
        guess = Unit("ms", "Mooncake's custom", sure=False)
    else:
        guess = Unit("s", "assumed", sure=False)
    _ask(table, columns.arrival, stamps, guess)
    return guess


def _ask(table: FileTable, column: str, stamps: Floats, guess: Unit) -> None:
    """Raise the question for the unit where the guess gives a rate that no service has."""
    rules, span = index()["times"], float(stamps.max() - stamps.min())
    if len(stamps) < rules["requests"] or span == 0:
        return
    low, high = rules["plausible_per_s"]
    if low <= len(stamps) / (span * guess.seconds) <= high:
        return
    would = ", ".join(
        f"{length_in_words(span * seconds)} in {name} ({len(stamps) / (span * seconds):,.3g} per second)"
        for name, seconds in UNIT_S.items()
    )
    raise DeploymentError(
        [
            Problem(
                KEY,
                f"what does {column} of '{table.file}' count? Nothing tells, and in {guess.name} its {len(stamps):,} "
                f"requests would arrive at an unlikely rate. They would take {would}. Set it to s, ms, us or ns",
            )
        ]
    )


def length_in_words(seconds: float) -> str:
    """0.26 s, 43.3 min, 7.2 h or 61 days."""
    for least, name, size in ((172800, "days", 86400), (7200, "h", 3600), (120, "min", 60)):
        if seconds >= least:
            return f"{seconds / size:,.3g} {name}"
    return f"{seconds:.3g} s"


def _number(cell: object) -> float:
    number = real(cell)
    if abs(number) > LARGEST:
        raise ValueError(f"expected a time, got {number:g}")
    return number


def rate_per_s(requests: int, span_s: float) -> float:
    """Requests over the time of their arrivals; infinite where all arrive at once."""
    return requests / span_s if span_s > 0 else math.inf
