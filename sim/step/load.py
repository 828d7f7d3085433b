"""What the ranks of a worker compute in a step with prompts, as far as its seconds depend on it."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(slots=True)
class RankPrompts:
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


@dataclass(slots=True)
class PromptLoad:
    """Prompt tokens of one step."""

    ranks: int
    """Attention-DP ranks that step together, with prompts or without."""
    prompts: list[RankPrompts]
    """Of the ranks that compute some."""
    alone: list[RankPrompts] | None = None
    """The same if no prefix had been cached; None where none was."""

    @classmethod
    def alike(cls, tokens: Floats, context: Floats, held: Floats | None = None) -> "PromptLoad":
        """Equal prompts on each rank with these sums, one entry per rank; without `held` one prompt, or prompts with
        nothing before."""
        return cls(len(tokens), [*_alike(tokens, context, held)])

    def without_prefix(self) -> "PromptLoad":
        """The same if no prefix had been cached."""
        return self if self.alone is None else PromptLoad(self.ranks, self.alone)


def _alike(tokens: Floats, context: Floats, held: Floats | None) -> Iterable[RankPrompts]:
    for rank in np.flatnonzero(tokens).tolist():
        count, mean = int(tokens[rank]), float(context[rank])
        if held is None:
            new, length = one_prompt(count, mean)
            yield RankPrompts(rank, count, mean, count * length / new, length)
        else:
            _, length = equal_prompts(count, mean, float(held[rank]))
            yield RankPrompts(rank, count, mean, float(held[rank]), length, differ=True)


def one_prompt(tokens: int, context: float) -> tuple[float, float]:
    """(new tokens, KV tokens) of the one prompt of a rank; where the mean is shorter than a single prompt's, of one of
    several equal prompts with nothing before them."""
    pairs = context - 0.5 if context > 1 else 0.5
    new = tokens if tokens <= 2 * pairs else 2 * pairs
    return new, pairs + new / 2


def equal_prompts(tokens: int, context: float, held: float) -> tuple[float, float]:
    """(new tokens, KV tokens) of one of the equal prompts of a rank whose KV tokens add up to `held`; see
    `sim.step.prompts`."""
    pairs = max(context - 0.5, 0.5)
    new = pairs / (max(held / tokens, 1.0) - 0.5)
    return new, pairs + new / 2
