"""Small runs with a prefix cache, of requests whose prompts are given as blocks."""

from dataclasses import replace

import numpy as np
from cluster_costs import LinearStepCost
from cluster_scenario import scenario
from test_cluster_invariants import assert_sound

from sim.cluster.run import run_cluster
from sim.cluster.setup import ClusterPlan, PoolSetup, PrefixSetup, TransferSetup
from sim.serving.prefix_cache import Tier
from sim.workload import Prompts, RequestStream

BLOCK = 10
PREFILL = LinearStepCost(prompt_base_s=0.1, token_s=1e-3, pair_s=0.0)
DECODE = LinearStepCost(base_s=0.02, sequence_s=0.0, kv_s=0.0)
ROOT = (1, 12, 123)


def requests(rows, answers=()):
    """Rows of (arrival, prompt tokens, answer tokens, blocks)."""
    arrival_s, prompt, answer, blocks = zip(*rows, strict=True)
    prompts = Prompts.of(np.array(prompt), np.array(answer))
    prompts = replace(prompts, blocks=list(blocks), block_tokens=BLOCK, answer_blocks=list(answers))
    return RequestStream(prompts, np.array(arrival_s, dtype=float))


def cache(scope="cluster", hbm=10_000, host=0, disk=0, fetch_s=(0.0, 0.0, 0.0), shares_hbm=False):
    return PrefixSetup(
        scope, BLOCK, (Tier("hbm", hbm), Tier("host", host), Tier("disk", disk)), fetch_s, shares_hbm
    )


def pool(**given):
    base = {"workers": 1, "gpus": 1, "dp": 1, "max_sequences": 8, "chunk_tokens": 1000, "kv_blocks": 1000}
    return PoolSetup(**{**base, **given})


def run_split(stream, prefixes, prefill=None, decode=None, router="round_robin"):
    pools = {"prefill": prefill or pool(), "decode": decode or pool()}
    plan = ClusterPlan(pools, TransferSetup(0.0, 1.0, 0.0), prefixes=prefixes)
    record = run_cluster(
        scenario(router), stream, plan, {"prefill": replace(PREFILL), "decode": replace(DECODE)}, 0
    )
    assert_sound(record)
    return record


def run_serve(stream, prefixes, router="round_robin", **given):
    plan = ClusterPlan({"serve": pool(**given)}, prefixes=prefixes)
    cost = replace(DECODE, prompt_base_s=0.1, token_s=1e-3, pair_s=0.0)
    record = run_cluster(scenario(router, roles=("serve",)), stream, plan, {"serve": cost}, 0)
    assert_sound(record)
    return record


def cached(record):
    return record.requests.cached_tokens.tolist()
