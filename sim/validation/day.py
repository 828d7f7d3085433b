"""A published day: its hours, and what one unit of each pool does, which stands for all of its kind.

A decode unit is run with a fixed number of requests in flight, at several numbers: each gives the tokens per second of
the unit and those that a user sees. A prefill unit is run full once. Then every hour of the day is read off: its
requests, shared evenly by the units in service, find the unit at the load that keeps up with them. What is beyond the
most of a unit waits for the next hour. Several seeds give the interval.

A run starts in the middle of things: the first requests have a random part of their answers behind them. So the others
arrive one by one, as they would in a service that goes on, and never in step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sim.cluster.plan import cluster_plan
from sim.cluster.record import RequestTable
from sim.cluster.run import run_cluster
from sim.deployment.plan import deploy
from sim.scenario.schema import Scenario
from sim.step.pricing import pool_step_cost
from sim.units import HOUR_S
from sim.validation.case_file import PublishedDay
from sim.workload import Prompts, RequestStream, closed_loop
from sim.workload.randomness import generator

Floats = NDArray[np.float64]

HOURS: Final = 24
MINUTES: Final = 60
MEASURED: Final = 0.25
"""Requests that are measured, for each in flight: all ranks step together, so a few say what the others see."""
ROUNDS: Final = 3 + MEASURED
"""Requests of a run for each in flight: those under way, those that take their places, then those that are measured,
and those that keep the unit full until these have ended."""
PROMPT_STEPS: Final = 40
"""Full steps of a prefill unit that are measured at least."""


@dataclass(frozen=True)
class UnitSample:
    """What one unit of each pool does."""

    decode_per_s: Floats
    """Requests per second of a decode unit at each point, ascending; the last is the most."""
    speed: Floats
    """Tokens per second that a user sees there (mean over requests of 1 / TPOT)."""
    prefill_per_s: float
    """Requests per second of a prefill unit at most."""


@dataclass(frozen=True)
class PublishedHour:
    """An hour of the day."""

    at: int
    """Hour of the clock at which it starts."""
    nodes: float
    """In service, mean over the hour."""
    units: Mapping[str, float]
    """Of each pool, mean over the hour."""
    per_s: float
    """Requests per second that arrive."""


@dataclass(frozen=True)
class RequestLengths:
    """Tokens of a request."""

    input: int
    cached_fraction: float
    output: int


def lengths_of(scenario: Scenario) -> RequestLengths:
    """Constant lengths, as published averages are."""
    workload = scenario.workload
    assert workload.lengths and workload.lengths.input.constant and workload.lengths.output.constant
    prompt, answer = workload.lengths.input.constant, workload.lengths.output.constant
    return RequestLengths(prompt, workload.cached_fraction or 0.0, answer)


def hours(day: PublishedDay, scenario: Scenario) -> list[PublishedHour]:
    """The hours from `starts_at` on."""
    minutes = np.zeros(HOURS * MINUTES)
    for step in day.nodes:
        hour, minute = map(int, step.at.split(":"))
        minutes[hour * MINUTES + minute :] = step.nodes
    nodes = minutes.reshape(HOURS, MINUTES).mean(axis=1)
    per_node, share = unit_nodes(scenario), np.array(day.load) / sum(day.load)
    least, step_ = day.least_units.model_dump(), day.step_units.model_dump()
    fewest = sum(least[role] * per_node[role] for role in per_node)
    at_a_time = sum(step_[role] * per_node[role] for role in per_node)
    tokens = lengths_of(scenario).output
    return [
        PublishedHour(
            at,
            float(nodes[at]),
            {role: least[role] + step_[role] * float(nodes[at] - fewest) / at_a_time for role in per_node},
            float(day.output_tokens * share[at] / tokens / HOUR_S),
        )
        for at in ((day.starts_at + n) % HOURS for n in range(HOURS))
    ]


def unit_nodes(scenario: Scenario) -> dict[str, int]:
    """Nodes of a unit of each pool."""
    per_node = deploy(scenario).gpu.gpus_per_node
    return {role: pool.gpus // per_node for role, pool in scenario.deployment.pools().items()}


def run_unit(scenario: Scenario, day: PublishedDay, seed: int) -> UnitSample:
    """One seed's unit of each pool."""
    tokens, decode = lengths_of(scenario), scenario.deployment.decode
    assert decode
    deployment = deploy(scenario)
    costs = {role: pool_step_cost(deployment, role) for role in deployment.pools}

    def run(changed: Scenario, stream: RequestStream) -> RequestTable:
        return run_cluster(changed, stream, cluster_plan(deploy(changed), seed), costs, seed).requests

    counts = [per_gpu * decode.gpus for per_gpu in day.in_flight_per_gpu]
    points = [_decoding(run(scenario, _under_way(tokens, count, seed)), count) for count in counts]
    per_s, speed = np.array(points).T
    return UnitSample(per_s, speed, _prompts_per_s(run, scenario, tokens))


def _under_way(tokens: RequestLengths, in_flight: int, seed: int) -> RequestStream:
    """A closed loop of `in_flight` requests, the first of which have a random part of their answer behind them, and no
    prompt: they are there to end one by one.
    """
    inputs, outputs = (np.full(round(ROUNDS * in_flight), n) for n in (tokens.input, tokens.output))
    inputs[:in_flight] = 1
    outputs[:in_flight] -= generator(seed, "under way").integers(0, tokens.output, in_flight)
    drawn = iter([Prompts.of(inputs, outputs).with_cached(tokens.cached_fraction)])
    return closed_loop(lambda _: next(drawn), in_flight, len(inputs))


def _decoding(table: RequestTable, in_flight: int) -> tuple[float, float]:
    """Requests per second, by Little's law, and mean tokens per second of a user, of the requests that are measured."""
    measured = slice(2 * in_flight, round((2 + MEASURED) * in_flight))
    lasts_s = (table.finish_s - table.arrival_s)[measured]
    streams_s = (table.finish_s - table.first_token_s)[measured]
    return float(in_flight / lasts_s.mean()), float(np.mean((table.output_tokens[measured] - 1) / streams_s))


def _prompts_per_s(
    run: Callable[[Scenario, RequestStream], RequestTable], scenario: Scenario, tokens: RequestLengths
) -> float:
    """Requests per second whose prompts one prefill unit computes when it is never idle."""
    pool = scenario.deployment.prefill
    assert pool
    alone = scenario.deployment.model_copy(update={"prefill": pool.model_copy(update={"workers": 1})})
    scenario = scenario.model_copy(update={"deployment": alone})
    plan = deploy(scenario).pools["prefill"]
    new = tokens.input * (1 - tokens.cached_fraction)
    count = round(plan.chunk_tokens * plan.dp / new * PROMPT_STEPS)
    prompts = Prompts.of(np.full(count, tokens.input), np.ones(count, dtype=np.int64))
    stream = RequestStream(prompts.with_cached(tokens.cached_fraction), np.zeros(count))
    ends_s = np.sort(run(scenario, stream).prefill_end_s)
    quarter = count // 4
    return float((count - 2 * quarter) / (ends_s[-quarter] - ends_s[quarter]))
