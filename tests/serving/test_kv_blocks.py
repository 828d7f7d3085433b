"""KV blocks: what grows when, and counts against a brute-force recount."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sim.serving.kv_blocks import GrowingKvBlocks, KvBlocks, blocks_for, growth_steps


def test_blocks_for_by_hand():
    assert [blocks_for(t, 64) for t in (0, 1, 64, 65, 128, 129)] == [0, 1, 1, 2, 2, 3]


def test_growth_by_hand():
    """60 tokens, one per step: the 65th comes with step 5, the 129th with step 69; step 70 is the last."""
    assert list(growth_steps(60, 70, 70, 64)) == [5, 69]
    assert list(growth_steps(60, 69, 69, 64)) == [5], "the last step needs no block"
    assert list(growth_steps(64, 3, 3, 64)) == [1]
    # 10 tokens in 5 steps from 60: 62, 64, 66, ...
    assert list(growth_steps(60, 10, 5, 64)) == [3]


@given(st.integers(1, 300), st.integers(1, 400), st.data())
def test_growth_is_where_a_recount_changes(context, tokens, data):
    steps = data.draw(st.integers(1, tokens))
    held = [blocks_for(context + tokens * i // steps, 64) for i in range(steps)]
    expected = Counter({i: held[i] - held[i - 1] for i in range(1, steps) if held[i] > held[i - 1]})
    assert Counter(growth_steps(context, tokens, steps, 64)) == expected


@given(
    st.lists(st.tuples(st.integers(1, 200), st.integers(1, 300)), min_size=1, max_size=8), st.integers(0, 320)
)
def test_used_blocks_equal_a_recount_at_every_step(sequences, until):
    """All join at step 0 and leave after their last step; nothing is left at the end."""
    blocks = GrowingKvBlocks(10_000)
    for context, tokens in sequences:
        blocks.reserve(blocks_for(context, 16))
        blocks.grow(growth_steps(context, tokens, tokens, 16), 0)
    stay = [(c, t) for c, t in sequences if t > until]
    recount = sum(blocks_for(c + until, 16) for c, _ in stay)
    longest = sum(blocks_for(c + t - 1, 16) for c, t in sequences if t <= until)
    assert blocks.used_after(until) == recount + longest
    for context, tokens in sorted(sequences, key=lambda s: s[1]):
        blocks.settle(tokens - 1)
        blocks.release(blocks_for(context + tokens - 1, 16))
    assert (blocks.used, blocks.demand) == (0, 0)


@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(1, 200)), min_size=1, max_size=6), st.integers(1, 40)
)
def test_the_first_shortage_is_where_a_recount_exceeds_the_capacity(sequences, capacity):
    blocks = GrowingKvBlocks(capacity)
    for context, tokens in sequences:
        blocks.reserve(blocks_for(context, 16))
        blocks.grow(growth_steps(context, tokens, tokens, 16), 0)
    end = min(tokens for _, tokens in sequences)
    recount = [sum(blocks_for(c + i, 16) for c, _ in sequences) for i in range(end)]
    expected = next((i for i in range(end) if recount[i] > capacity), end)
    assert blocks.first_shortage(0, end) == expected


def test_a_cancelled_sequence_leaves_nothing():
    blocks = GrowingKvBlocks(10)
    blocks.reserve(1)
    steps = growth_steps(10, 200, 200, 64)
    blocks.grow(steps, first_step=7)
    blocks.settle(7 + 60)
    blocks.cancel(steps, 7, now=7 + 60)
    blocks.release(blocks_for(10 + 60, 64))
    blocks.settle(1000)
    assert (blocks.used, blocks.demand, blocks.peak) == (0, 0, 2)


def test_a_full_rank_takes_nothing():
    blocks = KvBlocks(3)
    assert blocks.take(2)
    assert not blocks.take(2)
    assert blocks.take(1)
    blocks.release(3)
    assert (blocks.used, blocks.peak) == (0, 3)
