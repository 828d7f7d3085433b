"""Prefix caching in a run, by hand."""

from dataclasses import replace

import numpy as np
import pytest
from prefix_runs import ROOT, cache, cached, pool, requests, run_serve, run_split

from sim.workload import Prompts, RequestStream


def test_a_prompt_that_was_computed_before_leaves_one_token():
    record = run_split(requests([(0, 30, 1, ROOT), (10, 30, 1, ROOT), (20, 35, 1, (*ROOT, 1234))]), cache())
    assert cached(record) == [0, 29, 30]
    t = record.requests
    np.testing.assert_allclose(t.prefill_end_s - t.prefill_start_s, [0.13, 0.101, 0.105])
    assert record.pools["prefill"].new_tokens == 30 + 1 + 5


def test_a_prefix_that_is_just_being_computed_is_not_found_but_looked_for_until_the_prefill_starts():
    """The first two start together; the third comes during their step of 0.16 s and starts when it ends."""
    record = run_split(requests([(0, 30, 1, ROOT), (0, 30, 1, ROOT), (0.1, 30, 1, ROOT)]), cache())
    assert cached(record) == [0, 0, 29]
    assert record.requests.prefill_start_s[2] == pytest.approx(0.16)


@pytest.mark.parametrize(
    ("scope", "found"), [("rank", [0, 0, 0, 0]), ("worker", [0, 0, 29, 29]), ("cluster", [0, 29, 29, 29])]
)
@pytest.mark.parametrize("roles", ["split", "serve"])
def test_a_cache_serves_its_scope(scope, found, roles):
    """Two workers with two ranks each, in turn: worker 0 rank 0, worker 1 rank 0, worker 0 rank 1, worker 1 rank 1."""
    stream = requests([(10 * i, 30, 1, ROOT) for i in range(4)])
    if roles == "split":
        record = run_split(stream, cache(scope), pool(workers=2, dp=2))
    else:
        record = run_serve(stream, cache(scope), workers=2, dp=2)
    assert cached(record) == found


def test_what_lies_in_slower_tiers_is_counted_and_holds_the_step_up():
    """HBM holds one block, host memory one, disk the third: 10 + 10 + 9 tokens; 10 x 0.02 + 9 x 0.03 s to fetch, where
    computing the last token takes 0.101 s. The wait is booked on cached tokens."""
    setup = cache(hbm=10, host=10, disk=10, fetch_s=(0.0, 0.02, 0.03))
    record = run_split(requests([(0, 30, 1, ROOT), (10, 30, 1, ROOT)]), setup)
    t = record.requests
    assert (t.cached_tokens[1], t.cached_host_tokens[1], t.cached_disk_tokens[1]) == (29, 10, 9)
    assert t.prefill_end_s[1] - t.prefill_start_s[1] == pytest.approx(0.47)
    assert record.pools["prefill"].busy_gpu_s == pytest.approx({"prefill": 0.13 + 0.101, "cached": 0.369})
    mixed = run_serve(requests([(0, 30, 1, ROOT), (5, 50, 601, (7,)), (10, 30, 1, ROOT)]), setup, mixed=True)
    # The other prompt's block stands between: 9 of HBM's 10 tokens are held by it, so all three blocks moved down.
    t = mixed.requests
    assert (t.cached_tokens[2], t.cached_host_tokens[2], t.cached_disk_tokens[2]) == (29, 10, 9)
    assert t.prefill_end_s[2] - t.prefill_start_s[2] == pytest.approx(0.47)


def test_a_short_fetch_hides_behind_the_step():
    setup = cache(hbm=0, host=100, fetch_s=(0.0, 0.003, 0.0))
    record = run_split(requests([(0, 30, 1, ROOT), (10, 30, 1, ROOT)]), setup)
    t = record.requests
    assert t.cached_host_tokens[1] == 29
    assert t.prefill_end_s[1] - t.prefill_start_s[1] == pytest.approx(0.101)


def test_ranks_fetch_at_the_same_time_and_prompts_of_a_rank_one_after_the_other():
    """Each prompt fetches 29 x 0.01 s; two start on rank 0 and one on rank 1."""
    setup = cache(hbm=0, host=10_000, fetch_s=(0.0, 0.01, 0.0))
    rows = [(10, 30, 1, tuple(i * 1000 + b for b in ROOT)) for i in range(3)]
    stream = requests([(0, *row[1:]) for row in rows] + rows)
    record = run_split(stream, setup, pool(dp=2))
    t = record.requests
    assert t.cached_host_tokens.tolist() == [0, 0, 0, 29, 29, 29]
    np.testing.assert_allclose(t.prefill_end_s[3:] - t.prefill_start_s[3:], 0.58)


def test_a_preempted_sequence_finds_its_own_prompt_again():
    """As in test_transfer_and_books: the second sequence gives up its blocks with 4 tokens generated. Its prompt of 60
    tokens is cached but for the last one: 64 - 59 tokens are computed again."""
    blocks = [tuple(range(i * 100, i * 100 + 6)) for i in range(2)]
    stream = requests([(0, 60, 40, blocks[0]), (0, 60, 40, blocks[1])])
    record = run_split(stream, cache(), decode=pool(kv_blocks=2))
    assert record.requests.preemptions.tolist() == [0, 1]
    assert record.requests.recomputed_tokens.tolist() == [0, 5]
    assert cached(record) == [0, 0]
    serve = run_serve(requests([(0, 60, 40, blocks[0]), (0, 60, 40, blocks[1])]), cache(), kv_blocks=2)
    assert serve.requests.preemptions.tolist() == [0, 1]
    assert serve.requests.recomputed_tokens.tolist() == [0, 6], (
        "here both started together, so it has one more"
    )


