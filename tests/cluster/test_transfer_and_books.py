"""Small clusters worked out by hand: transfer, backpressure, rules of admission, and what is booked where."""

import numpy as np
import pytest
from cluster_costs import LinearStepCost, columns
from cluster_scenario import scenario

from sim.cluster.ledger import Ledger
from sim.cluster.run import run_cluster
from sim.cluster.setup import ClusterPlan, PoolSetup, TransferSetup
from sim.serving.admission import AdmissionRules
from sim.workload import Request

PREFILL = LinearStepCost(prompt_base_s=0.1, token_s=1e-3, pair_s=1e-6)
DECODE = {"base_s": 0.02, "sequence_s": 0.0, "kv_s": 0.0}


def pool(**given):
    base = {"workers": 1, "gpus": 1, "dp": 1, "max_sequences": 8, "chunk_tokens": 1000, "kv_blocks": 1000}
    return PoolSetup(**{**base, **given})


def run(requests, plan, **costs):
    return run_cluster(scenario(roles=tuple(plan.pools)), requests, plan, costs, seed=0)


def run_split(requests, transfer, prefill=None, decode=None, prefill_cost=PREFILL, **rules):
    plan = ClusterPlan(
        {"prefill": prefill or pool(), "decode": decode or pool()}, transfer, AdmissionRules(**rules)
    )
    return run(requests, plan, prefill=prefill_cost, decode=LinearStepCost(**DECODE))


def constant_prefill(seconds):
    return LinearStepCost(prompt_base_s=seconds, token_s=0.0, pair_s=0.0)


def test_one_request_by_hand():
    """400 tokens: prefill 0.1 + 0.4 + 1e-6 x 400 x 200.5 = 0.5802 s; transfer 400 x 100 B / 4e4 B/s = 1 s and 0.05 s
    of latency; 3 more tokens at 0.02 s."""
    record = run_split(columns([2.0], 400, 4), TransferSetup(100.0, 4e4, 0.05), ingress_s=0.25)
    t = record.requests
    assert t.arrival_s[0] == 2.0
    assert t.prefill_start_s[0] == pytest.approx(2.25)
    assert t.prefill_end_s[0] == pytest.approx(2.8302)
    assert t.first_token_s[0] == pytest.approx(3.8802)
    assert t.finish_s[0] == pytest.approx(3.9402)
    assert record.pools["prefill"].busy_gpu_s == pytest.approx({"prefill": 0.5802})
    assert record.pools["decode"].busy_gpu_s == pytest.approx({"decode": 0.06})
    assert record.pools["decode"].steps == 3
    assert record.end_s == pytest.approx(3.9402)


def test_one_token_needs_neither_transfer_nor_decode():
    record = run_split(columns([0.0], 400, 1), TransferSetup(100.0, 4e4, 0.05))
    assert record.requests.finish_s[0] == record.requests.first_token_s[0] == pytest.approx(0.5802)
    assert record.pools["decode"].steps == 0


@pytest.mark.parametrize(
    ("prefill_dp", "decode_dp", "arrivals_s"), [(1, 1, [1.1, 2.1]), (2, 1, [1.1, 2.1]), (2, 2, [1.1, 1.1])]
)
def test_transfers_share_a_nic_one_after_the_other(prefill_dp, decode_dp, arrivals_s):
    """Both prompts are ready at 0.1 s, and 100 tokens x 100 B take 1 s on the NIC of a rank. Two senders to one
    receiver still queue at the receiver."""
    record = run_split(
        columns([0.0, 0.0], 100, 2), TransferSetup(100.0, 1e4, 0.0),
        pool(dp=prefill_dp, gpus=prefill_dp), pool(dp=decode_dp, gpus=decode_dp), constant_prefill(0.1),
    )  # fmt: skip
    np.testing.assert_allclose(record.requests.first_token_s, arrivals_s)


@pytest.mark.parametrize(("bytes_per_s", "first_token_s"), [(1e6, 0.101), (1e4, 1.0)])
def test_layer_by_layer_only_the_tail_is_left_after_the_prefill(bytes_per_s, first_token_s):
    """10,000 B during a prefill of 0.1 s: at 1e6 B/s (0.01 s) the last tenth, 0.001 s, is left; at 1e4 B/s (1 s)
    the network is the slower one, and has been at it since the prefill began."""
    transfer = TransferSetup(100.0, bytes_per_s, 0.0, tail_fraction=0.1)
    record = run_split(columns([0.0], 100, 2), transfer, prefill_cost=constant_prefill(0.1))
    assert record.requests.first_token_s[0] == pytest.approx(first_token_s)


