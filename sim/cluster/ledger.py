"""The books of a run: what happened to each request, and how long each pool worked."""

import math
from array import array
from collections.abc import Callable

import numpy as np

from sim.cluster.record import PoolRecord, RequestTable
from sim.cluster.setup import PoolSetup, Requests
from sim.serving.prompts import Chunk
from sim.serving.sequence import Sequence

Progress = Callable[[int, int], None]
"""(requests done, requests in all)"""

PROGRESS_REPORTS = 100
"""Times that a run reports its progress."""


class Ledger:
    """Times and counts per request, written as they happen. A time is NaN until then."""

    def __init__(self, requests: Requests, progress: Progress | None) -> None:
        self.total = total = len(requests.input_tokens)
        self.input_tokens: list[int] = requests.input_tokens.tolist()
        self.output_tokens: list[int] = requests.output_tokens.tolist()
        self.cached_tokens: list[int] = np.minimum(
            requests.cached_tokens, np.asarray(requests.input_tokens) - 1
        ).tolist()
        self.arrival_s = array("d", [math.nan]) * total
        self.prefill_start_s = array("d", self.arrival_s)
        self.prefill_end_s = array("d", self.arrival_s)
        self.latest_prefill_start_s = array("d", self.arrival_s)
        """As `prefill_start_s`, but of the latest prefill where preemption caused several."""
        self.first_token_s = array("d", self.arrival_s)
        self.finish_s = array("d", self.arrival_s)
        self.preemptions = array("q", [0]) * total
        self.recomputed_tokens = array("q", [0]) * total
        self.generated_tokens = array("q", [0]) * total
        self.rejected = np.zeros(total, dtype=bool)
        self.completed = 0
        self.end_s = 0.0
        """When the latest request completed."""
        self.on_end: Callable[[], None] | None = None
        """Called whenever a request completes or is rejected."""
        self._progress = progress
        self._report_every = max(1, total // PROGRESS_REPORTS)
        self._done = 0

    def arrive(self, index: int, now: float) -> Sequence:
        """Request `index` arrived."""
        self.arrival_s[index] = now
        return Sequence(index, self.input_tokens[index], self.cached_tokens[index], self.output_tokens[index])

    def reject(self, sequence: Sequence) -> None:
        """The request can never be served."""
        self.rejected[sequence.id] = True
        self._end()

    def start_prefill(self, started: list[Sequence], now: float) -> None:
        """Prompts began to be computed (again, if preempted)."""
        for sequence in started:
            self.latest_prefill_start_s[sequence.id] = now
            if math.isnan(self.prefill_start_s[sequence.id]):
                self.prefill_start_s[sequence.id] = now

    def end_prefill(self, sequence: Sequence, now: float) -> None:
        """The prompt is computed, and with it one more token generated."""
        if sequence.generated_tokens == 0:
            self.prefill_end_s[sequence.id] = now
        sequence.generated_tokens += 1

    def deliver_first(self, sequence: Sequence, now: float) -> None:
        """A token reaches the client; only the first one is noted."""
        if math.isnan(self.first_token_s[sequence.id]):
            self.first_token_s[sequence.id] = now

    def preempt(self, sequence: Sequence) -> None:
        """The sequence lost its KV; prompt and generated tokens will be computed again."""
        self.preemptions[sequence.id] += 1
        self.recomputed_tokens[sequence.id] += sequence.context_tokens - sequence.cached_tokens

    def finish(self, sequence: Sequence, now: float) -> None:
        """The last token was generated."""
        self.finish_s[sequence.id] = self.end_s = now
        self.generated_tokens[sequence.id] = sequence.generated_tokens
        self.completed += 1
        self._end()

    def table(self) -> RequestTable:
        """The columns of the run record."""
        return RequestTable(
            arrival_s=np.array(self.arrival_s),
            input_tokens=np.array(self.input_tokens, dtype=np.int64),
            cached_tokens=np.array(self.cached_tokens, dtype=np.int64),
            output_tokens=np.array(self.output_tokens, dtype=np.int64),
            prefill_start_s=np.array(self.prefill_start_s),
            prefill_end_s=np.array(self.prefill_end_s),
            first_token_s=np.array(self.first_token_s),
            finish_s=np.array(self.finish_s),
            preemptions=np.array(self.preemptions, dtype=np.int64),
            recomputed_tokens=np.array(self.recomputed_tokens, dtype=np.int64),
            generated_tokens=np.array(self.generated_tokens, dtype=np.int64),
            rejected=self.rejected,
        )

    def _end(self) -> None:
        self._done += 1
        if self._progress is not None and (self._done % self._report_every == 0 or self._done == self.total):
            self._progress(self._done, self.total)
        if self.on_end is not None:
            self.on_end()


class Meter:
    """How long the workers of a pool worked, by activity, and how much of it inside the measurement window."""

    def __init__(self, setup: PoolSetup, window: "Window") -> None:
        self._setup = setup
        self._window = window
        self._busy_s: dict[str, float] = {}
        self._in_window_s = 0.0
        self.new_tokens = 0
        self.steps = 0

    def work(self, start_s: float, end_s: float) -> None:
        """A worker was busy from `start_s` to `end_s`."""
        inside = min(end_s, self._window.end_s) - max(start_s, self._window.start_s)
        if inside > 0:
            self._in_window_s += inside

    def charge(self, activity: str, seconds: float) -> None:
        """Book worker seconds on an activity."""
        self._busy_s[activity] = self._busy_s.get(activity, 0.0) + seconds

    def compute(self, chunk: Chunk, prefill_s: float, cached_s: float) -> None:
        """Book a step that computes prompt tokens: its seconds for the new ones and for their cached prefixes."""
        self.charge("prefill", prefill_s)
        if cached_s:
            self.charge("cached", cached_s)
        self.new_tokens += int(chunk.tokens.sum())
        self.steps += 1

    def record(self, peak_blocks: int, blocks_left: int) -> PoolRecord:
        """The pool's totals."""
        setup = self._setup
        return PoolRecord(
            gpus=setup.workers * setup.gpus,
            busy_gpu_s={activity: s * setup.gpus for activity, s in self._busy_s.items()},
            busy_in_window_s=self._in_window_s / setup.workers,
            new_tokens=self.new_tokens,
            steps=self.steps,
            kv_cache_peak=peak_blocks / setup.kv_blocks,
            kv_blocks_leaked=blocks_left,
        )


class Window:
    """The measurement window. In a closed loop its end is known only when it is reached."""

    def __init__(self, start_s: float, end_s: float = math.inf) -> None:
        self.start_s = start_s
        self.end_s = end_s
