"""A day by hour: load, workers up, cost, objectives missed, requests retried."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from sim.cluster.record import RunRecord
from sim.cluster.staff import MOST_HOURS, by_the_clock, copies, hours, most_gpus
from sim.result.totals import OfHour
from sim.scenario.schema import Scenario
from sim.units import HOUR_S, MILLION


def by_hour(
    record: RunRecord, came: Callable[[int, tuple[float, float]], OfHour], usd: Sequence[float]
) -> list[dict[str, Any]]:
    """One row per hour of the run, the last one as long as it lasts.

    Requests count in the hour of their arrival, with all their tokens and latencies; retries and failures when they
    happen. `came`: the number of an hour, and from when to when requests count in it -> these requests; `usd`: what
    each hour cost.

    - `workers`: that served, on average; `gpus`: held, spares included, likewise; `gpu_hours`: what is paid for;
    - `missed`: completed requests that miss an objective, None where none is given; `missed_share` of those completed.
    """
    scenario, life = record.scenario, record.life
    promised, scale, rows = any(dict(scenario.objectives).values()), copies(record), []
    serving = {role: life.serving(role) for role in record.pools} if life else {}
    held = life.paid() if life else None
    for hour, (start_s, end_s) in enumerate(hours(record)):
        length_s = end_s - start_s
        of = came(hour, (start_s, end_s if end_s < record.end_s else np.inf))
        tokens, missed = of.input_tokens + of.output_tokens, of.missed if promised else None
        gpus = held.mean(start_s, end_s) * scale if held else most_gpus(record)
        rows.append(
            {
                "hour": hour,
                "arrived": of.arrived * scale,
                "completed": of.completed * scale,
                "requests_per_s": of.arrived * scale / length_s,
                "input_tokens": of.input_tokens * scale,
                "output_tokens": of.output_tokens * scale,
                "workers": {role: level.mean(start_s, end_s) * scale for role, level in serving.items()}
                or {role: _workers(scenario, role) for role in record.pools},
                "gpus": gpus,
                "gpu_hours": gpus * length_s / HOUR_S,
                "usd": usd[hour],
                "usd_per_million": usd[hour] / (tokens * scale) * MILLION if tokens else None,
                "ttft_s": of.ttft_s,
                "tpot_s": of.tpot_s,
                "missed": missed if missed is None else missed * scale,
                "missed_share": missed / of.completed if missed is not None and of.completed else None,
                "retried": _between(life.retried_s, start_s, end_s) * scale if life else 0,
                "failures": _between(life.failed_s, start_s, end_s) * scale if life else 0,
            }
        )
    return rows


def untold_hours(record: RunRecord) -> Iterator[str]:
    """Says so where a run by the clock is too long for a row of each hour."""
    if by_the_clock(record.scenario) and record.end_s > MOST_HOURS * HOUR_S:
        yield f"{record.end_s / HOUR_S:,.0f} hours: more than {MOST_HOURS:,} are not told one by one"


def _workers(scenario: Scenario, role: str) -> int:
    return scenario.deployment.pools()[role].workers * (scenario.fleet.replicas if scenario.fleet else 1)


def _between(times_s: Sequence[float], start_s: float, end_s: float) -> int:
    """Times after `start_s`, up to `end_s`."""
    return int(np.diff(np.searchsorted(times_s, [start_s, end_s], side="right"))[0])
