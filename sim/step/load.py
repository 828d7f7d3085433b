"""What the ranks of a worker compute in a step with prompts, as far as its seconds depend on it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PromptLoad:
    """Prompt tokens of one step. Arrays have one entry per attention-DP rank."""

    tokens: Floats
    """New ones."""
    context: Floats
    """Mean KV tokens that they attend to, cached prefix and earlier chunks included; 0 where a rank has none."""
    held: Floats
    """KV tokens of a rank's prompts, those before the step and those in it: sum(before + new)."""
    longest: Floats
    """KV tokens of a rank's longest prompt: max(before + new)."""
    differ: bool = False
    """Whether a rank has several prompts, and KV before one of them. Else `held` follows from tokens and context: each
    rank has a single prompt, or nothing before its prompts."""
    alone: "PromptLoad | None" = None
    """The same if no prefix had been cached; None where none was."""

    @classmethod
    def alike(cls, tokens: Floats, context: Floats, held: Floats | None = None) -> "PromptLoad":
        """Equal prompts on each rank with these sums; without `held` one prompt, or prompts with nothing before."""
        if held is not None:
            return cls(tokens, context, held, equal_prompts(tokens, context, held)[1], differ=True)
        new, length = one_prompt(tokens, context)
        return cls(tokens, context, tokens * length / new, length)

    @property
    def has_prefix(self) -> bool:
        """Whether a part of its prompts was cached."""
        return self.alone is not None

    def without_prefix(self) -> "PromptLoad":
        """The same if no prefix had been cached."""
        return self.alone or self


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
