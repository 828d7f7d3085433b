"""Workers that come and go: timelines worked out by hand, and what holds whatever happens."""

import re
from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest
from cluster_costs import LinearStepCost, columns
from cluster_scenario import scenario
from hypothesis import given, settings
from hypothesis import strategies as st

import sim.cluster.life as life_module
from sim.catalog.operations import Repair, repairs
from sim.cluster.life_record import Span
from sim.cluster.life_setup import Bounds, Failing, LifeSetup, Scaling
from sim.cluster.retries import RetryLedger
from sim.cluster.run import run_cluster
from sim.cluster.setup import ClusterPlan, PoolSetup, PrefixSetup, TransferSetup
from sim.result.invariants import check_invariants
from sim.scenario.errors import DeploymentError
from sim.serving.prefix_cache import Tier

SECOND = LinearStepCost(base_s=1.0, sequence_s=0.0, kv_s=0.0, prompt_base_s=2.0, token_s=0.0, pair_s=0.0)
"""A decode step of one second, a step with prompts of two: an answer of n tokens takes 2 + (n - 1) s alone."""
SOFTWARE = (Repair(1.0, 0.0, 0.0),)
NEVER = 1e12


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


@pytest.fixture
def fails_at(monkeypatch):
    """Fix when each worker fails, counted from when it came up: {(role, worker): [seconds of its lives]}."""

    def fix(times):
        class Chance:
            def __init__(self, purpose):
                _, role, worker = purpose.split("/")
                self.lives = iter(times.get((role, int(worker)), []))

            def exponential(self, mean):
                return next(self.lives, NEVER)

            def choice(self, count, p):
                return 0

            def uniform(self, low, high):
                return low

        monkeypatch.setattr(life_module, "generator", lambda seed, purpose: Chance(purpose))

    return fix


def test_a_failure_by_hand(fails_at):
    """Answers of 5 tokens take 6 s. Worker 0 gets A at 0 and worker 1 gets B at 0.5; worker 0 fails at 4.5, when A has
    3 tokens. Nobody knows until 14.5, so E goes to worker 0 at 5, when both have one request. At 14.5 A and E are asked
    again, and worker 1, long idle, computes them together: 16.5, and four tokens more until 20.5. Worker 0 restarts
    for 150 s, until 164.5; then C, at 200, goes to it."""
    fails_at({("serve", 0): [4.5]})
    plan = ClusterPlan({"serve": pool()}, life=life(failing=failing()))
    record = run(columns([0.0, 0.5, 5.0, 200.0], 100, 5), plan)
    table = record.requests
    assert table.first_token_s.tolist() == [2.0, 2.5, 16.5, 202.0]
    assert table.finish_s.tolist() == [20.5, 6.5, 20.5, 206.0]
    assert record.life.retries.tolist() == [1, 0, 1, 0]
    assert record.life.retried_s == [14.5, 14.5] and record.life.failed_s == [4.5]
    assert table.recomputed_tokens.tolist() == [100, 0, 0, 0], "E was never computed where it was lost"
    assert [span for span in record.life.spans if span.worker == 0] == [
        Span("serve", 0, "up", 0.0, 4.5, 8),
        Span("serve", 0, "failed", 4.5, 14.5, 8),
        Span("serve", 0, "restarting", 14.5, 164.5, 8),
        Span("serve", 0, "up", 164.5, 206.0, 8),
    ]
    assert record.life.paid().between(0, 206) == 8 * (206 + 206)
    busy = record.pools["serve"].busy_gpu_s
    assert busy == {"prefill": 8 * 2.0 * 4, "decode": 8 * (2.5 + 4 + 4 + 4)}


@pytest.mark.parametrize(("spares", "back_s"), [(0, 14.5 + 360 + 150), (1, 14.5 + 150)])
def test_a_node_that_is_away_is_replaced_by_a_spare_or_waited_for(fails_at, spares, back_s):
    """A tenth of an hour of repair. Without a spare the node is missed for 360 s, and nobody pays for it; with one, the
    spare takes its place at 14.5, and the repaired node is the spare from 374.5 on."""
    fails_at({("serve", 0): [4.5]})
    lost = failing(repairs=(Repair(1.0, 0.1, 0.1),), spare_nodes=spares)
    record = run(columns([0.0, 1000.0], 100, 5), ClusterPlan({"serve": pool()}, life=life(failing=lost)))
    states = {span.state: span for span in record.life.spans if span.worker == 0 and span.role == "serve"}
    assert states["up"].start_s == back_s
    assert record.life.paid().between(0, 1006) == 8 * ((2 + spares) * 1006 - 360)
    if spares:
        nodes = [span[3:] for span in record.life.spans if span.role == "spare"]
        assert nodes == [(0.0, 14.5, 8), (374.5, 1006.0, 8)]
    else:
        assert states["waiting"][3:] == (14.5, 374.5, 0)


def test_a_prefill_worker_takes_computed_prompts_and_kv_on_its_way_along(fails_at):
    """Prefill 0 to 2 s, then the KV of 100 tokens travels for 10 s to the decode worker: 12 s. The prefill worker fails
    at 5: nothing arrives. Found out at 15, computed again on the other until 17, there at 27, four tokens: 31."""
    fails_at({("prefill", 0): [5.0]})
    given = LifeSetup({"prefill": 2, "decode": 1}, {"prefill": 4.0, "decode": 4.0}, 0, failing=failing())
    pools = {"prefill": pool(), "decode": pool(workers=1)}
    plan = ClusterPlan(pools, TransferSetup(80.0, 100.0, 0.0), life=given)
    table = run(columns([0.0], 100, 5), plan).requests
    assert (table.prefill_end_s[0], table.first_token_s[0], table.finish_s[0]) == (17.0, 27.0, 31.0)
    assert (table.placed_s[0], table.recomputed_tokens[0]) == (17.0, 100)