def test_prompts_that_wait_for_a_decode_seat_hold_back_prefill():
    """One decode seat, 10 steps of 0.02 s per request; prefill takes 0.01 s per prompt and holds two of them (a block
    each). Prompts 1 and 2 wait for the seat, so prompt 3 starts only when prompt 1 leaves, at 0.01 + 0.2 s."""
    record = run_split(
        columns([0.0] * 4, 64, 11), TransferSetup(0.0, 1.0, 0.0),
        pool(chunk_tokens=64, kv_blocks=2), pool(max_sequences=1), constant_prefill(0.01),
    )  # fmt: skip
    t = record.requests
    np.testing.assert_allclose(t.prefill_start_s, [0.0, 0.01, 0.02, 0.21])
    np.testing.assert_allclose(t.first_token_s, [0.01, 0.21, 0.41, 0.61])


def test_a_prompt_beyond_the_prefill_cache_is_rejected():
    """2 blocks hold 128 tokens: 120 + 8 fit, 120 + 9 do not."""
    record = run_split(
        columns([0.0, 0.0], 120, [8, 9]), TransferSetup(0.0, 1.0, 0.0), pool(kv_blocks=2), pool(kv_blocks=3)
    )
    assert record.requests.rejected.tolist() == [False, True]


def test_time_spent_on_a_cached_prefix_is_booked_as_such():
    """300 of 400 tokens cached: 100 new ones attend to 300 x 100 + 100 x 101 / 2 pairs. Step = 0.1 + 0.1 + 1e-6 x
    35,050; without the prefix 1e-6 x 5,050. The prefix costs 0.03 s."""
    record = run_split(columns([0.0], 400, 1, 300), TransferSetup(0.0, 1.0, 0.0))
    assert record.pools["prefill"].busy_gpu_s == pytest.approx({"prefill": 0.20505, "cached": 0.03})
    assert record.pools["prefill"].new_tokens == 100


def test_the_last_prompt_token_is_computed_even_if_cached():
    record = run_split(columns([0.0], 400, 1, 400), TransferSetup(0.0, 1.0, 0.0))
    assert record.requests.cached_tokens[0] == 399
    assert record.pools["prefill"].new_tokens == 1


def test_earlier_chunks_are_no_cached_prefix():
    record = run_split(columns([0.0], 2500, 1), TransferSetup(0.0, 1.0, 0.0))
    assert record.pools["prefill"].steps == 3
    assert "cached" not in record.pools["prefill"].busy_gpu_s


def test_preemption_evicts_the_last_arrived_and_recomputes_what_it_had():
    """Two blocks on the rank: both prompts of 60 tokens hold one each. The first starts decoding at 0.01 s, the second
    joins it after one step. At 65 tokens (after 4 steps) the first needs a second block, and the second request
    gives its own up with 4 tokens generated. Prefill computes 64 tokens again."""
    record = run_split(
        columns([0.0, 0.0], 60, 40), TransferSetup(0.0, 1.0, 0.0),
        decode=pool(kv_blocks=2), prefill_cost=constant_prefill(0.01),
    )  # fmt: skip
    t = record.requests
    assert t.preemptions.tolist() == [0, 1]
    assert t.recomputed_tokens.tolist() == [0, 64]
    assert t.finish_s[0] == pytest.approx(0.01 + 39 * 0.02)
    # 5 tokens after the recomputation: 65 in all need both blocks, so its turn comes when the first one ends
    assert t.finish_s[1] == pytest.approx(t.finish_s[0] + 35 * 0.02)
    assert t.first_token_s[1] == pytest.approx(0.01)
    assert record.pools["prefill"].new_tokens == 60 + 60 + 64


SERVE = {"prompt_base_s": 0.1, "token_s": 0.0, "pair_s": 0.0, **DECODE}


