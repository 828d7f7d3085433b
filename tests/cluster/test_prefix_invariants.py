"""Prefix caching in a run: what holds whatever the workload."""

from dataclasses import fields, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from prefix_runs import BLOCK, cache, pool, requests, run_serve, run_split

from sim.serving.prefix_cache import BlockCache


@st.composite
def cases(draw):
    """Prompts along a tree of blocks, so that they share prefixes; tiers from nothing to plenty."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 50))
    rows = []
    times = np.cumsum(rng.exponential(draw(st.sampled_from([0.01, 0.2, 5.0])), n))
    for time_s in times.tolist():
        path, blocks = rng.integers(0, 2, rng.integers(1, 9)), []
        for step in path:
            blocks.append((blocks[-1] if blocks else 1) * 2 + int(step))
        tokens = BLOCK * (len(blocks) - 1) + int(rng.integers(1, BLOCK + 1))
        rows.append((time_s, tokens, int(rng.integers(1, 40)), tuple(blocks)))
    setup = cache(
        draw(st.sampled_from(["rank", "worker", "cluster"])),
        *(draw(st.sampled_from([0, 30, 200, 10_000])) for _ in range(3)),
        fetch_s=(0.0, 1e-4, 1e-3),
        shares_hbm=draw(st.booleans()),
    )
    shape = {
        "workers": draw(st.integers(1, 2)),
        "dp": draw(st.sampled_from([1, 2])),
        "kv_blocks": draw(st.sampled_from([2, 3, 40])),
        "chunk_tokens": draw(st.sampled_from([16, 64, 512])),
    }
    router = draw(st.sampled_from(["round_robin", "least_loaded", "prefix_aware"]))
    return rows, setup, shape, router


def brute_force(rows, table):
    """Tokens of the longest prefix of each prompt that one had whose prefill ended before its own began; the most that
    any cache can find."""
    most = []
    for (_, tokens, _, blocks), start_s in zip(rows, table.prefill_start_s, strict=True):
        before = [rows[j][3] for j in np.flatnonzero(table.prefill_end_s <= start_s)]
        seen = {block for others in before for block in others}
        known = 0
        while known < len(blocks) and blocks[known] in seen:
            known += 1
        most.append(min(known * BLOCK, tokens - 1))
    return np.array(most)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(cases(), st.booleans())
def test_every_run_is_sound_and_the_same_again(case, split):
    rows, setup, shape, router = case
    records = []
    for _ in range(2):
        stream = requests(rows)
        if split:
            records.append(
                run_split(stream, setup, pool(**shape), pool(kv_blocks=shape["kv_blocks"]), router)
            )
        else:
            records.append(run_serve(stream, setup, router, **shape))
    t = records[0].requests
    assert (t.cached_tokens <= brute_force(rows, t)).all()
    assert (t.cached_host_tokens + t.cached_disk_tokens <= t.cached_tokens).all()
    for f in fields(t):
        np.testing.assert_array_equal(getattr(t, f.name), getattr(records[1].requests, f.name))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(cases())
def test_one_after_the_other_they_find_what_a_list_in_order_of_use_holds(case):
    """Requests so far apart that each has ended before the next: hits are those of the cache alone."""
    rows, setup, shape, _ = case
    rows = [(100.0 * i, *row[1:]) for i, row in enumerate(rows)]
    setup = replace(setup, shares_hbm=False, scope="cluster")
    record = run_split(requests(rows), setup, pool(**{**shape, "kv_blocks": 40}))
    alone = BlockCache(setup.tiers, BLOCK)
    for row, (_, tokens, _, blocks) in enumerate(rows):
        found = alone.lookup(blocks, tokens)
        t = record.requests
        assert [t.cached_tokens[row], t.cached_host_tokens[row], t.cached_disk_tokens[row]] == [
            sum(found),
            *found[1:],
        ]
        alone.insert(blocks)
