"""Predicted against measured: errors beside the spread of the repeats, and effects by their direction."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


def spread(values: Sequence[float]) -> float:
    """Half of the range of repeats, over their median."""
    return (max(values) - min(values)) / 2 / median(values)


@dataclass(frozen=True)
class Case:
    """One figure of one load."""

    load: str
    metric: str
    measured: float
    """Median of the repeats."""
    spread: float
    """See `spread`."""
    predicted: float
    """Median of the predictions, one before each repeat."""
    band: float
    """What the absolute error may be."""

    @property
    def error(self) -> float:
        """Signed, predicted / measured - 1."""
        return self.predicted / self.measured - 1

    @property
    def ok(self) -> bool:
        """Whether the error lies in the band."""
        return abs(self.error) <= self.band

    def json(self) -> dict[str, Any]:
        """As documented."""
        return {**asdict(self), "error": self.error, "ok": self.ok}


def case(load: str, metric: str, measured: Sequence[float], predicted: Sequence[float], bound: float) -> Case:
    """The case of a figure: its band is `bound`, or twice the spread of the repeats where that is more."""
    apart = spread(measured)
    return Case(load, metric, median(measured), apart, median(predicted), max(bound, 2 * apart))


@dataclass(frozen=True)
class Effect:
    """What a mechanism makes of a figure: with it over without it."""

    name: str
    load: str
    metric: str
    measured: float
    """Median of the repeats' ratios."""
    spread: float
    """Of the ratios, or of the figure without it where that is more."""
    predicted: float

    @property
    def ok(self) -> bool | None:
        """Whether the prediction has its direction; None where the effect is smaller than the spread."""
        if abs(self.measured - 1) <= self.spread:
            return None
        return (self.predicted > 1) == (self.measured > 1)

    def json(self) -> dict[str, Any]:
        """As documented."""
        return {**asdict(self), "ok": self.ok}


def effect(
    name: str,
    load: str,
    metric: str,
    measured: Sequence[float],
    predicted: Sequence[float],
    apart: float = 0.0,
) -> Effect:
    """The effect on a figure from the ratios of its repeats, or of its only one.

    apart: spread of the figure itself, which one side of a ratio is off by at least.
    """
    return Effect(name, load, metric, median(measured), max(spread(measured), apart), median(predicted))
