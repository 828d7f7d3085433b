"""What a scenario says of workers that come and go -> what its cluster is given; where it says nothing, the catalog."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sim.catalog.operations import Repair, operations, repairs
from sim.cluster.life_setup import Bounds, Failing, LifeSetup, Scaling
from sim.cluster.setup import ClusterPlan
from sim.deployment.plan import Deployment
from sim.deployment.pools import PoolPlan
from sim.scenario.errors import KeyPath
from sim.scenario.operations import Autoscale, Failures
from sim.scenario.schema import Scenario
from sim.scenario.section import MOST_GPUS
from sim.units import GB_BYTES, HOUR_S
from sim.workload.arrivals import HOURS_PER_DAY
from sim.workload.reading import locate, read
from sim.workload.table import at_least, fault, real

Rows = tuple[tuple[float, Mapping[str, int]], ...]

SCHEDULE: KeyPath = ("autoscale", "schedule")


def operated(
    plan: ClusterPlan, scenario: Scenario, deployment: Deployment, seed: int, base_folder: Path | None = None
) -> ClusterPlan:
    """The plan with the copies of a fleet that are simulated, and with workers that come and go.

    Raises DeploymentError or ScenarioError where the file of a schedule is missing or broken.
    """
    if scenario.fleet is not None:
        plan = _with_workers(plan, {r: p.workers * scenario.fleet.sample for r, p in plan.pools.items()})
    auto, failures = scenario.autoscale, scenario.failures
    if auto is None and failures is None:
        return plan
    schedule = _schedule(auto, plan, base_folder) if auto and auto.schedule else ()
    scaling = _scaling(auto) if auto and auto.pools else None
    deployed = {role: pool.workers for role, pool in plan.pools.items()}
    bounds = scaling.pools if scaling else {}
    most = {
        role: max(
            [bounds[role].most if role in bounds else count, *(row.get(role, 0) for _, row in schedule)]
        )
        for role, count in deployed.items()
    }
    life = LifeSetup(
        workers={**deployed, **(schedule[0][1] if schedule else {})},
        start_up_s={role: _start_up_s(auto, deployment, pool) for role, pool in deployment.pools.items()},
        seed=seed,
        scaling=scaling,
        schedule=schedule,
        failing=_failing(failures, deployment) if failures else None,
    )
    return replace(_with_workers(plan, most), life=life)


def _with_workers(plan: ClusterPlan, workers: Mapping[str, int]) -> ClusterPlan:
    pools = {role: replace(pool, workers=workers[role]) for role, pool in plan.pools.items()}
    return replace(plan, pools=pools)


def _scaling(auto: Autoscale) -> Scaling:
    assert auto.pools is not None
    known = operations()["autoscale"]
    default = known["target_utilization"]  # other signals have a target of their own; see `Autoscale`
    return Scaling(
        signal=auto.signal,
        period_s=_given(auto.period_s, known["period_s"]),
        tolerance=_given(auto.tolerance, known["tolerance"]),
        scale_down_after_s=_given(auto.scale_down_after_s, known["scale_down_after_s"]),
        pools={
            role: Bounds(pool.min, pool.max, _given(pool.target, _given(auto.target, default)))
            for role, pool in auto.pools.given().items()
        },
    )


def _start_up_s(auto: Autoscale | None, deployment: Deployment, pool: PoolPlan) -> float:
    """Bytes of the weights that the GPUs of one node hold / read bandwidth of the node, and a fixed time."""
    if auto is not None and auto.start_up_s is not None:
        return auto.start_up_s
    known = operations()["start_up"]
    read_bytes = pool.memory.weights_bytes * min(pool.gpus, deployment.gpu.gpus_per_node)
    return float(read_bytes / (known["read_gb_per_s"] * GB_BYTES) + known["fixed_s"])


def _failing(failures: Failures, deployment: Deployment) -> Failing:
    known = operations()["failures"]
    given = failures.repair_h
    return Failing(
        per_gpu_s=_given(failures.per_gpu_hour, known["per_gpu_hour"]) / HOUR_S,
        detect_s=_given(failures.detect_s, known["detect_s"]),
        restart_s=_given(failures.restart_s, known["restart_s"]),
        repairs=repairs() if given is None else (Repair(1.0, given, given),),
        spare_nodes=failures.spare_nodes,
        node_gpus=deployment.gpu.gpus_per_node,
        keeps_prefix=failures.retry == "prefix_cache",
    )


def _schedule(auto: Autoscale, plan: ClusterPlan, base_folder: Path | None) -> Rows:
    """The rows of a file with columns hour (from 0, ascending, below 24) and workers of one pool or more."""
    assert auto.schedule is not None
    table = read(locate(auto.schedule, base_folder, (), SCHEDULE))
    roles = [name for name in table.columns if name in plan.pools]
    if "hour" not in table.columns or not roles or len(roles) + 1 < len(table.columns):
        got = ", ".join(table.columns)
        says = f"expected columns hour and workers of {' or '.join(plan.pools)}; got {got}"
        raise fault(table.file, table.source, 1, 1, says)
    hours, *counts = table.convert({"hour": real, **dict.fromkeys(roles, at_least(1))})
    wrong = [
        (row, "hour", "hour: expected 0 first, then ascending below 24")
        for row, hour in enumerate(hours)
        if hour >= HOURS_PER_DAY or (hour <= hours[row - 1] if row else hour != 0)
    ]
    for role, workers in zip(roles, counts, strict=True):
        most = MOST_GPUS // plan.pools[role].gpus
        says = f"{role}: expected at most {most:,} workers, which are {MOST_GPUS:,} GPUs"
        wrong += [(row, role, says) for row, count in enumerate(workers) if count > most]
    table.refuse(wrong)
    return tuple(
        (hour * HOUR_S, dict(zip(roles, workers, strict=True)))
        for hour, *workers in zip(hours, *counts, strict=True)
    )


def _given(value: float | None, default: float) -> float:
    return default if value is None else value
