"""The parts of TTFT in runs that can be reckoned by hand. A decode step takes 1 ms, a prompt 10 ms."""

import pytest
from cluster_costs import LinearStepCost, columns
from cluster_scenario import scenario

from sim.cluster.run import run_cluster
from sim.cluster.setup import ClusterPlan, PoolSetup, TransferSetup
from sim.result.statistics import ttft_breakdown
from sim.result.totals import Totals
from sim.serving.admission import AdmissionRules

COST = LinearStepCost(
    base_s=0.001, sequence_s=0.0, kv_s=0.0, prompt_base_s=0.01, token_s=0.0, pair_s=0.0, held_s=0.0
)


def pool(**given):
    base = {"workers": 1, "gpus": 1, "dp": 1, "max_sequences": 8, "chunk_tokens": 100, "kv_blocks": 1000}
    return PoolSetup(**{**base, **given})


def parts(plan, output_tokens=101, prompts=2):
    """Means over `prompts` prompts of 100 tokens that come together, in ms."""
    requests = columns([0.0] * prompts, 100, output_tokens)
    record = run_cluster(
        scenario(roles=tuple(plan.pools)), requests, plan, dict.fromkeys(plan.pools, COST), seed=0
    )
    found = ttft_breakdown(Totals.of(record.requests, record.requests.finish_s > 0, None))
    return {name.removesuffix("_s"): seconds * 1e3 for name, seconds in found.items()}


def test_a_queue_for_prompts():
    """10 ms of ingress for both; the second waits for the first prompt, 10 ms; each takes 10 ms."""
    plan = ClusterPlan({"serve": pool()}, rules=AdmissionRules(ingress_s=0.01))
    assert parts(plan) == pytest.approx(
        {"queue": 15, "prefill": 10, "transfer": 0, "admission": 0, "first_step": 0}
    )


@pytest.mark.parametrize("short", [{"max_sequences": 1}, {"kv_blocks": 2}], ids=["seats", "blocks"])
def test_an_aggregated_worker_without_room(short):
    """The second waits for the first prompt in the queue, and then 20 steps for the seat, or the two blocks."""
    assert parts(ClusterPlan({"serve": pool(**short)}), output_tokens=21) == pytest.approx(
        {"queue": 5, "prefill": 10, "transfer": 0, "admission": 10, "first_step": 0}
    )


TRANSFER = TransferSetup(bytes_per_token=1.0, bytes_per_s=25_000.0, latency_s=0.002)
"""4 ms for a prompt, 2 ms more to the client."""


def test_a_decode_pool_without_seats():
    """The second's prompt ends at 20 ms, the first's answer at 10 + 4 + 2 + 100 ms."""
    plan = ClusterPlan({"prefill": pool(), "decode": pool(max_sequences=1)}, TRANSFER)
    assert parts(plan) == pytest.approx(
        {"queue": 5, "prefill": 10, "transfer": 4, "admission": 48, "first_step": 2}
    )


def test_a_prefill_pool_that_is_full_because_decode_is():
    """With KV for one prompt, the second waits from 10 to 16 ms, until the first has left for decode; computed at 26,
    it waits for the first's answer, which ends at 16 + 20 ms."""
    plan = ClusterPlan({"prefill": pool(kv_blocks=2), "decode": pool(max_sequences=1)}, TRANSFER)
    assert parts(plan, output_tokens=21) == pytest.approx(
        {"queue": 5, "prefill": 10, "transfer": 4, "admission": (6 + 10) / 2, "first_step": 2}
    )
