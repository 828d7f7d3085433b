"""Which operations a simulated TPOT is made of, so that its error can be laid at someone's door."""

from dataclasses import dataclass
from typing import Any, Final

from sim.explain import explain
from sim.scenario.schema import Length, Scenario
from sim.units import MICROSECOND_S

GROUPS: Final = ("attention", "moe", "dense", "communication", "other")
"""Operation groups of a step, as `explain` names them."""
PROMPTS: Final = "prompts"
"""Steps that compute other requests' prompts: the part of TPOT that no decode step explains."""
LEAST_SHARE: Final = 0.02
"""Groups below this share of TPOT are not worth a factor."""


@dataclass(frozen=True)
class Composition:
    """Seconds of the mean decode step per token by operation group, and the `prompts` that stretch TPOT beyond it."""

    seconds: dict[str, float]
    priced_by: dict[str, float]
    """Shares of the step by provenance."""
    largest: list[tuple[str, float, str]]
    """The largest operations: name, seconds, source."""

    def factors(self, published_s: float) -> dict[str, float]:
        """Group -> the factor on it alone that would make TPOT what was published."""
        total = sum(self.seconds.values())
        return {
            name: 1 + (published_s - total) / seconds
            for name, seconds in self.seconds.items()
            if seconds > LEAST_SHARE * total
        }

    def json(self) -> dict[str, Any]:
        """Plain numbers; microseconds for single operations."""
        return {
            "seconds": self.seconds,
            "priced_by": self.priced_by,
            "largest": [
                {"name": n, "us": round(s / MICROSECOND_S, 1), "source": o} for n, s, o in self.largest
            ],
        }


def explainable(scenario: Scenario) -> bool:
    """Whether `composition` can tell the mean step: of a closed loop of lengths between two bounds."""
    arrivals, lengths = scenario.workload.arrivals, scenario.workload.lengths
    return bool(
        arrivals and arrivals.closed_loop and lengths and lengths.input.uniform and lengths.output.uniform
    )


def composition(scenario: Scenario, tpot_s: float, largest: int = 6) -> Composition:
    """Price the decode step of a full closed loop at the mean context of its answers: every decoding rank holds its
    share of `concurrency`, each sequence its prompt and half of its answer. `tpot_s`: what the simulation found.
    """
    workload = scenario.workload
    assert workload.arrivals and workload.arrivals.closed_loop and workload.lengths
    pool = scenario.deployment.decode or scenario.deployment.serve
    assert pool is not None
    ranks = pool.workers * pool.gpus // pool.tp
    batch = max(1, round(workload.arrivals.closed_loop.concurrency / ranks))
    context = _mean(workload.lengths.input) + _mean(workload.lengths.output) / 2
    explained = explain(scenario, "decode", batch, int(context))
    step = explained.operations
    seconds = dict.fromkeys(GROUPS, 0.0)
    priced: dict[str, float] = {}
    for one in step:
        seconds[one.operation.group] += one.total_s
        for source, of_layer in one.latency.by_source():
            priced[source] = priced.get(source, 0.0) + of_layer * one.operation.layers
    total = sum(seconds.values())
    seconds["dense"] -= explained.hidden_s  # the shared expert is what hides in an aggregated step
    seconds = {name: s / (explained.accept_length or 1.0) for name, s in seconds.items()}
    by_size = sorted(step, key=lambda one: -one.total_s)[:largest]
    return Composition(
        {**seconds, PROMPTS: tpot_s - sum(seconds.values())},
        {name: s / total for name, s in priced.items()},
        [(one.operation.name, one.total_s, one.latency.source) for one in by_size],
    )


def _mean(length: Length) -> float:
    assert length.uniform is not None
    return sum(length.uniform) / 2