def run_serve(requests, mixed=False, dp=1, **rules):
    plan = ClusterPlan({"serve": pool(mixed=mixed, dp=dp)}, rules=AdmissionRules(**rules))
    return run(requests, plan, serve=LinearStepCost(**SERVE))


def test_waiting_prompts_pause_decode_unless_steps_are_mixed():
    """The second request comes during the first one's step 6 (0.2 to 0.22 s). Alone, its prompt takes 0.1 s, in
    which the first generates nothing; in a mixed step (0.02 s here) it does."""
    requests = columns([0.0, 0.21], 100, 11)
    paused, mixed = (run_serve(requests, m).requests for m in (False, True))
    np.testing.assert_allclose(paused.first_token_s, [0.1, 0.32])
    np.testing.assert_allclose(paused.finish_s, [0.1 + 10 * 0.02 + 0.1, 0.32 + 10 * 0.02])
    np.testing.assert_allclose(mixed.first_token_s, [0.1, 0.24])
    np.testing.assert_allclose(mixed.finish_s, [0.1 + 10 * 0.02, 0.24 + 10 * 0.02])


def test_a_mixed_step_is_shared_in_proportion_to_what_its_halves_cost_alone():
    """One mixed step of 0.02 s; alone its decode costs 0.02 s and its prompt 0.1 s."""
    record = run_serve(columns([0.0, 0.21], 100, 11), mixed=True)
    share = 0.02 / 0.12
    booked = {"prefill": 0.1 + 0.02 * (1 - share), "decode": 0.02 * share + 16 * 0.02}
    assert record.pools["serve"].busy_gpu_s == pytest.approx(booked)


def test_an_engine_that_looks_every_ten_steps_sees_the_request_later():
    """Decode begins at 0.1 s; the request of 0.21 s is seen after 10 steps, at 0.3 s."""
    record = run_serve(columns([0.0, 0.21], 100, 51), poll_every_steps=10)
    assert record.requests.prefill_start_s[1] == pytest.approx(0.3)


def test_an_idle_engine_looks_at_once():
    record = run_serve(columns([0.0, 5.0], 100, 3), poll_every_steps=10)
    assert record.requests.prefill_start_s[1] == 5.0


def test_the_growth_reserve_keeps_a_second_sequence_out():
    """3 blocks; each request holds one at first. A reserve of 64 tokens for the first one leaves just enough room,
    of 128 tokens too little."""
    for reserve, together in ((64, True), (128, False)):
        record = run_split(
            columns([0.0, 0.0], 60, 4), TransferSetup(0.0, 1.0, 0.0),
            decode=pool(kv_blocks=3), prefill_cost=constant_prefill(0.01), growth_reserve_tokens=reserve,
        )  # fmt: skip
        t = record.requests
        assert (t.first_token_s[1] == t.first_token_s[0]) == together


def test_seconds_by_source_add_up_to_the_busy_time():
    record = run_split(columns([0.0, 0.1], 400, 9), TransferSetup(100.0, 4e4, 0.05))
    busy = sum(s for p in record.pools.values() for s in p.busy_gpu_s.values())
    assert sum(record.priced_gpu_s.values()) == pytest.approx(busy)


@pytest.mark.parametrize("mixed", [False, True])
def test_provenance_is_of_the_seconds_worked_and_not_of_those_asked_about(mixed):
    """A cached prefix and a mixed step, both of which ask for steps that do not run."""
    cost = LinearStepCost(**SERVE)
    plan = ClusterPlan({"serve": pool(mixed=mixed)})
    requests = columns([0.0, 0.21], 100, 11, cached_tokens=60)
    record = run(requests, plan, serve=cost)
    assert cost.booked_s == pytest.approx(sum(record.pools["serve"].busy_gpu_s.values()))
    prefill, decode = LinearStepCost(pair_s=1e-6), LinearStepCost(**DECODE)
    plan = ClusterPlan({"prefill": pool(), "decode": pool()}, TransferSetup(0.0, 1.0, 0.0))
    record = run(requests, plan, prefill=prefill, decode=decode)
    assert "cached" in record.pools["prefill"].busy_gpu_s
    assert prefill.booked_s == pytest.approx(sum(record.pools["prefill"].busy_gpu_s.values()))


@pytest.fixture
def steady(monkeypatch):
    """The window counts, however short."""
    monkeypatch.setattr("sim.cluster.run.is_steady", lambda *_: True)