def test_a_router_by_prefix_weighs_what_is_cached_against_what_waits():
    """Rank 0 has computed the prompt of 100. A repetition comes right after another prompt that rank 0 took: of 50
    tokens it leaves rank 0 cheaper (50 - 99 < 0), of 150 tokens rank 1 is (51 > 0)."""
    blocks = tuple(range(10))
    for waiting, found in ((50, 99), (150, 0)):
        stream = requests([(0, 100, 1, blocks), (10, waiting, 1, ()), (10, 100, 1, blocks)])
        for record in (
            run_split(stream, cache("rank"), pool(dp=2), router="prefix_aware"),
            run_serve(stream, cache("rank"), "prefix_aware", dp=2),
        ):
            assert cached(record) == [0, 0, found]
    record = run_split(stream, cache("cluster"), pool(dp=2), router="prefix_aware")
    assert cached(record) == [0, 0, 99], "one cache for all ranks: only the load counts"


def test_a_router_that_does_not_look_at_prefixes_balances_what_is_left_to_compute():
    """The repetition is one token for rank 0, so the next prompt of 30 goes there as well (1 < 50)."""
    blocks = tuple(range(10))
    rows = [(0, 100, 1, blocks), (10, 100, 1, blocks), (10, 50, 1, ()), (10, 30, 1, ())]
    record = run_split(requests(rows), cache("cluster"), pool(dp=2, chunk_tokens=31), router="least_loaded")
    t = record.requests
    assert t.prefill_end_s[3] == t.prefill_end_s[1] < t.prefill_end_s[2]


@pytest.mark.parametrize(
    ("roles", "scope", "found"),
    [("serve", "rank", 40), ("split", "cluster", 40), ("split", "worker", 20), ("split", "rank", 20)],
)
def test_an_answer_is_kept_where_its_kv_is_or_returns_to(roles, scope, found):
    """20 tokens and an answer of 25: blocks 3 and 4 are full, and the next turn begins with all four."""
    rows = [(0, 20, 25, (1, 12)), (50, 46, 1, (1, 12, 123, 1234, 12345))]
    stream = requests(rows, answers=[(123, 1234), ()])
    record = run_serve(stream, cache(scope)) if roles == "serve" else run_split(stream, cache(scope))
    assert cached(record) == [0, found]


@pytest.mark.parametrize("roles", ["serve", "split"])
def test_of_an_answer_that_does_not_fit_the_end_goes_first(roles):
    """Room for three blocks: two of the prompt and the first of its answer, not the answer's two alone."""
    rows = [(0, 20, 25, (1, 12)), (50, 46, 1, (1, 12, 123, 1234, 12345))]
    stream = requests(rows, answers=[(123, 1234), ()])
    run = run_serve if roles == "serve" else run_split
    assert cached(run(stream, cache(hbm=30))) == [0, 30]


def test_without_a_size_the_cache_has_what_running_sequences_leave():
    """Four KV blocks of 64 tokens, hashed blocks of 64 as well. A leaves two, B needs three: one of A's goes, its last.
    C holds all of B's while it runs and finds A's first one no more when B is back at the top."""
    a, b = (1, 12), (2, 23, 234)
    setup = replace(cache(hbm=4 * 64, shares_hbm=True), block_tokens=64)
    rows = [(0, 128, 1, a), (10, 192, 1, b), (20, 192, 1, b), (30, 128, 1, a)]
    record = run_split(requests(rows), setup, pool(kv_blocks=4))
    assert cached(record) == [0, 0, 191, 64]


def test_what_sequences_hold_beside_their_hashed_blocks_is_taken_from_the_cache_too():
    """Four KV blocks. A leaves two in the cache; B, whose prompt has no hashes, takes three for it in a prefill pool,
    and four with its first token's in a serving one, so that C finds one block of A's, or none."""
    setup = replace(cache(hbm=4 * 64, shares_hbm=True), block_tokens=64)
    rows = [(0, 128, 1, (1, 12)), (10, 192, 1, ()), (20, 128, 1, (1, 12))]
    assert cached(run_split(requests(rows), setup, pool(kv_blocks=4))) == [0, 0, 64]
    assert cached(run_serve(requests(rows), setup, kv_blocks=4)) == [0, 0, 0]


def test_blocks_of_running_sequences_are_found_without_room_in_the_cache():
    """The cache has no room at all, but the first request decodes until 8 s."""
    rows = [(0, 30, 400, ROOT), (2, 30, 1, ROOT), (20, 30, 1, ROOT)]
    record = run_serve(requests(rows), cache(hbm=0))
    assert cached(record) == [0, 29, 0]


def test_what_the_workload_gives_is_taken_where_there_are_no_blocks():
    prompts = Prompts.of(np.full(3, 100), np.full(3, 2)).with_cached(0.6)
    record = run_split(RequestStream(prompts, np.arange(3.0)), None)
    assert cached(record) == [60, 60, 60]
    assert record.requests.cached_host_tokens.sum() == record.requests.cached_disk_tokens.sum() == 0
