"""In a step with prompts the other ranks decode, as in SGLang: by hand, against the reference, and where it holds."""

from dataclasses import replace

import pytest
import yaml
from aggregated_reference import AggregatedReference
from cluster_costs import LinearStepCost, columns
from cluster_scenario import scenario
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cluster_oracle import aggregated, assert_same

from sim.cluster.plan import cluster_plan
from sim.cluster.run import run_cluster
from sim.cluster.setup import ClusterPlan, PoolSetup
from sim.deployment.plan import deploy
from sim.scenario.loading import parse
from sim.serving.admission import AdmissionRules

COST = LinearStepCost(
    base_s=0.02,
    sequence_s=0.0,
    kv_s=0.0,
    kink_s=0.0,
    held_s=0.0,
    prompt_base_s=0.02,
    token_s=1e-3,
    pair_s=0.0,
)
"""A step takes 0.02 s, and 0.12 s where a prompt of 100 tokens is computed in it."""


def finishes(arrivals, outputs, others):
    """When the answers end on two ranks."""
    rules = AdmissionRules(other_ranks_decode=others)
    plan = ClusterPlan({"serve": PoolSetup(1, 4, 2, 64, 8192, 10_000)}, rules=rules)
    requests = columns(arrivals, 100, outputs)
    record = run_cluster(scenario(roles=("serve",)), requests, plan, {"serve": COST}, 0)
    assert record.invariants == []
    return record.requests.finish_s.tolist()


@pytest.mark.parametrize(
    ("others", "first"),
    [
        # Its prompt is done at 0.12 s, its four other tokens come with the steps that follow. The first of these is
        # the second one's prompt on the other rank, until 0.24 s, if it decodes beside it.
        (True, 0.24 + 3 * 0.02),
        (False, 0.24 + 4 * 0.02),
    ],
)
def test_a_rank_decodes_beside_the_prompt_of_another(others, first):
    assert finishes([0.0, 0.05], [5, 3], others) == pytest.approx([first, 0.24 + 2 * 0.02])


@pytest.mark.parametrize(("others", "second"), [(True, 0.26 + 7 * 0.02), (False, 0.26 + 8 * 0.02)])
def test_a_rank_waits_for_its_own_prompt(others, second):
    """Two prompts are done at 0.12 s on a rank each. The third, on the first one's rank, is seen at 0.14 s and done at
    0.26 s, and ends there. The first one has 8 tokens of 10 to come then, the second 7, if it decoded meanwhile."""
    found = finishes([0.0, 0.0, 0.13], [10, 10, 1], others)
    assert found == pytest.approx([0.26 + 8 * 0.02, second, 0.26])


@st.composite
def several_ranks(draw):
    """Workers of several ranks that do not mix."""
    requests, plan, costs, router = draw(aggregated())
    pool = replace(plan.pools["serve"], mixed=False, dp=draw(st.sampled_from([2, 3, 4])))
    delay = draw(st.sampled_from([0, 2, 9]))
    rules = replace(plan.rules, other_ranks_decode=True, delay_prompts_steps=delay)
    return requests, replace(plan, pools={"serve": pool}, rules=rules), costs, router


@settings(max_examples=60, deadline=None, derandomize=True)
@given(several_ranks())
def test_every_rank_agrees_with_the_reference(case):
    assert_same(case, AggregatedReference)


@pytest.mark.parametrize(
    ("said", "holds"),
    [
        ({}, True),
        ({"engine": "vllm"}, False),
        ({"engine": "trtllm"}, False),
        ({"deployment": {"serve": {"gpus": 8, "tp": 8, "ep": 8}}}, False),
        ({"speculation": {"draft_tokens": 1, "acceptance": [0.8]}}, False),
    ],
)
def test_it_holds_for_sglang_with_attention_dp_without_drafts(said, holds):
    data = {
        "model": "deepseek-v3",
        "gpu": "h200_sxm",
        "engine": "sglang",
        "deployment": {"serve": {"gpus": 8, "ep": 8}},
        "workload": {
            "arrivals": {"poisson": {"rate_per_s": 1.0}},
            "lengths": {"input": {"constant": 100}, "output": {"constant": 10}},
            "requests": 1,
        },
    }
    found = cluster_plan(deploy(parse(yaml.safe_dump(data | said)).scenario), seed=0)
    assert found.rules.other_ranks_decode is holds
