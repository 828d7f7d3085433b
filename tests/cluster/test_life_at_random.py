"""Workers that come and go: what holds whatever happens."""

import re
from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest
from cluster_costs import LinearStepCost, columns
from hypothesis import given, settings
from hypothesis import strategies as st
from lives import SOFTWARE, failing, life, pool, run, tiers
from test_cluster_oracle import HANDOVERS

import sim.cluster.life as life_module
from sim import catalog
from sim.catalog.operations import Repair, repairs
from sim.cluster.life_setup import Bounds, LifeSetup, Scaling
from sim.cluster.plan import handover_rules
from sim.cluster.retries import RetryLedger
from sim.cluster.setup import ClusterPlan, PrefixSetup, TransferSetup
from sim.scenario.errors import DeploymentError
from sim.serving.handover import HandoverRules

ENGINES = [handover_rules(catalog.engine(name)) for name in ("sglang", "vllm", "tensorrt_llm")]
HANDED_OVER = st.one_of(st.sampled_from([HandoverRules(), *ENGINES]), HANDOVERS)


@st.composite
def troubled(draw):
    """A cluster with failures every minute or so, an autoscaler or both, and requests for it."""
    roles = draw(st.sampled_from([("serve",), ("prefill", "decode")]))
    most = draw(st.integers(1, 4))
    kinds = draw(
        st.sampled_from(
            [SOFTWARE, (Repair(1.0, 0.005, 0.02),), (*(Repair(0.5, 0, 0),) * 1, Repair(0.5, 0.01, 0.01))]
        )
    )
    fails = failing(
        per_gpu_s=1 / 8 / draw(st.sampled_from([20.0, 60.0])),
        detect_s=draw(st.sampled_from([0.0, 2.0])),
        restart_s=draw(st.sampled_from([0.0, 5.0])),
        repairs=kinds,
        spare_nodes=draw(st.integers(0, 1)),
        node_gpus=draw(st.sampled_from([4, 8])),
        keeps_prefix=draw(st.booleans()),
    )
    signal, target = draw(
        st.sampled_from([("utilization", 0.3), ("requests_per_s", 2.0), ("concurrency", 4.0)])
    )
    scaling = Scaling(signal, 5.0, 0.1, 10.0, {role: Bounds(1, most, target) for role in roles})
    given = LifeSetup(
        {role: draw(st.integers(1, most)) for role in roles},
        dict.fromkeys(roles, 3.0),
        draw(st.integers(0, 99)),
        scaling=draw(st.sampled_from([scaling, None])),
        failing=draw(st.sampled_from([fails, fails, None])),
    )
    tight = draw(st.booleans())
    pools = {
        role: pool(workers=most, dp=2, kv_blocks=30 if tight else 4000, max_sequences=8) for role in roles
    }
    scope = draw(st.sampled_from(["rank", "worker", "cluster", None]))
    cache = PrefixSetup(scope, 64, tiers(640), (0.0, 0.0, 0.0), True) if scope else None
    plan = ClusterPlan(pools, prefixes=cache, life=given)
    if len(roles) > 1:
        transfer = TransferSetup(70_272.0, 2e7, 0.005, draw(st.sampled_from([1, 1 / 61])))
        plan = replace(plan, transfer=transfer, handover=draw(HANDED_OVER))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    n = 150
    inputs = 1 + rng.permutation(4 * n)[:n]
    requests = columns(np.cumsum(rng.exponential(0.4, n)), inputs, rng.integers(1, 200, n))
    ask = requests.request

    def hashed(index, time_s):
        request = ask(index, time_s)
        return replace(
            request, blocks=tuple(range(index % 5 * 100, index % 5 * 100 + request.input_tokens // 64))
        )

    requests.request = hashed
    return requests, plan, draw(st.sampled_from(["least_loaded", "round_robin", "random", "prefix_aware"]))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(troubled())
def test_no_request_is_lost_or_answered_twice_and_gpu_time_adds_up(case):
    requests, plan, router = case
    answers = Counter()
    finish = RetryLedger.finish

    def counted(self, sequence, now):
        answers[sequence.id] += 1
        finish(self, sequence, now)

    RetryLedger.finish = counted
    try:
        record = run(requests, plan, LinearStepCost(), router)
    finally:
        RetryLedger.finish = finish
    table, lived = record.requests, record.life
    assert answers == Counter(range(len(table.arrival_s)))
    np.testing.assert_array_equal(table.generated_tokens, table.output_tokens)
    assert (lived.retries > 0).sum() <= len(lived.retried_s) == lived.retries.sum()
    for role, setup in plan.pools.items():
        of_pool = [span for span in lived.spans if span.role == role]
        paid = sum(span.gpus * (span.end_s - span.start_s) for span in of_pool)
        assert lived.paid(role).between(0, record.end_s) == pytest.approx(paid)
        assert sum(record.pools[role].busy_gpu_s.values()) <= paid * (1 + 1e-9)
        assert lived.serving(role).highest <= setup.workers
    whole = sum(lived.paid(role).between(0, record.end_s) for role in (*plan.pools, "spare"))
    assert lived.paid().between(0, record.end_s) == pytest.approx(whole)


@pytest.mark.parametrize(
    ("trouble", "key"),
    [
        (
            {"failing": failing(per_gpu_s=10.0, detect_s=0.0, restart_s=0.0)},
            "failures.per_gpu_hour: a request was",
        ),
        (
            {"failing": failing(per_gpu_s=1e-4, detect_s=0.0, restart_s=0.0)},
            "failures.per_gpu_hour: more than 100",
        ),
        (
            {"scaling": Scaling("concurrency", 1.0, 0.1, 9.0, {"serve": Bounds(1, 2, 1.0)})},
            "autoscale.period_s",
        ),
    ],
)
def test_what_would_never_end_is_refused(trouble, key, monkeypatch):
    """A worker of 8 GPUs that fails 80 times a second never gets an answer of 6 s out; two days of looks or failures
    would be more than there may be (here 100)."""
    for most in ("MOST_LOOKS", "MOST_FAILURES"):
        monkeypatch.setattr(life_module, most, 10_000 if "a request" in key else 100)
    with pytest.raises(DeploymentError, match=re.escape(key)):
        run(columns([0.0, 200_000.0], 100, 5), ClusterPlan({"serve": pool()}, life=life(**trouble)))


def test_one_seed_the_same_record():
    fails = failing(per_gpu_s=1 / 8 / 30, detect_s=2.0, restart_s=5.0, repairs=repairs())
    scaling = Scaling("utilization", 5.0, 0.1, 10.0, {"serve": Bounds(1, 3, 0.3)})
    plan = ClusterPlan({"serve": pool(workers=3)}, life=life(failing=fails, scaling=scaling))
    rng = np.random.default_rng(1)
    arrivals, outputs = np.cumsum(rng.exponential(0.2, 300)), rng.integers(1, 200, 300)
    first, second = (run(columns(arrivals, 100, outputs), plan, LinearStepCost()) for _ in range(2))
    assert first.life.failed_s and first.life.spans == second.life.spans
    for f in fields(first.requests):
        np.testing.assert_array_equal(getattr(first.requests, f.name), getattr(second.requests, f.name))
    other = replace(plan, life=replace(plan.life, seed=1))
    assert run(columns(arrivals, 100, outputs), other, LinearStepCost()).life.failed_s != first.life.failed_s