def test_work_is_clipped_to_the_window(steady):
    """Four prompts of 0.1 s, one after the other from 0 s on; the window is from 0.15 s to the last arrival at 0.28 s,
    amid the third one. Answers of 3 tokens decode alone, two steps of 0.02 s from 0.1 s and 0.2 s on."""
    prefill = pool(gpus=4, chunk_tokens=600)
    plan = ClusterPlan({"prefill": prefill, "decode": pool(gpus=2)}, TransferSetup(0.0, 1.0, 0.0))
    costs = {"prefill": constant_prefill(0.1), "decode": LinearStepCost(**DECODE)}
    requests = columns([0.0, 0.0, 0.0, 0.28], 600, 3)
    pools = run_cluster(scenario(warmup_s=0.15), requests, plan, costs, seed=0).pools
    assert pools["prefill"].busy_gpu_s == pytest.approx({"prefill": 4 * 0.4})
    assert pools["decode"].busy_gpu_s == pytest.approx({"decode": 2 * 0.16})
    assert pools["prefill"].busy_in_window_s == pytest.approx(0.13)
    assert pools["decode"].busy_in_window_s == pytest.approx(0.04)


def test_a_mixed_step_is_clipped_too(steady):
    """The mixed step of 0.02 s at 0.22 s; the window ends at 0.23 s, when the third request comes."""
    plan = ClusterPlan({"serve": pool(mixed=True)})
    requests = columns([0.0, 0.21, 0.23], 100, 11)
    costs = {"serve": LinearStepCost(**SERVE)}
    record = run_cluster(scenario(roles=("serve",), warmup_s=0.22), requests, plan, costs, seed=0)
    assert record.pools["serve"].busy_in_window_s == pytest.approx(0.01)


def test_where_the_whole_run_is_measured_its_work_is():
    """The same steps: work that ends, of which 0.22 s are warm-up."""
    plan = ClusterPlan({"serve": pool(mixed=True)})
    requests = columns([0.0, 0.21, 0.23], 100, 11)
    costs = {"serve": LinearStepCost(**SERVE)}
    whole = run_cluster(scenario(roles=("serve",)), requests, plan, costs, seed=0)
    assert whole.window_s == (0.0, whole.end_s)
    assert whole.pools["serve"].busy_in_window_s == pytest.approx(
        sum(whole.pools["serve"].busy_gpu_s.values())
    )
    later = run_cluster(scenario(roles=("serve",), warmup_s=0.22), requests, plan, costs, seed=0)
    assert later.window_s == (0.22, later.end_s)
    assert later.pools["serve"].busy_in_window_s == pytest.approx(later.end_s - 0.22)


def test_a_run_that_ends_in_its_warm_up_has_an_empty_window():
    requests = columns([0.0, 0.21, 0.23], 100, 11)
    plan, costs = ClusterPlan({"serve": pool()}), {"serve": LinearStepCost(**SERVE)}
    record = run_cluster(scenario(roles=("serve",), warmup_s=500.0), requests, plan, costs, seed=0)
    assert record.window_s == (500.0, 500.0)
    assert record.pools["serve"].busy_in_window_s == 0.0


def test_progress_is_told_to_the_end():
    told = []
    plan = ClusterPlan({"serve": pool()})
    requests = columns(np.arange(250) / 10, 10, 3)
    run_cluster(
        scenario(roles=("serve",)),
        requests,
        plan,
        {"serve": PREFILL},
        0,
        lambda done, of: told.append((done, of)),
    )
    assert told[-1] == (250, 250)
    assert len(told) >= 100
    assert told == sorted(told)
    assert told[0] == (0, 250), "a bar stands there before the first one ends"


def test_a_long_run_tells_its_progress_every_second(monkeypatch):
    """Of a million requests a hundredth may take minutes."""
    now, told = iter(range(0, 10**6, 2)), []
    monkeypatch.setattr("sim.cluster.ledger.time.monotonic", lambda: next(now))
    ledger = Ledger(10**6, lambda done, of: told.append(done))
    for number in range(5):
        ledger.finish(ledger.arrive(Request(number, 0.0, 10, 3)), 1.0)
    assert told == [0, 1, 2, 3, 4, 5]
