"""The expected error as a margin: how much slower the real service may be than the simulated one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from sim.catalog.validated import near, validated
from sim.deployment.plan import resolve
from sim.planner.budgets import telling
from sim.planner.question import Objective
from sim.result.expected_error import expected_error
from sim.scenario.schema import Scenario

OF_LATENCY: Mapping[str, tuple[str, ...]] = {
    "ttft_s": ("ttft",), "tpot_s": ("tpot",), "e2e_s": ("ttft", "tpot"),
}  # fmt: skip


@dataclass(frozen=True)
class Margin:
    """Shares by which latencies may be longer, and throughput lower, than simulated."""

    errors: Mapping[str, float]
    """ttft, tpot, throughput."""
    expected: Mapping[str, Any] | None
    """The expected error of the deployment's family; None: it has none, and `errors` are those of all families."""

    @property
    def rate(self) -> float:
        """What a rate is multiplied by before it is planned for."""
        return 1 + self.errors["throughput"]

    def none(self) -> "Margin":
        """The same error, for which nothing is kept."""
        return replace(self, errors=dict.fromkeys(self.errors, 0.0))

    def tightened(self, objectives: Sequence[Objective]) -> tuple[Objective, ...]:
        """What the simulation must keep so that a service slower by the errors keeps the objectives."""
        return tuple(
            replace(one, bound_s=one.bound_s / (1 + max(self.errors[m] for m in OF_LATENCY[one.metric])))
            for one in objectives
        )


def margin_of(scenario: Scenario) -> Margin:
    """The margin of a deployment: the median error of its validated family, or of all families where it has none. Of a
    layout far from those that were validated the larger of both."""
    found = expected_error(resolve(scenario))
    errors = {metric: (found or {}).get(metric) or _typical(metric) for metric in OF_ALL}
    if found is not None and not near(found):
        errors = {metric: max(error, _typical(metric)) for metric, error in errors.items()}
    return Margin(errors, found)


OF_ALL = ("ttft", "tpot", "throughput")


def _typical(metric: str) -> float:
    """The median error over all validated families."""
    known = [error for one in validated() if (error := getattr(one, metric)) is not None]
    return median(known) if known else telling().unknown_error
