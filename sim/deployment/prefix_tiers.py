"""The tiers of a scenario's prefix cache: how many tokens each holds, and how long a token takes to fetch.

A unit of the cache's scope is a rank, a worker, or the whole pool; it has its own HBM, host memory and disk. Only the
pool that computes prompts looks for prefixes. A fetch takes, per token of b bytes on one GPU,

    HBM   (1 - 1/n) b / link           n ranks of the unit; the link is NVLink where it joins them all, else the NIC
    host  b / min(PCIe, NIC)           the NIC only where the unit spans several nodes
    disk  b / min(PCIe, NIC, disk)     disk: the node's, shared by its GPUs

each with the fraction of its peak that transfers reach (`efficiency.yaml`, `cache_tiers.yaml`). Every GPU of a
tensor-parallel rank fetches its own copy or shard at the same time.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sim import catalog
from sim.catalog import Gpu
from sim.deployment.device import gpu_of
from sim.deployment.pools import PoolPlan
from sim.model import architecture
from sim.scenario.errors import Problem
from sim.scenario.schema import Scenario
from sim.units import GB_BYTES

TIERS = ("hbm", "host", "disk")
ROLES = ("prefill", "serve")
"""Pools that compute prompts: a deployment has one of them."""


@dataclass(frozen=True, slots=True)
class TierPlan:
    """One memory of one unit of scope."""

    name: str
    capacity_tokens: int
    fetch_s_per_token: float
    """Until a token's KV is on the rank that asked for it."""


@dataclass(frozen=True, slots=True)
class PrefixCachePlan:
    """The prefix cache of the pool `role`."""

    role: str
    scope: str
    units: int
    ranks: int
    """Attention-DP ranks of one unit."""
    tiers: tuple[TierPlan, ...]
    """HBM, host memory, disk."""
    host_gb: float
    """Host memory of one unit, as it is bought."""
    disk_gb: float
    reserved_blocks: int
    """KV blocks of each rank that are set aside for the cache."""
    shares_hbm: bool
    """Nothing is set aside: the HBM tier is the ranks' whole KV budget, and the cache has what running sequences
    leave of it."""


def prefix_cache_plan(scenario: Scenario, pools: Mapping[str, PoolPlan]) -> PrefixCachePlan | None:
    """The scenario's prefix cache; None where it is off, or the pool that computes prompts is not among `pools`."""
    wanted = scenario.prefix_cache
    plan = next((plan for role, plan in pools.items() if role in ROLES), None)
    if plan is None or not wanted.enabled:
        return None
    layout, budget = plan.layout, plan.memory
    units = {"cluster": 1, "worker": plan.workers, "rank": plan.workers * layout.dp}[wanted.scope]
    ranks = plan.workers * layout.dp // units
    set_aside, block = wanted.hbm_tokens, budget.block_tokens
    whole_token = architecture.cache_bytes_per_token(layout.model, layout.kv_cache, layout.mtp)
    capacities = (
        ranks * budget.kv_blocks * block if set_aside is None else set_aside,
        int(wanted.host_gb * GB_BYTES // whole_token),
        int(wanted.disk_gb * GB_BYTES // whole_token),
    )
    seconds = _fetch_s_per_byte(gpu_of(scenario), ranks, layout.tp)
    return PrefixCachePlan(
        role=plan.role,
        scope=wanted.scope,
        units=units,
        ranks=ranks,
        tiers=tuple(
            TierPlan(name, capacity, s * budget.cache_bytes_per_token)
            for name, capacity, s in zip(TIERS, capacities, seconds, strict=True)
        ),
        host_gb=wanted.host_gb,
        disk_gb=wanted.disk_gb,
        reserved_blocks=0 if set_aside is None else -(-set_aside // (ranks * block)),
        shares_hbm=set_aside is None,
    )


def prefix_cache_problems(plan: PrefixCachePlan | None, pools: Mapping[str, PoolPlan]) -> Iterator[Problem]:
    """HBM set aside for the cache that leaves running sequences none."""
    if plan is None:
        return
    budget = pools[plan.role].memory
    if plan.reserved_blocks >= budget.kv_blocks:
        most = (budget.kv_blocks - 1) * budget.block_tokens * plan.ranks
        yield Problem(
            ("prefix_cache", "hbm_tokens"),
            f"leaves running sequences of {plan.role} no KV cache; expected at most {most:,} for the {plan.ranks} "
            f"rank(s) of a {plan.scope}, or nothing: the cache then has what running sequences leave",
        )


def _fetch_s_per_byte(gpu: Gpu, ranks: int, tp: int) -> tuple[float, float, float]:
    """Seconds per byte of one GPU's fetch from HBM of the unit's ranks, host memory and disk."""
    efficiency, speeds, gpus = catalog.efficiency(), catalog.cache_tiers(), ranks * tp
    nic = gpu.scale_out_bytes_per_s * efficiency.link
    between = gpu.scale_up_bytes_per_s * efficiency.link if gpus <= gpu.scale_up_domain else nic
    host = gpu.pcie_bytes_per_s * speeds.pcie_fraction
    if gpus > gpu.gpus_per_node:
        host = min(host, nic)
    disk = min(host, speeds.disk_bytes_per_s_per_node / gpu.gpus_per_node)
    return (1 - 1 / ranks) / between, 1 / host, 1 / disk
