"""The KV of prompt prefixes that were computed before: hashed blocks in tiers, the least recently used going first.

A prompt's blocks are chained hashes (see `sim.workload.Request`): an id stands for its tokens and all tokens before
them, so the cached prefix of a prompt is its leading run of known ids.

Tiers hold different blocks, fastest first (HBM, host memory, disk). A block that is used moves to the top of the
first tier; the block that has to leave for it moves to the top of the next one, and from the last tier it is gone.
So all tiers together are one list in the order of last use, cut at their capacities. Within a prompt the end counts
as used before the beginning: what is cut off first is the end of a prefix, never its root, without which the rest
could not be found.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
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

    def lookup(self, blocks: Sequence[int], prompt_tokens: int) -> list[int]:
        """Tokens of the prompt's cached prefix, by the tier that holds them; nothing changes.

        The last block may be partly filled: it counts with the prompt's own tokens. At least one token is left to
        compute, since the last position's output is the first token of the answer.
        """
        tokens = [0] * len(self.tiers)
        left = prompt_tokens - 1
        for block in blocks:
            tier = self._tier_of(block)
            if tier is None:
                break
            tokens[tier] += min(self.block_tokens, left)
            left -= min(self.block_tokens, left)
        return tokens

    def insert(self, blocks: Sequence[int]) -> None:
        """The prompt's blocks have been used: computed, or read from wherever they were. They are the newest now."""
        for block in reversed(blocks):
            tier = self._tier_of(block)
            if tier is not None:
                del self._blocks[tier][block]
            self._push(0, block)

    def resize(self, tier: int, capacity_tokens: int) -> None:
        """Give a tier another capacity, as when running sequences need the HBM; the oldest blocks move down."""
        self._capacity[tier] = capacity_tokens // self.block_tokens
        held = self._blocks[tier]
        spilled = [held.popitem(last=False)[0] for _ in range(len(held) - self._capacity[tier])]
        for block in spilled:
            self._push(tier + 1, block)

    def held_tokens(self) -> list[int]:
        """Tokens' worth of blocks in each tier."""
        return [len(held) * self.block_tokens for held in self._blocks]

    def _tier_of(self, block: int) -> int | None:
        for tier, held in enumerate(self._blocks):
            if block in held:
                return tier
        return None

    def _push(self, tier: int, block: int) -> None:
        """Put a block on top of a tier, and pass on what falls out below."""
        for held, capacity in zip(self._blocks[tier:], self._capacity[tier:], strict=True):
            held[block] = None
            if len(held) <= capacity:
                return
            block, _ = held.popitem(last=False)
