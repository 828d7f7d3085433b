"""Small clusters whose workers come and go, for the tests of their lives."""

from dataclasses import replace

from cluster_costs import LinearStepCost
from cluster_scenario import scenario

from sim.catalog.operations import Repair
from sim.cluster.life_setup import Failing, LifeSetup
from sim.cluster.run import run_cluster
from sim.cluster.setup import PoolSetup
from sim.result.invariants import check_invariants
from sim.serving.prefix_cache import Tier

SECOND = LinearStepCost(base_s=1.0, sequence_s=0.0, kv_s=0.0, prompt_base_s=2.0, token_s=0.0, pair_s=0.0)
"""A decode step of one second, a step with prompts of two: an answer of n tokens takes 2 + (n - 1) s alone."""
SOFTWARE = (Repair(1.0, 0.0, 0.0),)


def pool(**given):
    base = {"workers": 2, "gpus": 8, "dp": 1, "max_sequences": 32, "chunk_tokens": 512, "kv_blocks": 4000}
    return PoolSetup(**{**base, **given})


def failing(**given):
    base = {"per_gpu_s": 1.0, "detect_s": 10.0, "restart_s": 150.0, "repairs": SOFTWARE, "spare_nodes": 0}
    return Failing(**{**base, "node_gpus": 8, "keeps_prefix": False, **given})


def tiers(hbm_tokens):
    return (Tier("hbm", hbm_tokens), Tier("host", 320), Tier("disk", 0))


def life(role="serve", workers=2, **given):
    return LifeSetup({role: workers}, {role: 4.0}, seed=0, **given)


def run(requests, plan, cost=SECOND, router="least_loaded"):
    roles = tuple(plan.pools)
    costs = {role: replace(cost) for role in roles}
    record = run_cluster(scenario(router=router, roles=roles), requests, plan, costs, seed=0)
    assert record.invariants == [] and check_invariants(record) == []
    return record
