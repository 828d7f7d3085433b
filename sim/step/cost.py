"""The real `StepCost`: the surfaces of a pool, looked up."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sim.cost.latency import PRICED_BY
from sim.step.load import PromptLoad, RankPrompts
from sim.step.prompts import PromptAttention
from sim.step.surface import Surface

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DecodeLevel:
    """Decode steps up to a batch: with a number of drafts of their own where drafts depend on the batch."""

    up_to_batch: float
    """Sequences of the fullest rank."""
    surface: Surface
    tokens_per_sequence: int
    """Tokens that a step computes for each sequence, 1 + drafts."""


class SurfaceStepCost:
    """Seconds of the steps of one worker, looked up in the surfaces of its pool.

    A prefill-only or decode-only pool leaves the other out. What is asked with arrays, one entry per rank, is asked by
    those who look at single steps; see `StepCost` for what the simulation asks.
    """

    def __init__(
        self, decode: Sequence[DecodeLevel], prefill: Surface | None, prompts: PromptAttention | None
    ) -> None:
        """`decode`: levels from small to large batches; `prompts`: attention of the prefill steps."""
        self._levels, self._prefill, self._prompts = decode, prefill, prompts
        self._asked: PromptLoad | None = None
        self._answer = 0.0, 0, 0
        """Of the prompts that were priced last: attention of the slowest rank, tokens of the fullest and of all."""

    def unused(self) -> "SurfaceStepCost":
        """The same prices with nothing booked yet, for another run."""
        decode = [replace(level, surface=level.surface.unused()) for level in self._levels]
        return SurfaceStepCost(decode, self._prefill and self._prefill.unused(), self._prompts)

    def level(self, fullest: float) -> DecodeLevel:
        """The decode level of a batch, by its fullest rank. Raises LookupError in a prefill pool."""
        for level in self._levels:
            if fullest <= level.up_to_batch:
                return level
        raise LookupError("this pool does not decode")

    @property
    def prefill(self) -> Surface:
        """The prefill surface. Raises LookupError in a decode pool."""
        if self._prefill is None:
            raise LookupError("this pool does not prefill")
        return self._prefill

    @property
    def prompts(self) -> PromptAttention:
        """Attention of the prefill steps. Raises LookupError in a decode pool."""
        if self._prompts is None:
            raise LookupError("this pool does not prefill")
        return self._prompts

    def decode_table(self, fullest: int) -> Surface:
        """See `StepCost.decode_table`."""
        return self.level(fullest).surface

    def prefill_s(self, load: PromptLoad) -> float:
        """See `StepCost.prefill_s`."""
        prefill, of_prompts = self._prefill, self._prompts
        assert prefill is not None and of_prompts is not None, "this pool does not prefill"
        slowest_s, fullest, total = 0.0, 0, 0
        for prompts in load.prompts:
            core_s, tokens = of_prompts.attention_s(prompts), prompts.tokens
            slowest_s = core_s if core_s > slowest_s else slowest_s
            fullest = tokens if tokens > fullest else fullest
            total += tokens
        self._asked, self._answer = load, (slowest_s, fullest, total)
        return prefill.seconds(fullest, total / load.ranks, slowest_s)

    def beside_s(self, fullest: int, sequences: int, attention_s: float, load: PromptLoad) -> float:
        """See `StepCost.beside_s`: the linear work runs once on all tokens, attention on each rank for its own."""
        if load is not self._asked:
            self.prefill_s(load)
        slowest_s, most, total = self._answer
        each = self.level(fullest).tokens_per_sequence
        mean = (total + sequences * each) / load.ranks
        return self.prefill.seconds(max(most, fullest * each), mean, max(slowest_s, attention_s))

    def together_s(self, sequences: Sequence[int], attention_s: Sequence[float], load: PromptLoad) -> float:
        """See `StepCost.together_s`.

        The linear work runs once on all tokens: attention of the prompt tokens as priced for prompt and decode
        tokens together at the prompt's context, plus what the rank's own prompts make of the prompt tokens, plus what
        the decode's context adds over a context of one block. A rank without prompt tokens runs the attention of
        decode.
        """
        level = self.level(max(sequences))
        short = float(level.surface.context[0])
        together = [n * level.tokens_per_sequence for n in sequences]
        core_s = [*attention_s]
        for prompts in load.prompts:
            rank, tokens, context = prompts.rank, prompts.tokens, prompts.context
            together[rank] += tokens
            chunk_s = self.prefill.at(together[rank], context)
            chunk_s += self.prompts.attention_s(prompts)
            chunk_s -= self.prefill.at(tokens, context)
            core_s[rank] += chunk_s - level.surface.at(sequences[rank], short)
        return self.prefill.seconds(max(together), sum(together) / len(together), max(core_s))

    def book_prefill(self, load: PromptLoad, seconds: float) -> None:
        """See `StepCost.book_prefill`: at the rank with the most pairs of new token and key."""
        prompts = load.prompts
        heaviest = prompts[0] if len(prompts) == 1 else max(prompts, key=_pairs)
        prefill = self._prefill
        assert prefill is not None, "this pool does not prefill"
        prefill.book(heaviest.tokens, heaviest.context, seconds)

    def provenance_s(self) -> dict[str, float]:
        """See `StepCost.provenance_s`."""
        surfaces = [level.surface for level in self._levels] + ([self._prefill] if self._prefill else [])
        totals = sum((s.provenance_s() for s in surfaces), np.zeros(len(PRICED_BY)))
        return dict(zip(PRICED_BY, totals.tolist(), strict=True))

    def decode_s(self, sequences: Floats, context: Floats) -> float:
        """One decode step of `sequences` per rank whose mean KV length is `context`."""
        surface = self.level(sequences.max()).surface
        return surface.step_s(surface.core_s(sequences, context), sequences)

    def mixed_s(self, sequences: Floats, context: Floats, load: PromptLoad) -> float:
        """`together_s` of `sequences` per rank whose mean KV length is `context`."""
        attention_s = self.level(sequences.max()).surface.core_s(sequences, context)
        return self.together_s(sequences.astype(int).tolist(), attention_s.tolist(), load)


def _pairs(prompts: RankPrompts) -> float:
    return prompts.tokens * prompts.context
