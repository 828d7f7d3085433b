"""What holds after every run, whatever the workload."""

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
from cluster_costs import LinearStepCost, columns
from cluster_scenario import scenario
from hypothesis import given, settings
from test_cluster_oracle import HANDOVERS, aggregated, disaggregated

import sim.cluster.run as cluster_run
from sim.cluster.clock import Clock
from sim.cluster.run import run_cluster
from sim.cluster.setup import ClusterPlan, PoolSetup, TransferSetup
from sim.serving.admission import AdmissionRules
from sim.workload import Prompts, closed_loop

TRANSFER = TransferSetup(70_272.0, 5e10, 0.005)


def run(requests, plan, costs, router="least_loaded", warmup_s=0.0):
    given_scenario = scenario(router=router, warmup_s=warmup_s, roles=tuple(plan.pools))
    return run_cluster(given_scenario, requests, plan, costs, seed=0)


def pool(**given):
    base = {"workers": 1, "gpus": 8, "dp": 2, "max_sequences": 32, "chunk_tokens": 512, "kv_blocks": 4000}
    return PoolSetup(**{**base, **given})


def split(prefill=None, decode=None, transfer=TRANSFER, **rules):
    pools = {"prefill": prefill or pool(), "decode": decode or pool()}
    return ClusterPlan(pools, transfer, AdmissionRules(**rules))


def costs(plan, **given):
    return {role: LinearStepCost(**given) for role in plan.pools}


def poisson(n, rate, seed=1, **given):
    rng = np.random.default_rng(seed)
    lengths = {"input_tokens": 1 + rng.permutation(2 * n)[:n], "output_tokens": rng.integers(1, 200, n)}
    return columns(np.cumsum(rng.exponential(1 / rate, n)), **{**lengths, **given})


def assert_sound(record):
    table = record.requests
    served = ~table.rejected
    assert record.invariants == []
    assert np.isfinite(table.finish_s[served]).all(), "arrived = completed + rejected"
    assert np.isnan(table.finish_s[~served]).all()
    np.testing.assert_array_equal(table.generated_tokens[served], table.output_tokens[served])
    by_prefill = served.sum() + table.preemptions.sum()  # each prefill gives one token
    decoded = sum(p.decoded_tokens for p in record.pools.values())
    assert decoded == table.output_tokens[served].sum() - by_prefill
    new = (table.input_tokens - table.cached_tokens + table.recomputed_tokens)[served].sum()
    assert sum(p.new_tokens for p in record.pools.values()) == new
    ways = [table.arrival_s, table.prefill_start_s, table.prefill_end_s, table.first_token_s, table.finish_s]
    for before, after in pairwise(ways):
        assert (before[served] <= after[served]).all(), "time never goes back"
    assert (table.preemptions > 0).sum() == (table.recomputed_tokens > 0).sum()
    for p in record.pools.values():
        assert p.kv_blocks_leaked == 0
        assert 0 <= p.kv_cache_peak <= 1
        assert p.busy_in_window_s <= record.window_s[1] - record.window_s[0] + 1e-9


@settings(max_examples=40, deadline=None, derandomize=True)
@given(disaggregated())
def test_disaggregated_runs_are_sound(case):
    requests, plan, step_costs, router = case
    assert_sound(run(requests, plan, step_costs, router))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(disaggregated(HANDOVERS.map(lambda rules: replace(rules, last_token_again=False))))
def test_every_handover_is_sound(case):
    """A place that was kept before a prefill is given back, too, where that prefill makes the last token. With
    `last_token_again` the decode side makes more tokens than `assert_sound` counts."""
    requests, plan, step_costs, router = case
    assert_sound(run(requests, plan, step_costs, router))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(aggregated())
def test_aggregated_runs_are_sound(case):
    requests, plan, step_costs, router = case
    assert_sound(run(requests, plan, step_costs, router))


