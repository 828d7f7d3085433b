"""KV blocks: what grows when, and counts against a brute-force recount."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sim.serving.decode_rank import DecodeRank
from sim.serving.kv_blocks import KvBlocks, blocks_for, growth_steps
from sim.serving.served_request import ServedRequest


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


@st.composite
def stays(draw):
    """(first step, prompt, generated, output, steps): sequences that make a token a step or several. All have joined by
    step 60 and run at least until step 61."""
    first = draw(st.integers(0, 60))
    steps = 61 - first + draw(st.integers(0, 200))
    tokens = steps + draw(st.integers(0, 100)) * draw(st.integers(0, 1))
    prompt, generated = draw(st.integers(1, 150)), draw(st.integers(0, 40))
    return first, prompt, generated, generated + tokens, steps


def joined(rank, stays, block=16):
    """All of them on a rank, in the order of joining."""
    sequences = []
    for index, (first, prompt, generated, output, steps) in enumerate(sorted(stays)):
        sequence = ServedRequest(index, prompt, 0, output, generated, first_step=first, steps=steps)
        rank.reserve(sequence.context_tokens)
        rank.join(sequence)
        sequences.append(sequence)
    return sequences


def recount(sequences, step, block=16):
    """Blocks after a step; a sequence that has left holds what it held before its last step."""
    done = [min(max(step - s.first_step, 0), s.steps - 1) for s in sequences]
    return sum(
        blocks_for(s.context_tokens + s.tokens_after(i), block) for s, i in zip(sequences, done, strict=True)
    )


@given(st.lists(stays(), min_size=1, max_size=8), st.integers(60, 400))
def test_blocks_followed_or_not_equal_a_recount(of_rank, step):
    """Followed: since somebody asked; not followed: counted when somebody leaves, where it may be the peak."""
    rank = DecodeRank(10_000, 16)
    sequences = joined(rank, of_rank)
    assert rank.used_after(step) == recount(sequences, step)
    followed, bounded = (DecodeRank(10_000, 16) for _ in range(2))
    peak = 0
    for rank in (followed, bounded):
        sequences = joined(rank, of_rank)
        if rank is followed:
            rank.used_after(60)
        peak = 0
        for leaving in sorted(sequences, key=lambda s: s.first_step + s.steps):
            end = leaving.first_step + leaving.steps
            peak = max(peak, recount([s for s in sequences if s.id in rank.members], end - 1))
            rank.leave(leaving, end, leaving.steps)
        assert (rank.demand, rank.seats, rank.peak.blocks) == (0, 0, peak)


@given(st.lists(stays(), min_size=1, max_size=6), st.integers(1, 60))
def test_the_first_shortage_is_where_a_recount_exceeds_the_capacity(of_rank, capacity):
    rank = DecodeRank(capacity, 16)
    sequences = joined(rank, of_rank)
    end = min(s.first_step + s.steps for s in sequences)
    short = (i for i in range(60, end) if recount(sequences, i) > capacity)
    assert rank.first_shortage(60, end) == next(short, end)


@given(st.lists(stays(), min_size=2, max_size=6), st.integers(0, 30), st.booleans())
def test_an_interrupted_sequence_leaves_nothing_behind(of_rank, later, follow):
    """As in a preemption: the last one leaves before it is done, the others go on."""
    rank = DecodeRank(10_000, 16)
    sequences = joined(rank, of_rank)
    last = sequences.pop()
    step = min(60 + later, last.first_step + last.steps - 1)
    if follow:
        rank.used_after(step)
    rank.leave(last, step, step - last.first_step)
    assert rank.used_after(step + 5) == recount(sequences, step + 5)
    assert rank.load(step)[0] == len(sequences)


@given(st.lists(stays(), min_size=1, max_size=6), st.integers(60, 300), st.integers(1, 50), st.booleans())
def test_what_a_rank_that_sits_out_had_before_it_comes_so_much_later(of_rank, step, sat_out, follow):
    """All have joined by step 60; then the rank sits out, with its blocks followed until then or not."""
    rank, other = DecodeRank(90, 16), DecodeRank(90, 16)
    sequences = joined(rank, of_rank)
    joined(other, of_rank)
    if follow:
        rank.used_after(60)
    rank.sat_out += sat_out
    end = min(s.first_step + s.steps for s in sequences)
    assert rank.load(step + sat_out) == other.load(step)
    assert rank.first_shortage(60 + sat_out, end + sat_out) == other.first_shortage(60, end) + sat_out
    assert rank.used_after(step + sat_out) == recount(sequences, step)
    first = min(sequences, key=lambda s: s.first_step + s.steps)
    for of in (rank, other):
        of.leave(first, end + of.sat_out, first.steps)
    assert (rank.demand, rank.peak.blocks) == (other.demand, other.peak.blocks)


def test_a_place_that_was_reserved_and_cancelled_leaves_nothing():
    rank = DecodeRank(10, 64)
    rank.reserve(100)
    assert (rank.seats, rank.demand, rank.used_after(7)) == (1, 2, 2)
    rank.cancel(100, 8)
    assert (rank.seats, rank.demand, rank.used_after(8), rank.peak.blocks) == (0, 0, 0, 2)


def test_a_full_rank_takes_nothing():
    blocks = KvBlocks(3)
    assert blocks.take(2)
    assert not blocks.take(2)
    assert blocks.take(1)
    blocks.release(3)
    assert (blocks.used, blocks.peak) == (0, 3)
