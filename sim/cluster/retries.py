"""The books of a run whose workers fail: requests that were lost are asked again, and answered once."""

import math
from array import array
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sim.cluster.ledger import Ledger, Progress
from sim.cluster.record import RequestSummary
from sim.scenario.errors import DeploymentError, Problem
from sim.serving.served_request import ServedRequest

MOST_RETRIES: Final = 1000
"""Of one request. A worker that fails that often before it answers never will."""


class RetryLedger(Ledger):
    """What is told of a request begins with its first try: its prefill starts once, its client gets a first token once.

    A later try counts in between: it is part of the prefill until the first token is out, and of the decode after.
    """

    def __init__(
        self,
        expected: int,
        progress: Progress | None,
        keeps_prefix: bool,
        summary: RequestSummary | None = None,
    ) -> None:
        """`keeps_prefix`: a request that is asked again looks for its prefix in the cache."""
        self.retries = array("q")
        super().__init__(expected, progress, summary)
        self._keeps_prefix = keeps_prefix
        self.retried_s: list[float] = []
        self.left: Callable[[int], None] = lambda index: None
        """Told each request (its position in order of arrival) that completes."""

    def start_prefill(self, started: list[ServedRequest], now: float) -> None:
        """See `Ledger.start_prefill`. The first try may itself be one that found nothing in the cache any more."""
        for sequence in started:
            if math.isnan(self.prefill_start_s[sequence.row]):
                self.cached_tokens[sequence.row] = sequence.cached_tokens
        super().start_prefill(started, now)

    def end_prefill(self, sequence: ServedRequest, now: float) -> None:
        """See `Ledger.end_prefill`."""
        if math.isnan(self.first_token_s[sequence.row]):
            super().end_prefill(sequence, now)
        else:
            sequence.generated_tokens += 1

    def finish(self, sequence: ServedRequest, now: float) -> None:
        """See `Ledger.finish`."""
        self.left(sequence.id)
        super().finish(sequence, now)

    def lose(self, lost: list[ServedRequest], now: float) -> None:
        """Their worker has failed: a first token that was still on its way never comes, and what was not computed of a
        prompt under way is not part of what will be computed again."""
        for sequence in lost:
            row = sequence.row
            if self.first_token_s[row] > now:
                self.placed_s[row] = self.received_s[row] = self.first_token_s[row] = math.nan
            if sequence.computed_tokens > sequence.cached_tokens:
                self.recomputed_tokens[row] += sequence.computed_tokens - sequence.prefill_tokens

    def retry(self, sequence: ServedRequest, now: float) -> ServedRequest:
        """The same request, with nothing of its answer."""
        self.retries[sequence.row] += 1
        if self.retries[sequence.row] > MOST_RETRIES:
            says = f"a request was asked again {MOST_RETRIES:,} times: workers fail before they can answer it"
            raise DeploymentError([Problem(("failures", "per_gpu_hour"), says)])
        self.retried_s.append(now)
        kept = self._keeps_prefix
        return ServedRequest(
            sequence.id,
            sequence.prompt_tokens,
            sequence.cached_tokens if kept else 0,
            sequence.output_tokens,
            request=sequence.request,
            blocks=sequence.blocks if kept else (),
            answer_blocks=sequence.answer_blocks if kept else (),
            row=sequence.row,
        )

    def counts(self) -> NDArray[np.int64]:
        """Retries of each request; none where a summary has them."""
        rows = self._used if self._summary is None else 0
        return np.frombuffer(self.retries, np.int64)[:rows]

    def _retries(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `Ledger._retries`; they are forgotten with the rows."""
        column = np.frombuffer(self.retries, np.int64)
        found = column[at]
        column[at] = 0
        return found

    def _grow(self, rows: int) -> None:
        super()._grow(rows)
        self.retries.extend([0] * rows)
