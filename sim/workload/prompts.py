"""What is asked, without when: the columns that synthetic lengths and traces have in common."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.workload.request import Request

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Prompts:
    """Token counts of requests, one entry per request and column.

    `blocks` holds the chained hashes of each prompt's blocks of `block_tokens` tokens; empty where none are known.
    """

    input_tokens: Ints
    output_tokens: Ints
    cached_tokens: Ints
    blocks: Sequence[tuple[int, ...]] = ()
    block_tokens: int | None = None

    @classmethod
    def of(cls, input_tokens: Ints, output_tokens: Ints) -> "Prompts":
        """Prompts of which nothing is cached and no hashes are known."""
        return cls(input_tokens, output_tokens, np.zeros_like(input_tokens))

    def with_cached(self, fraction: float) -> "Prompts":
        """The same prompts, of which `fraction` is cached instead of what hashes would find.

        cached = min(round(fraction x input), input - 1): at least one token is computed, since the last
        position's output is the first token of the answer.
        """
        cached = np.minimum(np.rint(fraction * self.input_tokens), self.input_tokens - 1).astype(np.int64)
        return Prompts(self.input_tokens, self.output_tokens, cached)

    def __len__(self) -> int:
        return len(self.input_tokens)

    def __getitem__(self, part: slice) -> "Prompts":
        return Prompts(
            self.input_tokens[part],
            self.output_tokens[part],
            self.cached_tokens[part],
            self.blocks[part],
            self.block_tokens,
        )

    def take(self, rows: Ints) -> "Prompts":
        """The prompts at these positions, in this order."""
        blocks = [self.blocks[row] for row in rows.tolist()] if self.blocks else ()
        return Prompts(
            self.input_tokens[rows],
            self.output_tokens[rows],
            self.cached_tokens[rows],
            blocks,
            self.block_tokens,
        )

    def requests(self, first_id: int, arrival_s: Sequence[float]) -> Iterator[Request]:
        """One `Request` each, numbered from `first_id`."""
        tokens = zip(
            self.input_tokens.tolist(), self.output_tokens.tolist(), self.cached_tokens.tolist(), strict=True
        )
        blocks = self.blocks or [()] * len(self)
        numbered = enumerate(zip(arrival_s, tokens, blocks, strict=True), start=first_id)
        for number, (time_s, (prompt, answer, cached), hashes) in numbered:
            yield Request(number, time_s, prompt, answer, cached, hashes)
