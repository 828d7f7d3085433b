"""KV blocks of one attention-DP rank, counted.

Only counts are kept, and what a sequence holds follows from its length: nothing can be freed twice or forgotten
without `used` showing it after the last release.
"""

from collections.abc import Iterable, Sequence
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
        if self.used + blocks > self.capacity:
            return False
        self.used += blocks
        self.peak = max(self.peak, self.used)
        return True

    def release(self, blocks: int) -> None:
        """Give `blocks` back."""
        self.used -= blocks


class GrowingKvBlocks:
    """Blocks of one rank whose sequences grow with every decode step.

    When each block will be needed is known as soon as a sequence joins, so `used` is brought up to date only when
    something is decided: `settle(step)`.
    """

    __slots__ = ("_growth", "_settled", "capacity", "demand", "peak", "used")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        """Blocks held after step `_settled`."""
        self.demand = 0
        """Blocks that the present sequences hold at their longest; up to `capacity` nothing can run out."""
        self.peak = 0
        self._settled = 0
        self._growth: dict[int, int] = {}

    def reserve(self, blocks: int) -> None:
        """Hold `blocks` for a sequence on its way."""
        self.used += blocks
        self.demand += blocks

    def grow(self, steps: Iterable[int], first_step: int) -> None:
        """One more block is needed after each of `steps`, counted from `first_step`."""
        growth = self._growth
        for step in steps:
            at = first_step + step
            growth[at] = growth.get(at, 0) + 1
            self.demand += 1

    def cancel(self, steps: Iterable[int], first_step: int, now: int) -> None:
        """Take back what `grow` announced for steps after `now`."""
        for step in steps:
            at = first_step + step
            if at > now:
                self._growth[at] -= 1
                self.demand -= 1

    def release(self, blocks: int) -> None:
        """Give `blocks` back. Call `settle` first."""
        self.peak = max(self.peak, min(self.used, self.capacity))
        self.used -= blocks
        self.demand -= blocks

    def settle(self, step: int) -> None:
        """Bring `used` up to the end of `step`."""
        growth = self._growth
        if growth and step > self._settled:
            if step - self._settled <= len(growth):
                due: Iterable[int] = range(self._settled + 1, step + 1)
            else:
                due = [s for s in growth if s <= step]
            for s in due:
                self.used += growth.pop(s, 0)
        self._settled = max(step, self._settled)

    def used_after(self, step: int) -> int:
        """Blocks held at the end of `step`, if nobody joins or leaves."""
        growth = self._growth
        if step - self._settled <= len(growth):
            return self.used + sum(growth.get(s, 0) for s in range(self._settled + 1, step + 1))
        return self.used + sum(blocks for s, blocks in growth.items() if s <= step)

    def first_shortage(self, step: int, end: int) -> int:
        """First step from `step` on, before `end`, after which the blocks do not suffice; `end` if there is none."""
        self.settle(step)
        used, growth = self.used, self._growth
        if used > self.capacity:
            return step
        for s in range(step + 1, end):
            used += growth.get(s, 0)
            if used > self.capacity:
                return s
        return end
