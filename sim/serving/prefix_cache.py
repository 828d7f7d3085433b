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
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Tier:
    """One kind of memory, as large as one unit of the cache's scope (rank, worker or cluster) has it."""

    name: str
    capacity_tokens: int


class PrefixCache:
    """Cached prefix blocks of one unit of scope. Plain bookkeeping: whoever asks also pays for loading a block."""

    def __init__(self, tiers: Iterable[Tier], block_tokens: int) -> None:
        """Tiers from the fastest to the slowest; capacities are rounded down to whole blocks of `block_tokens`."""
        self.tiers = tuple(tiers)
        self.block_tokens = block_tokens
        self._capacity = [tier.capacity_tokens // block_tokens for tier in self.tiers]
        # Per tier: its blocks, least recently used first.
        self._blocks: list[OrderedDict[int, None]] = [OrderedDict() for _ in self.tiers]
        # Blocks of running sequences, and how many hold each.
        self._running: dict[int, int] = {}

    def lookup(self, blocks: Sequence[int], prompt_tokens: int) -> list[int]:
        """Tokens of the prompt's cached prefix, by the tier that has them; nothing changes.

        What running sequences hold counts to the first tier. The last block may be partly filled: it counts with the
        prompt's own tokens. At least one token is left to compute, since the last position's output is the first
        token of the answer.
        """
        tokens = [0] * len(self.tiers)
        left = prompt_tokens - 1
        start, found = 0, _end_of_run(blocks, 0, self._running)
        for tier, held in enumerate(self._blocks):
            found = _end_of_run(blocks, found, held)
            tokens[tier] = min((found - start) * self.block_tokens, left)
            start, left = found, left - tokens[tier]
        return tokens

    def hold(self, blocks: Sequence[int]) -> None:
        """A running sequence has these blocks in the GPU's memory."""
        running = self._running
        for block in blocks:
            holders = running.get(block, 0)
            if not holders:
                for held in self._blocks:
                    held.pop(block, None)
            running[block] = holders + 1

    def release(self, blocks: Sequence[int]) -> None:
        """A sequence that held these blocks no longer runs; those that nobody holds any more are the newest."""
        running, first = self._running, self._blocks[0]
        for block in reversed(blocks):
            holders = running.pop(block) - 1
            if holders:
                running[block] = holders
            else:
                first[block] = None
        self._spill()

    def insert(self, blocks: Sequence[int]) -> None:
        """These blocks have been used by a sequence that runs elsewhere: they are the newest now."""
        self.hold(blocks)
        self.release(blocks)

    def resize(self, tier: int, capacity_tokens: int) -> None:
        """Give a tier another capacity, as when running sequences need the HBM; the oldest blocks move down."""
        self._capacity[tier] = max(0, capacity_tokens // self.block_tokens)
        self._spill()

    def held_tokens(self) -> list[int]:
        """Tokens' worth of blocks in each tier."""
        return [len(held) * self.block_tokens for held in self._blocks]

    @property
    def running_blocks(self) -> int:
        """Blocks that running sequences hold."""
        return len(self._running)

    def _spill(self) -> None:
        """Pass on what is too much in a tier, oldest first, to the top of the next one."""
        for tier, (held, capacity) in enumerate(zip(self._blocks, self._capacity, strict=True)):
            below = self._blocks[tier + 1] if tier + 1 < len(self._blocks) else None
            while len(held) > capacity:
                block, _ = held.popitem(last=False)
                if below is not None:
                    below[block] = None


def _end_of_run(blocks: Sequence[int], start: int, held: Container[int]) -> int:
    """Where the run of `blocks` that are in `held` ends, from `start` on.

    Whoever used a block used all before it, so that these are no older: along a prompt there is one run of held blocks
    and one in each tier, in the order of the tiers, and its end is found by bisection.
    """
    return bisect_left(blocks, True, lo=start, key=lambda block: block not in held)
