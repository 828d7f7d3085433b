"""Which part of an anchor is kept: TPOT's factors and TTFT's, each by how far off points are that are left out.

Every point (or group of them) is left out in turn, and simulated with what the others give. Where that is further off
than without an anchor (median), the points contradict each other in this latency, and its factors change nothing:
without TPOT's, TTFT's fixed part alone is found, which leaves steps as they are; without TTFT's, what every step takes.
Two points cannot tell so much: each meets what one other gives. Where both are off to the same side and both come
nearer, the factors are kept, and a note says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from sim.validation.anchor_fit import LATENCIES, AnchorFit, Factors, Figures, Lines, Simulate, folds

LABELS: Final = {"tpot": "TPOT", "ttft": "TTFT"}
TOO_FEW: Final = 2
"""Points of which each is left out for one other: no judge of what both give together."""


@dataclass(frozen=True)
class JudgedAnchor:
    """What is kept, the figures of the points with it, and of each with what the others give (empty where there is one
    point)."""

    made: Factors
    after: Sequence[Figures]
    left_out: Sequence[Figures]
    notes: tuple[str, ...]
    """Sentences: what was not kept, or not judged, and why."""


def judged(lines: Lines, told: Sequence[Figures], simulate: Simulate) -> JudgedAnchor:
    """The factors of all points; those of a part that is not kept change nothing, and the others are found anew."""
    parts: tuple[str, ...] = LATENCIES
    notes: list[str] = []
    while parts:
        whole, left_out = _in_turn(lines, len(told), parts, simulate)
        after = [whole.found[i] for i in range(len(told))]
        worse = {part: says for part in parts if (says := _worse(part, told, lines.base, left_out))}
        kept = tuple(part for part in parts if part not in worse or _too_few(part, told, lines.base, after))
        notes += [f"{LABELS[part]}'s part is left out: {worse[part]}" for part in parts if part not in kept]
        if kept == parts:
            notes += [
                f"two points are too few to judge {LABELS[part]}'s part, which is kept, since both are off to the same "
                f"side and come nearer with it: {says}"
                for part, says in worse.items()
            ]
            return JudgedAnchor(whole.made, after, left_out, tuple(notes))
        parts = kept
    return JudgedAnchor(Factors(), lines.base, lines.base, tuple(notes))


def off(told: Sequence[Figures], found: Sequence[Figures], metric: str) -> float | None:
    """Median absolute error of figures of the points; None where none has the metric."""
    errors = [abs(error) for error in _errors(told, found, metric)]
    return median(errors) if errors else None


def _in_turn(
    lines: Lines, count: int, parts: Sequence[str], simulate: Simulate
) -> tuple[AnchorFit, Sequence[Figures]]:
    """The fit of all points, and the figures of each with that of the others."""
    every = range(count)
    groups = folds(count) if count > 1 else []
    whole, *others = lines.fitted([every, *([i for i in every if i not in out] for out in groups)], parts)
    asked = [(i, other.made) for out, other in zip(groups, others, strict=True) for i in out]
    by_point = dict(zip([i for i, _ in asked], simulate(asked), strict=True)) if asked else {}
    return whole, [by_point[i] for i in every] if by_point else []


def _worse(
    part: str, told: Sequence[Figures], base: Sequence[Figures], left_out: Sequence[Figures]
) -> str | None:
    """That a latency is further off at points that are left out than without an anchor; None where it is not."""
    without, others = off(told, base, part), off(told, left_out, part) if left_out else None
    if others is None or without is None or others <= without:
        return None
    return f"left out in turn, points are {others:.1%} off with what the others give, {without:.1%} without (medians)"


def _too_few(part: str, told: Sequence[Figures], base: Sequence[Figures], after: Sequence[Figures]) -> bool:
    """Whether nothing but one point left out speaks against a part: of two, off to the same side, both come nearer."""
    before, now = _errors(told, base, part), _errors(told, after, part)
    one_side = len(told) == TOO_FEW and len(before) == TOO_FEW and before[0] * before[1] > 0
    return one_side and all(abs(b) < abs(a) for a, b in zip(before, now, strict=True))


def _errors(told: Sequence[Figures], found: Sequence[Figures], metric: str) -> list[float]:
    """Of the points that have the metric, as shares of what was measured."""
    return [
        one[metric] / point[metric] - 1
        for point, one in zip(told, found, strict=True)
        if metric in point and metric in one
    ]
