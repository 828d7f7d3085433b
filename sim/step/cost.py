"""The real `StepCost`: two surfaces, and sums over many steps in a row."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sim.cost.latency import PRICED_BY
from sim.step.load import PromptLoad
from sim.step.prompts import PromptAttention
from sim.step.surface import Surface, interpolate

Floats = NDArray[np.float64]

EXACT_EVALUATIONS: Final = 2048
"""Steps x ranks that are summed one by one; longer runs are halved until they are straight."""
STRAIGHT: Final = 1e-5
"""A run of steps counts as straight when its middle is this close to the mean of its ends (relative to the step)."""


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

    A prefill-only or decode-only pool leaves the other out.
    """

    def __init__(
        self, decode: Sequence[DecodeLevel], prefill: Surface | None, prompts: PromptAttention | None
    ) -> None:
        """`decode`: levels from small to large batches; `prompts`: attention of the prefill steps."""
        self._levels, self._prefill, self._prompts = decode, prefill, prompts

    def unused(self) -> "SurfaceStepCost":
        """The same prices with nothing booked yet, for another run."""
        decode = [replace(level, surface=level.surface.unused()) for level in self._levels]
        return SurfaceStepCost(decode, self._prefill and self._prefill.unused(), self._prompts)

    def level(self, sequences: Floats) -> DecodeLevel:
        """The decode level of a batch. Raises LookupError in a prefill pool."""
        fullest = sequences.max()
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

    def decode_s(self, sequences: Floats, context: Floats) -> float:
        """See `StepCost.decode_s`."""
        return self.decode_run(sequences, context, np.zeros(len(context))).total_s(1)

    def decode_run(self, sequences: Floats, context: Floats, growth: Floats) -> "SurfaceRun":
        """See `StepCost.decode_run`."""
        return SurfaceRun(self.level(sequences).surface, sequences, context, growth)

    def prefill_s(self, load: PromptLoad) -> float:
        """See `StepCost.prefill_s`."""
        return self.prefill.step_s(self.prompts.core_s(load), load.tokens)

    def book_prefill(self, load: PromptLoad, seconds: float) -> None:
        """See `StepCost.book_prefill`: at the rank with the most pairs of new token and key."""
        heaviest = int((load.tokens * load.context).argmax())
        self.prefill.charge(float(load.tokens[heaviest]), float(load.context[heaviest]), seconds)

    def mixed_s(self, sequences: Floats, context: Floats, load: PromptLoad) -> float:
        """See `StepCost.mixed_s`.

        The linear work runs once on all tokens: attention of the prompt tokens as priced for prompt and decode
        tokens together at the prompt's context, plus what the rank's own prompts make of the prompt tokens, plus what
        the decode's context adds over a context of one block. A rank without prompt tokens runs the attention of
        decode.
        """
        level = self.level(sequences)
        short = np.broadcast_to(level.surface.context[:1], len(context))
        decode = level.surface.core_s(sequences, context)
        kv_s = decode - level.surface.core_s(sequences, short)
        together = load.tokens + sequences * level.tokens_per_sequence
        typical = self.prefill.core_s(load.tokens, load.context)
        chunk = self.prefill.core_s(together, load.context) + (self.prompts.core_s(load) - typical)
        core = np.where(load.tokens > 0, chunk + kv_s, decode)
        return self.prefill.step_s(core, together)

    def provenance_s(self) -> dict[str, float]:
        """See `StepCost.provenance_s`."""
        surfaces = [level.surface for level in self._levels] + ([self._prefill] if self._prefill else [])
        totals = sum((s.provenance_s() for s in surfaces), np.zeros(len(PRICED_BY)))
        return dict(zip(PRICED_BY, totals.tolist(), strict=True))


class SurfaceRun:
    """Decode steps in a row on a surface; see `DecodeRun`."""

    def __init__(self, surface: Surface, sequences: Floats, context: Floats, growth: Floats) -> None:
        self._surface, self._context, self._growth = surface, context, growth
        self._sequences = sequences
        self._rows = surface.rows(sequences)
        self._line = surface.line(sequences)
        self._exact_steps = max(4, EXACT_EVALUATIONS // len(sequences))

    def book(self, seconds: float) -> None:
        """See `DecodeRun.book`."""
        self._surface.charge(float(self._sequences.max()), float(self._context.max()), seconds)

    def total_s(self, steps: int) -> float:
        """See `DecodeRun.total_s`."""
        return self._between(0, steps)

    def within(self, steps: int, elapsed_s: float) -> tuple[int, float]:
        """See `DecodeRun.within`. Steps grow little: all up to a guess at once, or bisection if there are many."""
        first_s = self._steps_s(np.zeros(1))[0]
        likely = min(steps, int(elapsed_s / first_s) + 2)
        if likely <= self._exact_steps:
            ends = self._steps_s(np.arange(likely, dtype=np.float64)).cumsum()
            done = min(int(ends.searchsorted(elapsed_s)), likely - 1)
            if ends[done] >= elapsed_s or likely == steps:
                return done + 1, float(ends[done])
        low, high = 0, steps
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._between(0, middle) >= elapsed_s else (middle, high)
        return high, self._between(0, high)

    def _steps_s(self, at: Floats) -> Floats:
        """Seconds of the steps numbered `at` (which may fall between whole steps)."""
        contexts = self._context[:, None] + self._growth[:, None] * at
        core = interpolate(self._surface.context, self._rows, contexts).max(axis=0)
        return np.asarray(self._line.seconds(core))

    def _between(self, first: int, end: int) -> float:
        """Seconds of steps `first` to `end` - 1: a straight line, or summed, or halved until one of the two."""
        count = end - first
        ends = self._steps_s(np.array([first, (first + end - 1) / 2, end - 1]))
        straight = (ends[0] + ends[2]) / 2
        if count <= 2 or abs(ends[1] - straight) <= STRAIGHT * straight:
            return float(straight * count)
        if count <= self._exact_steps:
            return float(self._steps_s(np.arange(first, end, dtype=np.float64)).sum())
        middle = first + count // 2
        return self._between(first, middle) + self._between(middle, end)
