"""A pool -> what routing makes of a step: settings and recorded counts become a table of expert loads."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.catalog import Gpu, Model
from sim.deployment.plan import Deployment
from sim.deployment.pools import PoolPlan
from sim.experts import LoadTable, expert_load, read_counts
from sim.experts.popularity import mean_rho
from sim.kernels.formats import weight_bytes
from sim.model.layout import ExpertRows, Layout
from sim.model.operations import Operation
from sim.scenario.errors import DeploymentError, KeyPath, Problem
from sim.scenario.schema import Experts
from sim.step.operations import Routing

Floats = NDArray[np.float64]

NO_EXPERTS = ExpertRows(0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class RankGroup:
    """One EP group, as far as routing cares."""

    model: Model
    ep: int
    dp: int
    gpus_per_node: int


def staleness(experts: Experts) -> float:
    """Mean correlation of the placement's load with the live one: given, or over the steps between two re-balances.

    With r the correlation per step, r = drift_rho^(1 / drift_every_steps), a placement of age k has r^k.
    """
    if experts.rebalance_every_steps is None or experts.drift_rho is None:
        return experts.staleness_rho
    per_step = experts.drift_rho ** (1 / experts.drift_every_steps)
    return mean_rho(per_step, experts.rebalance_every_steps)


def pool_load(plan: PoolPlan) -> LoadTable:
    """Load and traffic of the pool's experts.

    Raises DeploymentError at the key that does not suit the model or the layout.
    """
    layout, where = plan.layout, plan.experts_at
    experts = plan.experts.model_copy(update={"staleness_rho": staleness(plan.experts)})
    domain = max(1, layout.gpus_per_node // layout.moe_tp)
    try:
        return _load(RankGroup(layout.model, layout.ep, layout.dp, domain), experts, recording_stamp(experts))
    except _CountsError as error:
        raise DeploymentError([Problem((*where, "counts"), str(error))]) from error
    except ValueError as error:
        raise DeploymentError([Problem(where, str(error))]) from error


def recording_stamp(experts: Experts) -> int:
    """Tells one version of the recorded counts from another; 0 without any."""
    if experts.counts is not None and (file := Path(experts.counts)).exists():
        return file.stat().st_mtime_ns
    return 0


class _CountsError(ValueError):
    """A recording that cannot be used."""


@lru_cache(maxsize=64)
def _load(group: RankGroup, experts: Experts, _stamp: int) -> LoadTable:
    """Kept, because sampling takes time; `_stamp` tells one version of the recording from another."""
    model = group.model
    counts = None if experts.counts is None else _counts(model, experts.counts)
    return expert_load(
        model,
        ep=group.ep,
        dp=group.dp,
        gpus_per_node=group.gpus_per_node,
        experts=experts,
        counts=counts,
        policy=experts.placement,
        shared_as_slot=experts.shared_expert_as_slot,
    )


def _counts(model: Model, name: str) -> Floats:
    """The recording of that file name, checked against the model."""
    try:
        counts = read_counts(Path(name))
    except (OSError, ValueError) as error:
        raise _CountsError(str(error)) from error
    if counts.shape[1] != model.n_routed:
        raise _CountsError(f"{counts.shape[1]} experts per layer; {model.name} has {model.n_routed}")
    return counts


def check_recordings(deployment: Deployment) -> None:
    """Raises DeploymentError where recorded counts cannot be read or are of another model."""
    problems: dict[KeyPath, Problem] = {}
    for plan in deployment.pools.values():
        if plan.experts.counts is not None:
            try:
                _counts(deployment.model, plan.experts.counts)
            except _CountsError as error:
                problems[plan.experts_at] = Problem((*plan.experts_at, "counts"), str(error))
    if problems:
        raise DeploymentError(problems.values())


def pool_routing(gpu: Gpu, plan: PoolPlan, layout: Layout) -> Routing:
    """Expected load of the most loaded expert rank by tokens per attention-DP rank, in one of the pool's phases.

    Raises as `pool_load`.
    """
    if not layout.model.n_routed:
        return lambda tokens: NO_EXPERTS
    table = pool_load(plan)
    mode = layout.dispatch_mode
    sent = table.copies(mode)
    rdma_per_nvlink = gpu.scale_up_bytes_per_s / gpu.scale_out_bytes_per_s
    pairs = table.touched.pairs / layout.model.top_k  # one more where the shared expert is a slot

    def rows(tokens: float) -> ExpertRows:
        return ExpertRows(
            rows=float(table.hottest_rows(tokens)),
            slots=table.local_slots,
            active=float(table.active_experts(tokens)),
            copies=(sent.rdma + sent.nvlink) / pairs,
            remote_copies=sent.rdma / pairs,
            skew=float(table.skew(tokens, mode, rdma_per_nvlink)) * pairs,
        )

    return rows


def rebalance(plan: PoolPlan, layout: Layout) -> list[Operation]:
    """Fetching the experts that a new placement puts elsewhere, spread over the steps that it lasts; empty without.

    bytes per step = moved slots per rank and layer x MoE layers x bytes of an expert on this GPU / steps
    """
    experts = plan.experts
    if experts.rebalance_every_steps is None or not layout.model.n_routed:
        return []
    model = layout.model
    expert = weight_bytes(3 * model.hidden * model.moe_inter / layout.moe_tp, layout.weights)
    moved = pool_load(plan).moved_slots * model.moe_layers * expert
    per_step = moved / experts.rebalance_every_steps
    remote = per_step * (1 - 1 / layout.nodes)
    shape = {"gpus": float(layout.gpus), "remote_bytes": remote}
    return [
        Operation("re-balance", "communication", "fetch", shape, layout.weights, 0.0, per_step, stream="once")
    ]
