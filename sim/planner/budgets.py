"""What the planner tries and how long it takes: `search.yaml` as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from sim.catalog.facts import values


@dataclass(frozen=True, slots=True)
class Layouts:
    """Which shapes of a worker and a replica are tried; see `search.yaml` for units and reasons."""

    gpus_per_worker: tuple[int, ...]
    widest_tp: int
    widest_aggregated: int
    ratios: tuple[str, ...]
    caps: tuple[int, ...]
    beside: int


@dataclass(frozen=True, slots=True)
class Budget:
    """How long simulations are and how many there may be; see `search.yaml`."""

    beyond_percentile: int
    least_requests: int
    most_requests: int
    fill_stays: float
    measured_stays: float
    halvings: int
    estimate_tolerance: float
    round: int
    most_simulated_requests: int
    full_requests: int
    full_beyond: float
    finalists: int
    final_run_requests: int
    repairs: int


@dataclass(frozen=True, slots=True)
class Telling:
    """How much of the answer is told; see `search.yaml`."""

    unknown_error: float
    most_candidates: int
    sensitivity: float
    sensitivity_candidates: int
    sensitivity_resumed: int
    closest_gpus: int
    closest_within: float


def layouts() -> Layouts:
    """The shapes that are tried."""
    return Layouts(**{key: _frozen(value) for key, value in _section("layouts").items()})


def budget() -> Budget:
    """The budgets of simulations."""
    return Budget(**_section("simulation"))


def telling() -> Telling:
    """What is told."""
    return Telling(**_section("answer"))


def peak_window_s() -> float:
    """Length of the window whose arrivals are a trace's peak."""
    return float(_section("traffic")["peak_window_s"])


def _section(name: str) -> Mapping[str, Any]:
    section: Mapping[str, Any] = _read()[name]
    return section


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@cache
def _read() -> Mapping[str, Any]:
    text = resources.files("sim.planner").joinpath("search.yaml").read_text(encoding="utf-8")
    content: Mapping[str, Any] = values(yaml.safe_load(text))
    return content
