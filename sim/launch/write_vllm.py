"""A pool as vLLM's launch commands, one per node; flags of 0.11 and later."""

from collections.abc import Iterator, Mapping

from sim.launch import indexer
from sim.launch.wanted import PORT, Wanted, command, given, in_front
from sim.model.attention.csa import FP4_INDEX
from sim.scenario.errors import DeploymentError, Problem
from sim.units import GB_BYTES, GIB_BYTES


def commands(one: Wanted) -> Iterator[str]:
    """The commands of a pool. Raises DeploymentError where vLLM has no such layout."""
    pool = one.pool
    at = ("deployment", one.role)
    if pool.ep not in (1, pool.gpus):
        says = f"vLLM spreads experts over all {pool.gpus} GPUs of a worker or shards them (EP 1)"
        raise DeploymentError([Problem((*at, "ep"), says)])
    per_node = one.gpu.gpus_per_node
    if one.nodes > 1 and one.dp > 1 and (one.dp % one.nodes or pool.tp > per_node):
        says = f"vLLM puts whole ranks of {pool.tp} GPUs on a node; {one.dp} do not divide over {one.nodes} nodes"
        raise DeploymentError([Problem((*at, "tp"), says)])
    flags, variables = list(_flags(one)), indexer.variables("vllm", one.scenario.indexer)
    for worker in range(pool.workers):
        for node in range(one.nodes):
            words = ("vllm serve", one.checkpoint)
            yield f"{one.head(worker, node)}\n{command(words, [*flags, *_node(one, worker, node)], variables)}"


def _node(one: Wanted, worker: int, node: int) -> Iterator[str | tuple[str, object]]:
    """Which part of the worker a node has."""
    if one.nodes > 1 and one.dp > 1:
        local = one.dp // one.nodes
        yield from (("--data-parallel-size-local", local), ("--data-parallel-address", one.host(worker)))
        yield ("--data-parallel-rpc-port", 13345)
        if node:
            yield from ("--headless", ("--data-parallel-start-rank", node * local))
    elif one.nodes > 1:
        yield from (("--nnodes", one.nodes), ("--node-rank", node), ("--master-addr", one.host(worker)))
        if node:
            yield "--headless"
    if not node:
        yield ("--port", PORT)


def _kv_cache(form: str) -> Iterator[tuple[str, object]]:
    yield ("--kv-cache-dtype", "bfloat16" if form == "bf16" else "fp8")
    if form == FP4_INDEX:
        yield ("--attention-config", {"use_fp4_indexer_cache": True})


def _flags(one: Wanted) -> Iterator[str | tuple[str, object]]:
    pool, scenario = one.pool, one.scenario
    yield from ("--trust-remote-code", ("-tp", pool.tp))
    if one.dp > 1:
        yield ("-dp", one.dp)
        one.ranks_by_load("vLLM")
    if pool.ep > 1:
        yield "--enable-expert-parallel"
    if one.spreads and not one.fused:
        yield ("--all2all-backend", _exchange(one))
    if one.role != "serve":
        side = {"prefill": "kv_producer", "decode": "kv_consumer"}[one.role]
        yield ("--kv-transfer-config", {"kv_connector": "NixlConnector", "kv_role": side})
    if one.role != "prefill":
        yield ("--max-num-seqs", one.seats)
    if one.role != "decode":
        yield ("--max-num-batched-tokens", one.chunk_tokens)
    yield from _kv_cache(scenario.precision.kv_cache)
    if scenario.precision.weights == "fp8" and one.model.weights == "bf16" and "FP8" not in one.checkpoint:
        yield ("--quantization", "fp8")
    yield from given((("--gpu-memory-utilization", pool.memory_fraction),))
    yield from given((("--moe-backend", one.kernels("vllm")),))
    if scenario.speculation.draft_tokens:
        asked = {
            "method": scenario.speculation.method or "mtp",
            "num_speculative_tokens": scenario.speculation.draft_tokens,
        }
        yield ("--speculative-config", asked)
    if one.rebalances:
        yield "--enable-eplb"
    if one.rebalances and one.experts.redundant:
        yield ("--eplb-config", {"num_redundant_experts": one.experts.redundant})
    if scenario.overlap.two_batch:
        yield "--enable-dbo"
    yield from _habits(one)
    yield from _cache(one)


def _habits(one: Wanted) -> Iterator[str | tuple[str, object]]:
    habits = one.scenario.scheduling
    if habits.whole_prompts and one.role != "decode":
        yield "--no-enable-chunked-prefill"
    if habits.cuda_graphs is False:
        yield "--enforce-eager"
    yield from given((("--prefill-schedule-interval", habits.poll_every_steps),))


def _exchange(one: Wanted) -> str:
    if not one.exchanges:
        return "allgather_reducescatter"
    if one.role == "serve":
        one.cannot.append(
            "one all-to-all for prompts and another for answers: vLLM has the low-latency one for both"
        )
    return "deepep_high_throughput" if one.role == "prefill" else "deepep_low_latency"


def _cache(one: Wanted) -> Iterator[str | tuple[str, object]]:
    cache = one.scenario.prefix_cache
    if one.role == "decode":
        return
    if not cache.enabled:
        yield "--no-enable-prefix-caching"
        return
    yield from given((("--block-size", one.block_tokens("vllm")),))
    if cache.host_gb:
        yield ("--kv-offloading-size", round(cache.host_gb * GB_BYTES / GIB_BYTES, 3))
    if cache.disk_gb:
        one.cannot.append("prefix_cache.disk_gb: a store on disk is a connector of its own")


def router(pools: Mapping[str, Wanted], policy: str) -> str | None:
    """See `in_front`."""
    return in_front(pools, "vllm-router", "--vllm-pd-disaggregation", policy)
