"""A scenario -> its result: the rooms of the house, put together once."""

from collections.abc import Iterator
from pathlib import Path

from sim import catalog
from sim.cluster.ledger import Progress
from sim.cluster.record import RequestTable
from sim.cluster.run import run_cluster
from sim.cluster.setup import ClusterPlan, PoolSetup, PrefixSetup, TransferSetup
from sim.cost.profile import shipped_profiles
from sim.deployment.device import gpu_of
from sim.deployment.drafts import draft_chances
from sim.deployment.engine import engine_of
from sim.deployment.notes import scenario_notes
from sim.deployment.plan import Deployment, deploy
from sim.deployment.prefix_tiers import PrefixCachePlan, prefix_cache_plan
from sim.deployment.room import check_room, check_warmup, running_blocks
from sim.model.architecture import cache_bytes_per_request, cache_bytes_per_token
from sim.price import price
from sim.result import Result
from sim.scenario.schema import Scenario
from sim.serving.admission import AdmissionRules
from sim.serving.prefix_cache import Tier
from sim.serving.speculation import AdaptiveDrafts, DraftAcceptance, OneTokenPerStep, Speculation
from sim.step.pricing import check_backends, pool_step_cost
from sim.step.stand_ins import pricing_notes
from sim.workload import requests


def simulate(
    scenario: Scenario, seed: int = 0, base_folder: Path | None = None, progress: Progress | None = None
) -> Result:
    """Run a scenario to its end.

    The same scenario and seed give the same result, in every process. `base_folder` is where relative file names
    of the scenario start; `progress` is told how many requests have left.

    Raises:
        DeploymentError: if the deployment does not fit the machine, or has no room for a single request, or the
            workload does not exist.
        ScenarioError: if a file that the scenario names is broken.
    """
    deployment = deploy(scenario, shipped_profiles())
    check_backends(scenario)
    stream = requests(scenario, seed, base_folder)
    check_room(scenario, deployment, stream.least_tokens)
    check_warmup(scenario, stream.last_arrival_s)
    costs = {role: pool_step_cost(scenario, plan) for role, plan in deployment.pools.items()}
    plan = cluster_plan(scenario, deployment, seed, stream.block_tokens)
    record = run_cluster(scenario, stream, plan, costs, seed, progress)
    notes = (
        *deployment.model.notes,
        *scenario_notes(scenario),
        *stream.notes,
        *pricing_notes(scenario, deployment.pools),
        *_rejections(record.requests, deployment, plan),
    )
    return Result(record, price(record), notes)


def _rejections(requests: RequestTable, deployment: Deployment, plan: ClusterPlan) -> Iterator[str]:
    """Says for each limit how many requests exceed it. A request may exceed several."""
    model, tokens = deployment.model, requests.input_tokens + requests.output_tokens
    if count := int((tokens > model.max_positions).sum()):
        yield (
            f"{count:,} of {len(tokens):,} requests rejected: prompt and answer exceed the "
            f"{model.max_positions:,} positions of {model.name}"
        )
    for role, pool in plan.pools.items():
        room = pool.longest_tokens
        too_long = (tokens > room) & (tokens <= model.max_positions)
        if count := int(too_long.sum()):
            beside = pool.kv_blocks < deployment.pools[role].memory.kv_blocks
            yield (
                f"{count:,} of {len(tokens):,} requests rejected: they need up to {tokens[too_long].max():,} "
                f"KV tokens, a rank of the {role} pool has {room:,}{' beside the prefix cache' * beside}"
            )