class Watch(Clock):
    """A clock that looks at the whole cluster whenever all that happens at one time has happened."""

    cluster = None
    looks = 0

    def run(self):
        while (then := self.peek()) < np.inf:
            self.step()
            if self.peek() > then:
                Watch.looks += 1
                idle = [said for said in Watch.cluster.unsound() if "stands still" in said]
                assert idle == [], f"at {then} s"
                assert not could_decode(Watch.cluster), (
                    f"at {then} s a computed prompt waits for an idle worker"
                )


def could_decode(cluster):
    """Whether a computed prompt waits though an idle decode worker has a place for it."""
    handoff = getattr(cluster, "_handoff", None)
    if handoff is None or not handoff.waiting:
        return False
    chosen = handoff._rules.chooses_worker
    for w, worker in enumerate(cluster._decoders):
        queue = handoff._queues[w if chosen else 0]
        if queue and not worker.batch.running:
            sequence, sender = queue[0]
            tokens = sequence.context_tokens + (sender is None and not handoff._rules.last_token_again)
            if any(worker.fits(rank, tokens) for rank in range(len(worker.batch.ranks))):
                return True
    return False


@pytest.mark.parametrize("cases", [disaggregated(), aggregated()], ids=["split", "serve"])
def test_no_worker_is_ever_idle_while_it_could_work(cases, monkeypatch):
    """Looked at after every moment of the run, not only at its end."""

    def watched(kind):
        class Watched(kind):
            def __init__(self, *given):
                super().__init__(*given)
                Watch.cluster = self

        return Watched

    monkeypatch.setattr(cluster_run, "Clock", Watch)
    for name in ("AggregatedCluster", "DisaggregatedCluster"):
        monkeypatch.setattr(cluster_run, name, watched(getattr(cluster_run, name)))

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(cases)
    def walk(case):
        requests, plan, step_costs, router = case
        before = Watch.looks
        run(requests, plan, step_costs, router)
        assert Watch.looks - before >= 1

    walk()


def busy_s(record, role):
    p = record.pools[role]
    return sum(p.busy_gpu_s.values()) / p.gpus


def covered_s(starts, ends):
    """Length of the union of intervals."""
    total, until = 0.0, -np.inf
    for start, end in sorted(zip(starts, ends, strict=True)):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def test_a_lone_worker_is_busy_exactly_while_it_has_work():
    """Prefill: some prompt between arrival and end of prefill; decode: some sequence between its KV's arrival and
    its end; aggregated: some request in the system."""
    requests, plan = poisson(300, 8.0), split()
    record = run(requests, plan, costs(plan))
    t = record.requests
    assert busy_s(record, "prefill") == pytest.approx(covered_s(t.arrival_s, t.prefill_end_s))
    decoded = t.output_tokens > 1
    assert busy_s(record, "decode") == pytest.approx(covered_s(t.first_token_s[decoded], t.finish_s[decoded]))
    for mixed in (False, True):
        plan = ClusterPlan({"serve": pool(mixed=mixed)})
        record = run(requests, plan, costs(plan))
        t = record.requests
        assert busy_s(record, "serve") == pytest.approx(covered_s(t.arrival_s, t.finish_s))


@pytest.mark.parametrize("roles", ["split", "serve"])
def test_the_same_run_twice_gives_the_same_record(roles):
    plan = (
        split(decode=pool(kv_blocks=12)) if roles == "split" else ClusterPlan({"serve": pool(kv_blocks=20)})
    )
    first, second = (run(poisson(150, 30.0), plan, costs(plan)) for _ in range(2))
    assert first.requests.preemptions.sum() > 0
    for f in fields(first.requests):
        np.testing.assert_array_equal(getattr(first.requests, f.name), getattr(second.requests, f.name))
    second.requests = first.requests
    assert replace(first, wall_s=0.0) == replace(second, wall_s=0.0)


