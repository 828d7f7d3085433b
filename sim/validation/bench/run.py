"""One run of a benchmark client, in our terms: what it asked for, and what it measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import inf
from pathlib import Path
from typing import Any, Final

import yaml

from sim.validation.recipes import recipes
from sim.validation.rows import Row

FORMATS: Final = Path(__file__).with_name("formats.yaml")
Figures = Mapping[str, Mapping[str, float]]
"""Metric (ttft, tpot, itl, e2e: seconds; requests_per_s, output_tokens_per_s, total_tokens_per_s) -> statistic (mean,
p50, p90, p95, p99, rate) -> value."""


class BenchError(ValueError):
    """A result file that cannot be read or repeated; says which, where, and what was expected."""


@cache
def formats() -> Mapping[str, Any]:
    """`formats.yaml`."""
    return yaml.safe_load(FORMATS.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Load:
    """When a client sent its requests."""

    concurrency: int | None = None
    """In flight at most; None: no bound."""
    rate_per_s: float = inf
    """Requests per second; infinite: as many as may be in flight."""
    cv: float = 1.0
    """Standard deviation of the gaps over their mean."""
    times_s: Sequence[float] | None = None
    """When each was sent, where the file says so."""


@dataclass(frozen=True, slots=True)
class BenchLengths:
    """Tokens of prompts and answers: of each request, or as distributions of a scenario's `workload.lengths`."""

    each: Sequence[tuple[int, int]] | None = None
    input: Mapping[str, Any] = field(default_factory=dict)
    output: Mapping[str, Any] = field(default_factory=dict)

    def in_words(self) -> str:
        """For people."""
        if self.each is not None:
            sums = [sum(side) / len(self.each) for side in zip(*self.each, strict=True)]
            return f"{sums[0]:,.0f} in and {sums[1]:,.0f} out on average, request by request"
        return f"{_distribution(self.input)} in, {_distribution(self.output)} out"


def _distribution(length: Mapping[str, Any]) -> str:
    [(kind, value)] = length.items()
    if kind == "uniform":
        return f"{value[0]:,} to {value[1]:,}"
    return f"{value['mean']:,.0f} +- {value['cv']:.0%}" if kind == "lognormal" else f"{value:,}"


@dataclass(frozen=True, slots=True)
class BenchRun:
    """One run."""

    id: str
    """Of its file, with the line where a file holds several."""
    tool: str
    """A key of `formats()["tools"]`."""
    load: Load
    lengths: BenchLengths
    requests: int
    """That were answered."""
    measured: Figures
    model: str = ""
    """As the client names it."""
    notes: tuple[str, ...] = ()
    row: Row | None = None
    """The deployment, where the file says it."""

    @property
    def about(self) -> Mapping[str, Any]:
        """What is known of its tool."""
        return formats()["tools"][self.tool]  # type: ignore[no-any-return]

    @property
    def in_flight(self) -> int | None:
        """Requests in flight in a closed loop; None where they come at a rate, at times of their own or all at once."""
        load = self.load
        loop = load.times_s is None and load.rate_per_s == inf and (load.concurrency or inf) < self.requests
        return load.concurrency if loop else None

    @property
    def sent_at_once(self) -> bool:
        """Whether nothing holds a request back."""
        return self.in_flight is None and self.load.times_s is None and self.load.rate_per_s == inf

    def simulated(self, most: int) -> int:
        """Requests to simulate, some `most` of them: a few rounds at least of a closed loop, and all of a batch."""
        if self.sent_at_once:
            return self.requests
        rounds = int(recipes()["benchmark"]["rounds_at_least"]["value"])
        return min(self.requests, max(most, rounds * (self.in_flight or 0)))

    def load_in_words(self) -> str:
        """For people."""
        load = self.load
        told = f"{load.concurrency:,} in flight" if load.concurrency else ""
        if load.times_s is not None:
            told = "sent at the file's own times"
        elif load.rate_per_s < inf:
            told = f"{load.rate_per_s:g} requests/s{f', at most {told}' if told else ''}"
        return told or "all at once"


def little(measured: Figures) -> float | None:
    """Requests in flight on average, by Little's law; None where a file does not tell the time of one."""
    rates = [measured.get(name, {}).get("rate") for name in ("requests_per_s", "output_tokens_per_s")]
    e2e, ttft, tpot = (measured.get(name, {}).get("mean") for name in ("e2e", "ttft", "tpot"))
    if rates[0] and rates[1] and ttft and tpot and not e2e:
        e2e = ttft + tpot * (rates[1] / rates[0] - 1)
    return e2e * rates[0] if e2e and rates[0] else None
