"""What reaches the replicas of a fleet that are simulated: their share of the requests, dealt as the router deals them.

Routers that balance (round robin, least loaded) give every replica its turn: of N replicas n get every request whose
number makes n / N of all a larger whole number, so that bursts and lulls reach the sample as they reach the fleet. One
that draws a worker for each request (random) gives each to the sample with the chance n / N, drawn by its number; in
turn, they would come more evenly than they do. A router that looks for prefixes keeps a session on the worker where it
began; sessions are then dealt whole.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sim.scatter import scattered
from sim.scenario.errors import DeploymentError, Problem
from sim.scenario.schema import Scenario

Rows = NDArray[np.int64]

APART: Final = frozenset(("round_robin", "random"))
"""Routers for which no replica matters to what another one gets."""


def dealt(scenario: Scenario, count: int, first: int = 0) -> Rows | None:
    """Of the next `count` requests (or sessions) from number `first` on those that the simulated replicas get, counted
    from 0; None: all."""
    fleet = scenario.fleet
    if fleet is None or fleet.sample == fleet.replicas:
        return None
    numbers = np.arange(first, first + count + 1)
    if scenario.router == "random":
        return np.flatnonzero(
            scattered(numbers[:-1].astype(np.uint64)) % np.uint64(fleet.replicas) < fleet.sample
        )
    return np.flatnonzero(np.diff(numbers * fleet.sample // fleet.replicas))


def part(scenario: Scenario, count: int) -> int:
    """Of a number that the whole fleet has, what the simulated replicas have; at least one."""
    fleet = scenario.fleet
    return count if fleet is None else max(1, round(count * fleet.sample / fleet.replicas))


def check_shares(scenario: Scenario, hashed: bool, sessions: bool) -> None:
    """Raises DeploymentError where a part of the replicas would find other prefixes in the cache than the fleet does.

    `hashed`: prompts whose prefixes are looked up.
    """
    fleet = scenario.fleet
    if fleet is None or fleet.sample == fleet.replicas or not hashed:
        return
    aware = scenario.router == "prefix_aware"
    if scenario.prefix_cache.scope == "cluster":
        says = "a cache of the whole cluster holds what all replicas compute"
    elif aware != sessions:
        says = (
            "`router: prefix_aware` sends a prompt where its prefix is, on any replica"
            if aware
            else f"`router: {scenario.router}` spreads a session over all replicas"
        )
    else:
        return
    raise DeploymentError([Problem(("fleet", "simulated"), f"{says}: expected all {fleet.replicas}")])