def test_an_overloaded_cluster_falls_behind_for_as_long_as_requests_come():
    """One decode seat, 0.012 s per step, 101 steps: at most 0.83 requests/s; 10/s come, so the n-th waits about
    n (1.21 - 0.1) s."""
    requests = poisson(200, 10.0, output_tokens=102)
    plan = split(decode=pool(dp=1, max_sequences=1))
    record = run(requests, plan, costs(plan, sequence_s=0.0, kv_s=0.0))
    t = record.requests
    e2e = t.finish_s - t.arrival_s
    assert (np.diff(np.sort(t.finish_s)) >= 101 * 0.012 - 1e-9).all()
    growth = np.polyfit(np.arange(200), e2e, 1)[0]
    assert growth == pytest.approx(101 * 0.012 - 0.1, rel=0.03)
    assert_sound(record)


@pytest.mark.parametrize("roles", ["split", "serve"])
def test_a_closed_loop_keeps_its_concurrency_exactly(roles):
    plan = split() if roles == "split" else ClusterPlan({"serve": pool()})
    record = run(poisson(120, 1.0, concurrency=16), plan, costs(plan))
    t = record.requests
    assert (t.arrival_s[:16] == 0).all()
    np.testing.assert_array_equal(t.arrival_s[16:], np.sort(t.finish_s)[: 120 - 16])
    assert record.window_s == (0.0, np.sort(t.finish_s)[120 - 16])
    assert_sound(record)


def test_a_closed_loop_bounded_by_time_goes_on_until_then():
    """8 in flight, the first decode step after the prefill: 0.005 s transfer, then 19 steps of 0.012 s each and what
    the sequences add; nobody sets out from 30 s on, and the window ends with the first place that stays empty."""
    endless = closed_loop(lambda n: Prompts.of(np.full(n, 100), np.full(n, 20)), 8, closes_s=30.0)
    plan = split()
    record = run(endless, plan, costs(plan))
    t = record.requests
    assert len(t.arrival_s) > 8 * 30 / (0.05 + 19 * 0.013)
    np.testing.assert_array_equal(t.arrival_s[8:], np.sort(t.finish_s)[: len(t.arrival_s) - 8])
    assert t.arrival_s.max() < 30.0 <= record.window_s[1] == np.sort(t.finish_s)[len(t.arrival_s) - 8]
    assert_sound(record)


def test_a_rejected_request_makes_room_for_the_next_one_at_once():
    """A rank holds 4000 blocks of 64 tokens; every other prompt has one token too many."""
    requests = columns([0.0] * 6, [256_000, 10, 256_000, 10, 256_000, 10], 1, concurrency=1)
    plan = split()
    record = run(requests, plan, costs(plan))
    t = record.requests
    assert t.rejected.tolist() == [True, False] * 3
    assert t.arrival_s[2] == t.finish_s[1] == t.arrival_s[3]
    assert_sound(record)


def test_events_per_request_stay_few_whatever_the_length():
    requests = poisson(400, 30.0, output_tokens=1_000)
    plan = split(pool(dp=8), pool(dp=16, max_sequences=128))
    record = run(requests, plan, costs(plan))
    assert record.pools["decode"].steps > 1_000
    assert record.events <= 8 * 400


def test_a_pool_that_is_busy_all_the_time_counts_as_such_in_the_window():
    """Constantly busy until the window ends with the last arrival, answers of 50 tokens after it began."""
    requests = poisson(400, 100.0, output_tokens=50)
    plan = split()
    record = run(requests, plan, costs(plan), warmup_s=0.5)
    start, end = record.window_s
    assert (start, end) == (0.5, requests.arrival_s[-1])
    assert record.pools["decode"].busy_in_window_s == pytest.approx(end - start)


def test_an_offline_batch_is_measured_over_the_whole_run():
    requests = poisson(30, 1.0)
    requests.arrival_s[:] = 0.0
    plan = split()
    record = run(requests, plan, costs(plan))
    assert record.window_s == (0.0, record.requests.finish_s.max())
    assert record.end_s == record.requests.finish_s.max()
