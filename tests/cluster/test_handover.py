"""Each rule of the handover in a run that can be written down step by step: all times in ms.

A prompt takes 100, its KV 30 on the way (100 tokens), a decode step 20.
"""

import numpy as np
import pytest
from cluster_costs import LinearStepCost, columns
from cluster_scenario import scenario

from sim.cluster.run import run_cluster
from sim.cluster.setup import ClusterPlan, PoolSetup, TransferSetup
from sim.result.statistics import ttft_breakdown
from sim.result.totals import Totals
from sim.serving.handover import HandoverRules

PREFILL = LinearStepCost(prompt_base_s=0.1, token_s=0.0, pair_s=0.0, held_s=0.0)
DECODE = LinearStepCost(base_s=0.02, sequence_s=0.0, kv_s=0.0)
TRANSFER = TransferSetup(bytes_per_token=300.0, bytes_per_s=1e6, latency_s=0.0)


def pool(**given):
    base = {"workers": 1, "gpus": 1, "dp": 1, "max_sequences": 8, "chunk_tokens": 100, "kv_blocks": 1000}
    return PoolSetup(**{**base, **given})


def run(arrivals_ms, output_tokens, decode=None, prefill=None, router="least_loaded", **rules):
    """Prompts of 100 tokens."""
    plan = ClusterPlan(
        {"prefill": prefill or pool(), "decode": decode or pool()}, TRANSFER, handover=HandoverRules(**rules)
    )
    requests = columns([ms / 1e3 for ms in arrivals_ms], 100, output_tokens)
    record = run_cluster(
        scenario(router=router, roles=("prefill", "decode")),
        requests, plan, {"prefill": PREFILL, "decode": DECODE}, seed=0,
    )  # fmt: skip
    assert record.invariants == []
    return record


def ms(record):
    return {
        name: np.round(getattr(record.requests, f"{name}_s") * 1e3, 6).tolist()
        for name in ("prefill_start", "first_token", "finish")
    }


def parts(record):
    found = ttft_breakdown(Totals.of(record.requests, record.requests.finish_s > 0, None))
    return {name.removesuffix("_s"): round(s * 1e3, 6) for name, s in found.items()}


def test_the_first_token_leaves_when_the_sequence_joins():
    """The first: prefill 0 to 100, KV until 130, joins the idle worker then; steps end at 150, 170, 190, 210, ...
    The second: prefill 100 to 200, KV until 230, which is a boundary of these steps; with prompts that come 5 later,
    KV is there at 235, and it joins at 250."""
    assert ms(run([0, 0], 20, first_token="joined"))["first_token"] == [130, 230]
    late = run([0, 105], 20, first_token="joined")
    assert ms(late)["first_token"] == [130, 250]
    assert parts(late) == {"queue": 0, "prefill": 100, "transfer": 30, "admission": 0, "first_step": 7.5}


def test_the_first_token_leaves_after_the_first_step():
    """TensorRT-LLM: one step later than it joins, 130 + 20 and 250 + 20; that step has made the second one too, so that
    answers end as before: 19 steps after joining."""
    record = run([0, 105], 20, first_token="stepped")
    assert ms(record)["first_token"] == [150, 270]
    assert ms(record)["finish"] == [130 + 19 * 20, 250 + 19 * 20]
    assert parts(record)["first_step"] == pytest.approx((20 + 35) / 2)


def test_the_last_token_computed_again():
    """vLLM: the first step on the decode side makes the first token: 20 steps for 20 tokens."""
    record = run([0], 20, first_token="stepped", last_token_again=True)
    assert ms(record)["first_token"] == [150]
    assert ms(record)["finish"] == [130 + 20 * 20]


def test_the_router_tells_the_decode_side():
    """10 on the way between the pools: prefill until 100, KV from 110 to 140."""
    record = run([0], 20, first_token="joined", relay_s=0.01)
    assert ms(record)["first_token"] == [140]
    assert parts(record) == {"queue": 0, "prefill": 100, "transfer": 40, "admission": 0, "first_step": 0}


def test_a_busy_decode_worker_looks_for_kv_every_few_steps():
    """The first joins at 130, which is step 0; with a look every 8 steps the next is after step 8, at 290. The second,
    whose KV is there at 235, joins then. One whose KV comes to an idle worker joins at once: the first ended at
    130 + 19 x 20 = 510, the second at 290 + 380 = 670; the third has its KV at 900 + 130."""
    record = run([0, 105, 900], 20, first_token="joined", poll_every_steps=8)
    assert ms(record)["first_token"] == [130, 290, 1030]
    assert ms(record)["finish"] == [510, 670, 1410]


