"""A day by hour: load, workers up, cost, objectives missed, requests retried."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.cluster.record import RunRecord
from sim.cluster.staff import copies, hours, most_gpus
from sim.result.percentiles import percentiles
from sim.scenario.schema import Scenario
from sim.units import HOUR_S, MILLION

Columns = dict[str, NDArray[Any]]


def by_hour(
    record: RunRecord, columns: Columns, kept: NDArray[np.bool_], usd: Sequence[float]
) -> list[dict[str, Any]]:
    """One row per hour of the run, the last one as long as it lasts.

    Requests count in the hour of their arrival, with all their tokens and latencies; retries and failures when they
    happen. `kept`: which requests keep every objective; `usd`: what each hour cost.

    - `workers`: that served, on average; `gpus`: held, spares included, likewise; `gpu_hours`: what is paid for;
    - `missed`: completed requests that miss an objective, None where none is given; `missed_share` of those completed.
    """
    scenario, life, times = record.scenario, record.life, columns["arrival_s"]
    done, promised = ~np.isnan(columns["finish_s"]), any(dict(scenario.objectives).values())
    scale, rows = copies(record), []
    serving = {role: life.serving(role) for role in record.pools} if life else {}
    held = life.paid() if life else None
    for hour, (start_s, end_s) in enumerate(hours(record)):
        length_s = end_s - start_s
        part = slice(*np.searchsorted(times, [start_s, end_s if end_s < record.end_s else np.inf]))
        finished = done[part]
        tokens = (
            int(columns["input_tokens"][part][finished].sum()),
            int(columns["output_tokens"][part][finished].sum()),
        )
        missed = int((finished & ~kept[part]).sum()) if promised else None
        gpus = held.mean(start_s, end_s) * scale if held else most_gpus(record)
        rows.append(
            {
                "hour": hour,
                "arrived": len(finished) * scale,
                "completed": int(finished.sum()) * scale,
                "requests_per_s": len(finished) * scale / length_s,
                "input_tokens": tokens[0] * scale,
                "output_tokens": tokens[1] * scale,
                "workers": {role: level.mean(start_s, end_s) * scale for role, level in serving.items()}
                or {role: _workers(scenario, role) for role in record.pools},
                "gpus": gpus,
                "gpu_hours": gpus * length_s / HOUR_S,
                "usd": usd[hour],
                "usd_per_million": usd[hour] / (sum(tokens) * scale) * MILLION if sum(tokens) else None,
                "ttft_s": percentiles(columns["ttft_s"][part]),
                "tpot_s": percentiles(columns["tpot_s"][part]),
                "missed": missed if missed is None else missed * scale,
                "missed_share": missed / int(finished.sum())
                if missed is not None and finished.any()
                else None,
                "retried": _between(life.retried_s, start_s, end_s) * scale if life else 0,
                "failures": _between(life.failed_s, start_s, end_s) * scale if life else 0,
            }
        )
    return rows


def _workers(scenario: Scenario, role: str) -> int:
    return scenario.deployment.pools()[role].workers * (scenario.fleet.replicas if scenario.fleet else 1)


def _between(times_s: Sequence[float], start_s: float, end_s: float) -> int:
    """Times after `start_s`, up to `end_s`."""
    return int(np.diff(np.searchsorted(times_s, [start_s, end_s], side="right"))[0])
