"""Attention of several different prompts in one chunk, which the prefill surface has no axis for."""

from bisect import bisect_left
from functools import lru_cache
from math import inf
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sim.cost.latency import CostModel, price_all
from sim.model.attention import prefill_forms
from sim.step.load import PromptLoad, RankPrompts, equal_prompts, one_prompt
from sim.step.operations import StepOperations, prompts_of
from sim.step.surface import Surface

Floats = NDArray[np.float64]

SAME: Final = 0.01
"""KV tokens that differ by less than this share count as those of the surface's prompts."""
NEAR: Final = 2**0.5
"""Within this factor of the length at which attention changes its form the surface is not asked: a cell."""
DIGITS: Final = 3
"""Significant digits of a batch that are told apart: 0.5% at most, and many batches share a price."""

KEPT: Final = 8192
"""Batches kept as they were asked for: chunks of prompts without a prefix come again and again."""


class PromptAttention:
    """Attention seconds of prefill steps by tokens, mean context and KV tokens of a rank's prompts.

    Three sums over a rank's prompts decide what attention costs: new tokens T (projections), pairs of new token and key
    (core), and KV tokens K (expansion of latents, reads, DSA's dense or sparse form). Equal prompts with the same
    three sums have

        new = (P - 1/2) / (K / T - 1/2),   cached = P - (new + 1) / 2,   P = pairs / T

    because their P = cached + (new + 1) / 2 and K / T = 1 + cached / new. The surface knows T and P only and has the K
    of one prompt, or of prompts without prefix; where a rank's differs, equal prompts are priced.

    The longest prompt decides in which form attention runs, such as DSA's dense or sparse one, for all prompts of the
    rank. The surface knows the form of its own prompts, but smears a switch over a cell of its grid: near it, and where
    the longest prompt decides otherwise, equal prompts are priced in the form that runs.
    """

    def __init__(self, step: StepOperations, surface: Surface, cost: CostModel) -> None:
        self._step, self._surface, self._cost = step, surface, cost
        *switches, last = prefill_forms(step.layout)
        self._switches = [float(up_to) for up_to, _ in switches]
        """Lengths of the longest prompt beyond which the next form runs."""
        self._sure_below = self._switches[0] / NEAR if self._switches else inf
        """Length of the longest prompt up to which the surface knows the form."""
        self._sure_above = self._switches[-1] * NEAR if self._switches else 0.0
        """Length of the longest one, and of a typical one, from which it knows it again."""
        self._forms = [forms for _, forms in (*switches, last)]
        self._seconds: dict[tuple[float, float, float, int], float] = {}
        self._among_forms = lru_cache(KEPT)(self._among_forms_s)

    def core_s(self, load: PromptLoad) -> Floats:
        """Attention seconds of each rank; shape (ranks,)."""
        core_s = np.zeros(load.ranks)
        for prompts in load.prompts:
            core_s[prompts.rank] = self.attention_s(prompts)
        return core_s

    def attention_s(self, prompts: RankPrompts) -> float:
        """Attention seconds of one rank."""
        tokens, context, longest = prompts.tokens, prompts.context, prompts.longest
        if not prompts.differ:
            sure = longest < self._sure_below
            if sure or longest > self._sure_above < one_prompt(tokens, context)[1]:
                return self._surface.at(tokens, context)
        return self._among_forms(tokens, context, prompts.held, longest, prompts.differ)

    def _among_forms_s(self, tokens: int, context: float, held: float, longest: float, differ: bool) -> float:
        """Attention seconds where the form must be looked at."""
        new, length = one_prompt(tokens, context)
        switches, known = self._switches, True
        for up_to in switches:
            if up_to / NEAR < length < up_to * NEAR or (longest > up_to) != (length > up_to):
                known = False
        if differ:
            typical_held = tokens * length / new
            known = known and abs(held - typical_held) <= SAME * typical_held
            new, _ = equal_prompts(tokens, context, held)
        if known:
            return self._surface.at(tokens, context)
        return self._priced_s(tokens, context, new, bisect_left(switches, longest))

    def _priced_s(self, tokens: float, context: float, new: float, form: int) -> float:
        """Attention seconds of equal prompts of `new` tokens each, both half batches where there are two, in the form
        of that number whatever their length."""
        overlap = self._step.overlap
        parts = overlap.parts(tokens)
        _, new, cached = prompts_of(tokens / parts, context, new)
        key = _rounded(tokens), _rounded(new), _rounded(cached), form
        if key not in self._seconds:
            tokens, new, cached, _ = key
            forms = self._forms[form]
            operations = self._step.prefill_attention(tokens / parts / new, new, cached, forms)
            seconds = sum(priced.total_s for priced in price_all(operations, self._cost))
            self._seconds[key] = parts * overlap.stretch("layers", parts) * seconds
        return self._seconds[key]


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
