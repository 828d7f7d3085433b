"""What the ranks of a worker compute in a step with prompts, as far as its seconds depend on it."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class RankPrompts(NamedTuple):
    """The prompt tokens that one rank computes in a step."""

    rank: int
    tokens: int
    """New ones."""
    context: float
    """Mean KV tokens that they attend to, cached prefix and earlier chunks included."""
    held: float
    """KV tokens of the rank's prompts, those before the step and those in it: sum(before + new)."""
    longest: float
    """KV tokens of its longest prompt: max(before + new)."""
    differ: bool = False
    """Whether it has several prompts, and KV before one of them. Else `held` follows from tokens and context: it has a
    single prompt, or nothing before its prompts."""


@dataclass(frozen=True, slots=True)
class PromptLoad:
    """The same of all ranks, for those who look at single steps. Arrays have one entry per rank; see `RankPrompts`."""

    tokens: Floats
    context: Floats
    """0 where a rank has none."""
    held: Floats
    longest: Floats
    differ: bool = False

    @classmethod
    def alike(cls, tokens: Floats, context: Floats, held: Floats | None = None) -> "PromptLoad":
        """Equal prompts on each rank with these sums; without `held` one prompt, or prompts with nothing before."""
        if held is not None:
            return cls(tokens, context, held, equal_prompts(tokens, context, held)[1], differ=True)
        new, length = one_prompt(tokens, context)
        return cls(tokens, context, tokens * length / new, length)

    def of_ranks(self) -> list[RankPrompts]:
        """Rank by rank, without those that have none."""
        columns = (self.context.tolist(), self.held.tolist(), self.longest.tolist())
        every = enumerate(zip(self.tokens.astype(int).tolist(), *columns, strict=True))
        return [RankPrompts(rank, *of_rank, self.differ) for rank, of_rank in every if of_rank[0]]


def one_prompt(tokens: Floats, context: Floats) -> tuple[Floats, Floats]:
    """(new tokens, KV tokens) of the one prompt of each rank; where the mean is shorter than a single prompt's, of one
    of several equal prompts with nothing before them."""
    pairs = np.maximum(context - 0.5, 0.5)
    new = np.minimum(np.maximum(tokens, 1.0), 2 * pairs)
    return new, pairs + new / 2


def equal_prompts(tokens: Floats, context: Floats, held: Floats) -> tuple[Floats, Floats]:
    """(new tokens, KV tokens) of one of the equal prompts of each rank whose KV tokens add up to `held`; see
    `sim.step.prompts`."""
    pairs = np.maximum(context - 0.5, 0.5)
    new = pairs / (np.maximum(held / np.maximum(tokens, 1.0), 1.0) - 0.5)
    return new, pairs + new / 2
