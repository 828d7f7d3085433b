"""What the figures of a run ask of its requests, whether these have a row each or a summary."""

from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sim.cluster.record import RunRecord
from sim.cluster.window import within
from sim.result.percentiles import Batch, Intervals, batch_means, in_batches, percentiles
from sim.result.stability import Queue, backlog_grows
from sim.result.summary_books import SummaryBooks
from sim.result.totals import Figures, OfHour, Totals, latencies, meets

Floats = NDArray[np.float64]
Span = tuple[float, float]


class Books(Protocol):
    """Requests of a run."""

    @property
    def totals(self) -> Totals:
        """Of those that arrived after the warm-up."""
        ...

    def percentiles(self, latency: str, known: bool) -> Figures:
        """See `sim.result.percentiles`, of the completed ones that arrived after the warm-up."""
        ...

    def intervals(self, latency: str) -> Intervals:
        """Likewise."""
        ...

    def in_batches(self, latency: str) -> Batch:
        """What the intervals are made of."""
        ...

    def good(self, window_s: Span) -> int:
        """Requests that finish in the window and keep every objective. Raises LookupError; see `RequestSummary`."""
        ...

    def grows(self, window_s: Span) -> bool:
        """See `sim.result.stability`; what is rejected waits for nothing."""
        ...

    def hour(self, number: int, ends_s: Span) -> OfHour:
        """Of the run; the last one holds whatever came after its start."""
        ...

    def beyond(self, above: float, most: float) -> tuple[int, int]:
        """Requests with more tokens, prompt and answer, than `above` and no more than `most`; and the most of one."""
        ...


class RowBooks:
    """Every request has a row."""

    def __init__(self, record: RunRecord) -> None:
        table = record.requests
        self._table, self._columns = table, latencies(table)
        self._retries = record.life.retries if record.life else None
        self._counted = table.arrival_s >= record.window_s[0]
        self._completed = self._counted & ~np.isnan(table.finish_s)
        self._kept = meets(record.scenario.objectives, self._columns)

    @cached_property
    def totals(self) -> Totals:
        """See `Books`."""
        return Totals.of(self._table, self._counted, self._retries)

    def percentiles(self, latency: str, known: bool) -> Figures:
        """See `Books`."""
        return percentiles(self._columns[latency][self._completed], known)

    def intervals(self, latency: str) -> Intervals:
        """See `Books`."""
        return batch_means(*self.in_batches(latency))

    def in_batches(self, latency: str) -> Batch:
        """See `Books`."""
        return in_batches(self._columns[latency][self._completed])

    def good(self, window_s: Span) -> int:
        """See `Books`."""
        return int((self._kept & within(self._table.finish_s, window_s)).sum())

    def grows(self, window_s: Span) -> bool:
        """See `Books`."""
        came = ~self._table.rejected
        return backlog_grows(Queue(self._table.arrival_s[came], self._table.first_token_s[came]), window_s)

    def hour(self, number: int, ends_s: Span) -> OfHour:
        """See `Books`."""
        table, part = self._table, slice(*np.searchsorted(self._table.arrival_s, ends_s))
        done = ~np.isnan(table.finish_s[part])
        return OfHour(
            arrived=len(done),
            completed=int(done.sum()),
            input_tokens=int(table.input_tokens[part][done].sum()),
            output_tokens=int(table.output_tokens[part][done].sum()),
            missed=int((done & ~self._kept[part]).sum()),
            ttft_s=percentiles(self._columns["ttft_s"][part]),
            tpot_s=percentiles(self._columns["tpot_s"][part]),
        )

    def beyond(self, above: float, most: float) -> tuple[int, int]:
        """See `Books`."""
        tokens = self._table.input_tokens + self._table.output_tokens
        long = tokens[(tokens > above) & (tokens <= most)]
        return len(long), int(long.max(initial=0))


def books(record: RunRecord) -> Books:
    """Of a run."""
    if record.summary is None:
        return RowBooks(record)
    assert isinstance(record.summary, SummaryBooks)
    return record.summary