def test_room_on_the_decode_side_before_the_prefill():
    """SGLang's `early`: one seat. The first holds it from 0: prefill to 100, KV to 130, 4 steps to 210. Only then does
    the second's prefill begin: 210 to 310, KV to 340. It waited 210 for room. Without the rule its prefill ends at 200,
    its KV leaves when the seat is free, and is there at 240: it waited 100 in the queue and 10 for room."""
    early = run([0, 0], 5, pool(max_sequences=1), first_token="joined", room_first=True)
    assert ms(early)["prefill_start"] == [0, 210]
    assert ms(early)["first_token"] == [130, 340]
    assert parts(early) == {"queue": 0, "prefill": 100, "transfer": 30, "admission": 105, "first_step": 0}
    late = run([0, 0], 5, pool(max_sequences=1), first_token="joined")
    assert ms(late)["first_token"] == [130, 240]
    assert parts(late) == {"queue": 50, "prefill": 100, "transfer": 30, "admission": 5, "first_step": 0}


@pytest.mark.parametrize(("tokens", "second_starts_ms"), [(127, 100), (128, 100 + 128 * 0.3 + 20)])
def test_room_for_the_whole_prompt_and_its_first_token(tokens, second_starts_ms):
    """127 tokens and the one that the prefill makes fill two blocks of 64, and two such requests the decode side's
    four; 128 and one need three each, so that the second begins when the first's one step is done."""
    plan = ClusterPlan(
        {"prefill": pool(chunk_tokens=128, whole_prompts=True), "decode": pool(kv_blocks=4)}, TRANSFER,
        handover=HandoverRules(room_first=True, first_token="joined"),
    )  # fmt: skip
    costs = {"prefill": PREFILL, "decode": DECODE}
    roles = scenario(roles=("prefill", "decode"))
    record = run_cluster(roles, columns([0.0, 0.0], tokens, 2), plan, costs, seed=0)
    np.testing.assert_allclose(record.requests.prefill_start_s * 1e3, [0, second_starts_ms])


def test_the_worker_is_chosen_whether_it_has_room_or_not():
    """Two decode workers of one seat, in turns. Answers of 5, 21 and 3 tokens: the first is on worker 0 from 130 to
    210, the second on worker 1 from 230 to 630, the third, whose prompt ends at 300, on worker 0: 330 to 370. The
    fourth (prompt ends at 400) is worker 1's, and waits for the second, although worker 0 idles: KV from 630 to 660."""
    given = [0, 0, 0, 0], [5, 21, 3, 3], pool(workers=2, max_sequences=1)
    record = run(*given, router="round_robin", first_token="joined", chooses_worker=True)
    assert ms(record)["first_token"] == [130, 230, 330, 660]
    free = run(*given, router="round_robin", first_token="joined")
    assert ms(free)["first_token"] == [130, 230, 330, 430]


def test_an_answer_waits_for_the_prefill_side_to_see_that_the_kv_is_gone():
    """SGLang behind a router that joins both answers: the first's KV is gone at 130, in the middle of the second's
    prefill, which ends at 200; its token leaves then. The second's is gone at 230, when the prefill side idles."""
    record = run([0, 0], 20, first_token="joined", answers_between_steps=True)
    assert ms(record)["first_token"] == [200, 230]
    assert ms(record)["finish"] == [510, 610]
    short = run([0, 0], 2, first_token="joined", answers_between_steps=True)
    assert ms(short)["finish"] == [200, 250], "no answer ends before it has begun"


def test_one_event_for_what_the_decode_side_hears_at_once_and_none_for_an_answer():
    """Three prompts of one prefill step: the router tells of them together, and shifts all that follows by 10. When the
    prefill side sees that KV is gone is known as it starts a step."""
    together = {"prefill": pool(chunk_tokens=300), "first_token": "joined"}
    events = run([0, 0, 0], 20, **together).events
    assert run([0, 0, 0], 20, relay_s=0.01, **together).events == events + 1
    assert run([0, 0, 0], 20, answers_between_steps=True, **together).events == events
