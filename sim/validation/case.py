"""One published figure beside its simulation: what every reader of published measurements yields."""

from dataclasses import asdict, dataclass
from typing import Any

from sim.scenario.schema import Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A figure with the columns that describe it, in the catalog's names."""

    id: str
    metric: str
    published: float
    """In the unit of its metric: seconds, tokens per second and GPU or node, a ratio."""
    simulated: float
    band: tuple[float, float] | None = None
    """Within which the figure is sure to lie; None where nobody says."""
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
    simulated_range: tuple[float, float] | None = None
    """Where a launch is not told to the end (how many drafts), the least and the most that it may have been."""
    note: str = ""
    """What stands in for what, where a launch asked for something that nobody measured."""

    @property
    def error(self) -> float:
        """simulated / published - 1."""
        return self.simulated / self.published - 1

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
