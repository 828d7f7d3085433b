"""The cases that are furthest off, and the operations of their steps that could be to blame."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sim.explain import explain
from sim.units import MICROSECOND_S
from sim.validation.blame import composition, explainable
from sim.validation.case import BOUND, Case
from sim.validation.errors import grouped
from sim.validation.points import points, setup
from sim.validation.published import shipped
from sim.validation.rows import Row
from sim.validation.scenarios import scenario_of
from sim.validation.table import shipped_rows

COUNT: Final = 20
"""Cases that are told, at most one of a layout."""
SCORED: Final = ("tpot", "prefill_tput_per_node", "decode_tput_per_node")
"""Metrics that a step makes."""
PLAUSIBLE: Final = (0.5, 2.0)
"""Factors on one group of operations that could explain a difference."""


@dataclass(frozen=True)
class Worst:
    """A case, and its step."""

    id: str
    metric: str
    layout: str
    point: str
    error: float
    operation: str
    """The largest, with its microseconds and what priced it."""
    factors: Mapping[str, float]
    """Group of operations -> the factor on it alone that would give what was published, where it is plausible."""

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "factors": dict(self.factors)}


def worst(cases: Iterable[Case]) -> list[Worst]:
    """The largest errors first, of the worst case of each layout."""
    scored = (case for case in cases if case.metric in SCORED and not case.metric.startswith(BOUND))
    layouts = grouped(sorted(scored, key=lambda case: -abs(case.error)), lambda case: case.layout)
    found: list[Worst] = []
    for group in layouts.values():
        if len(found) == COUNT:
            break
        if told := _told(group[0]):
            found.append(told)
    return found


def _told(case: Case) -> Worst | None:
    if case.id in _rows():
        scenario = scenario_of(_rows()[case.id], _rows()[case.id].conc)
        if not explainable(scenario):
            return None
        made = composition(scenario, case.simulated, largest=1)
        name, seconds, source = made.largest[0]
        factors = made.factors(case.published)
    elif (step := _step(case)) is not None:
        name, seconds, source = step
        factors = {}  # half batches overlap: no group alone makes the step
    else:
        return None
    kept = {group: f for group, f in factors.items() if PLAUSIBLE[0] <= f <= PLAUSIBLE[1]}
    operation = f"{name}, {seconds / MICROSECOND_S:,.0f} us a step ({source})"
    return Worst(case.id, case.metric, case.layout, case.point, case.error, operation, kept)


def _step(case: Case) -> tuple[str, float, str] | None:
    """The largest operation of a published decode step."""
    if (file := shipped().get(case.id)) and file.head.step:
        scenario, batch, context = file.scenario, file.head.step.batch, file.head.step.context
    elif point := next((one for one in points()["points"] if one["id"] == case.id), None):
        scenario, batch, context = setup(point)[0], point.get("sequences"), point.get("context")
    else:
        return None
    if case.phase != "decode":
        return None
    operations = explain(scenario, "decode", batch, context).operations
    largest = max(operations, key=lambda one: one.total_s)
    return largest.operation.name, largest.total_s, largest.latency.source


@cache
def _rows() -> Mapping[str, Row]:
    return {row.id: row for row in shipped_rows()}
