"""What is asked, without when: the columns that synthetic lengths and traces have in common."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sim.workload.request import Request

Ints = NDArray[np.int64]

AT_ONCE: Final = 4096
"""Requests that are spelled out as numbers at once: a column takes a quarter of a list's memory."""


def cached(input_tokens: Any, fraction: float) -> Any:
    """min(round(fraction x input), input - 1), of numbers or arrays: at least one token is computed, since the last
    position's output is the first token of the answer."""
    return np.minimum(np.rint(fraction * input_tokens), input_tokens - 1)


@dataclass(frozen=True)
class Prompts:
    """Token counts of requests, one entry per request and column.

    `blocks` holds the chained hashes of each prompt's blocks of `block_tokens` tokens; empty where none are known.
    `answer_blocks`: see `Request`; empty where no later prompt is known to go on from an answer.
    """

    input_tokens: Ints
    output_tokens: Ints
    cached_tokens: Ints
    blocks: Sequence[tuple[int, ...]] = ()
    block_tokens: int | None = None
    answer_blocks: Sequence[tuple[int, ...]] = ()

    @classmethod
    def of(cls, input_tokens: Ints, output_tokens: Ints) -> "Prompts":
        """Prompts of which nothing is cached and no hashes are known."""
        return cls(input_tokens, output_tokens, np.zeros_like(input_tokens))

    def with_cached(self, fraction: float) -> "Prompts":
        """The same prompts, of which `fraction` is cached instead of what hashes would find."""
        found = cached(self.input_tokens, fraction).astype(np.int64)
        return Prompts(self.input_tokens, self.output_tokens, found)

    def in_blocks_of(self, block_tokens: int) -> "Prompts":
        """The same prompts in blocks of `block_tokens` tokens, a multiple of those they have.

        A hash stands for its block and all before it, so the hash of a larger block is that of the last small one in
        it. What does not fill a larger block is left out, as in an engine, which shares whole blocks.
        """
        assert self.block_tokens is not None and block_tokens % self.block_tokens == 0
        every = block_tokens // self.block_tokens
        blocks = [ids[every - 1 :: every] for ids in self.blocks]
        return replace(self, blocks=blocks, block_tokens=block_tokens)

    def __len__(self) -> int:
        return len(self.input_tokens)

    def __getitem__(self, part: slice) -> "Prompts":
        return Prompts(
            self.input_tokens[part],
            self.output_tokens[part],
            self.cached_tokens[part],
            self.blocks[part],
            self.block_tokens,
            self.answer_blocks[part],
        )

    def take(self, rows: Ints) -> "Prompts":
        """The prompts at these positions, in this order."""
        blocks, answers = (
            [column[row] for row in rows.tolist()] if column else ()
            for column in (self.blocks, self.answer_blocks)
        )
        return Prompts(
            self.input_tokens[rows],
            self.output_tokens[rows],
            self.cached_tokens[rows],
            blocks,
            self.block_tokens,
            answers,
        )

    def requests(self, first_id: int, arrival_s: Sequence[float]) -> Iterator[Request]:
        """One `Request` each, numbered from `first_id`."""
        for first in range(0, len(self), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            columns = [c[part].tolist() for c in (self.input_tokens, self.output_tokens, self.cached_tokens)]
            none = [()] * len(columns[0])
            hashes = self.blocks[part] or none, self.answer_blocks[part] or none
            numbers = range(first_id + first, first_id + first + len(none))
            yield from map(Request, numbers, arrival_s[part], *columns, *hashes)
