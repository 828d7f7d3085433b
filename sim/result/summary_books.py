"""What `metrics: summary` keeps of the requests of a run: sums and histograms, of one size however many there are.

A part of them at a time goes through the same reckoning as a table of all rows, and is added up. So sums are those of
the rows, but for the last digits; percentiles are within `histogram.WIDTH`; what a backlog does is told to the end of
one of 8,192 parts of the time.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sim.cluster.record import RequestTable, Tokens
from sim.cluster.staff import by_the_clock
from sim.cluster.window import STEADY_ARRIVALS, tokens_within, within
from sim.result.histogram import Batches, Histogram, bin_of, merged
from sim.result.invariants import ROUNDING, needed_tokens, wrong_rows
from sim.result.percentiles import BATCHES, Batch, Intervals, batch_means, percentiles
from sim.result.stability import QueueOverTime, backlog_grows
from sim.result.totals import LATENCIES, Figures, OfHour, Totals, latencies, meets
from sim.scenario.schema import Scenario
from sim.units import HOUR_S

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Span = tuple[float, float]

MEASURED: Final = "measured"
WARM: Final = "from the warm-up on"
ALL: Final = "all"


class _Served:
    """What was served in one window."""

    def __init__(self) -> None:
        self.tokens, self.good = Tokens(0.0, 0.0, 0.0), 0


class _Hour:
    """Requests that arrived in one hour."""

    def __init__(self) -> None:
        self.counts = np.zeros(5, dtype=np.int64)
        """As the first five of `OfHour`."""
        self.seconds = {"ttft_s": Histogram(), "tpot_s": Histogram()}


class SummaryBooks:
    """Both a `RequestSummary`, which the cluster fills, and `Books`, which the figures are taken from."""

    def __init__(self, scenario: Scenario, limits: Sequence[float]) -> None:
        """`limits`: tokens of a request, prompt and answer, beyond which it will be asked how many there were."""
        self._scenario = scenario
        self.totals = Totals()
        self.retried = 0
        self._batches = {name: Batches() for name in LATENCIES}
        self._hours: defaultdict[int, _Hour] = defaultdict(_Hour)
        self._limits = sorted(set(limits))
        self._longer = [[0, 0] for _ in range(len(self._limits) + 1)]
        """Requests and the most tokens of one: up to the first limit, between it and the second, ..."""
        self._queue = QueueOverTime()
        self._wrong: Counter[str] = Counter()
        self._needed = [0, 0]
        self._stays_s, self._stays = 0.0, 0
        self._answers = [0, 0]
        """Requests, and tokens of their answers as they were asked for."""
        self._shortest_s: dict[int, float] = {}
        """The shortest stay by the bin of the answer's tokens."""
        self._latest_s = np.zeros(0)
        """The last arrivals in the window that is measured, as many as matter."""
        self._arrivals_s, self._finish_s = (np.inf, -np.inf), -np.inf
        self._served: defaultdict[Any, _Served] = defaultdict(_Served)
        """By window."""
        self._window_s: Callable[[], Span]
        self._parts: list[Span] = []
        self._told: dict[Span, str] = {}

    # -- what the cluster tells

    def measure(self, window_s: Callable[[], Span]) -> None:
        """See `RequestSummary`. A fleet also asks for equal parts of its window, where the end of that is known."""
        self._window_s, ends_s = window_s, window_s()
        if self._scenario.fleet and np.isfinite(ends_s[1]):
            edges = np.linspace(*ends_s, BATCHES + 1).tolist()
            self._parts = [*pairwise(edges)]

    def fold(self, ended: RequestTable, retries: Ints, end_s: float = np.inf) -> None:
        """See `RequestSummary`."""
        if not len(ended.arrival_s):
            return
        columns = latencies(ended)
        kept = meets(self._scenario.objectives, columns)
        window_s, warmup_s = self._window_s(), self._scenario.warmup_s
        counted, completed = ended.arrival_s >= warmup_s, ~np.isnan(ended.finish_s)
        self.totals += Totals.of(ended, counted, retries)
        self.retried += int(retries.sum())
        for name, batches in self._batches.items():
            seconds = columns[name][counted & completed]
            batches.add(seconds[~np.isnan(seconds)])
        windows = {MEASURED: window_s, WARM: (warmup_s, np.inf), ALL: (0.0, np.inf)}
        for key, ends_s in (*windows.items(), *((part, part) for part in self._parts)):
            served = self._served[key]
            served.tokens += tokens_within(ended, ends_s, end_s)
            served.good += int((kept & within(ended.finish_s, ends_s)).sum())
        if by_the_clock(self._scenario):
            self._fold_hours(ended, columns, kept, completed)
        self._fold_stays(ended, completed)
        late_s = np.append(self._latest_s, ended.arrival_s[ended.arrival_s <= window_s[1]])
        self._latest_s = np.sort(late_s)[-STEADY_ARRIVALS:]
        came = ~ended.rejected
        self._queue.add(ended.arrival_s[came], ended.first_token_s[came])
        for wrong, says in wrong_rows(ended, retries, np.inf):
            self._wrong[says] += int(wrong.sum())
        self._needed = [sum(pair) for pair in zip(self._needed, needed_tokens(ended), strict=True)]
        tokens = ended.input_tokens + ended.output_tokens
        for place, longest in enumerate(self._longer):
            among = tokens[np.searchsorted(self._limits, tokens) == place]
            longest[:] = longest[0] + len(among), int(among.max(initial=longest[1]))

    def _fold_hours(
        self,
        table: RequestTable,
        columns: dict[str, Floats],
        kept: NDArray[np.bool_],
        done: NDArray[np.bool_],
    ) -> None:
        hours = (table.arrival_s // HOUR_S).astype(np.int64)
        for number in np.unique(hours).tolist():
            hour, part = self._hours[number], hours == number
            finished = part & done
            tokens = (int(of[finished].sum()) for of in (table.input_tokens, table.output_tokens))
            hour.counts += [int(part.sum()), int(finished.sum()), *tokens, int((finished & ~kept).sum())]
            for name, seconds in hour.seconds.items():
                seconds += Histogram(columns[name][part & ~np.isnan(columns[name])])  # noqa: PLW2901

    def _fold_stays(self, table: RequestTable, completed: NDArray[np.bool_]) -> None:
        self._answers[0] += len(table.output_tokens)
        self._answers[1] += int(table.output_tokens.sum())
        first_s, last_s = self._arrivals_s
        self._arrivals_s = (
            min(first_s, float(table.arrival_s.min())),
            max(last_s, float(table.arrival_s.max())),
        )
        if not completed.any():
            return
        stays_s = table.stays_s[completed]
        self._stays_s += float(stays_s.sum())
        self._stays += len(stays_s)
        self._finish_s = max(self._finish_s, float(table.finish_s[completed].max()))
        sizes = bin_of(table.output_tokens[completed].astype(np.float64))
        kinds, where = np.unique(sizes, return_inverse=True)
        shortest_s = np.full(len(kinds), np.inf)
        np.minimum.at(shortest_s, where, stays_s)
        for size, stay_s in zip(kinds.tolist(), shortest_s.tolist(), strict=True):
            self._shortest_s[size] = min(stay_s, self._shortest_s.get(size, np.inf))

    def close(self, window_s: Span, steady: bool, end_s: float) -> None:
        """See `RequestSummary`."""
        self._told = {(0.0, end_s): ALL, window_s: MEASURED if steady else WARM}
        self._wrong["finished after the end of the run"] += self._finish_s > end_s * (1 + ROUNDING)

    # -- what is asked

    def mean_stay_s(self) -> float | None:
        """See `RequestTable`."""
        return self._stays_s / self._stays if self._stays else None

    def unhindered_stay_s(self) -> float | None:
        """See `RequestTable`."""
        requests, tokens = self._answers
        if not requests:
            return None
        mean = int(bin_of(np.array([tokens / requests]))[0])
        return min((s for size, s in self._shortest_s.items() if size >= mean), default=None)

    def late_arrivals(self, window_s: Span, enough: int) -> int:
        """See `RequestTable`; the window ends with the one that is measured."""
        return min(enough, int(within(self._latest_s, window_s).sum()))

    def arrivals_s(self) -> Span | None:
        """See `RequestTable`."""
        return self._arrivals_s if self._answers[0] else None

    def tokens(self, window_s: Span) -> Tokens:
        """See `RequestSummary`."""
        return self._served[self._key(window_s)].tokens

    def good(self, window_s: Span) -> int:
        """See `Books`."""
        return self._served[self._key(window_s)].good

    def _key(self, window_s: Span) -> str | Span:
        key: str | Span = self._told.get(window_s, window_s)
        if key != window_s or key in self._parts:
            return key
        raise LookupError(f"no summary was kept of what was served from {window_s[0]:g} to {window_s[1]:g} s")

    def percentiles(self, latency: str, known: bool) -> Figures:
        """See `Books`."""
        return percentiles(self._batches[latency].whole(), known)

    def intervals(self, latency: str) -> Intervals:
        """See `Books`."""
        return batch_means(*self.in_batches(latency))

    def in_batches(self, latency: str) -> Batch:
        """See `Books`; batches of about as many requests."""
        batches = self._batches[latency]
        return batches.whole(), batches.parts(BATCHES)

    def grows(self, window_s: Span) -> bool:
        """See `Books`."""
        self._queue.resolve(window_s[1])  # those that come last may have been rejected
        return backlog_grows(self._queue, window_s)

    def hour(self, number: int, ends_s: Span) -> OfHour:
        """See `Books`."""
        last = np.isinf(ends_s[1])
        mine = [_Hour()] + [
            hour for at, hour in self._hours.items() if at == number or (last and at > number)
        ]
        arrived, completed, *tokens, missed = (
            int(sum(of)) for of in zip(*(h.counts for h in mine), strict=True)
        )
        ttft_s, tpot_s = (percentiles(merged(h.seconds[name] for h in mine)) for name in ("ttft_s", "tpot_s"))
        return OfHour(arrived, completed, tokens[0], tokens[1], missed, ttft_s, tpot_s)

    def beyond(self, above: float, most: float) -> tuple[int, int]:
        """See `Books`; both are limits, or infinite."""
        low, high = (bisect_right(self._limits, limit) for limit in (above, most))
        part = self._longer[low : high if np.isfinite(most) else None]
        return sum(count for count, _ in part), max((longest for _, longest in part), default=0)

    def bins(self) -> Iterator[tuple[str, float, float, int]]:
        """See `RequestSummary`."""
        for name, batches in self._batches.items():
            for from_s, to_s, count in batches.whole().bins():
                yield name, from_s, to_s, count

    @property
    def needed_tokens(self) -> tuple[int, int]:
        """See `RequestSummary`."""
        return self._needed[0], self._needed[1]

    def unsound(self) -> list[str]:
        """See `RequestSummary`."""
        return [f"{count:,} requests {says}" for says, count in self._wrong.items() if count]
