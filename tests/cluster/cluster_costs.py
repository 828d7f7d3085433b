"""Step costs for the tests of the cluster: simple enough to reason about, exact in everything the protocol promises."""

from dataclasses import dataclass

import numpy as np

from sim.workload import Request


@dataclass
class LinearStepCost:
    """Decode: base + max over ranks of (sequence_s n + kv_s n L + kink_s n max(0, L - kink)); convex in L.

    Prefill: prompt_base + max over ranks of (token_s T + pair_s T L + held_s K). Mixed: both maxima and one base.
    """

    base_s: float = 0.012
    sequence_s: float = 2e-5
    kv_s: float = 2e-9
    kink: float = float("inf")
    kink_s: float = 0.0
    prompt_base_s: float = 0.004
    token_s: float = 2e-5
    pair_s: float = 1e-10
    held_s: float = 0.0
    booked_s: float = 0.0

    def _ranks_s(self, sequences, context):
        seconds = self.sequence_s * sequences + self.kv_s * sequences * context
        if self.kink_s:
            seconds = seconds + self.kink_s * sequences * np.maximum(context - self.kink, 0.0)
        return seconds

    def _each_s(self, sequences, context, growth, steps):
        contexts = context[:, None] + growth[:, None] * np.arange(steps)
        return self.base_s + self._ranks_s(sequences[:, None], contexts).max(axis=0)

    def _straight(self, sequences, context, growth, steps):
        """(first step, last step) seconds if all between them lie on a line, else None."""
        if self.kink_s:
            return None
        first = self._ranks_s(sequences, context)
        last = self._ranks_s(sequences, context + growth * (steps - 1))
        slowest = int(first.argmax())
        if slowest != int(last.argmax()):
            return None
        return self.base_s + float(first[slowest]), self.base_s + float(last[slowest])

    def decode_s(self, sequences, context):
        return self.base_s + float(self._ranks_s(sequences, context).max())

    def decode_run(self, sequences, context, growth):
        return LinearRun(self, (sequences, context, growth))

    def total_s(self, sequences, context, growth, steps):
        ends = self._straight(sequences, context, growth, steps)
        if ends is not None:
            return steps * (ends[0] + ends[1]) / 2
        return float(self._each_s(sequences, context, growth, steps).sum())

    def within(self, sequences, context, growth, steps, elapsed_s):
        ends = self._straight(sequences, context, growth, steps)
        if ends is None:
            sums = np.cumsum(self._each_s(sequences, context, growth, steps))
            j = min(int(np.searchsorted(sums, elapsed_s)), steps - 1)
            return j + 1, float(sums[j])
        slope = (ends[1] - ends[0]) / max(steps - 1, 1)

        def total_s(j):
            return j * (ends[0] + (j - 1) * slope / 2)

        low, high = 0, steps  # total_s(low) < elapsed_s <= total_s(high)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if total_s(middle) < elapsed_s else (low, middle)
        return high, total_s(high)

    def _prompts_s(self, load):
        tokens, context, held = load.tokens, load.context, load.held
        if not load.differ:
            # One prompt behind a prefix, or prompts without: these attend to (T + 1) / 2 tokens on average at most.
            behind = context - (tokens + 1) / 2
            held = tokens + np.where(tokens > 0, np.maximum(behind, 0.0), 0.0)
        return self.token_s * tokens + self.pair_s * tokens * context + self.held_s * held

    def prefill_s(self, load):
        return self.prompt_base_s + float(self._prompts_s(load).max())

    def mixed_s(self, sequences, context, load):
        return self.base_s + float((self._ranks_s(sequences, context) + self._prompts_s(load)).max())

    def book_prefill(self, load, seconds):
        self.booked_s += seconds

    def provenance_s(self):
        return {"analytic": self.booked_s}


@dataclass
class LinearRun:
    """Steps of a `LinearStepCost` in a row."""

    cost: LinearStepCost
    load: tuple

    def total_s(self, steps):
        return self.cost.total_s(*self.load, steps)

    def within(self, steps, elapsed_s):
        return self.cost.within(*self.load, steps, elapsed_s)

    def book(self, seconds):
        self.cost.booked_s += seconds


@dataclass
class Columns:
    """A workload as columns."""

    arrival_s: np.ndarray
    input_tokens: np.ndarray
    output_tokens: np.ndarray
    cached_tokens: np.ndarray
    concurrency: int | None = None
    full: bool = True
    """No place of a closed loop stayed empty so far."""
    most: int | None = None
    sent: int = 0

    def __post_init__(self):
        self.sent = len(self) if self.concurrency is None else min(self.concurrency, len(self))

    def __len__(self):
        return len(self.arrival_s)

    def __iter__(self):
        times = self.arrival_s if self.concurrency is None else np.zeros(self.sent)
        return (self.request(i, time_s) for i, time_s in enumerate(times.tolist()))

    def request(self, index, time_s):
        tokens = (self.input_tokens, self.output_tokens, self.cached_tokens)
        return Request(index, time_s, *(int(column[index]) for column in tokens))

    def following(self, left, now_s):
        if self.sent == len(self):
            self.full = self.concurrency is None
            return ()
        self.sent += 1
        return (self.request(self.sent - 1, now_s),)


def columns(arrival_s, input_tokens, output_tokens, cached_tokens=None, concurrency=None):
    """Columns from plain lists or numbers for all."""
    arrival_s = np.asarray(arrival_s, dtype=float)
    n = len(arrival_s)
    as_ints = [np.broadcast_to(np.asarray(x, dtype=np.int64), n).copy()
               for x in (input_tokens, output_tokens, 0 if cached_tokens is None else cached_tokens)]  # fmt: skip
    return Columns(arrival_s, *as_ints, concurrency)
