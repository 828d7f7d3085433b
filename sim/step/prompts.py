"""Attention of several different prompts in one chunk, which the prefill surface has no axis for."""

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sim.cost.latency import CostModel, price_all
from sim.step.operations import StepOperations, equal_prompts
from sim.step.surface import Surface

Floats = NDArray[np.float64]

SAME: Final = 0.01
"""KV tokens that differ by less than this share count as those of the surface's prompts."""
NEAR: Final = 2**0.5
"""Within this factor of the length at which DSA switches from dense to sparse the surface is not asked: a cell."""
DIGITS: Final = 3
"""Significant digits of a batch that are told apart: 0.5% at most, and many batches share a price."""


class PromptAttention:
    """Attention seconds of prefill steps by tokens, mean context and KV tokens of a rank's prompts.

    Three sums over a rank's prompts decide what attention costs: new tokens T (projections), pairs of new token and key
    (core), and KV tokens K (expansion of latents, reads, DSA's dense or sparse form). Equal prompts with the same
    three sums have

        new = (P - 1/2) / (K / T - 1/2),   cached = P - (new + 1) / 2,   P = pairs / T

    because their P = cached + (new + 1) / 2 and K / T = 1 + cached / new. The surface knows T and P only and has the K
    of one prompt, or of prompts without prefix; where a rank's differs, equal prompts are priced.

    The longest prompt decides whether DSA runs the dense or the sparse form, for all prompts of the rank. The surface
    knows the form of its own prompts, but smears the switch over a cell of its grid: near it, and where the longest
    prompt decides otherwise, equal prompts are priced in the form that runs.
    """

    def __init__(self, step: StepOperations, surface: Surface, cost: CostModel) -> None:
        self._surface, self._cost = surface, cost
        self._forms = {
            sparse: replace(step, layout=replace(step.layout, dense_prefill_max_kv=up_to))
            for sparse, up_to in ((False, step.layout.model.max_positions), (True, 0))
        }
        self._dense_up_to = step.layout.dense_prefill_max_kv if step.layout.model.sparse else 0
        self._seconds: dict[tuple[float, float, float, bool], float] = {}

    def attention_s(
        self, tokens: int, context: float, held: float | None = None, longest: float | None = None
    ) -> float:
        """Attention seconds of one rank; see `RankPrompts`."""
        core_s = self._surface.at(tokens, context)
        up_to = self._dense_up_to
        if held is None and (not up_to or (longest is not None and longest < up_to / NEAR)):
            return core_s
        pairs = max(context - 0.5, 0.5)
        new = min(tokens, 2 * pairs)
        length = pairs + new / 2
        differs = up_to / NEAR < length < up_to * NEAR
        known_sparse = length > up_to
        if held is not None:
            typical_held = tokens * length / new
            differs = differs or abs(held - typical_held) > SAME * typical_held
            new = pairs / (max(held / tokens, 1.0) - 0.5)
            length = pairs + new / 2
        sparse = (length if longest is None else longest) > up_to
        if differs or sparse != known_sparse:
            return self._priced_s(float(tokens), context, new, sparse=sparse)
        return core_s

    def core_s(
        self, tokens: Floats, context: Floats, held: Floats | None = None, longest: Floats | None = None
    ) -> Floats:
        """`attention_s` of many; shape as given. No tokens, no seconds."""
        none = [None] * len(tokens)
        columns = (none if column is None else column.tolist() for column in (held, longest))
        of_each = zip(tokens.astype(int).tolist(), context.tolist(), *columns, strict=True)
        return np.array([self.attention_s(*of) if of[0] else 0.0 for of in of_each])

    def _priced_s(self, tokens: float, context: float, new: float, sparse: bool) -> float:
        """Attention seconds of equal prompts of `new` tokens each, both half batches where there are two; `sparse`
        or dense whatever their length."""
        step = self._forms[sparse]
        overlap = step.overlap
        parts = overlap.parts(tokens)
        _, new, cached = equal_prompts(tokens / parts, context, new)
        key = _rounded(tokens), _rounded(new), _rounded(cached), sparse
        if key not in self._seconds:
            tokens, new, cached, _ = key
            operations = step.prefill_attention(tokens / parts / new, new, cached)
            seconds = sum(priced.total_s for priced in price_all(operations, self._cost))
            self._seconds[key] = parts * overlap.stretch("layers", parts) * seconds
        return self._seconds[key]


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
