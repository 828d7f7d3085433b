"""What users saw on a published day, what it cost, and the fewest nodes that it needed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from sim.deployment.plan import deploy
from sim.price import gpu_hour
from sim.scenario.schema import Scenario
from sim.units import HOUR_S
from sim.validation.case import Case
from sim.validation.case_file import CaseFile, PublishedDay
from sim.validation.day import PublishedHour, UnitSample, hours, lengths_of, run_unit, unit_nodes

Floats = NDArray[np.float64]

NODES: Final = "bound_nodes"
"""Metric of the fewest nodes, hour by hour; its published value is the schedule's."""
CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class ServedDay:
    """The hours as one sample of the units serves them; an entry per hour."""

    requests: Floats
    waiting: Floats
    """Requests left for the next hour."""
    speed: Floats
    """Tokens per second of a user."""


def served(day: Sequence[PublishedHour], unit: UnitSample) -> ServedDay:
    """Hour by hour: what arrives and what has waited, as far as the slower pool gets."""
    waiting, rows = 0.0, []
    for hour in day:
        asked = waiting + hour.per_s * HOUR_S
        most = HOUR_S * min(
            hour.units["prefill"] * unit.prefill_per_s, hour.units["decode"] * float(unit.decode_per_s[-1])
        )
        done = min(asked, most)
        waiting = asked - done
        each_per_s = done / HOUR_S / hour.units["decode"]
        rows.append((done, waiting, float(np.interp(each_per_s, unit.decode_per_s, unit.speed))))
    return ServedDay(*np.array(rows).T)


def figures(scenario: Scenario, day: Sequence[PublishedHour], unit: UnitSample) -> dict[str, float]:
    """Metric -> value, of one sample."""
    tokens, found = lengths_of(scenario), served(day, unit)
    nodes = unit_nodes(scenario)
    node_hours = {role: sum(hour.units[role] for hour in day) * nodes[role] for role in nodes}
    requests, gpu = float(found.requests.sum()), deploy(scenario).gpu
    usd = gpu_hour(gpu, scenario.price).usd
    per_node_s = {role: requests / (node_hours[role] * HOUR_S) for role in nodes}
    return {
        "output_tokens": requests * tokens.output,
        "input_tokens": requests * tokens.input,
        "tokens_per_s_per_user": float(np.average(found.speed, weights=found.requests)),
        "input_tokens_per_s_per_prefill_node": per_node_s["prefill"] * tokens.input,
        "output_tokens_per_s_per_decode_node": per_node_s["decode"] * tokens.output,
        "usd_per_day": sum(hour.nodes for hour in day) * gpu.gpus_per_node * usd,
        "bound_input_tokens_per_s_per_prefill_node": unit.prefill_per_s * tokens.input / nodes["prefill"],
        "bound_output_tokens_per_s_per_decode_node": float(unit.decode_per_s[-1])
        * tokens.output
        / nodes["decode"],
    }


def fewest_nodes(
    hour: PublishedHour, unit: UnitSample, nodes: Mapping[str, int], least_tokens_per_s: float
) -> int:
    """Of whole units, for the hour's own requests, so that users see `least_tokens_per_s`."""
    kept = float(np.interp(-least_tokens_per_s, -unit.speed, unit.decode_per_s))
    units = {"prefill": ceil(hour.per_s / unit.prefill_per_s), "decode": ceil(hour.per_s / kept)}
    return sum(units[role] * nodes[role] for role in nodes)


def interval(samples: Sequence[float]) -> tuple[float, float]:
    """95% interval of the mean (Student's t)."""
    mean, count = float(np.mean(samples)), len(samples)
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2) * np.std(samples, ddof=1) / np.sqrt(count))
    return mean - half, mean + half


def cases(file: CaseFile, day: PublishedDay, columns: Mapping[str, Any], seed: int) -> Iterator[Case]:
    """One per published figure, then the fewest nodes of every hour beside those in service."""
    scenario, when = file.scenario, hours(day, file.scenario)
    units = [run_unit(scenario, day, seed + n) for n in range(day.seeds)]
    samples = [figures(scenario, when, unit) for unit in units]
    ends = [
        figures(scenario, when, run_unit(_accepting(scenario, chance), day, seed))
        for chance in day.acceptance or ()
    ]
    for figure in file.published:
        values = [sample[figure.metric] for sample in samples]
        possible = [sample[figure.metric] for sample in (*samples, *ends)]
        yield Case(
            metric=figure.metric,
            published=figure.value,
            simulated=float(np.mean(values)),
            interval=interval(values),
            simulated_range=(min(possible), max(possible)) if ends else None,
            **columns,
        )
    nodes = unit_nodes(scenario)
    for hour in when:
        counts = [float(fewest_nodes(hour, unit, nodes, day.least_tokens_per_s)) for unit in units]
        yield Case(
            metric=NODES,
            published=hour.nodes,
            simulated=float(np.mean(counts)),
            interval=interval(counts),
            band=(None, hour.nodes),
            why=f"of whole units that keep up {day.least_tokens_per_s:g} tokens/s for every user",
            unit="node",
            **{**columns, "point": f"{hour.at:02d}:00"},
        )


def _accepting(scenario: Scenario, chance: float) -> Scenario:
    speculation = scenario.speculation.model_copy(update={"acceptance": (chance,)})
    return scenario.model_copy(update={"speculation": speculation})
