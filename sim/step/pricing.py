"""A scenario -> how its pools shard the model, what their steps run, and what prices them."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Final
from warnings import warn

from sim import catalog
from sim.catalog import Gpu
from sim.cost.exchange import WideExchange
from sim.cost.latency import AnalyticCost, ConcentratedScores, CostModel, InSituCost
from sim.cost.measured import ProfileCost
from sim.cost.network import NetworkCost
from sim.cost.profile import ProfileError, load_profile, shipped_profiles
from sim.deployment.checks import pool_experts
from sim.deployment.device import gpu_of
from sim.deployment.engine import engine_of
from sim.deployment.plan import PoolPlan
from sim.model.attention import chooses_keys
from sim.model.layout import Layout, exchanges_all_to_all
from sim.model.operations import Operation, routed_experts
from sim.model.sharding import engine_sharding
from sim.scenario.errors import DeploymentError, Problem
from sim.scenario.schema import Objectives, Price, Scenario, Workload
from sim.step.build import Range, build_step_cost
from sim.step.cost import SurfaceStepCost
from sim.step.experts import pool_routing, rebalance, recording_stamp
from sim.step.operations import StepOperations
from sim.step.overlap import Overlap

PHASES = {"prefill": ("prefill",), "decode": ("decode",), "serve": ("prefill", "decode")}
"""What each kind of pool does."""


BESIDE_A_STEP: Final = {
    "workload": Workload(trace="any"),
    "duration_s": None,
    "warmup_s": 0.0,
    "objectives": Objectives(),
    "price": Price(),
}
"""What no step depends on: the same for all scenarios that share priced steps."""


def pool_layout(scenario: Scenario, plan: PoolPlan, phase: str) -> Layout:
    """How a worker of the pool shards the model, in the engine's way for the phase."""
    engine, gpu, precision = engine_of(scenario), gpu_of(scenario), scenario.precision
    pool, (experts, _) = scenario.deployment.pools()[plan.role], pool_experts(scenario, plan.role)
    all_to_all = exchanges_all_to_all(pool.exchange, plan.gpus, plan.tp, plan.ep)
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
        whole_batch_experts=pool.moe_backend == engine.whole_batch_experts,
        shared_as_slot=experts.shared_expert_as_slot,
        mtp=scenario.speculation.draft_tokens > 0,
        sharding=engine_sharding(engine, plan.gpus, plan.tp, all_to_all),
    )


def step_operations(scenario: Scenario, plan: PoolPlan, phase: str) -> StepOperations:
    """What a worker of the pool runs in a step of the phase (prefill or decode)."""
    layout = pool_layout(scenario, plan, phase)
    routing = pool_routing(scenario, plan.role, layout)
    engine = engine_of(scenario)
    overlap = _overlap(scenario, layout, phase)
    levels = tuple((level.up_to_batch, level.draft_tokens) for level in scenario.speculation.adaptive or ())
    drafts = scenario.speculation.draft_tokens
    fetch = rebalance(scenario, plan.role, layout)
    return StepOperations(layout, routing, engine, drafts, overlap, levels, tuple(fetch))


def _overlap(scenario: Scenario, layout: Layout, phase: str) -> Overlap:
    """What the engine runs at the same time in the phase, on this GPU and in this layout."""
    engine, gpu, model = engine_of(scenario), gpu_of(scenario), layout.model
    decoding = phase == "decode"
    normal = layout.all_to_all and layout.dispatch_mode == "normal"
    exchange = catalog.efficiency().low_latency_all_to_all
    return Overlap(
        shared_expert=engine.shared_expert_overlap_decode
        if decoding
        else engine.shared_expert_overlap_prefill,
        beside_experts=decoding,
        two_batch=engine.two_batch_overlap_decode if decoding else engine.two_batch_overlap_prefill,
        schedule=engine.two_batch_schedule_decode if decoding else engine.two_batch_schedule_prefill,
        slowdown=_slowdown(gpu) if normal else 1.0,
        contention=engine.exchange_contention if normal else 1.0,
        send_s=exchange.send_s,
        send_per_token_s=exchange.send_per_token_s,
        combine_sends=exchange.combine_sends,
        exchanging=model.moe_layers / model.layers if model.n_routed else 0.0,
        # SGLang DpPaddingMode (dp_attention.py): SUM_LEN in a batch with prompts, MAX_LEN in CUDA graphs of decode.
        # vLLM and TensorRT-LLM gather by the sizes of the ranks too where no graph asks for one size.
        summed=not decoding,
        launch_s=0.0 if decoding and engine.cuda_graphs else engine.launch_s,
        graph_tokens=0 if decoding else graph_tokens(scenario, layout),
    )


def graph_tokens(scenario: Scenario, layout: Layout) -> int:
    """Largest step with prompts, in tokens of a rank, that piecewise CUDA graphs launch in this deployment."""
    engine = engine_of(scenario)
    excluded = {
        "attention_dp": layout.dp > 1,
        "all_to_all": layout.all_to_all,
        "disaggregated": "prefill" in scenario.deployment.pools(),
        "speculation": scenario.speculation.draft_tokens > 0,
        "sparse_attention": chooses_keys(layout.model),
    }
    if not engine.cuda_graphs or any(excluded[name] for name in engine.prefill_graph_excludes):
        return 0
    return engine.prefill_graph_tokens


