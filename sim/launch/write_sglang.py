"""A pool as SGLang's launch commands, one per node; flags of 0.5.x."""

from collections.abc import Iterator, Mapping
from math import ceil
from typing import Final

from sim import catalog
from sim.deployment.plan import plan_pool
from sim.launch import indexer
from sim.launch.sglang_exchange import MEGA_MOE
from sim.launch.wanted import PORT, Flags, Wanted, command, given, in_front
from sim.model.attention.csa import FP4_INDEX

ROOM: Final = "SGLANG_OPT_DEEPGEMM_MEGA_MOE_NUM_MAX_TOKENS_PER_RANK"
ROOM_TOKENS: Final = 8192
"""As it is without the variable (environ.py)."""
BALANCES: Final = {"round_robin": "round_robin", "least_loaded": "total_requests"}


def commands(one: Wanted) -> Iterator[str]:
    """The commands of a pool."""
    flags = list(_flags(one))
    for worker in range(one.pool.workers):
        for node in range(one.nodes):
            spread = (
                ("--nnodes", one.nodes), ("--node-rank", node), ("--dist-init-addr", f"{one.host(worker)}:20000")
            )  # fmt: skip
            words = ("python3 -m sglang.launch_server",)
            where: Flags = [*(spread if one.nodes > 1 else ()), ("--host", "0.0.0.0"), ("--port", PORT)]
            yield f"{one.head(worker, node)}\n{command(words, [*flags, *where], _environment(one))}"


def _flags(one: Wanted) -> Iterator[str | tuple[str, object]]:
    pool, scenario = one.pool, one.scenario
    yield from (("--model-path", one.checkpoint), "--trust-remote-code", ("--tp-size", pool.gpus))
    yield from _ranks(one)
    if one.role != "serve":
        yield ("--disaggregation-mode", one.role)
    if one.role != "prefill":
        yield ("--max-running-requests", one.seats * one.dp)
    if one.role != "decode" and scenario.scheduling.whole_prompts:
        yield from (("--chunked-prefill-size", -1), ("--max-prefill-tokens", one.chunk_tokens))
    elif one.role != "decode":
        yield ("--chunked-prefill-size", one.chunk_tokens * one.dp)
    yield ("--kv-cache-dtype", "bf16" if scenario.precision.kv_cache == "bf16" else "fp8_e4m3")
    if scenario.precision.kv_cache == FP4_INDEX:
        yield "--enable-deepseek-v4-fp4-indexer"
    if scenario.precision.weights == "nvfp4":
        yield ("--quantization", "modelopt_fp4")
    elif scenario.precision.weights == "fp8" and one.model.weights == "bf16" and "FP8" not in one.checkpoint:
        yield ("--quantization", "fp8")
    yield ("--mem-fraction-static", pool.memory_fraction or _static_fraction(one))
    yield from given((("--moe-runner-backend", one.kernels("sglang")),))
    yield from _habits(one)
    yield from _cache(one)


def _environment(one: Wanted) -> Mapping[str, str]:
    """The indexer's, and room for the largest step of a rank in MegaMoE's buffers, without which SGLang does not
    start (mega_moe_hook.py)."""
    verified = 1 + one.scenario.speculation.draft_tokens
    tokens = max(one.chunk_tokens if one.role != "decode" else 0, one.seats * verified)
    room = {ROOM: str(tokens)} if one.fused and tokens > ROOM_TOKENS else {}
    return {**room, **indexer.variables("sglang", one.scenario.indexer)}


def _ranks(one: Wanted) -> Iterator[str | tuple[str, object]]:
    pool, scenario = one.pool, one.scenario
    if one.dp > 1:
        yield from (("--dp-size", one.dp), "--enable-dp-attention")
    if one.dp > 1 and one.role != "prefill":
        if scenario.router not in BALANCES:
            says = "SGLang takes them in turn, or by their load"
            one.cannot.append(f"router {scenario.router} among the ranks of a worker: {says}")
        yield ("--load-balance-method", BALANCES.get(scenario.router, "total_tokens"))
    if one.fused:
        yield ("--moe-a2a-backend", MEGA_MOE)
    elif one.exchanges:
        mode = {"prefill": "normal", "decode": "low_latency"}.get(one.role, "auto")
        yield from (("--moe-a2a-backend", "deepep"), ("--deepep-mode", mode))
    elif pool.ep > 1:
        yield ("--ep-size", pool.ep)


def _static_fraction(one: Wanted) -> float:
    """Share of the memory for weights and KV cache as the scenario has it; SGLang's own rule may leave less."""
    memory = plan_pool(one.scenario.model_copy(update={"engine": "sglang"}), one.role).memory
    held_bytes = memory.weights_bytes + memory.seats_bytes + memory.kv_cache_bytes
    # Rounded up: what is just enough must not fall short.
    return ceil(held_bytes / (memory.memory_bytes - catalog.engine("sglang").runtime_bytes) * 1e4) / 1e4


def _habits(one: Wanted) -> Iterator[str | tuple[str, object]]:
    scenario = one.scenario
    steps = scenario.speculation.draft_tokens
    if steps and scenario.speculation.method == "dspark":
        yield from (("--speculative-algorithm", "DSPARK"), ("--speculative-dspark-block-size", steps))
    elif steps:
        yield from (
            ("--speculative-algorithm", "EAGLE"), ("--speculative-num-steps", steps),
            ("--speculative-eagle-topk", 1), ("--speculative-num-draft-tokens", steps + 1),
        )  # fmt: skip
    if one.rebalances and one.experts.placement != "contiguous":
        yield "--enable-eplb"
    if one.rebalances and one.experts.redundant:
        yield ("--ep-num-redundant-experts", one.experts.redundant)
    if scenario.overlap.two_batch:
        yield "--enable-two-batch-overlap"
    if scenario.scheduling.cuda_graphs is False:
        yield "--disable-cuda-graph"
    habits = scenario.scheduling
    if habits.mix_prompts and one.role == "serve":
        yield "--enable-mixed-chunk"
    if habits.prefill_graph_tokens == 0 and one.role != "decode":
        yield "--disable-prefill-cuda-graph"
    elif habits.prefill_graph_tokens and one.role != "decode":
        yield ("--cuda-graph-max-bs-prefill", habits.prefill_graph_tokens)
    if habits.decode_poll_steps and one.role == "decode":
        yield ("--disaggregation-decode-polling-interval", habits.decode_poll_steps)
    if habits.wait_all_ranks_steps and one.role == "serve":
        yield "--enable-prefill-delayer"
        yield ("--prefill-delayer-max-delay-passes", habits.wait_all_ranks_steps)
    yield from given(
        (
            ("--scheduler-recv-interval", habits.poll_every_steps),
            ("--prefill-decode-interval", habits.rest_after_prompts_steps),
        )
    )


def _cache(one: Wanted) -> Iterator[str | tuple[str, object]]:
    cache = one.scenario.prefix_cache
    if one.role == "decode":
        return
    if not cache.enabled:
        yield "--disable-radix-cache"
        return
    yield from given((("--page-size", one.block_tokens("sglang")),))
    if cache.host_gb:
        yield from ("--enable-hierarchical-cache", ("--hicache-size", round(cache.host_gb)))
    if cache.disk_gb:
        one.cannot.append("prefix_cache.disk_gb: HiCache stores on disk through a back-end of its own")


def router(pools: Mapping[str, Wanted], policy: str) -> str | None:
    """See `in_front`."""
    return in_front(pools, "python3 -m sglang_router.launch_router", "--pd-disaggregation", policy)
