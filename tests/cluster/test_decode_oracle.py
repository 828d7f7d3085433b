"""The fast cluster against the one-step-at-a-time reference: every request's first token and finish."""

import numpy as np
from cluster_costs import LinearStepCost, columns
from cluster_reference import ReferenceCluster
from cluster_scenario import scenario
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cluster.run import run_cluster
from sim.cluster.setup import ClusterPlan, PoolSetup, TransferSetup
from sim.serving.admission import AdmissionRules


class DrawnSteps:
    """A stand-in for MTP: between half and all of one step per token, by request."""

    def steps(self, request, tokens):
        return max(1, tokens - (request * 7919 + tokens) % (tokens // 2 + 1))


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 60))
    burst = draw(st.sampled_from([0.001, 0.02, 0.2]))
    arrivals = np.cumsum(rng.exponential(burst, n))
    inputs = 1 + rng.integers(0, draw(st.sampled_from([20, 300, 2000])), n)
    outputs = 1 + rng.integers(0, draw(st.sampled_from([3, 60, 500])), n)
    cached = rng.integers(0, inputs) * draw(st.booleans())
    largest = -(
        -int((inputs + outputs).max()) // 64
    )  # blocks; capacities below 1.0 of it reject, just above it preempt
    prefill = PoolSetup(
        workers=draw(st.integers(1, 2)), gpus=4, dp=draw(st.sampled_from([1, 2, 4])), max_sequences=1,
        chunk_tokens=draw(st.sampled_from([64, 500, 8192])),
        kv_blocks=1 + int(largest * draw(st.sampled_from([1.0, 2.0, 100.0]))),
    )  # fmt: skip
    decode = PoolSetup(
        workers=draw(st.integers(1, 3)), gpus=4, dp=draw(st.sampled_from([1, 2, 4])),
        max_sequences=draw(st.sampled_from([1, 3, 16, 256])), chunk_tokens=1,
        kv_blocks=1 + int(largest * draw(st.sampled_from([0.7, 1.0, 1.3, 2.0, 4.0, 100.0]))),
    )  # fmt: skip
    transfer = TransferSetup(
        70_272.0, draw(st.sampled_from([1e8, 5e10])), 0.00317, draw(st.sampled_from([1.0, 1 / 61]))
    )
    rules = AdmissionRules(growth_reserve_tokens=draw(st.sampled_from([0, 0, 100])))
    plan = ClusterPlan({"prefill": prefill, "decode": decode}, transfer, rules)
    if draw(st.booleans()):
        plan = ClusterPlan({"prefill": prefill, "decode": decode}, transfer, rules, DrawnSteps())
    cost = LinearStepCost(
        kv_s=draw(st.sampled_from([0.0, 2.1e-7])),
        kink=draw(st.sampled_from([100.0, 700.0])),
        kink_s=draw(st.sampled_from([0.0, 3.3e-7])),
    )
    return (
        columns(arrivals, inputs, outputs, cached),
        plan,
        cost,
        draw(st.sampled_from(["least_loaded", "round_robin"])),
    )


def assert_same(case):
    requests, plan, cost, router = case
    costs = {"prefill": cost, "decode": cost}
    record = run_cluster(scenario(router=router), requests, plan, costs, seed=0)
    reference = ReferenceCluster(requests, plan, costs, router).run()
    table = record.requests
    np.testing.assert_array_equal(table.rejected, [np.isnan(s.finish) for s in reference.seqs])
    np.testing.assert_array_equal(table.preemptions, [s.preemptions for s in reference.seqs])
    np.testing.assert_array_equal(table.recomputed_tokens, [s.recomputed for s in reference.seqs])
    np.testing.assert_allclose(table.first_token_s, [s.first_token for s in reference.seqs], rtol=1e-9)
    np.testing.assert_allclose(table.finish_s, [s.finish for s in reference.seqs], rtol=1e-9)
    assert record.invariants == []
    assert [p.kv_blocks_leaked for p in record.pools.values()] == [0, 0]
    for role, pool in record.pools.items():
        np.testing.assert_allclose(sum(pool.busy_gpu_s.values()), reference.busy[role] * 4, rtol=1e-9)
    return record


@settings(max_examples=150, deadline=None)
@given(cases())
def test_every_request_agrees_with_the_reference(case):
    assert_same(case)
