"""The `workload` section of a scenario: when requests arrive, and how long they are."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from sim.scenario.section import (
    MOST_TOKENS,
    FileName,
    Fraction,
    OneOf,
    PositiveInt,
    Rate,
    Section,
    TokenCount,
    unit,
)


class PoissonArrivals(Section):
    """Arrivals without memory."""

    rate_per_s: Rate = Field(description="mean arrivals per second")


class GammaArrivals(Section):
    """Gamma-distributed gaps: bursty above cv 1, regular below."""

    rate_per_s: Rate = Field(description="mean arrivals per second")
    # Shapes 1 / cv^2 of 0.01 and of 1e6: beyond the first, gaps are too small for floating point.
    cv: Annotated[float, Field(ge=1e-3, le=10, strict=True)] = Field(
        description="coefficient of variation of the gaps"
    )


class ClosedLoop(Section):
    """A fixed number of requests in flight: each completion starts the next."""

    concurrency: PositiveInt = Field(description="requests in flight")


class Diurnal(Section):
    """Poisson arrivals whose rate follows a daily curve."""

    mean_rate_per_s: Rate = Field(description="mean arrivals per second over the curve")
    curve: FileName = Field(description="name of a shipped curve, or a CSV file with columns hour,load")


class AllAtOnce(Section):
    """Everything arrives at time zero: an offline batch."""


class Arrivals(OneOf):
    """When requests arrive: exactly one kind."""

    poisson: PoissonArrivals | None = Field(default=None, description="open loop, gaps without memory")
    gamma: GammaArrivals | None = Field(default=None, description="open loop, bursty or regular gaps")
    closed_loop: ClosedLoop | None = Field(default=None, description="a fixed number of requests in flight")
    diurnal: Diurnal | None = Field(
        default=None, description="open loop, a rate that follows the hours of a day"
    )
    all_at_once: AllAtOnce | None = Field(
        default=None, description="an offline batch: everything at time zero"
    )


class Lognormal(Section):
    """Lognormal lengths given by their own mean and coefficient of variation."""

    mean: Annotated[float, Field(ge=1, le=MOST_TOKENS, strict=True, json_schema_extra=unit("tokens"))] = (
        Field(description="mean number of tokens")
    )
    cv: Annotated[float, Field(ge=1e-3, le=100, strict=True)] = Field(description="standard deviation / mean")


class Length(OneOf):
    """A distribution of token counts: exactly one kind."""

    constant: TokenCount | None = Field(default=None, description="always this many tokens")
    uniform: tuple[TokenCount, TokenCount] | None = Field(
        default=None, description="[low, high], both included"
    )
    lognormal: Lognormal | None = Field(
        default=None, description="lognormal, by mean and coefficient of variation"
    )
    histogram: FileName | None = Field(default=None, description="CSV file with columns tokens,weight")

    @model_validator(mode="after")
    def _in_order(self) -> "Length":
        if self.uniform and self.uniform[0] > self.uniform[1]:
            raise ValueError(f"uniform: low {self.uniform[0]} is above high {self.uniform[1]}")
        return self


class Lengths(Section):
    """Prompt and answer lengths."""

    input: Length = Field(description="prompt tokens")
    output: Length = Field(description="generated tokens")


ColumnName = Annotated[str, Field(min_length=1)]


class TraceColumns(Section):
    """What a trace's file calls its columns, where its own names are not known: these go before those that are."""

    arrival: ColumnName | None = Field(default=None, description="column of the times of requests")
    input: ColumnName | None = Field(default=None, description="column of prompt tokens")
    output: ColumnName | None = Field(default=None, description="column of generated tokens")
    blocks: ColumnName | None = Field(default=None, description="column of block hashes")


class Workload(Section):
    """A trace, or arrivals and lengths."""

    displaces: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "trace": ("arrivals", "lengths", "time_unit", "columns"),
        "lengths": ("trace", "time_unit", "columns"),
    }

    trace: FileName | None = Field(
        default=None, description="a shipped trace or a file (.csv, .jsonl, .parquet)"
    )
    time_unit: Literal["s", "ms", "us", "ns"] | None = Field(
        default=None,
        description="what the times of a trace's file count, where neither its columns nor its numbers tell",
    )
    columns: TraceColumns | None = Field(
        default=None, description="which columns of a trace's file hold what, where their names are not known"
    )
    arrivals: Arrivals | None = Field(
        default=None, description="when requests arrive; beside a trace: instead of its times"
    )
    lengths: Lengths | None = Field(
        default=None, description="prompt and answer lengths, where there is no trace"
    )
    requests: PositiveInt | None = Field(default=None, description="stop after this many requests")
    cached_fraction: Fraction | None = Field(
        default=None,
        description="share of prompt tokens that hit the prefix cache, in place of a trace's block hashes",
    )

    @model_validator(mode="after")
    def _trace_or_synthetic(self) -> "Workload":
        if self.trace is None and (self.arrivals is None or self.lengths is None):
            raise ValueError("expected `trace`, or both `arrivals` and `lengths`")
        if self.trace is None and self.time_unit is not None:
            raise ValueError("`time_unit` is of the times of a `trace`; there is none")
        if self.trace is None and self.columns is not None:
            raise ValueError("`columns` are of the file of a `trace`; there is none")
        if self.trace is not None and self.lengths is not None:
            raise ValueError("a trace brings its own `lengths`; leave one of the two out")
        return self
