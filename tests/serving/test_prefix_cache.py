"""The prefix cache against a plain list in order of last use, and against hit rates known for the Mooncake traces."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.serving.prefix_cache import BlockCache, Stretch, Tier
from sim.workload import trace


def cache(*capacities: int, block_tokens: int = 10) -> BlockCache:
    return BlockCache([Tier(f"tier {i}", c) for i, c in enumerate(capacities)], block_tokens)


class PlainList:
    """The same by brute force: all blocks in one list, newest first; a block's place in it tells its tier."""

    def __init__(self, capacities: tuple[int, ...], block_tokens: int) -> None:
        self.sizes = [c // block_tokens for c in capacities]
        self.block_tokens = block_tokens
        self.newest_first: list[int] = []

    def tiers(self) -> list[list[int]]:
        starts = [sum(self.sizes[:i]) for i in range(len(self.sizes))]
        return [self.newest_first[s : s + n] for s, n in zip(starts, self.sizes, strict=True)]

    def lookup(self, blocks: list[int], prompt_tokens: int) -> list[int]:
        prefix = []
        for block in blocks:
            if block not in self.newest_first:
                break
            prefix.append(block)
        spans = [
            (i * self.block_tokens, min((i + 1) * self.block_tokens, prompt_tokens - 1))
            for i in range(len(prefix))
        ]
        return [sum(max(0, end - start) for block, (start, end) in zip(prefix, spans, strict=True) if block in tier)
                for tier in self.tiers()]  # fmt: skip

    def insert(self, blocks: list[int]) -> None:
        self.newest_first = blocks + [b for b in self.newest_first if b not in blocks]
        del self.newest_first[sum(self.sizes) :]


def chained(path: tuple[int, ...]) -> list[int]:
    """Hashes of a prompt: one number per prefix of its path through a tree."""
    digits, blocks = 0, []
    for step in path:
        digits = digits * 4 + step + 1
        blocks.append(digits)
    return blocks


PROMPTS = st.lists(
    st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=6), st.integers(1, 10)), max_size=40
)


@given(capacities=st.lists(st.integers(0, 120), min_size=1, max_size=3), prompts=PROMPTS)
@settings(max_examples=300, deadline=None)
def test_every_lookup_agrees_with_the_plain_list(
    capacities: list[int], prompts: list[tuple[list[int], int]]
) -> None:
    fast, plain = cache(*capacities), PlainList(tuple(capacities), 10)
    for path, last_tokens in prompts:
        blocks = chained(tuple(path))
        prompt_tokens = 10 * (len(blocks) - 1) + last_tokens
        found = fast.lookup(blocks, prompt_tokens)
        assert found == plain.lookup(blocks, prompt_tokens)
        assert sum(found) == fast.found(blocks, prompt_tokens)
        assert fast.lookup(blocks, prompt_tokens) == found, "looking does not change anything"
        assert sum(found) < prompt_tokens
        fast.insert(blocks)
        plain.insert(blocks)
        assert fast.held_tokens() == [10 * len(tier) for tier in plain.tiers()]
        assert all(held <= c for held, c in zip(fast.held_tokens(), capacities, strict=True))


@given(prompts=PROMPTS, capacity=st.integers(0, 120), smaller=st.integers(0, 120))
@settings(max_examples=100, deadline=None)
def test_a_resized_tier_holds_the_newest_blocks(
    prompts: list[tuple[list[int], int]], capacity: int, smaller: int
) -> None:
    """Shrinking moves the oldest blocks to the tier below, in order; nothing is lost while that one has room."""
    fast, plain = cache(capacity, 10_000), PlainList((capacity, 10_000), 10)
    for path, _ in prompts:
        fast.insert(chained(tuple(path)))
        plain.insert(chained(tuple(path)))
    fast.resize(0, min(smaller, capacity))
    plain.sizes[0] = min(smaller, capacity) // 10
    for path, _ in prompts:
        blocks = chained(tuple(path))
        assert fast.lookup(blocks, 10 * len(blocks)) == plain.lookup(blocks, 10 * len(blocks))


RUNS = st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 2), min_size=1, max_size=5)), max_size=40)


