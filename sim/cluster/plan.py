"""A deployment -> what its cluster is given: pools as the scheduler sees them, habits, drafts, transfer, prefixes."""

from sim import catalog
from sim.cluster.setup import ClusterPlan, PoolSetup, PrefixSetup, TransferSetup
from sim.deployment.drafts import Drafts
from sim.deployment.plan import Deployment
from sim.deployment.prefix_tiers import PrefixCachePlan
from sim.deployment.room import running_blocks
from sim.model.architecture import cache_bytes_per_request, cache_bytes_per_token
from sim.serving.admission import AdmissionRules
from sim.serving.handover import HandoverRules
from sim.serving.prefix_cache import Tier
from sim.serving.speculation import AdaptiveDrafts, DraftAcceptance, Drafting, OneTokenPerStep


def cluster_plan(deployment: Deployment, seed: int, block_tokens: int | None = None) -> ClusterPlan:
    """What the scheduler of each pool sees, the engine's habits, and the luck of the drafts.

    `block_tokens`: of the requests' hashed blocks; None where they have none, and there is nothing to look up.
    """
    engine, cache = deployment.engine, deployment.prefix_cache
    prefixes = prefix_setup(cache, block_tokens) if cache and block_tokens else None
    kv_blocks = running_blocks(deployment)
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
            whole_prompts=engine.whole_prompts,
        )
        for role, plan in deployment.pools.items()
    }
    if serve := pools.get("serve"):
        waits = engine.admission_wait_steps if serve.dp > 1 else 0
        rules = AdmissionRules(
            ingress_s=engine.fixed_ttft_aggregated_s,
            poll_every_steps=engine.admission_interval_steps,
            wait_all_ranks_steps=0 if engine.admission_delays else waits,
            delay_prompts_steps=waits if engine.admission_delays else 0,
            gather_prompts_steps=engine.admission_gather_steps,
            idle_rank_opens=engine.admission_idle_rank_opens,
            batch_wait_steps=engine.batch_wait_steps if serve.dp == 1 else 0,
            batch_wait_tokens=engine.batch_wait_fill * serve.chunk_tokens,
            rest_after_prompts_steps=engine.admission_rest_steps,
            other_ranks_decode=other_ranks_decode(deployment),
            tokens_per_sequence=1 + deployment.drafts.tokens,
            growth_reserve_tokens=engine.admission_growth_tokens,
        )
        return ClusterPlan(
            pools,
            rules=rules,
            speculation=speculation(deployment.drafts, seed),
            max_tokens=deployment.model.max_positions,
            prefixes=prefixes,
        )
    rules = AdmissionRules(
        ingress_s=engine.fixed_ttft_disaggregated_s, growth_reserve_tokens=engine.admission_growth_tokens
    )
    transfer = transfer_setup(deployment)
    draws = speculation(deployment.drafts, seed)
    handover = handover_rules(engine)
    return ClusterPlan(pools, transfer, rules, draws, deployment.model.max_positions, prefixes, handover)


def other_ranks_decode(deployment: Deployment) -> bool:
    """Whether, in a step with prompts, the attention-DP ranks of a worker that have none decode."""
    return (
        deployment.engine.other_ranks_decode
        and deployment.pool("serve").dp > 1
        and not deployment.drafts.tokens
    )


def handover_rules(engine: catalog.Engine) -> HandoverRules:
    """How the engine's prefill side, its decode side and the router between them get a prompt across."""
    return HandoverRules(
        chooses_worker=True,
        room_first=engine.decode_room_first,
        relay_s=engine.handover_relay_s,
        poll_every_steps=engine.decode_poll_steps,
        last_token_again=engine.decode_last_token_again,
        first_token=engine.decode_first_token,
        answers_between_steps=engine.prefill_answers_between_steps,
    )


def prefix_setup(plan: PrefixCachePlan, block_tokens: int) -> PrefixSetup:
    """The prefix cache of the pool that computes prompts, as the cluster sees it."""
    return PrefixSetup(
        scope=plan.scope,
        block_tokens=block_tokens,
        tiers=tuple(Tier(tier.name, tier.capacity_tokens) for tier in plan.tiers),
        fetch_s_per_token=tuple(tier.fetch_s_per_token for tier in plan.tiers),
        shares_hbm=plan.shares_hbm,
    )


def speculation(drafts: Drafts, seed: int) -> Drafting:
    """How many decode steps a sequence needs: one per token, or fewer with accepted drafts."""
    if not drafts.tokens:
        return OneTokenPerStep()
    chances = drafts.chances
    assert chances is not None, "a checked deployment knows the chances of its drafts"
    if not drafts.levels:
        return DraftAcceptance(chances, seed)
    kinds: dict[int, Drafting] = {k: DraftAcceptance(chances[:k], seed) for k in range(1, len(chances) + 1)}
    kinds[0] = OneTokenPerStep()
    return AdaptiveDrafts([(up_to_batch, kinds[tokens]) for up_to_batch, tokens in drafts.levels])


def transfer_setup(deployment: Deployment) -> TransferSetup:
    """How the KV cache travels: over NVLink where prefill and decode share its domain, else over the NICs.

    A token's cache crosses once, whole: the NICs of a rank send a slice each, a share of the heads or of the latent.
    What several GPUs of the decode rank hold alike (a latent under TP, replicated heads) NVLink fans out there; that
    is not priced, being several times as fast as a NIC.

    What an engine sends layer by layer leaves one layer's share for the end; otherwise all of it waits for the
    last chunk.
    """
    gpu, model, efficiency = deployment.gpu, deployment.model, catalog.efficiency()
    link = gpu.scale_up_bytes_per_s if deployment.gpus <= gpu.scale_up_domain else gpu.scale_out_bytes_per_s
    cached = model, deployment.precision.kv_cache, deployment.drafts.tokens > 0
    return TransferSetup(
        bytes_per_token=cache_bytes_per_token(*cached),
        bytes_per_request=cache_bytes_per_request(*cached),
        bytes_per_s=link * efficiency.link,
        latency_s=efficiency.link_latency_s,
        tail_fraction=1 / model.layers if deployment.engine.kv_transfer_overlap == "layer" else 1.0,
    )
