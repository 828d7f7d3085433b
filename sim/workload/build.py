"""From the `workload` section of a scenario to its requests."""

import math
from collections.abc import Callable
from pathlib import Path

from sim.scenario.errors import DeploymentError, Problem
from sim.scenario.schema import Scenario
from sim.workload import trace
from sim.workload.arrivals import arrival_times, feasible
from sim.workload.lengths import Source
from sim.workload.prompts import Prompts
from sim.workload.stream import RequestStream, closed_loop

Draw = Callable[[int], Prompts]


def requests(scenario: Scenario, seed: int, base_folder: Path | None = None) -> RequestStream:
    """The requests of a scenario's workload; the same for the same seed, on every machine and in every process.

    `workload.requests` and `duration_s` bound them, whichever comes first. A trace is used once, from its start:
    at its own times or, where `arrivals` are given, its requests in order at those times. `cached_fraction` takes
    the place of a trace's block hashes.

    Args:
        seed: of the run. Arrivals, input lengths, output lengths and the jitter of stamps have random streams of
            their own, so that changing one leaves the others as they were.
        base_folder: what relative file names start from (the scenario's folder); default the working directory.

    Raises:
        DeploymentError: if a file or trace does not exist, or arrivals and bounds do not fit together.
        ScenarioError: if a file's content is broken, with file, line and column.
    """
    workload = scenario.workload
    if workload.trace is not None:
        return _recorded(scenario, trace.load(workload.trace, seed, base_folder), seed, base_folder)
    assert workload.lengths is not None
    source = Source(workload.lengths, seed, base_folder)
    return _arriving(scenario, source.next, workload.requests, seed, base_folder)


def _recorded(scenario: Scenario, rows: trace.Trace, seed: int, base_folder: Path | None) -> RequestStream:
    """The requests of a trace, at its own times or at those of the scenario."""
    workload, duration_s = scenario.workload, scenario.duration_s
    notes = list(rows.notes)
    if rows.prompts.blocks and workload.cached_fraction is not None:
        notes.append(f"{rows.name}: cached_fraction takes the place of the trace's block hashes")
    wanted = workload.requests or 0
    if wanted > len(rows.prompts):
        notes.append(f"{rows.name}: holds {len(rows.prompts)} of the {wanted} requests asked for")
    count = min(len(rows.prompts), wanted or len(rows.prompts))
    draw = _in_order(rows.prompts[:count])
    if workload.arrivals is not None:
        return _arriving(scenario, draw, count, seed, base_folder, tuple(notes))
    if rows.arrival_s is None:
        raise DeploymentError([Problem(trace.KEY, f"'{rows.name}' has no times; give `workload.arrivals`")])
    times = rows.arrival_s[:count]
    times = times if duration_s is None else times[times < duration_s]
    return RequestStream(_cached(scenario, draw)(len(times)), times, notes=tuple(notes))


def _arriving(
    scenario: Scenario,
    draw: Draw,
    count: int | None,
    seed: int,
    base_folder: Path | None,
    notes: tuple[str, ...] = (),
) -> RequestStream:
    """Prompts, in the order in which `draw` gives them, at the times of the scenario's `arrivals`."""
    form = scenario.workload.arrivals
    assert form is not None
    draw = _cached(scenario, draw)
    if form.closed_loop is not None:
        closes_s = math.inf if scenario.duration_s is None else scenario.duration_s
        concurrency = feasible(form.closed_loop.concurrency)
        return closed_loop(draw, concurrency, count and feasible(count), closes_s, notes)
    times = arrival_times(form, count, scenario.duration_s, seed, base_folder)
    return RequestStream(draw(len(times)), times, notes=notes)


def _cached(scenario: Scenario, draw: Draw) -> Draw:
    fraction = scenario.workload.cached_fraction
    return draw if fraction is None else lambda count: draw(count).with_cached(fraction)


def _in_order(prompts: Prompts) -> Draw:
    """Draws from the front of `prompts` to their end."""
    taken = 0

    def draw(count: int) -> Prompts:
        nonlocal taken
        taken += count
        return prompts[taken - count : taken]

    return draw
