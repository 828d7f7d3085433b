"""Workers that come and go: timelines worked out by hand."""

from dataclasses import replace

import pytest
from cluster_costs import columns
from lives import failing, life, pool, run, tiers

import sim.cluster.life as life_module
from sim.catalog.operations import Repair
from sim.cluster.life_record import Span
from sim.cluster.life_setup import Bounds, LifeSetup, Scaling
from sim.cluster.setup import ClusterPlan, PrefixSetup, TransferSetup
from sim.serving.handover import HandoverRules

NEVER = 1e12


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


def handed_over(arrivals, output_tokens, prefill, decode, router="round_robin", **rules):
    """One seat on each decode worker; prompts take 2 s, and their KV 1 s on the way."""
    workers = {"prefill": prefill, "decode": decode}
    plan = ClusterPlan(
        {"prefill": pool(workers=prefill), "decode": pool(workers=decode, max_sequences=1)},
        TransferSetup(8.0, 100.0, 0.0),
        handover=HandoverRules(**rules),
        life=LifeSetup(workers, dict.fromkeys(workers, 4.0), 0, failing=failing()),
    )
    return run(columns(arrivals, 100, output_tokens), plan, router=router)


def test_those_who_wait_for_a_decode_worker_that_fails_choose_another(fails_at):
    """Three prompts are ready at 2. The first gets its KV to worker 0 until 3, the second to worker 1 until 4, where it
    ends at 8; the third waits for worker 0, which fails at 4.5, and then for worker 1: 8, KV until 9, 13. The first is
    asked again at 14.5: 16.5, 17.5, 21.5."""
    fails_at({("decode", 0): [4.5]})
    record = handed_over([0.0, 0.0, 0.0], 5, 1, 2, chooses_worker=True)
    assert record.requests.finish_s.tolist() == [21.5, 8.0, 13.0]
    assert record.life.retries.tolist() == [1, 0, 0]


@pytest.mark.parametrize("chooses", [True, False])
def test_computed_prompts_wait_where_no_decode_worker_is_there(fails_at, chooses):
    """The only one fails at 4.5 and is back at 164.5. The second, computed at 12, has waited longest: KV until 165.5,
    169.5. The first, asked again at 14.5 and computed at 16.5, needs the only seat: KV until 170.5, 174.5."""
    fails_at({("decode", 0): [4.5]})
    record = handed_over([0.0, 10.0], 5, 1, 1, chooses_worker=chooses)
    assert record.requests.finish_s.tolist() == [174.5, 169.5]


def test_a_place_that_was_kept_on_a_decode_worker_that_fails(fails_at):
    """Worker 0 fails at 1, in the middle of the prefill; at 2 the prompt has nowhere to go, and is asked again at once:
    a place on worker 1, 4, KV until 5, 9."""
    fails_at({("decode", 0): [1.0]})
    record = handed_over([0.0], 5, 1, 2, chooses_worker=True, room_first=True)
    assert (record.requests.first_token_s[0], record.requests.finish_s[0]) == (5.0, 9.0)
    assert record.life.retried_s == [2.0] and record.requests.recomputed_tokens[0] == 100


def test_a_prompt_that_is_asked_again_belongs_to_no_prefill_worker(fails_at):
    """Computed at 2, when decode worker 0 has failed: it is asked again, and waits for worker 1, which has an answer
    until 32. That prefill worker 0 fails at 2.5 is nothing to it: it is computed on worker 1 until 34, 35, 39."""
    fails_at({("decode", 0): [1.0], ("prefill", 0): [2.5]})
    record = handed_over([0.0, 0.0], [5, 30], 2, 2, chooses_worker=True, room_first=True)
    assert record.requests.finish_s.tolist() == [39.0, 32.0]
    assert record.life.retries.tolist() == [1, 0]


def test_a_place_that_was_kept_for_a_prompt_that_went_to_a_silent_worker(fails_at):
    """Prefill worker 0 has failed at 1, and the first prompt goes there at 2, with the only seat. That is found out at
    11, and the second, which has waited since 3, has the seat: 13, KV until 14, 18. Then the first: 20, 21, 25."""
    fails_at({("prefill", 0): [1.0]})
    record = handed_over([2.0, 3.0], 5, 2, 1, "least_loaded", chooses_worker=True, room_first=True)
    assert record.requests.finish_s.tolist() == [25.0, 18.0]


@pytest.mark.parametrize("chooses", [True, False])
def test_a_place_that_was_kept_for_a_prompt_of_a_prefill_worker_that_fails(fails_at, chooses):
    """The first prompt has the only seat, and the second waits from 0.5 on. Worker 0 fails at 1, so the second gets the
    seat and is computed on worker 1 until 3: KV until 4, 8. The first is asked again at 11: 13, 14, 18."""
    fails_at({("prefill", 0): [1.0]})
    record = handed_over([0.0, 0.5], 5, 2, 1, "least_loaded", chooses_worker=chooses, room_first=True)
    assert record.requests.prefill_start_s.tolist() == [0.0, 1.0]
    assert record.requests.finish_s.tolist() == [18.0, 8.0]


def test_a_prompt_that_the_decode_side_never_hears_of(fails_at):
    """Computed at 2, and 1 s on the way to the other side, when its worker fails at 2.5: it is asked again at 12.5,
    computed at 14.5, told at 15.5; KV until 16.5, 20.5."""
    fails_at({("prefill", 0): [2.5]})
    record = handed_over([0.0], 5, 2, 1, chooses_worker=True, relay_s=1.0)
    assert (record.requests.placed_s[0], record.requests.finish_s[0]) == (14.5, 20.5)


def test_a_draining_decode_worker_serves_those_who_wait_for_it_alone():
    """From 10 on one decode worker of two is wanted. The second has an answer until 4 + 29, and for it alone waits the
    fourth: KV until 34, 38. The fifth goes to the first worker: 52, 53, 57."""
    rows = ((0.0, {"prefill": 1, "decode": 2}), (10.0, {"decode": 1}))
    plan = ClusterPlan(
        {"prefill": pool(workers=1), "decode": pool(max_sequences=1)},
        TransferSetup(8.0, 100.0, 0.0),
        handover=HandoverRules(chooses_worker=True),
        life=LifeSetup(rows[0][1], {"prefill": 4.0, "decode": 4.0}, 0, schedule=rows),
    )
    record = run(columns([0.0, 0.0, 0.0, 0.0, 50.0], 100, [5, 30, 5, 5, 5]), plan, router="round_robin")
    assert record.requests.finish_s.tolist() == [7.0, 33.0, 12.0, 38.0, 57.0]
    spans = [span[2:5] for span in record.life.spans if span[:2] == ("decode", 1)]
    assert spans == [("up", 0.0, 10.0), ("draining", 10.0, 38.0)]
