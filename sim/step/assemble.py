"""A scenario -> how its pools shard the model, what their steps run, and what prices them."""

from functools import lru_cache

from sim import catalog
from sim.catalog import Gpu
from sim.cost.latency import AnalyticCost, ConcentratedScores, CostModel, InSituCost
from sim.cost.measured import ProfileCost
from sim.cost.profile import ProfileError, load_profile, shipped_profiles
from sim.experts.load import LoadTable, expert_load
from sim.model.deployment import PoolPlan
from sim.model.layout import ExpertRows, Layout
from sim.scenario.device import gpu_of
from sim.scenario.engine import engine_of
from sim.scenario.errors import DeploymentError, Problem
from sim.scenario.schema import Experts, Scenario
from sim.step.build import build_step_cost
from sim.step.cost import SurfaceStepCost
from sim.step.operations import Overlap, Routing, StepOperations

PHASES = {"prefill": ("prefill",), "decode": ("decode",), "serve": ("prefill", "decode")}
"""What each kind of pool does."""


def pool_layout(scenario: Scenario, plan: PoolPlan, phase: str) -> Layout:
    """How a worker of the pool shards the model, in the engine's way for the phase."""
    engine, gpu, precision = engine_of(scenario), gpu_of(scenario), scenario.precision
    pool = scenario.deployment.pools()[plan.role]
    return Layout(
        model=catalog.model(scenario.model),
        gpus=plan.gpus,
        tp=plan.tp,
        ep=plan.ep,
        gpus_per_node=gpu.scale_up_domain,
        weights=precision.weights,
        attention_weights=precision.attention_format,
        dense_weights=precision.dense_format,
        kv_cache=precision.kv_cache,
        dense_prefill_max_kv=engine.dsa_dense_threshold,
        index_logits_bytes=engine.index_logits_bytes,
        dispatch_mode=engine.decode_dispatch if phase == "decode" else engine.prefill_dispatch,
        exchange=pool.exchange or "all_to_all",
        moe_backend=pool.moe_backend,
        mtp=scenario.speculation.draft_tokens > 0,
    )


@lru_cache(maxsize=64)
def _load(model: str, layout_key: tuple[int, int, int, int], experts: Experts) -> LoadTable:
    ep, dp, domain, moe_tp = layout_key
    return expert_load(
        catalog.model(model), ep=ep, dp=dp, gpus_per_node=max(1, domain // moe_tp), experts=experts
    )


def pool_routing(scenario: Scenario, layout: Layout, experts: Experts) -> Routing:
    """Expected load of the most loaded expert rank by tokens per attention-DP rank."""
    if not layout.model.n_routed:
        return lambda tokens: ExpertRows(0.0, 0.0, 0.0, 0.0, 0.0)
    table = _load(scenario.model, (layout.ep, layout.dp, layout.gpus_per_node, layout.moe_tp), experts)
    sent = table.copies(layout.dispatch_mode)

    def rows(tokens: float) -> ExpertRows:
        return ExpertRows(
            rows=float(table.hottest_rows(tokens)),
            slots=table.local_slots,
            active=float(table.active_experts(tokens)),
            copies=sent.rdma + sent.nvlink,
            remote_copies=sent.rdma,
        )

    return rows


def step_operations(scenario: Scenario, plan: PoolPlan, phase: str) -> StepOperations:
    """What a worker of the pool runs in a step of the phase (prefill or decode)."""
    layout = pool_layout(scenario, plan, phase)
    pool = scenario.deployment.pools()[plan.role]
    routing = pool_routing(scenario, layout, pool.experts or scenario.experts)
    engine, decoding = engine_of(scenario), phase == "decode"
    overlap = Overlap(
        shared_expert=engine.shared_expert_overlap_decode
        if decoding
        else engine.shared_expert_overlap_prefill,
        beside_experts=decoding,
        two_batch=engine.two_batch_overlap_decode if decoding else engine.two_batch_overlap_prefill,
        slowdown=_slowdown(layout, gpu_of(scenario)),
    )
    levels = tuple((level.up_to_batch, level.draft_tokens) for level in scenario.speculation.adaptive or ())
    return StepOperations(layout, routing, engine, scenario.speculation.draft_tokens, overlap, levels)


def _slowdown(layout: Layout, gpu: Gpu) -> float:
    """Computing beside the exchange, over computing alone: all SMs / SMs that the exchange leaves.

    DeepEP's normal mode runs on SMs of its own; the low-latency mode lets the NIC do the work.
    """
    if layout.exchange != "all_to_all" or layout.dispatch_mode == "low_latency" or gpu.sms is None:
        return 1.0
    return gpu.sms / (gpu.sms - catalog.efficiency().exchange_sms)


def profile_name(scenario: Scenario) -> str | None:
    """The profile that prices the scenario: as given, or the shipped one of its GPU (the nearest measured) and engine.

    None where there is none, or the scenario asks for `analytic`. DeepSeek's own engine takes SGLang's, whose
    kernels (FlashMLA, DeepGEMM, DeepEP) are DeepSeek's.
    """
    if scenario.profile is not None:
        return None if scenario.profile == "analytic" else scenario.profile
    engine = "sglang" if scenario.engine == "deepseek" else scenario.engine
    name = f"{gpu_of(scenario).nearest_measured}/{engine}"
    return name if name in shipped_profiles() else None


def cost_model(scenario: Scenario) -> CostModel:
    """What prices the scenario's operations: its profile with the roofline behind it, in a running engine.

    Raises DeploymentError where the profile cannot be read.
    """
    try:
        cost = _cost(gpu_of(scenario), profile_name(scenario))
    except ProfileError as error:
        raise DeploymentError([Problem(("profile",), str(error))]) from error
    if scenario.indexer.scores == "concentrated":
        cost = ConcentratedScores(cost)
    return InSituCost(cost, engine_of(scenario).communication_factor)


@lru_cache(maxsize=32)
def _cost(device: Gpu, profile: str | None) -> CostModel:
    """The cost model of a GPU and a profile; kept, because its tables' interpolations take time to build."""
    roofline = AnalyticCost(device, catalog.efficiency())
    return ProfileCost(load_profile(profile), roofline, device) if profile else roofline


def pool_step_cost(scenario: Scenario, plan: PoolPlan) -> SurfaceStepCost:
    """The step cost of a pool, priced on its grid."""
    operations = {phase: step_operations(scenario, plan, phase) for phase in PHASES[plan.role]}
    decoding = plan.max_sequences * (1 + scenario.speculation.draft_tokens) if plan.role == "serve" else 0
    return build_step_cost(operations, cost_model(scenario), plan.max_sequences, plan.chunk_tokens + decoding)
