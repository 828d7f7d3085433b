"""Step costs for the tests of the cluster: simple enough to reason about, exact in everything the protocol promises."""

from dataclasses import dataclass

import numpy as np

from sim.step.overlap import Line
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

    def decode_s(self, sequences, context):
        return self.base_s + float(self._ranks_s(sequences, context).max())

    def decode_table(self, fullest):
        return self

    def attention(self, x, context):
        seconds = float(self._ranks_s(x, context))
        beyond = context >= self.kink
        per_token_s = (self.kv_s + self.kink_s * beyond) * x
        end = np.inf if beyond or not self.kink_s else self.kink
        return seconds, per_token_s, end, (self.kv_s + self.kink_s) * x

    def line(self, fullest, mean):
        return Line(self.base_s, 1.0, *[0.0] * 6)

    def book(self, x, context, seconds):
        self.booked_s += seconds

    def _prompts_s(self, load):
        tokens, context, held = np.zeros((3, load.ranks))
        for p in load.prompts:
            tokens[p.rank], context[p.rank], held[p.rank] = p.tokens, p.context, p.held
        return self.token_s * tokens + self.pair_s * tokens * context + self.held_s * held

    def prefill_s(self, load):
        return self.prompt_base_s + float(self._prompts_s(load).max())

    def mixed_s(self, sequences, context, load):
        return self.base_s + float((self._ranks_s(sequences, context) + self._prompts_s(load)).max())

    def together_s(self, sequences, attention_s, load):
        return self.base_s + float((np.array(attention_s) + self._prompts_s(load)).max())

    def beside_s(self, fullest, sequences, attention_s, load):
        return self.base_s + max(attention_s, float(self._prompts_s(load).max()))

    def book_prefill(self, load, seconds):
        self.booked_s += seconds

    def provenance_s(self):
        return {"analytic": self.booked_s}


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

    @property
    def known_until_s(self):
        return float(self.arrival_s[-1]) if len(self) else 0.0

    @property
    def ends(self):
        return self.concurrency is None

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
