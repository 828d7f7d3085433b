"""The KV of prompt prefixes that were computed before: hashed blocks in tiers, the least recently used going first.

A prompt's blocks are chained hashes (see `sim.workload.Request`): an id stands for its tokens and all tokens before
them, so the cached prefix of a prompt is its leading run of known ids.

Tiers hold different blocks, fastest first (HBM, host memory, disk). A block that is used moves to the top of the
first tier; the block that has to leave for it moves to the top of the next one, and from the last tier it is gone.
So all tiers together are one list in the order of last use, cut at their capacities. Within a prompt the end counts
as used before the beginning: what is cut off first is the end of a prefix, never its root, without which the rest
could not be found.

Running sequences hold their blocks: these are in the GPU's memory whatever the cache does, can be found, and take no
room of a tier. When the last holder releases a block, it is the newest of the first tier.

The blocks form a tree (a radix tree, as in SGLang): a node is a stretch of blocks that were last used together. So
the work for a prompt grows with the branches on its way, not with its blocks.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Tier:
    """One kind of memory, as large as one unit of the cache's scope (rank, worker or cluster) has it."""

    name: str
    capacity_tokens: int


class Stretch:
    """Blocks `start` to `end` of a prompt: all of them held by the same sequences, or next to one another in a tier."""

    __slots__ = ("above", "below", "end", "holders", "prompt", "start", "tier")

    def __init__(self, prompt: Sequence[int], start: int, end: int, above: "Stretch | None" = None) -> None:
        self.prompt, self.start, self.end = prompt, start, end
        self.above = above or self
        """What it follows from; the root of all from itself."""
        self.below: dict[int, Stretch] = {}
        """What goes on from here, by first block."""
        self.holders = 0
        """Running sequences that hold it."""
        self.tier: int | None = None
        """Where it is; None while it is held."""

    def common(self, prompt: Sequence[int]) -> int:
        """Where a prompt that has the first of these blocks leaves them: hashes are chained, so bisection finds it."""
        mine, known, end = self.prompt, self.start + 1, min(self.end, len(prompt))
        while known < end:
            middle = (known + end + 1) // 2
            if mine[middle - 1] == prompt[middle - 1]:
                known = middle
            else:
                end = middle - 1
        return known

    def take_place(self) -> None:
        """Follow from `above`, instead of whatever began with the same block."""
        self.above.below[self.prompt[self.start]] = self

    def leave_place(self) -> None:
        """Be forgotten."""
        del self.above.below[self.prompt[self.start]]

    def cut_head(self, at: int) -> "Stretch":
        """A stretch of its own for the blocks before `at`, which are about to be held: no tier lists it."""
        head = Stretch(self.prompt, self.start, at, self.above)
        head.holders, head.tier = self.holders, self.tier
        head.take_place()
        self.start, self.above = at, head
        self.take_place()
        return head

    def cut_tail(self, at: int) -> "Stretch":
        """A stretch of its own for the blocks from `at` on."""
        tail = Stretch(self.prompt, at, self.end, self)
        tail.holders, tail.tier, tail.below = self.holders, self.tier, self.below
        for later in tail.below.values():
            later.above = tail
        self.end, self.below = at, {}
        tail.take_place()
        return tail

    def join(self) -> None:
        """Take in the stretch above, of which this is the only continuation."""
        self.start, self.above = self.above.start, self.above.above
        self.take_place()


