"""How TensorRT-LLM and SGLang hold prompts, by timelines worked out by hand.

A step of prompts takes 0.1 s, a decode step 0.02 s; the two do not mix here. Every request has a prompt of 100 tokens.
The gate is asked at the beginning of every step.
"""

import numpy as np
import pytest
from cluster_costs import LinearStepCost, columns
from cluster_scenario import scenario

from sim.cluster.run import run_cluster
from sim.cluster.setup import ClusterPlan, PoolSetup
from sim.serving.admission import AdmissionRules
from sim.serving.prompt_gate import BalanceGate, FullStepGate

COST = LinearStepCost(
    base_s=0.02, sequence_s=0.0, kv_s=0.0, kink_s=0.0, held_s=0.0, prompt_base_s=0.1, token_s=0.0, pair_s=0.0
)


def starts(arrivals, outputs, dp=2, seats=64, **rules):
    """When the prompts start."""
    setup = PoolSetup(1, 4, dp, seats, 8192, 10_000)
    plan = ClusterPlan({"serve": setup}, rules=AdmissionRules(**rules))
    requests = columns(arrivals, 100, outputs)
    record = run_cluster(scenario(roles=("serve",)), requests, plan, {"serve": COST}, 0)
    assert record.invariants == []
    return record.requests.prefill_start_s.tolist()


@pytest.mark.parametrize(
    ("arrival", "start"),
    [
        # Both ranks start a prompt at 0 and decode from 0.1 s: the question before decode step k, at 0.1 + 0.02 k, is
        # the (k + 1)th without company. The count is 20, and 0 again, at steps 19 and 39: 0.48 s and 0.88 s.
        (0.21, 0.48),  # seen at 0.22 s, after the 6th step: it waits 13 steps, not 20
        (0.47, 0.48),
        (0.49, 0.88),  # seen at 0.50 s
    ],
)
def test_the_count_runs_whether_a_prompt_waits_or_not(arrival, start):
    found = starts([0.0, 0.0, arrival], 100, wait_all_ranks_steps=20)
    assert found == pytest.approx([0.0, 0.0, start])


def test_company_ends_the_wait_and_begins_the_count_anew():
    """The third (rank 0) comes at 0.21 s, the fourth (rank 1) at 0.41 s: both start at 0.42 s, until 0.52 s. The fifth,
    at 0.53 s, is seen at 0.54 s, when the count is 2: it reaches 20 after 18 more steps, at 0.90 s."""
    found = starts([0.0, 0.0, 0.21, 0.41, 0.53], 100, wait_all_ranks_steps=20)
    assert found == pytest.approx([0.0, 0.0, 0.42, 0.42, 0.90])


@pytest.mark.parametrize(("company", "start"), [(99.0, 0.40), (0.29, 0.30)])
def test_sglang_counts_only_while_some_ranks_have_a_prompt_and_others_none(company, start):
    """Both ranks decode from 0.1 s. The third prompt, at 0.21 s, is seen at 0.22 s: of ten questions from there on the
    tenth, before the tenth step, at 0.22 + 9 x 0.02 s, lets it start; or the one at which the other rank has a prompt,
    too."""
    found = starts([0.0, 0.0, 0.21, company], [100, 100, 100, 100], delay_prompts_steps=10)
    assert found[:3] == pytest.approx([0.0, 0.0, start])


def test_a_prompt_under_way_goes_on_while_others_are_delayed():
    """Prompts of 100 tokens, 50 of them a step of 0.1 s. Two end together at 0.2 s. The third starts after its ten
    questions from 0.22 s on, at 0.40 s, and is done in two steps, although its rank is alone: its first token is there
    at 0.6 s, before a step of decode."""
    setup = PoolSetup(1, 4, 2, 64, 50, 10_000)
    plan = ClusterPlan({"serve": setup}, rules=AdmissionRules(delay_prompts_steps=10))
    requests = columns([0.0, 0.0, 0.21], 100, [100, 100, 2])
    record = run_cluster(scenario(roles=("serve",)), requests, plan, {"serve": COST}, 0)
    assert record.requests.first_token_s.tolist() == pytest.approx([0.2, 0.2, 0.6])


def test_prompts_with_company_are_held_for_more():
    """As before, but three steps go by at 0.42, 0.44 and 0.46 s, and a fifth prompt that came in time starts, too."""
    found = starts([0.0, 0.0, 0.21, 0.41, 0.45], 100, wait_all_ranks_steps=20, gather_prompts_steps=3)
    assert found == pytest.approx([0.0, 0.0, 0.48, 0.48, 0.48])


