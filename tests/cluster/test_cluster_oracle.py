"""The fast cluster against the one-step-at-a-time references: every request's first token and finish."""

from dataclasses import replace

import numpy as np
import pytest
from aggregated_reference import AggregatedReference
from cluster_costs import LinearStepCost, columns
from cluster_scenario import scenario
from disaggregated_reference import DisaggregatedReference
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cluster.run import run_cluster
from sim.cluster.setup import ClusterPlan, PoolSetup, TransferSetup
from sim.result.statistics import ttft_breakdown
from sim.result.totals import Totals
from sim.serving.admission import AdmissionRules
from sim.serving.handover import HandoverRules
from sim.serving.speculation import AdaptiveDrafts

BLOCK = 64


class DrawnSteps:
    """A stand-in for MTP: between half and all of one step per token, by request."""

    def steps(self, request, tokens):
        return max(1, tokens - (request * 7919 + tokens) % (tokens // 2 + 1))

    def at(self, batch):
        return self


class HalvedSteps(DrawnSteps):
    """Two tokens per step."""

    def steps(self, request, tokens):
        return -(-tokens // 2)


@st.composite
def workloads(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 60))
    arrivals = np.cumsum(rng.exponential(draw(st.sampled_from([0.001, 0.02, 0.2])), n))
    inputs = (
        1 + rng.permutation(draw(st.sampled_from([60, 300, 2000])))[:n]
    )  # equal prompts would tie to the bit
    outputs = 1 + rng.integers(0, draw(st.sampled_from([3, 60, 500])), n)
    cached = rng.integers(0, inputs) * draw(st.booleans())
    concurrency = draw(st.sampled_from([None, None, 1, 7, 40]))
    return columns(arrivals, inputs, outputs, cached, concurrency)


def pools(requests, capacities, **fixed):
    """Pools whose KV holds a multiple of the largest request: below 1 it is rejected, just above it preempts."""
    largest = -(-int((requests.input_tokens + requests.output_tokens).max()) // BLOCK)
    return st.builds(
        PoolSetup, workers=st.integers(1, 3), gpus=st.just(4), dp=st.sampled_from([1, 2, 4]),
        max_sequences=st.sampled_from([1, 3, 16, 256]), chunk_tokens=st.sampled_from([64, 500, 8192]),
        kv_blocks=st.sampled_from([1 + int(largest * c) for c in capacities]),
        whole_prompts=st.sampled_from([False, False, True]), **fixed,
    )  # fmt: skip


def costs(roles, draw):
    cost = LinearStepCost(
        kv_s=draw(st.sampled_from([0.0, 2.1e-7])),
        kink=draw(st.sampled_from([100.0, 700.0])),
        kink_s=draw(st.sampled_from([0.0, 3.3e-7])),
        held_s=draw(st.sampled_from([0.0, 1.7e-6])),
    )
    return {role: replace(cost) for role in roles}


ROUTERS = st.sampled_from(["least_loaded", "round_robin"])
DRAFTS = (DrawnSteps(), AdaptiveDrafts([(1, HalvedSteps()), (3, DrawnSteps())]))
HANDOVERS = st.one_of(
    st.builds(
        HandoverRules, first_token=st.just("received"), chooses_worker=st.just(True), room_first=st.booleans(),
    ),
    st.builds(
        HandoverRules, chooses_worker=st.booleans(), room_first=st.booleans(),
        relay_s=st.sampled_from([0.0, 0.0107]), poll_every_steps=st.sampled_from([1, 1, 7]),
        last_token_again=st.booleans(), first_token=st.sampled_from(["joined", "stepped"]),
        answers_between_steps=st.booleans(),
    ),
)  # fmt: skip
STEPS = st.sampled_from([{}, *({"speculation": drafts} for drafts in DRAFTS)])


@st.composite
def disaggregated(draw, handovers=None):
    requests = draw(workloads())
    transfer = TransferSetup(
        70_272.0, draw(st.sampled_from([1e8, 5e10])), 0.00317, draw(st.sampled_from([1, 1 / 61]))
    )
    rules = AdmissionRules(
        growth_reserve_tokens=draw(st.sampled_from([0, 0, 100])),
        ingress_s=draw(st.sampled_from([0.0, 0.0613])),
    )
    both = {
        "prefill": draw(pools(requests, [1.0, 2.0, 100.0])),
        "decode": draw(pools(requests, [0.7, 1.0, 1.3, 2.0, 4.0, 100.0])),
    }
    drafts = (
        draw(STEPS) if handovers is None else {"speculation": DrawnSteps()} if draw(st.booleans()) else {}
    )
    plan = ClusterPlan(both, transfer, rules, **drafts)
    given = requests, plan, costs(both, draw), draw(ROUTERS)
    return given if handovers is None else (requests, replace(plan, handover=draw(handovers)), *given[2:])


@st.composite
def aggregated(draw):
    requests = draw(workloads())
    rules = AdmissionRules(
        ingress_s=draw(st.sampled_from([0.0, 0.0613])),
        poll_every_steps=draw(st.sampled_from([1, 1, 10])),
        wait_all_ranks_steps=draw(st.sampled_from([0, 0, 13])),
        gather_prompts_steps=draw(st.sampled_from([0, 0, 3])),
        rest_after_prompts_steps=draw(st.sampled_from([0, 0, 5])),
        idle_rank_opens=draw(st.booleans()),
        batch_wait_steps=draw(st.sampled_from([0, 7])),
        batch_wait_tokens=draw(st.sampled_from([40.0, 400.0, 7000.0])),
        other_ranks_decode=draw(st.booleans()),
        delay_prompts_steps=draw(st.sampled_from([0, 0, 2, 9])),
        tokens_per_sequence=draw(st.sampled_from([1, 4])),
        growth_reserve_tokens=draw(st.sampled_from([0, 0, 100])),
    )
    pool = {"serve": draw(pools(requests, [0.7, 1.0, 1.3, 2.0, 4.0, 100.0], mixed=st.booleans()))}
    return requests, ClusterPlan(pool, None, rules, **draw(STEPS)), costs(pool, draw), draw(ROUTERS)


def assert_same(case, kind):
    """0.1% is promised; the sums differ only by rounding."""
    requests, plan, step_costs, router = case
    roles = tuple(plan.pools)
    record = run_cluster(scenario(router=router, roles=roles), requests, plan, step_costs, seed=0)
    reference = kind(requests, plan, step_costs, router).run()
    table, seqs = record.requests, reference.seqs
    np.testing.assert_array_equal(table.rejected, [np.isnan(s.finish) for s in seqs])
    np.testing.assert_array_equal(table.preemptions, [s.preemptions for s in seqs])
    np.testing.assert_array_equal(table.recomputed_tokens, [s.recomputed for s in seqs])
    np.testing.assert_allclose(table.arrival_s, [s.arrival for s in seqs], rtol=1e-9)
    np.testing.assert_allclose(table.first_token_s, [s.first_token for s in seqs], rtol=1e-9)
    np.testing.assert_allclose(table.finish_s, [s.finish for s in seqs], rtol=1e-9)
    for role, pool in record.pools.items():
        assert sum(pool.busy_gpu_s.values()) == pytest.approx(reference.busy[role] * 4)
        assert pool.kv_blocks_leaked == 0
    assert record.invariants == []
    done = ~np.isnan(table.first_token_s)
    parts = ttft_breakdown(Totals.of(record.requests, done, None))
    if done.any():
        assert min(parts.values()) >= 0
        assert sum(parts.values()) == pytest.approx((table.first_token_s - table.arrival_s)[done].mean())
    return record


@settings(max_examples=100, deadline=None, derandomize=True)
@given(disaggregated())
def test_disaggregated_agrees_with_the_reference(case):
    assert_same(case, DisaggregatedReference)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(disaggregated(HANDOVERS))
def test_every_rule_of_the_handover_agrees_with_the_reference(case):
    assert_same(case, DisaggregatedReference)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(aggregated())
def test_aggregated_agrees_with_the_reference(case):
    assert_same(case, AggregatedReference)
