"""What a run leaves behind: one row per request, one total per pool. Read by `sim.result` and `sim.price`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from sim.cluster.life_record import LifeRecord
from sim.scenario.schema import Scenario

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens that were served, by what they pay for."""

    cached: float
    """Prompt tokens from the prefix cache."""
    uncached: float
    """Prompt tokens that were computed."""
    output: float

    @property
    def all(self) -> float:
        """Of all kinds."""
        return self.cached + self.uncached + self.output

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.cached + other.cached, self.uncached + other.uncached, self.output + other.output)


@dataclass
class RequestTable:
    """Columns over requests, in order of arrival. Times in seconds of the simulated clock; NaN where it never came.

    A rejected request (it can never fit) has NaN in every time after `arrival_s` and `rejected` True.
    """

    arrival_s: Floats
    input_tokens: Ints
    cached_tokens: Ints
    """Prompt tokens served from the prefix cache at first admission."""
    cached_host_tokens: Ints
    """Of these, from host memory."""
    cached_disk_tokens: Ints
    """Of these, from disk; the others from HBM."""
    output_tokens: Ints
    prefill_start_s: Floats
    blocked_s: Floats
    """Seconds before that in which the next prompt of its rank found no seat or no KV blocks."""
    prefill_end_s: Floats
    placed_s: Floats
    """When a decode rank had a seat and KV blocks for it; as `prefill_end_s` where its prompt was computed there."""
    received_s: Floats
    """When its KV was whole on that rank; likewise."""
    first_token_s: Floats
    """First output token at the client: after prefill, and the KV transfer where there is one."""
    finish_s: Floats
    preemptions: Ints
    recomputed_tokens: Ints
    """Tokens computed again because of preemption; not part of `input_tokens`."""
    generated_tokens: Ints
    """Output tokens actually generated; equals `output_tokens` for completed requests."""
    rejected: NDArray[np.bool_]

    @property
    def stays_s(self) -> Floats:
        """Seconds in prefill and decode of each."""
        return self.prefill_end_s - self.prefill_start_s + self.finish_s - self.first_token_s

    def mean_stay_s(self) -> float | None:
        """Mean seconds in prefill and decode of the completed requests; None without any."""
        stays_s = self.stays_s[~np.isnan(self.finish_s)]
        return float(stays_s.mean()) if len(stays_s) else None

    def unhindered_stay_s(self) -> float | None:
        """The shortest stay of the completed answers of at least mean length; None without any."""
        long = (self.output_tokens >= self.output_tokens.mean()) & ~np.isnan(self.finish_s)
        return float(self.stays_s[long].min()) if long.any() else None

    def late_arrivals(self, window_s: tuple[float, float], enough: int) -> int:
        """Requests that arrive in the window, or `enough` if there are more."""
        late = (self.arrival_s >= window_s[0]) & (self.arrival_s <= window_s[1])
        return min(enough, int(late.sum()))

    def arrivals_s(self) -> tuple[float, float] | None:
        """The first arrival and the last one; None where nobody came."""
        times_s = self.arrival_s
        return (float(times_s.min()), float(times_s.max())) if len(times_s) else None

    def take(self, rows: Ints) -> Self:
        """These rows, in this order."""
        return type(self)(**{name: column[rows] for name, column in vars(self).items()})


class RowsNotKeptError(ValueError):
    """Rows of requests are asked of a run that kept a summary."""


class NoRows(RequestTable):
    """In place of the table where the scenario asks for a summary: whoever needs rows hears why there are none."""

    def __init__(self) -> None:
        """Without any column."""

    def __getattr__(self, column: str) -> Floats:
        raise RowsNotKeptError(
            f"`metrics: summary` keeps no rows of requests, so there is no `{column}` of each; `metrics: rows` does"
        )


class RequestSummary(Protocol):
    """What is kept of requests where no rows are: told of them a part at a time, as they end."""

    def measure(self, window_s: Callable[[], tuple[float, float]]) -> None:
        """Before the run: what will be measured; the window's end may move while it is not reached."""
        ...

    def fold(self, ended: RequestTable, retries: Ints, end_s: float = ...) -> None:
        """These requests have ended, with so many retries each; or the run has, at `end_s`, with them in flight."""
        ...

    def close(self, window_s: tuple[float, float], steady: bool, end_s: float) -> None:
        """The run has ended, and this is what is measured of it."""
        ...

    def mean_stay_s(self) -> float | None:
        """See `RequestTable`, as for the next three."""
        ...

    def unhindered_stay_s(self) -> float | None: ...
    def late_arrivals(self, window_s: tuple[float, float], enough: int) -> int: ...
    def arrivals_s(self) -> tuple[float, float] | None: ...

    def tokens(self, window_s: tuple[float, float]) -> Tokens:
        """Tokens of the measured window, of the whole run, or of a part that was known from the start.

        Raises LookupError for another window.
        """
        ...

    def bins(self) -> Iterable[tuple[str, float, float, int]]:
        """(latency, from, to, requests) of the histograms."""
        ...

    def unsound(self) -> list[str]:
        """A sentence for each invariant that requests break."""
        ...

    @property
    def needed_tokens(self) -> tuple[int, int]:
        """Prompt tokens that had to be computed, for the completed requests and for all."""
        ...

    @property
    def retried(self) -> int:
        """How often requests were asked again."""
        ...


@dataclass
class PoolRecord:
    """One pool over the whole run. GPU seconds = worker seconds x GPUs per worker."""

    gpus: int
    busy_gpu_s: dict[str, float] = field(default_factory=dict)
    """GPU seconds of work, by activity: `prefill` (computing new prompt tokens), `decode`, `cached` (re-reading
    cached prefixes)."""
    busy_in_window_s: float = 0.0
    """Worker-mean busy seconds inside the measurement window, for `utilization`."""
    new_tokens: int = 0
    """Prompt tokens computed, recomputation included."""
    steps: int = 0
    decoded_tokens: int = 0
    """Tokens that decode steps generated, of sequences that have left the batch."""
    sequence_steps: int = 0
    """Decode steps that these sequences took, added up over sequences."""
    kv_cache_peak: float = 0.0
    """Highest share of the KV budget in use on any rank."""
    kv_blocks_leaked: int = 0
    """KV blocks still held after everything completed; an invariant says 0."""


@dataclass
class RunRecord:
    """Everything that a run produced, with what was applied."""

    scenario: Scenario
    seed: int
    requests: RequestTable
    """Without rows where there is a `summary`."""
    pools: dict[str, PoolRecord]
    window_s: tuple[float, float]
    """Measurement window: from the end of the warm-up to the last arrival (closed loop: the last completion at full
    concurrency), or the whole run where that is not `steady`: from the first arrival after the warm-up to the last
    completion. Empty where the run ended before its warm-up."""
    end_s: float
    """The last completion."""
    events: int
    wall_s: float
    priced_gpu_s: dict[str, float]
    """Simulated GPU seconds by provenance: measured, fitted, scaled, extrapolated, analytic."""
    steady: bool = True
    """Whether the window shows a service that goes on; see `sim.cluster.window.is_steady`."""
    invariants: list[str] = field(default_factory=list)
    """Sentences about invariants that did not hold; empty after a sound run."""
    life: LifeRecord | None = None
    """None: the workers of the pools were always there."""
    summary: RequestSummary | None = None
    """None: the requests have a row each."""