@given(capacities=st.lists(st.integers(0, 80), min_size=1, max_size=3), runs=RUNS)
@settings(max_examples=200, deadline=None)
def test_running_sequences_hold_their_blocks_beside_the_tiers(
    capacities: list[int], runs: list[tuple[bool, list[int]]]
) -> None:
    """Against plain lists, newest first, searched from the beginning; sequences end in another order than they came.
    A block is held, or in one tier, or nowhere."""
    fast = cache(*capacities)
    tiers: list[list[int]] = [[] for _ in capacities]
    running: list[list[int]] = []
    held: list[Stretch] = []

    def end(place: int) -> None:
        blocks = running.pop(place)
        fast.release(held.pop(place))
        still = {block for other in running for block in other}
        tiers[0][:0] = [block for block in blocks if block not in still]
        for tier, capacity in enumerate(capacities):
            room = capacity // 10
            if tier + 1 < len(tiers):
                tiers[tier + 1][:0] = tiers[tier][room:]
            del tiers[tier][room:]

    def expected(prompt: list[int]) -> list[int]:
        held = {block for other in running for block in other}
        where = [
            0 if b in held else next((i for i, tier in enumerate(tiers) if b in tier), None) for b in prompt
        ]
        known = where[: where.index(None)] if None in where else where
        return [10 * known.count(tier) for tier in range(len(tiers))]

    for newest_ends, path in runs:
        blocks = chained(tuple(path))
        held.append(fast.hold(blocks))
        running.append(blocks)
        for tier in tiers:
            tier[:] = [block for block in tier if block not in blocks]
        assert fast.running_blocks == len({block for other in running for block in other})
        for prompt in [*running, chained((0, 1, 2, 0, 1)), chained((2, 2))]:
            assert fast.lookup(prompt, 10 * len(prompt) + 1) == expected(prompt)
        if len(running) > 3:
            end(-1 if newest_ends else 0)
    while running:
        end(0)
    assert fast.running_blocks == 0
    assert fast.held_tokens() == [10 * len(tier) for tier in tiers]


def test_by_hand() -> None:
    three = cache(30, 20, 10)  # 3 + 2 + 1 blocks
    three.insert([1, 2, 3])
    assert three.lookup([1, 2, 3], 30) == [29, 0, 0], "one token is left to compute"
    assert three.lookup([1, 2, 9], 30) == [20, 0, 0]
    assert three.lookup([9, 92, 923], 30) == [0, 0, 0]
    assert three.lookup([1, 2, 3, 4], 35) == [30, 0, 0]
    three.insert([1, 5, 6])  # newest first now: 1 5 6 | 2 3 |
    assert three.lookup([1, 2, 3], 30) == [10, 19, 0]
    three.insert([7])  # 7 1 5 | 6 2 | 3
    assert three.lookup([1, 2, 3], 25) == [10, 10, 4]
    three.insert([8])  # 8 7 1 | 5 6 | 2; the end of the older prefix went first
    assert three.lookup([1, 2, 3], 30) == [10, 0, 10]
    assert three.held_tokens() == [30, 20, 10]


def test_a_prompt_larger_than_the_cache_keeps_its_beginning() -> None:
    small = cache(20)
    small.insert([1, 2, 3, 4])
    assert small.lookup([1, 2, 3, 4], 40) == [20]


def test_no_capacity_caches_nothing() -> None:
    none = cache(0, 9)
    none.insert([1])
    assert none.lookup([1], 10) == [0, 0]


@pytest.mark.parametrize(
    ("name", "capacity_tokens", "hit_rate"),
    [
        # Task specification (design/MODEL.md section 5, issue 5): LRU figures computed outside this project.
        ("mooncake-conversation", 1e6, 0.054),
        ("mooncake-conversation", 3e6, 0.139),
        ("mooncake-conversation", 10e6, 0.291),
        ("mooncake-conversation", 30e6, 0.366),
        ("mooncake-conversation", 100e6, 0.374),
        ("mooncake-conversation", 1e12, 0.374),
        ("mooncake-synthetic", 1e6, 0.145),
        ("mooncake-synthetic", 3e6, 0.315),
        ("mooncake-synthetic", 10e6, 0.577),
        ("mooncake-synthetic", 30e6, 0.651),
    ],
)
def test_token_hit_rates_of_the_mooncake_traces(name: str, capacity_tokens: float, hit_rate: float) -> None:
    prompts = trace.load(name, seed=0).prompts
    assert prompts.block_tokens == 512
    one = cache(int(capacity_tokens), block_tokens=512)
    two = cache(int(capacity_tokens * 0.3), int(capacity_tokens * 0.7), block_tokens=512)
    hits = hits_of_two = 0
    for blocks, tokens in zip(prompts.blocks, prompts.input_tokens.tolist(), strict=True):
        hits += sum(one.lookup(blocks, tokens))
        hits_of_two += sum(two.lookup(blocks, tokens))
        one.insert(blocks)
        two.insert(blocks)
    total = prompts.input_tokens.sum()
    assert hits / total == pytest.approx(hit_rate, abs=0.005)
    assert hits_of_two / total == pytest.approx(hits / total, abs=0.001), "tiers add up"
