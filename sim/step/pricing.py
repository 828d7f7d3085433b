"""A deployment -> what the steps of its pools run, and what prices them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from warnings import warn

from sim import catalog
from sim.catalog import Engine, Gpu
from sim.catalog.profiles import is_shipped, models_of_their_own
from sim.cost.checked import check_profile
from sim.cost.exchange import WideExchange
from sim.cost.fits import ProfileError
from sim.cost.latency import AnalyticCost, AnchoredCost, ConcentratedScores, CostModel, InSituCost
from sim.cost.measured import ProfileCost
from sim.cost.network import NetworkCost
from sim.cost.profile import load_profile
from sim.cost.whole_steps import WholeStepCost, WholeSteps, steps_named
from sim.deployment.plan import Deployment
from sim.deployment.pools import PoolPlan
from sim.frozen import Frozen
from sim.model.layout import MEGA_MOE, Layout, Phase
from sim.model.operations import Operation, mega_moe_experts, routed_experts
from sim.scenario.errors import DeploymentError, Problem
from sim.scenario.schema import Experts
from sim.step.build import PoolPrices
from sim.step.cost import SurfaceStepCost
from sim.step.experts import pool_routing, rebalance, recording_stamp
from sim.step.operations import StepOperations
from sim.step.overlap import StepOverlap
from sim.step.whole import WholeStepOperations, check_whole_steps, prices


def step_operations(deployment: Deployment, phase: Phase) -> StepOperations:
    """What a worker runs in a step of the phase, of the pool that does it; where the profile has its steps whole, in
    two blocks."""
    plan, drafts = deployment.pool(phase), deployment.drafts
    layout, engine = plan.layouts[phase], deployment.engine
    routing = pool_routing(deployment.gpu, plan, layout)
    engine = replace(engine, host_overhead_s=_host_s(engine, plan))
    if (steps := whole_steps(deployment)) and prices(steps, plan, phase):
        return WholeStepOperations(layout, routing, engine, drafts.tokens, phase=phase)
    return StepOperations(
        layout,
        routing,
        engine,
        drafts.tokens,
        _overlap(deployment, plan, phase),
        drafts.tokens if deployment.model.drafts_in_block else 0,
        drafts.levels,
        tuple(rebalance(plan, layout)),
    )


def whole_steps(deployment: Deployment) -> WholeSteps | None:
    """The whole steps of its profile; None where that holds kernels. Raises DeploymentError where they cannot be read
    or are of another service."""
    try:
        steps = steps_named(deployment.profile)
    except ProfileError as error:
        raise DeploymentError([Problem(("profile",), str(error))]) from error
    if steps:
        check_whole_steps(steps, deployment, str(deployment.profile))
    return steps


def _host_s(engine: Engine, plan: PoolPlan) -> float:
    """Host time of a step. What pools that only decode have, and what V4 has, do not add up: with the first alone the
    training half of V4's disaggregated services with SGLang has no bias."""
    more_s = engine.decode_pool_host_s if plan.role == "decode" else 0.0
    if plan.layout.model.compressed:
        more_s = max(more_s, engine.compressed_host_s)
    return engine.host_overhead_s + more_s


def _overlap(deployment: Deployment, plan: PoolPlan, phase: Phase) -> StepOverlap:
    """What the engine runs at the same time in the phase, on this GPU and in this layout."""
    engine, gpu, model, layout = deployment.engine, deployment.gpu, deployment.model, plan.layouts[phase]
    decoding = phase == "decode"
    normal = layout.all_to_all and layout.dispatch_mode == "normal"
    exchange = catalog.efficiency().low_latency_all_to_all
    return StepOverlap(
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
        launch_s=0.0
        if decoding and engine.cuda_graphs
        else engine.launch_s * (engine.compressed_launches if model.compressed else 1.0),
        graph_tokens=0 if decoding else plan.graph_tokens,
    )


def _slowdown(gpu: Gpu) -> float:
    """Computing beside an exchange of DeepEP's normal mode, over computing alone: all SMs / SMs that it leaves.

    The low-latency mode lets the NIC do the work.
    """
    return 1.0 if gpu.sms is None else gpu.sms / (gpu.sms - catalog.efficiency().exchange_sms)


def cost_model(deployment: Deployment, phase: Phase) -> CostModel:
    """What prices the operations of the deployment's steps: its profile with the roofline behind it, in a running
    engine, adjusted to the anchor. A prefill step is any with prompts, whatever decodes beside them. A pool of prompts
    alone keeps its price: TPOT, which tells an anchor's factor, is measured on the pool that decodes.

    Raises DeploymentError where the profile cannot be read.
    """
    cost = priced = priced_by(deployment)
    if deployment.indexer_scores == "concentrated":
        cost = ConcentratedScores(cost)
    cost = WideExchange(cost, catalog.efficiency().low_latency_all_to_all)
    measured = (
        (priced.collectives_to, priced.all_reduce_spans_rack) if isinstance(priced, ProfileCost) else ()
    )
    network = NetworkCost(cost, deployment.gpu, catalog.collectives(), *measured)
    cost = InSituCost(network, deployment.engine.communication_factor)
    if steps := whole_steps(deployment):
        cost = WholeStepCost(cost, steps, deployment.model, str(deployment.profile))
    anchor = deployment.anchor
    if anchor is None or set(deployment.pools) == {"prefill"}:
        return cost
    factor = anchor.step_factor * (anchor.prompt_factor if phase == "prefill" else 1.0)
    return AnchoredCost(cost, factor, anchor.step_constant_s, anchor.name)