def cluster_plan(
    scenario: Scenario, deployment: Deployment, seed: int, block_tokens: int | None = None
) -> ClusterPlan:
    """What the scheduler of each pool sees, the engine's habits, and the luck of the drafts.

    `block_tokens`: of the requests' hashed blocks; None where they have none, and there is nothing to look up.
    """
    engine = engine_of(scenario)
    cache = prefix_cache_plan(scenario, {role: plan.memory for role, plan in deployment.pools.items()})
    prefixes = prefix_setup(cache, block_tokens) if cache and block_tokens else None
    kv_blocks = running_blocks(scenario, deployment)
    pools = {
        role: PoolSetup(
            workers=plan.workers,
            gpus=plan.gpus,
            dp=plan.dp,
            max_sequences=plan.max_sequences,
            chunk_tokens=plan.chunk_tokens,
            kv_blocks=kv_blocks[role],
            block_tokens=engine.kv_block_tokens,
            request_blocks=plan.memory.request_blocks,
            mixed=engine.mixes_prefill_with_decode,
        )
        for role, plan in deployment.pools.items()
    }
    if serve := pools.get("serve"):
        rules = AdmissionRules(
            ingress_s=engine.fixed_ttft_aggregated_s,
            poll_every_steps=engine.admission_interval_steps,
            wait_all_ranks_steps=engine.admission_wait_steps if serve.dp > 1 else 0,
            growth_reserve_tokens=engine.admission_growth_tokens,
        )
        return ClusterPlan(
            pools,
            rules=rules,
            speculation=speculation(scenario, seed),
            max_tokens=deployment.model.max_positions,
            prefixes=prefixes,
        )
    rules = AdmissionRules(
        ingress_s=engine.fixed_ttft_disaggregated_s, growth_reserve_tokens=engine.admission_growth_tokens
    )
    transfer = transfer_setup(scenario, deployment)
    draws = speculation(scenario, seed)
    return ClusterPlan(pools, transfer, rules, draws, deployment.model.max_positions, prefixes)


def prefix_setup(plan: PrefixCachePlan, block_tokens: int) -> PrefixSetup:
    """The prefix cache of the pool that computes prompts, as the cluster sees it."""
    return PrefixSetup(
        scope=plan.scope,
        block_tokens=block_tokens,
        tiers=tuple(Tier(tier.name, tier.capacity_tokens) for tier in plan.tiers),
        fetch_s_per_token=tuple(tier.fetch_s_per_token for tier in plan.tiers),
        shares_hbm=plan.shares_hbm,
    )


def speculation(scenario: Scenario, seed: int) -> Speculation:
    """How many decode steps a sequence needs: one per token, or fewer with accepted drafts."""
    asked = scenario.speculation
    if not asked.draft_tokens:
        return OneTokenPerStep()
    chances = draft_chances(scenario)
    if asked.adaptive is None:
        return DraftAcceptance(chances, seed)
    kinds: dict[int, Speculation] = {
        k: DraftAcceptance(chances[:k], seed) for k in range(1, len(chances) + 1)
    }
    kinds[0] = OneTokenPerStep()
    return AdaptiveDrafts([(level.up_to_batch, kinds[level.draft_tokens]) for level in asked.adaptive])


def transfer_setup(scenario: Scenario, deployment: Deployment) -> TransferSetup:
    """How the KV cache travels: over NVLink where prefill and decode share its domain, else over the NICs.

    A token's cache crosses once, whole: the NICs of a rank send a slice each, a share of the heads or of the latent.
    What several GPUs of the decode rank hold alike (a latent under TP, replicated heads) NVLink fans out there; that
    is not priced, being several times as fast as a NIC.

    What an engine sends layer by layer leaves one layer's share for the end; otherwise all of it waits for the
    last chunk.
    """
    gpu, engine, efficiency = gpu_of(scenario), engine_of(scenario), catalog.efficiency()
    gpus = sum(plan.workers * plan.gpus for plan in deployment.pools.values())
    link = gpu.scale_up_bytes_per_s if gpus <= gpu.scale_up_domain else gpu.scale_out_bytes_per_s
    model = catalog.model(scenario.model)
    cache = (model, scenario.precision.kv_cache, scenario.speculation.draft_tokens > 0)
    return TransferSetup(
        bytes_per_token=cache_bytes_per_token(*cache),
        bytes_per_request=cache_bytes_per_request(*cache),
        bytes_per_s=link * efficiency.link,
        latency_s=efficiency.link_latency_s,
        tail_fraction=1 / model.layers if engine.kv_transfer_overlap == "layer" else 1.0,
    )