def test_a_full_rank_blocks_the_prompts_of_all_and_a_drained_one_lets_them_go():
    """Two seats on each of two ranks. Four start at 0. The 2nd and the 4th, on rank 1, end after two decode steps, at
    0.14 s, when rank 1 is drained: the sixth, which waits there, starts at once, until 0.24 s. The fifth waits for a
    seat on rank 0, which is full: so the seventh waits, too, although rank 1 has a seat. It comes at 0.25 s, and the
    count that is 1 at 0.24 s reaches 5 at 0.32 s. The fifth gets its seat when rank 0 has made 40 tokens."""
    outputs = [40, 3, 40, 3, 40, 40, 40]
    found = starts([0.0] * 4 + [0.11, 0.11, 0.25], outputs, seats=2, wait_all_ranks_steps=5)
    assert found[:4] == [0.0] * 4
    assert (found[5], found[6]) == pytest.approx((0.14, 0.32))
    assert found[4] > 0.8


def test_a_rank_without_requests_counts_as_decoding_where_it_is_padded():
    """Rank 0 alone decodes, from 0.1 s. A request that comes to rank 1 at 0.21 s starts at 0.22 s either way: the rank
    has a request and decodes nothing. A prompt on rank 0 beside an empty rank 1 is held only where that is padded."""
    for opens, start in ((True, 0.22), (False, 0.22)):
        found = starts([0.0, 0.21], 100, wait_all_ranks_steps=20, idle_rank_opens=opens)
        assert found == pytest.approx([0.0, start])
    shipped, padded = (BalanceGate(3, 0, 8, idle_rank_opens) for idle_rank_opens in (True, False))
    assert [shipped.opens([50, 0], [1, 0]) for _ in range(4)] == [True] * 4
    assert [padded.opens([50, 0], [1, 0]) for _ in range(4)] == [False, False, True, False]


def test_a_gate_tells_how_long_its_answer_holds():
    gate = BalanceGate(5, 2, 8, True)
    assert not gate.opens([10, 0], [1, 1])
    assert gate.steps() == 4
    gate.pass_by(3)
    assert gate.opens([10, 0], [1, 1]), "the fifth question"
    assert gate.steps() == 5
    gate.pass_by(7)
    assert [gate.opens([10, 0], [1, 1]) for _ in range(3)] == [False, False, True], "7 is 2 beyond 5"
    assert [gate.opens([10, 10], [1, 1]) for _ in range(4)] == [False, False, True, False]
    assert gate.opens([10, 10], [0, 1]), "it is not held for more where a rank decodes nothing"
    assert [gate.opens([10, 10], [8, 1]) for _ in range(5)] == [False] * 4 + [True], "full"


def test_prompts_are_held_until_a_step_is_full_enough():
    """One rank; a step is to have 250 tokens. The first starts at 0 and decodes from 0.1 s. The second is seen at
    0.22 s, with 100 + 1 tokens, the third at 0.26 s, with 200 + 1, the fourth at 0.28 s: 301 are enough."""
    rules = {"batch_wait_steps": 40, "batch_wait_tokens": 250}
    found = starts([0.0, 0.21, 0.25, 0.27], 100, dp=1, **rules)
    assert found == pytest.approx([0.0, 0.28, 0.28, 0.28])


def test_prompts_are_held_for_so_many_steps_at_most_and_anew_each_time():
    """Five steps, at 0.22 to 0.30 s; then it starts, until 0.42 s. The next is held at 0.50 to 0.58 s."""
    rules = {"batch_wait_steps": 5, "batch_wait_tokens": 250}
    found = starts([0.0, 0.21, 0.49], 100, dp=1, **rules)
    assert found == pytest.approx([0.0, 0.32, 0.60])


def test_a_step_of_prompts_is_followed_by_decode_steps():
    """One rank, three decode steps. The first prompt is computed until 0.10 s, so that the second starts at 0.16 s,
    until 0.26 s; the third at 0.32 s, until 0.42 s; the fourth, which comes at 0.45 s, at 0.48 s."""
    found = starts([0.0, 0.11, 0.27, 0.45], 100, dp=1, rest_after_prompts_steps=3)
    assert found == pytest.approx([0.0, 0.16, 0.32, 0.48])


def test_nothing_rests_where_nothing_decodes():
    """Answers of one token: the second request, which comes while the first is computed, starts when it is done."""
    found = starts([0.0, 0.05], 1, dp=1, rest_after_prompts_steps=3)
    assert found == pytest.approx([0.0, 0.1])


def test_drafts_fill_a_step_too():
    gate = FullStepGate(40, tokens=110, per_sequence=4)
    assert not gate.opens([100], [2])
    assert gate.opens([100], [3])
    assert gate.opens([100], [0]), "nothing decodes"


def test_without_the_rules_prompts_start_at_the_next_step():
    np.testing.assert_allclose(starts([0.0, 0.0, 0.21], 100), [0.0, 0.0, 0.22])
