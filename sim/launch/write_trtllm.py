"""A pool as TensorRT-LLM's launch commands: a YAML file of options, and one command per worker."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from sim.launch import indexer
from sim.launch.trtllm import exchanges_by_itself
from sim.launch.wanted import PORT, Wanted, command, given
from sim.model.attention.csa import FP4_INDEX
from sim.scenario.errors import DeploymentError, Problem
from sim.scenario.schema import Scheduling
from sim.units import GB_BYTES


def commands(one: Wanted) -> Iterator[str]:
    """The file of options and the commands of a pool. Raises DeploymentError where TensorRT-LLM has no such layout."""
    pool = one.pool
    if pool.tp not in (1, pool.gpus):
        says = (
            f"TensorRT-LLM has attention TP over all {pool.gpus} GPUs of a worker, or attention DP over all"
        )
        raise DeploymentError([Problem(("deployment", one.role, "tp"), says)])
    file = f"{one.role}.yaml"
    text = yaml.safe_dump(_options(one), sort_keys=False, default_flow_style=False)
    yield f"cat > {file} <<'EOF'\n{text}EOF"
    flags: list[str | tuple[str, object]] = [("--tp_size", pool.gpus), ("--ep_size", pool.ep)]
    if one.role != "serve":
        flags.append(("--server_role", {"prefill": "CONTEXT", "decode": "GENERATION"}[one.role]))
    flags += [("--config", file), ("--host", "0.0.0.0"), ("--port", PORT)]
    words = ["trtllm-serve", one.checkpoint]
    if one.nodes > 1:
        words = [f"mpirun -n {pool.gpus} --hostfile {one.role}.hosts trtllm-llmapi-launch", *words]
    variables = {**_exchange(one), **indexer.variables("trtllm", one.scenario.indexer)}
    for worker in range(pool.workers):
        on_nodes = f"{one.head(worker)}" + (f" and {one.nodes - 1} more nodes" if one.nodes > 1 else "")
        yield f"{on_nodes}\n{command(words, flags, variables)}"


def _exchange(one: Wanted) -> Mapping[str, str]:
    """An exchange that TensorRT-LLM would not choose by itself."""
    if (
        not one.spreads
        or one.fused
        or one.exchanges == exchanges_by_itself(one.gpu, one.pool.ep, one.model.top_k)
    ):
        return {}
    if not one.exchanges:
        return {"TRTLLM_FORCE_ALLTOALL_METHOD": "NotEnabled"}
    if one.role == "serve":
        one.cannot.append("one all-to-all for prompts and another for answers: the forced one has both")
    return {"TRTLLM_FORCE_ALLTOALL_METHOD": "DeepEP" if one.role == "prefill" else "DeepEPLowLatency"}


def _options(one: Wanted) -> dict[str, Any]:
    scenario = one.scenario
    options: dict[str, Any] = {"enable_attention_dp": one.dp > 1}
    one.ranks_by_load("TensorRT-LLM")
    if one.role != "prefill":
        options["max_batch_size"] = one.seats
    if one.role != "decode":
        options |= {"max_num_tokens": one.chunk_tokens}
        if scenario.scheduling.whole_prompts is False:
            options["enable_chunked_prefill"] = True
    options["kv_cache_config"] = _kv_cache(one)
    if moe := _experts(one):
        options["moe_config"] = moe
    if scenario.speculation.draft_tokens:
        options["speculative_config"] = {
            "decoding_type": "MTP",
            "max_draft_len": scenario.speculation.draft_tokens,
        }
    if scenario.scheduling.cuda_graphs is False:
        options["cuda_graph_config"] = None
    options |= _waits(scenario.scheduling)
    if one.role != "serve":
        options["cache_transceiver_config"] = {"backend": "DEFAULT"}
    return options


def _kv_cache(one: Wanted) -> dict[str, Any]:
    cache = one.scenario.prefix_cache
    looks = cache.enabled and one.role != "decode"
    kv: dict[str, Any] = {"dtype": "bfloat16" if one.scenario.precision.kv_cache == "bf16" else "fp8"}
    if one.scenario.precision.kv_cache == FP4_INDEX:
        one.cannot.append("index keys in MXFP4")
    if one.pool.memory_fraction is not None:
        kv["free_gpu_memory_fraction"] = one.pool.memory_fraction
    kv["enable_block_reuse"] = looks
    if looks:
        kv["tokens_per_block"] = cache.block_tokens
        sizes = (("host_cache_size", cache.host_gb), ("disk_cache_size", cache.disk_gb))
        kv |= {key: round(size * GB_BYTES) for key, size in sizes if size}
    return kv


def _experts(one: Wanted) -> dict[str, Any]:
    moe: dict[str, Any] = {}
    if named := one.kernels("trtllm"):
        moe["backend"] = named
    if one.rebalances:
        moe["load_balancer"] = {"num_slots": one.model.n_routed + one.experts.redundant}
    return moe


def _waits(habits: Scheduling) -> dict[str, Any]:
    """How prompts wait for each other."""
    waits: dict[str, Any] = {}
    if habits.wait_all_ranks_steps:
        waits |= {"enable_balance": True, "timeout_iters": habits.wait_all_ranks_steps}
    waits |= given((("batching_wait_iters", habits.gather_prompts_steps),))
    options: dict[str, Any] = {"attention_dp_config": waits} if waits else {}
    return options | dict(
        given(
            (
                ("batch_wait_timeout_iters", habits.batch_wait_steps),
                ("batch_wait_max_tokens_ratio", habits.batch_wait_fill),
            )
        )
    )


def router(pools: Mapping[str, Wanted], policy: str) -> str | None:
    """The front of a disaggregated service; None for one pool, whose workers are balanced from outside."""
    if len(pools) == 1:
        return None
    kinds = {"prefix_aware": "kv_cache_aware", "least_loaded": "load_balancing", "random": "round_robin"}
    kind = kinds.get(policy, policy)
    if policy == "random":
        next(iter(pools.values())).cannot.append("router random: its router takes them in turn instead")
    sides = {"prefill": "context_servers", "decode": "generation_servers"}
    servers = {
        sides[role]: {
            "num_instances": one.pool.workers,
            "urls": [f"{one.host(worker)}:{PORT}" for worker in range(one.pool.workers)],
            "router": {"type": kind},
        }
        for role, one in pools.items()
    }
    text = yaml.safe_dump({"hostname": "0.0.0.0", "port": PORT, **servers}, sort_keys=False)
    return f"# the router\ncat > router.yaml <<'EOF'\n{text}EOF\ntrtllm-serve disaggregated -c router.yaml"