def check_backends(deployment: Deployment) -> None:
    """Raises DeploymentError where a pool names kernels of the routed experts that nobody measured, or the profile
    holds whole steps of another service."""
    whole_steps(deployment)
    named = {role: name for role, plan in deployment.pools.items() if (name := plan.layout.moe_backend)}
    cost, model, weights = priced_by(deployment), deployment.model, deployment.precision.weights
    if not named or not isinstance(cost, ProfileCost) or not model.n_routed:
        return
    shape = (model.hidden, model.moe_inter, weights)
    fused = cost.backends(mega_moe_experts(1.0, 1.0, 1.0, *shape, ep=1))
    known = (*cost.backends(routed_experts(1.0, 1.0, 1.0, *shape)), *fused)
    problems = [
        Problem(
            ("deployment", role, "moe_backend"),
            str(catalog.UnknownName(f"{weights} back-end", name, catalog.nearest_names(name, known))),
        )
        for role, name in named.items()
        if name not in known
    ]
    problems += [
        Problem(
            ("deployment", role, "moe_backend"),
            f"{MEGA_MOE} exchanges tokens itself: expected several attention ranks, each expert whole on one GPU "
            "(tp < gpus = ep), NVLink among all of them, and exchange all_to_all; got "
            + _spread(deployment.pools[role].layout),
        )
        for role, name in named.items()
        if name == MEGA_MOE and name in known and not deployment.pools[role].layout.exchange_in_experts
    ]
    if problems:
        raise DeploymentError(problems)


def _spread(layout: Layout) -> str:
    """How a layout spreads its experts, in the words of a scenario."""
    return f"tp {layout.tp}, gpus {layout.gpus}, ep {layout.ep} on {layout.nodes} node(s), exchange {layout.exchange}"


def moe_backends(deployment: Deployment, experts: Operation) -> tuple[str, ...]:
    """Kernels that could run the routed experts and were measured, by name; the choice is the engine's, its release's
    and its flags'. None where tokens are exchanged all to all: what the exchange hands over decides there.
    """
    cost = priced_by(deployment)
    if not isinstance(cost, ProfileCost) or "mode" in experts.options:
        return ()
    return tuple(name for name in cost.backends(experts) if not name.startswith("deepep"))


def priced_by(deployment: Deployment) -> CostModel:
    """The deployment's profile with the roofline behind it. Raises DeploymentError where it cannot be read.

    A profile that the scenario names prices as it was timed; the one that its GPU and engine lead to, as a service in
    CUDA graphs pays: without the launches and unfused norms that the import found in it.
    """
    return priced_by_profile(deployment, as_timed=deployment.profile_named)


def priced_by_profile(deployment: Deployment, as_timed: bool) -> CostModel:
    """See `priced_by`, which decides `as_timed`."""
    try:
        name = deployment.model.name
        own = name if name in models_of_their_own() else ""
        return _cost(deployment.gpu, deployment.profile, own, as_timed)
    except ProfileError as error:
        raise DeploymentError([Problem(("profile",), str(error))]) from error


def calibrated(deployment: Deployment) -> bool:
    """Whether a profile that was measured on one's own GPUs prices it."""
    cost = priced_by(deployment)
    return isinstance(cost, ProfileCost) and cost.profile.calibrated


@lru_cache(maxsize=32)
def _cost(device: Gpu, profile: str | None, model: str, as_timed: bool) -> CostModel:
    """The cost model of a GPU, a profile and a model with kernels of its own (else ""); kept, because its tables'
    interpolations take time to build."""
    roofline = AnalyticCost(device, catalog.efficiency())
    if not profile:
        return roofline
    found = load_profile(profile, as_timed)
    if not is_shipped(profile):
        check_profile(found)
    if found.header.get("environment", {}).get("device") == "cpu" and found.gpu != device.name:
        warn(
            f"profile {profile} was measured on a CPU: its times say nothing about a {device.name}",
            stacklevel=2,
        )
    return ProfileCost(found, roofline, device, model)


@dataclass(frozen=True, slots=True)
class _Steps:
    """What the steps of a pool are, as the key of a cache: whatever they are priced for, loads, seats, sizes of chunks
    and memory, is left out."""

    role: str
    shared: Deployment
    """Without pools."""
    layouts: Mapping[Phase, Layout]
    experts: Experts
    recorded: int
    """Tells one version of the recorded counts from another."""
    graph_tokens: int
    alone: Deployment = field(compare=False)
    """With the pool, as it was first asked for."""


def pool_step_cost(deployment: Deployment, role: str) -> SurfaceStepCost:
    """The step cost of a pool, priced as it is asked for.

    Priced once for all deployments whose steps in this pool are the same: who tries many loads, batches or numbers of
    workers waits once. Nothing is booked yet in what is returned.
    """
    plan = deployment.pools[role]
    steps = _Steps(
        role,
        replace(deployment, pools=Frozen({}), prefix_cache=None),
        plan.layouts,
        plan.experts,
        recording_stamp(plan.experts),
        plan.graph_tokens,
        replace(deployment, pools=Frozen({role: plan}), prefix_cache=None),
    )
    decoding = plan.max_sequences * (1 + deployment.drafts.tokens) if role == "serve" else 0
    return _priced(steps, plan.max_sequences, plan.chunk_tokens + decoding).unused()


@lru_cache(maxsize=32)
def _priced(steps: _Steps, max_sequences: int, max_tokens: int) -> SurfaceStepCost:
    return _prices(steps).step_cost(max_sequences, max_tokens)


@lru_cache(maxsize=32)
def _prices(steps: _Steps) -> PoolPrices:
    operations = {str(phase): step_operations(steps.alone, phase) for phase in steps.layouts}
    return PoolPrices(operations, {str(phase): cost_model(steps.alone, phase) for phase in steps.layouts})
