"""What is given about workers that come and go. Plain numbers, as in `sim.cluster.setup`."""

from collections.abc import Mapping
from dataclasses import dataclass

from sim.catalog.operations import Repair


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one pool, in workers."""

    least: int
    most: int
    target: float
    """Of the signal."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """An autoscaler; see `sim.cluster.scaling`."""

    signal: str
    """utilization | requests_per_s | concurrency."""
    period_s: float
    tolerance: float
    scale_down_after_s: float
    pools: Mapping[str, Bounds]


@dataclass(frozen=True, slots=True)
class Failing:
    """Failures of GPUs, each of which takes its worker along."""

    per_gpu_s: float
    detect_s: float
    restart_s: float
    repairs: tuple[Repair, ...]
    spare_nodes: int
    node_gpus: int
    keeps_prefix: bool
    """Requests that are asked again look for their prefix in the cache; otherwise they find nothing."""


@dataclass(frozen=True, slots=True)
class LifeSetup:
    """Of all pools, by role."""

    workers: Mapping[str, int]
    """That serve from time zero on; the pool's setup has as many as there ever are."""
    start_up_s: Mapping[str, float]
    seed: int
    scaling: Scaling | None = None
    schedule: tuple[tuple[float, Mapping[str, int]], ...] = ()
    """(second of the day, workers by role), in order; again every day."""
    failing: Failing | None = None
