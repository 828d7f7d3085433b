"""One published figure beside its simulation: what every reader of published measurements yields."""

from dataclasses import asdict, dataclass
from typing import Any, Final

from sim.scenario.schema import Scenario

BOUND: Final = "bound"
"""How the metrics of limits begin: the simulation lies on one side of them."""
Band = tuple[float | None, float | None]
"""Least and most that a simulation may say; None: no end on that side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A figure with the columns that describe it, in the catalog's names."""

    id: str
    metric: str
    published: float
    """In the unit of its metric: seconds, tokens per second and GPU or node, a ratio."""
    simulated: float
    band: Band | None = None
    """Within which the simulation must lie; None where nobody says."""
    why: str = ""
    """Why the band is as wide as it is, or what a limit leaves out."""
    missed: str = ""
    """What is known to keep the simulation outside; empty where nothing does."""
    split: str | None = None
    """`train`, `test`, or None for what the committed split does not know."""
    layout: str
    """Deployment and layout; sweeps over load share it."""
    point: str
    """Lengths and load, such as `1024/8192 conc 64`."""
    model: str
    """As the table names it."""
    gpu: str
    engine: str
    release: str | None = None
    """Of the engine; None: nobody says, priced as the release of the tables."""
    precision: str
    """Format of the routed experts' weights."""
    phase: str
    """`prefill` or `decode` for a single step, `service` for what a client measured."""
    source: str = ""
    unit: str = ""
    date: str = ""
    """When it was measured or published."""
    quality: str = ""
    """Such as measured, derived, theoretical; empty: nobody says."""
    simulated_range: tuple[float, float] | None = None
    """Where a launch is not told to the end (how many drafts), the least and the most that it may have been."""
    interval: tuple[float, float] | None = None
    """95% interval of `simulated`, where a sample stands for the whole."""
    note: str = ""
    """What stands in for what, where a launch asked for something that nobody measured."""

    @property
    def error(self) -> float:
        """simulated / published - 1."""
        return self.simulated / self.published - 1

    @property
    def holds(self) -> bool:
        """Whether the simulation lies within the band; true where there is none."""
        low, high = self.band or (None, None)
        return (low is None or self.simulated >= low) and (high is None or self.simulated <= high)

    def json(self) -> dict[str, Any]:
        """Every column, and the error."""
        return {**asdict(self), "error": self.error}


def described(scenario: Scenario, phase: str) -> dict[str, Any]:
    """The columns of a case that its scenario tells."""
    return {
        "model": scenario.model,
        "gpu": scenario.gpu,
        "engine": scenario.engine,
        "release": scenario.engine_version,
        "precision": scenario.precision.weights,
        "phase": phase,
    }