def _slowdown(gpu: Gpu) -> float:
    """Computing beside an exchange of DeepEP's normal mode, over computing alone: all SMs / SMs that it leaves.

    The low-latency mode lets the NIC do the work.
    """
    return 1.0 if gpu.sms is None else gpu.sms / (gpu.sms - catalog.efficiency().exchange_sms)


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
    cost = priced = priced_by(scenario)
    if scenario.indexer.scores == "concentrated":
        cost = ConcentratedScores(cost)
    cost = WideExchange(cost, catalog.efficiency().low_latency_all_to_all)
    measured = (
        (priced.collectives_to, priced.all_reduce_spans_rack) if isinstance(priced, ProfileCost) else ()
    )
    network = NetworkCost(cost, gpu_of(scenario), catalog.collectives(), *measured)
    return InSituCost(network, engine_of(scenario).communication_factor)


def check_backends(scenario: Scenario) -> None:
    """Raises DeploymentError where a pool names kernels of the routed experts that nobody measured."""
    pools = scenario.deployment.pools()
    named = {role: name for role, pool in pools.items() if (name := pool.moe_backend)}
    cost, model = priced_by(scenario), catalog.model(scenario.model)
    if not named or not isinstance(cost, ProfileCost) or not model.n_routed:
        return
    weights = scenario.precision.weights
    known = cost.backends(routed_experts(1.0, 1.0, 1.0, model.hidden, model.moe_inter, weights))
    problems = [
        Problem(
            ("deployment", role, "moe_backend"),
            str(catalog.UnknownName(f"{weights} back-end", name, catalog.nearest_names(name, known))),
        )
        for role, name in named.items()
        if name not in known
    ]
    if problems:
        raise DeploymentError(problems)


def moe_backends(scenario: Scenario, experts: Operation) -> tuple[str, ...]:
    """Kernels that could run the routed experts and were measured, by name; the choice is the engine's, its release's
    and its flags'. None where tokens are exchanged all to all: what the exchange hands over decides there.
    """
    cost = priced_by(scenario)
    if not isinstance(cost, ProfileCost) or "mode" in experts.options:
        return ()
    return tuple(name for name in cost.backends(experts) if not name.startswith("deepep"))


def priced_by(scenario: Scenario) -> CostModel:
    """The scenario's profile with the roofline behind it. Raises DeploymentError where it cannot be read."""
    try:
        return _cost(gpu_of(scenario), profile_name(scenario))
    except ProfileError as error:
        raise DeploymentError([Problem(("profile",), str(error))]) from error


@lru_cache(maxsize=32)
def _cost(device: Gpu, profile: str | None) -> CostModel:
    """The cost model of a GPU and a profile; kept, because its tables' interpolations take time to build."""
    roofline = AnalyticCost(device, catalog.efficiency())
    if not profile:
        return roofline
    found = load_profile(profile)
    if found.header.get("environment", {}).get("device") == "cpu" and found.gpu != device.name:
        warn(
            f"profile {profile} was measured on a CPU: its times say nothing about a {device.name}",
            stacklevel=2,
        )
    return ProfileCost(found, roofline, device)


def pool_step_cost(
    scenario: Scenario, plan: PoolPlan, contexts: Mapping[str, Range] | None = None
) -> SurfaceStepCost:
    """The step cost of a pool, priced on its grid; `contexts`: see `build_step_cost`.

    Priced once for all scenarios whose steps are the same, whatever their load and their number of workers.
    """
    asked = tuple(sorted((contexts or {}).items()))
    return _priced(
        _beside_load(scenario), replace(plan, workers=1), asked, _files(scenario, plan.role)
    ).unbooked()


def _beside_load(scenario: Scenario) -> Scenario:
    """What all scenarios have in common that share the steps of this one."""
    deployment = scenario.deployment
    one = {role: pool.model_copy(update={"workers": 1}) for role, pool in deployment.pools().items()}
    alone = {**BESIDE_A_STEP, "deployment": deployment.model_copy(update=one)}
    return scenario.model_copy(update=alone)


def _files(scenario: Scenario, role: str) -> tuple[object, ...]:
    """What a scenario names by its file, in its present state."""
    return gpu_of(scenario), catalog.model(scenario.model), recording_stamp(pool_experts(scenario, role)[0])


@lru_cache(maxsize=32)
def _priced(
    scenario: Scenario, plan: PoolPlan, contexts: tuple[tuple[str, Range], ...], _files: tuple[object, ...]
) -> SurfaceStepCost:
    operations = {phase: step_operations(scenario, plan, phase) for phase in PHASES[plan.role]}
    decoding = plan.max_sequences * (1 + scenario.speculation.draft_tokens) if plan.role == "serve" else 0
    most_tokens = plan.chunk_tokens + decoding
    return build_step_cost(operations, cost_model(scenario), plan.max_sequences, most_tokens, dict(contexts))
