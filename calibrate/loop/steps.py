"""Measured steps -> what a step costs, as the simulator asks for it.

A step's seconds are a sum over what it is made of, with factors that are fitted to measured steps and are never
negative. Its parts are the engine's own: groups of sequences that attend together, experts that any token chose,
tokens, sequences that decode and their keys, and of the prompts the pairs of token and key and the keys held.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from sim.catalog import Model
from sim.step.load import PromptLoad, RankPrompts, equal_prompts, one_prompt
from sim.step.overlap import Line

Floats = NDArray[np.float64]

PARTS = ("step", "groups", "experts", "tokens", "sequences", "keys", "pairs", "held")
"""What a step is made of; see `Step.parts`."""
LATE = 1.5
"""A step that took so many times what steps like it take was interrupted."""


@dataclass(frozen=True)
class Step:
    """What a step computed, and how long it took."""

    sequences: int
    """That decode."""
    context: float
    """Their KV tokens, on average."""
    prompts: float
    """Of which it computes tokens."""
    tokens: int
    """New ones of the prompts."""
    pairs: float
    """Of these with the keys that they attend to."""
    held: float
    """KV tokens of the prompts."""
    seconds: float = 0.0

    def parts(self, model: Model, tokens_per_sequence: int) -> Floats:
        """How much it has of each of `PARTS`."""
        tokens = self.tokens + self.sequences * tokens_per_sequence
        chosen = model.n_routed * (1 - (1 - model.top_k / model.n_routed) ** tokens)
        groups = self.prompts + (self.sequences > 0)
        decoded = (self.sequences, self.sequences * self.context)
        return np.array([1.0, groups, chosen, tokens, *decoded, self.pairs, self.held])


class FittedStepCost:
    """Seconds of the steps of an engine with one rank; a `StepCost`."""

    def __init__(self, steps: Sequence[Step], model: Model, tokens_per_sequence: int) -> None:
        """Fit relative errors; interrupted steps count as such steps otherwise do. What interruptions cost in all, one
        factor adds to every step."""
        self._model, self._tokens_per_sequence = model, tokens_per_sequence
        parts = np.array([step.parts(model, tokens_per_sequence) for step in steps])
        seconds = np.array([step.seconds for step in steps])
        usual = seconds
        for _ in range(4):
            factors, _ = nnls(parts / usual[:, None], np.ones(len(steps)))
            usual = np.minimum(seconds, LATE * (parts @ factors))
        self.interruptions = float(seconds.sum() / (parts @ factors).sum())
        """Seconds of all steps over those that the fit has for them."""
        self._factors = dict(zip(PARTS, (factors * self.interruptions).tolist(), strict=True))
        self._booked_s = 0.0

    def seconds(self, step: Step) -> float:
        """Of a step."""
        parts = step.parts(self._model, self._tokens_per_sequence)
        return float(parts @ np.array([*self._factors.values()]))

    def decode_table(self, fullest: int) -> "FittedStepCost":
        """See `StepCost.decode_table`."""
        return self

    def attention(self, x: int, context: float) -> tuple[float, float, float, float]:
        """See `DecodeTable.attention`."""
        per_token_s = self._factors["keys"] * x
        return self._factors["sequences"] * x + per_token_s * context, per_token_s, inf, per_token_s

    def line(self, fullest: int, mean: float) -> Line:
        """See `DecodeTable.line`: beside attention all depends on the number of sequences."""
        step = Step(fullest, 0.0, 0, 0, 0.0, 0.0)
        return Line(self.seconds(step) - self.attention(fullest, 0.0)[0], 1.0, *[0.0] * 6)

    def prefill_s(self, load: PromptLoad) -> float:
        """See `StepCost.prefill_s`."""
        return self.together_s([0], [0.0], load)

    def together_s(self, sequences: Sequence[int], attention_s: Sequence[float], load: PromptLoad) -> float:
        """See `StepCost.together_s`."""
        (decoding,), (decode_s,), (prompts,) = sequences, attention_s, load.prompts
        pairs = prompts.tokens * prompts.context
        step = Step(decoding, 0.0, _count(prompts), prompts.tokens, pairs, prompts.held)
        return self.seconds(step) - self.attention(decoding, 0.0)[0] + decode_s

    def beside_s(self, fullest: int, sequences: int, attention_s: float, load: PromptLoad) -> float:
        """See `StepCost.beside_s`; the real engine has one rank."""
        return self.together_s([sequences], [attention_s], load)

    def book(self, x: int, context: float, seconds: float) -> None:
        """See `DecodeTable.book`."""
        self._booked_s += seconds

    def book_prefill(self, load: PromptLoad, seconds: float) -> None:
        """See `StepCost.book_prefill`."""
        self._booked_s += seconds

    def provenance_s(self) -> dict[str, float]:
        """See `StepCost.provenance_s`."""
        return {"fitted": self._booked_s}


def _count(prompts: RankPrompts) -> float:
    """How many prompts a load stands for, if they are alike."""
    if prompts.differ:
        new, _ = equal_prompts(prompts.tokens, prompts.context, prompts.held)
    else:
        new, _ = one_prompt(prompts.tokens, prompts.context)
    return max(1.0, prompts.tokens / new)
