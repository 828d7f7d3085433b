"""The real `StepCost`: two surfaces, and sums over many steps in a row."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sim.cost.latency import PRICED_BY
from sim.step.surface import Surface, interpolate

Floats = NDArray[np.float64]

EXACT_EVALUATIONS: Final = 2048
"""Steps x ranks that are summed one by one; longer runs are halved until they are straight."""
STRAIGHT: Final = 1e-5
"""A run of steps counts as straight when its middle is this close to the mean of its ends (relative to the step)."""


class SurfaceStepCost:
    """Seconds of the steps of one worker, looked up in the surfaces of its pool.

    A prefill-only or decode-only pool leaves the other surface out.
    """

    def __init__(self, decode: Surface | None, prefill: Surface | None, tokens_per_sequence: int = 1) -> None:
        """`tokens_per_sequence`: tokens that a decode step computes for each sequence, 1 + drafts."""
        self._decode, self._prefill = decode, prefill
        self._tokens_per_sequence = tokens_per_sequence

    @property
    def decode(self) -> Surface:
        """The decode surface. Raises LookupError in a prefill pool."""
        if self._decode is None:
            raise LookupError("this pool does not decode")
        return self._decode

    @property
    def prefill(self) -> Surface:
        """The prefill surface. Raises LookupError in a decode pool."""
        if self._prefill is None:
            raise LookupError("this pool does not prefill")
        return self._prefill

    def decode_s(self, sequences: Floats, context: Floats) -> float:
        """See `StepCost.decode_s`."""
        return self.decode_steps_s(sequences, context, np.zeros(len(context)), 1)

    def decode_steps_s(self, sequences: Floats, context: Floats, growth: Floats, steps: int) -> float:
        """See `StepCost.decode_steps_s`."""
        run = _Run(self.decode, sequences, context, growth)
        seconds = run.total_s(steps)
        self.decode.charge(run.fullest, run.longest, seconds)
        return seconds

    def decode_steps_within(
        self, sequences: Floats, context: Floats, growth: Floats, steps: int, elapsed_s: float
    ) -> tuple[int, float]:
        """See `StepCost.decode_steps_within`. Takes back what `decode_steps_s` booked for the whole run."""
        run = _Run(self.decode, sequences, context, growth)
        whole_s = run.total_s(steps)
        done, seconds = run.within(steps, whole_s, elapsed_s)
        self.decode.charge(run.fullest, run.longest, seconds - whole_s)
        return done, seconds

    def prefill_s(self, tokens: Floats, context: Floats) -> float:
        """See `StepCost.prefill_s`."""
        surface = self.prefill
        core = surface.core_s(tokens, context)
        slowest = int(core.argmax())
        seconds = surface.step_s(core, tokens)
        surface.charge(float(tokens[slowest]), float(context[slowest]), seconds)
        return seconds

    def mixed_s(self, sequences: Floats, context: Floats, tokens: Floats, token_context: Floats) -> float:
        """See `StepCost.mixed_s`.

        The linear work runs once on all tokens: attention of the prompt tokens as priced for prompt and decode
        tokens together at the prompt's context, plus what the decode's context adds over a context of one block.
        """
        short = self.decode.context[:1]
        kv_s = self.decode.core_s(sequences, context) - self.decode.core_s(
            sequences, np.broadcast_to(short, len(context))
        )
        together = tokens + sequences * self._tokens_per_sequence
        core = self.prefill.core_s(together, np.where(tokens > 0, token_context, 1.0)) + kv_s
        slowest = int(core.argmax())
        seconds = self.prefill.step_s(core, together)
        self.prefill.charge(float(together[slowest]), float(token_context[slowest]), seconds)
        return seconds

    def provenance_s(self) -> dict[str, float]:
        """See `StepCost.provenance_s`."""
        totals = sum((s.provenance_s() for s in (self._decode, self._prefill) if s), np.zeros(len(PRICED_BY)))
        return dict(zip(PRICED_BY, totals.tolist(), strict=True))


class _Run:
    """Decode steps in a row with the same sequences, whose contexts grow evenly."""

    def __init__(self, surface: Surface, sequences: Floats, context: Floats, growth: Floats) -> None:
        self.surface, self.context, self.growth = surface, context, growth
        self.rows = surface.rows(sequences)
        self.fullest, self.longest = float(sequences.max()), float(context.max())
        self.inline_s, self.beside_s, self.serial_s = surface.rest_s(sequences)
        self._exact_steps = max(4, EXACT_EVALUATIONS // len(sequences))

    def _steps_s(self, at: Floats) -> Floats:
        """Seconds of the steps numbered `at` (which may fall between whole steps)."""
        contexts = self.context[:, None] + self.growth[:, None] * at
        core = interpolate(self.surface.context, self.rows, contexts).max(axis=0)
        return np.asarray(np.maximum(core + self.inline_s, self.beside_s) + self.serial_s)

    def total_s(self, steps: int) -> float:
        """Seconds of steps 0 to `steps` - 1."""
        return self._between(0, steps)

    def _between(self, first: int, end: int) -> float:
        count = end - first
        ends = self._steps_s(np.array([first, (first + end - 1) / 2, end - 1]))
        straight = (ends[0] + ends[2]) / 2
        if count <= 2 or abs(ends[1] - straight) <= STRAIGHT * straight:
            return float(straight * count)
        if count <= self._exact_steps:
            return float(self._steps_s(np.arange(first, end, dtype=np.float64)).sum())
        middle = first + count // 2
        return self._between(first, middle) + self._between(middle, end)

    def within(self, steps: int, whole_s: float, elapsed_s: float) -> tuple[int, float]:
        """Smallest number of steps that lasts at least `elapsed_s`, and its seconds. Bisection on a good guess."""
        low, high, high_s = 0, steps, whole_s
        guess = int(np.ceil(steps * min(max(elapsed_s / whole_s, 0.0), 1.0)))
        while high - low > 1:
            guess = min(max(guess, low + 1), high - 1)
            seconds = self._between(0, guess)
            if seconds >= elapsed_s:
                high, high_s = guess, seconds
                guess -= max(1, int((seconds - elapsed_s) / seconds * guess))
            else:
                low = guess
                guess += max(1, int((elapsed_s - seconds) / whole_s * steps))
        return high, high_s
