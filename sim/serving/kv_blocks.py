"""KV blocks of one attention-DP rank, counted.

Only counts are kept, and what a sequence holds follows from its length: nothing can be freed twice or forgotten
without `used` showing it after the last release.
"""

from collections.abc import Sequence
from typing import Final

BLOCK_TOKENS: Final = 64
"""Tokens of one KV block: the page size of FlashMLA (github.com/deepseek-ai/FlashMLA, README, "paged kvcache with
block size of 64")."""


def blocks_for(tokens: int, block_tokens: int, of_request: int = 0) -> int:
    """Blocks that hold `tokens` tokens of a sequence, which takes `of_request` blocks however long it is."""
    return of_request - (-tokens // block_tokens)


def growth_steps(context: int, tokens: int, steps: int, block_tokens: int) -> Sequence[int]:
    """Steps after which a sequence of `context` tokens needs one more block, while it makes `tokens` in `steps`.

    After step i it holds context + floor(tokens i / steps) tokens. It leaves after the last step, which
    therefore needs no block.
    """
    room = -context % block_tokens
    if tokens == steps:
        return range(room + 1, steps, block_tokens)
    boundaries = range(room + 1, tokens + 1, block_tokens)
    return [step for b in boundaries if (step := -(-b * steps // tokens)) < steps]


class KvBlocks:
    """Blocks in use on one rank, out of `capacity`."""

    __slots__ = ("capacity", "peak", "used")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self.peak = 0

    def take(self, blocks: int) -> bool:
        """Take `blocks` if they are free; say whether they were."""
        used = self.used + blocks
        if used > self.capacity:
            return False
        self.used = used
        self.peak = used if used > self.peak else self.peak
        return True

    def release(self, blocks: int) -> None:
        """Give `blocks` back."""
        self.used -= blocks
