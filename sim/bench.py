"""The simulator's own speed, beside that of the bare SimPy loop that nothing on SimPy can beat."""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import simpy

from sim.scenario.loading import load
from sim.simulation import simulate
from sim.units import MILLION

SCENARIO: Final = Path(__file__).with_name("bench.yaml")
FLOOR_EVENTS: Final = 200_000
"""Enough for a tenth of a second, so that starting up does not count."""


def bench(seed: int = 0, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Simulate `bench.yaml` once; rates are per second of wall time, step tables and request draws included.

    `simulated_gpu_seconds_per_s`: GPU-seconds of the simulated cluster that pass in one real second.
    `simpy_floor_events_per_s`: timeouts per second of a SimPy process that does nothing else. `cpu_s` well below
    `wall_s` says that other work had the core meanwhile.
    """
    floor = simpy_floor_events_per_s()
    scenario = load(SCENARIO).scenario
    started, cpu_started = time.perf_counter(), time.process_time()
    result = simulate(scenario, seed, progress=progress)
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    record = result.record
    completed = result.json()["requests"]["completed"]
    return {
        "requests": completed,
        "requests_per_s": completed / wall_s,
        "events_per_s": record.events / wall_s,
        "events_per_request": record.events / completed,
        "simpy_floor_events_per_s": floor,
        "simulated_gpu_seconds_per_s": record.end_s * sum(p.gpus for p in record.pools.values()) / wall_s,
        "peak_rss_mb": peak_rss_bytes() / MILLION,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
    }


def simpy_floor_events_per_s(seconds: Callable[[], float] = time.perf_counter) -> float:
    """Timeouts per second of one SimPy process that only waits; `seconds`: the time that counts."""
    env = simpy.Environment()

    def wait() -> Any:
        for _ in range(FLOOR_EVENTS):
            yield env.timeout(1)

    env.process(wait())
    started = seconds()
    env.run()
    return FLOOR_EVENTS / (seconds() - started)


def peak_rss_bytes() -> float:
    """The most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)