def test_a_decode_worker_that_fails_sends_its_requests_back_to_prefill(fails_at):
    """KV travels for 1 s: first token at 3, decode until 7. The decode worker fails at 4.5, the other serves: found out
    at 14.5, prefill until 16.5, KV at 17.5, four tokens: 21.5. The client had its first token at 3."""
    fails_at({("decode", 0): [4.5]})
    given = LifeSetup({"prefill": 1, "decode": 2}, {"prefill": 4.0, "decode": 4.0}, 0, failing=failing())
    pools = {"prefill": pool(workers=1), "decode": pool()}
    plan = ClusterPlan(pools, TransferSetup(8.0, 100.0, 0.0), life=given)
    table = run(columns([0.0], 100, 5), plan).requests
    assert (table.first_token_s[0], table.finish_s[0]) == (3.0, 21.5)


@pytest.mark.parametrize(("keeps", "computed"), [(True, 128 + 64), (False, 128 + 128)])
def test_a_retried_prompt_finds_its_prefix_in_a_cache_that_is_left_or_nothing(fails_at, keeps, computed):
    """The prompt has two blocks of 64 tokens, the first of which stays in the cluster's cache. One worker of two fails
    at 1, in the middle of its first step; another request had left the block there before."""
    fails_at({("serve", 0): [21.0]})
    cache = PrefixSetup("cluster", 64, tiers(10_000), (0.0, 0.0, 0.0), False)
    plan = ClusterPlan({"serve": pool()}, prefixes=cache, life=life(failing=failing(keeps_prefix=keeps)))
    requests = columns([0.0, 20.0], [64, 128], 5)
    ask = requests.request
    requests.request = lambda i, time_s: replace(ask(i, time_s), blocks=((7,), (7, 8))[i])
    record = run(requests, plan)
    assert record.requests.cached_tokens.tolist() == [0, 64]
    assert record.pools["serve"].new_tokens == 64 + 64 + computed - 128
    assert record.requests.finish_s[1] == 31.0 + 6


def test_a_scale_up_and_a_scale_down_by_hand():
    """Answers of 30 tokens. Three come at 0 to the only worker. The look at 10 sees 3 requests per worker, wants three
    workers and gets the two that there may be: the second starts for 4 s. D, at 12.5, still finds one worker and makes
    the three wait for 2 s: they end at 2 + 29 + 2, D at 15 + 29. E, at 15.5, goes to the new one: 17.5 + 29. The look
    at 40 sees one request on each, as wanted; those at 50 and 60 want one worker, but two were wanted up to 20 s ago;
    the look at 70 sends the second away, which holds nothing."""
    scaling = Scaling("concurrency", 10.0, 0.1, 20.0, {"serve": Bounds(1, 2, 1.0)})
    plan = ClusterPlan({"serve": pool()}, life=life(workers=1, scaling=scaling))
    record = run(columns([0.0, 0.0, 0.0, 12.5, 15.5, 65.0], 100, 30), plan)
    assert record.requests.finish_s.tolist() == [33.0, 33.0, 33.0, 44.0, 46.5, 96.0]
    assert record.life.spans == [
        Span("serve", 0, "up", 0.0, 96.0, 8),
        Span("serve", 1, "starting", 10.0, 14.0, 8),
        Span("serve", 1, "up", 14.0, 70.0, 8),
    ]
    assert record.life.paid().between(0, 96) == 8 * (96 + 60)


def test_a_draining_worker_serves_what_it_has_and_no_more():
    """A schedule of two workers until 10, then one, and two again from 3,600 s on. Each got an answer of 30 tokens at
    0; the second drains until 31, the first whole second at which it is empty, and F at 11 goes to the first."""
    rows = ((0.0, {"serve": 2}), (10.0, {"serve": 1}), (3600.0, {"serve": 2}))
    record = run(
        columns([0.0, 0.0, 11.5, 3700.0], 100, 30), ClusterPlan({"serve": pool()}, life=life(schedule=rows))
    )
    assert record.requests.finish_s.tolist() == [33.0, 31.0, 43.0, 3731.0]
    assert [span[2:5] for span in record.life.spans if span.worker == 1] == [
        ("up", 0.0, 10.0),
        ("draining", 10.0, 31.0),
        ("starting", 3600.0, 3604.0),
        ("up", 3604.0, 3731.0),
    ]


def test_requests_that_find_no_worker_wait_for_one(fails_at):
    """The only worker fails at 1, is found out at 11 and back at 161; a request at 20 waits at the door."""
    fails_at({("serve", 0): [1.0]})
    plan = ClusterPlan({"serve": pool(workers=1)}, life=life(workers=1, failing=failing()))
    record = run(columns([0.0, 20.0], 100, 5), plan)
    assert record.requests.finish_s.tolist() == [167.0, 167.0]


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
    plan = ClusterPlan(
        pools, TransferSetup(70_272.0, 2e7, 0.005) if len(roles) > 1 else None, prefixes=cache, life=given
    )
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
    return requests, plan, draw(st.sampled_from(["least_loaded", "round_robin", "prefix_aware"]))


@settings(max_examples=60, deadline=None, derandomize=True)
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