class BlockCache:
    """Cached prefix blocks of one unit of scope. Plain bookkeeping: whoever asks also pays for loading a block."""

    def __init__(self, tiers: Iterable[Tier], block_tokens: int) -> None:
        """Tiers from the fastest to the slowest; capacities are rounded down to whole blocks of `block_tokens`."""
        self.tiers = tuple(tiers)
        self.block_tokens = block_tokens
        self.running_blocks = 0
        """Blocks that running sequences hold."""
        self._capacity = [tier.capacity_tokens // block_tokens for tier in self.tiers]
        self._root = Stretch((), 0, 0)
        # Per tier: what nobody holds, least recently used first, and its blocks in all.
        self._idle: list[OrderedDict[Stretch, None]] = [OrderedDict() for _ in self.tiers]
        self._blocks = [0] * len(self.tiers)

    def lookup(self, blocks: Sequence[int], prompt_tokens: int) -> list[int]:
        """Tokens of the prompt's cached prefix, by the tier that has them; nothing changes.

        What running sequences hold counts to the first tier. The last block may be partly filled: it counts with the
        prompt's own tokens. At least one token is left to compute, since the last position's output is the first
        token of the answer.
        """
        found = [0] * len(self.tiers)
        stretch, end = self._left(blocks)
        while end:
            found[stretch.tier or 0] += end - stretch.start
            stretch, end = stretch.above, stretch.start
        left = prompt_tokens - 1
        for tier, count in enumerate(found):
            tokens = count * self.block_tokens
            found[tier] = tokens = tokens if tokens < left else left
            left -= tokens
        return found

    def found(self, blocks: Sequence[int], prompt_tokens: int) -> int:
        """The same tokens in all."""
        tokens = self._left(blocks)[1] * self.block_tokens
        return tokens if tokens < prompt_tokens else prompt_tokens - 1

    def hold(self, blocks: Sequence[int]) -> Stretch:
        """A running sequence has these blocks in the GPU's memory. Where they end, for their `release`."""
        last, end = self._left(blocks)
        if end < last.end:
            last = last.cut_head(end)
        if end < len(blocks):
            last = Stretch(blocks, end, len(blocks), last)
            last.take_place()
        stretch = last
        while stretch is not self._root:
            if not stretch.holders:
                size = stretch.end - stretch.start
                self.running_blocks += size
                if stretch.tier is not None:
                    self._idle[stretch.tier].pop(stretch, None)
                    self._blocks[stretch.tier] -= size
                    stretch.tier = None
            stretch.holders += 1
            stretch = stretch.above
        return last

    def release(self, last: Stretch) -> None:
        """A sequence that held the blocks up to here no longer runs; those that nobody holds any more are the newest.

        Its stretches have been cut at most: nothing joins what is held.
        """
        freed: Stretch | None = None
        stretch, above = last, last.above
        while stretch is not self._root:
            stretch.holders -= 1
            if not stretch.holders:
                self.running_blocks -= stretch.end - stretch.start
                if freed is not None and len(stretch.below) == 1:
                    freed.join()
                else:
                    if freed is not None:
                        self._put(freed, 0)
                    freed = stretch
            stretch, above = above, above.above
        if freed is not None:
            self._put(freed, 0)
        self._spill()

    def insert(self, blocks: Sequence[int]) -> None:
        """These blocks have been used by a sequence that runs elsewhere: they are the newest now."""
        self.release(self.hold(blocks))

    def resize(self, tier: int, capacity_tokens: int) -> None:
        """Give a tier another capacity, as when running sequences need the HBM; the oldest blocks move down."""
        before, capacity = self._capacity[tier], capacity_tokens // self.block_tokens
        self._capacity[tier] = capacity = capacity if capacity > 0 else 0
        if capacity < before:
            self._spill(tier)

    def held_tokens(self) -> list[int]:
        """Tokens' worth of blocks in each tier."""
        return [blocks * self.block_tokens for blocks in self._blocks]

    def _left(self, prompt: Sequence[int]) -> tuple[Stretch, int]:
        """Where a prompt leaves what is known: the last stretch that has blocks of it, and its first block that has
        not."""
        stretch, end, length = self._root, 0, len(prompt)
        while end < length:
            following = stretch.below.get(prompt[end])
            if following is None:
                break
            stretch, end = following, following.end
            if end > length or following.prompt[end - 1] != prompt[end - 1]:
                return following, following.common(prompt)
        return stretch, end

    def _put(self, stretch: Stretch, tier: int) -> None:
        """Make it the newest of a tier."""
        stretch.tier = tier
        self._idle[tier][stretch] = None
        self._blocks[tier] += stretch.end - stretch.start

    def _spill(self, tier: int = 0) -> None:
        """Pass on what is too much in a tier, oldest first, to the top of the next one, and so on from there."""
        while tier < len(self.tiers) and (excess := self._blocks[tier] - self._capacity[tier]) > 0:
            self._shed(tier, excess)
            tier += 1

    def _shed(self, tier: int, excess: int) -> None:
        """Pass on so many blocks; they are gone where no tier that follows has room for any."""
        idle, last = self._idle[tier], not any(self._capacity[tier + 1 :])
        self._blocks[tier] -= excess
        while excess > 0:
            oldest = next(iter(idle))
            if oldest.end - oldest.start > excess:
                oldest = oldest.cut_tail(oldest.end - excess)
            else:
                del idle[oldest]
            excess -= oldest.end - oldest.start
            if last:
                oldest.leave_place()
            else:
                self._put(oldest, tier + 1)
