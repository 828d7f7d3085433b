"""The sections of a scenario that say what was promised to users, and what a GPU-hour costs."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, ClassVar, Final

from pydantic import BeforeValidator, Field, field_validator, model_validator

from sim.scenario.section import GpuCount, NonNegativeFloat, PositiveFloat, PositiveSeconds, Section, unit
from sim.scenario.spelling import tier_name

MOST_PRICES: Final = 1440
"""Of a day: one a minute."""
HourOfDay = Annotated[
    float, Field(ge=0, lt=24, allow_inf_nan=False, strict=True, json_schema_extra=unit("h"))
]
UtcOffset = Annotated[
    float, Field(ge=-12, le=14, allow_inf_nan=False, strict=True, json_schema_extra=unit("h"))
]
TierName = Annotated[str, BeforeValidator(tier_name)]


class Objectives(Section):
    """What the user promises its users; goodput counts the requests that keep all of it."""

    ttft_p99_s: PositiveSeconds | None = Field(default=None, description="time to first token, seconds")
    tpot_p99_s: PositiveSeconds | None = Field(default=None, description="time per output token, seconds")
    e2e_p99_s: PositiveSeconds | None = Field(default=None, description="arrival to last token, seconds")


class PriceFrom(Section):
    """The price of a GPU-hour from an hour of the day on."""

    from_hour: HourOfDay = Field(description="hour of the day, of the run's own clock")
    usd_per_gpu_hour: PositiveFloat = Field(
        description="USD per GPU-hour from then on", json_schema_extra=unit("USD")
    )


class Reserved(Section):
    """GPUs that are paid for round the clock, used or not."""

    displaces: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "tier": ("usd_per_gpu_hour",),
        "usd_per_gpu_hour": ("tier",),
    }

    gpus: GpuCount = Field(description="GPUs of the whole service")
    tier: TierName | None = Field(default=None, description="a price tier of the catalog, such as res_1yr")
    usd_per_gpu_hour: PositiveFloat | None = Field(
        default=None, description="USD per GPU-hour, instead of a tier", json_schema_extra=unit("USD")
    )

    @model_validator(mode="after")
    def _one_source(self) -> "Reserved":
        if (self.tier is None) == (self.usd_per_gpu_hour is None):
            raise ValueError("expected exactly one of `tier` and `usd_per_gpu_hour`")
        return self


class Price(Section):
    """What a GPU-hour costs: the same always, or by the hour of the day; and less where it is reserved."""

    displaces: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "tier": ("usd_per_gpu_hour", "hours"),
        "usd_per_gpu_hour": ("tier", "hours"),
        "hours": ("tier", "usd_per_gpu_hour"),
    }

    tier: TierName | None = Field(default=None, description="a price tier of the catalog, such as rent_3yr")
    usd_per_gpu_hour: PositiveFloat | None = Field(
        default=None, description="USD per GPU-hour, instead of the catalog's", json_schema_extra=unit("USD")
    )
    hours: Annotated[tuple[PriceFrom, ...], Field(min_length=1, max_length=MOST_PRICES)] | None = Field(
        default=None,
        description="USD per GPU-hour by the hour of the day, instead of one; each holds until the next, every day "
        "again; where neither load nor workers change by the hour, their mean",
    )
    reserved: Reserved | None = Field(
        default=None,
        description="GPUs that are paid for round the clock at a price of their own; default: none",
    )
    utc_offset_h: UtcOffset | None = Field(
        default=None,
        description="hours that the run's clock is ahead of UTC, for public API prices by the hour; default: the "
        "daily curve's, else 0",
    )
    overhead_fraction: NonNegativeFloat | None = Field(
        default=None, description="cost beside GPUs as a fraction of the GPU cost; default from the catalog"
    )
    host_usd_per_gb_month: NonNegativeFloat | None = Field(
        default=None,
        description="of the prefix cache's host memory; default from the catalog",
        json_schema_extra=unit("USD"),
    )
    disk_usd_per_gb_month: NonNegativeFloat | None = Field(
        default=None,
        description="of the prefix cache's disks; default from the catalog",
        json_schema_extra=unit("USD"),
    )
    margin: Annotated[float, Field(ge=0, lt=1, strict=True)] = Field(
        default=0.0, description="share of the selling price kept as margin"
    )

    @model_validator(mode="after")
    def _one_source(self) -> "Price":
        given = [key for key in ("tier", "usd_per_gpu_hour", "hours") if getattr(self, key) is not None]
        if len(given) > 1:
            says = "not both" if len(given) == 2 else "not all"
            raise ValueError(f"expected {' or '.join(f'`{key}`' for key in given)}, {says}")
        return self

    @field_validator("hours")
    @classmethod
    def _through_the_day(cls, hours: tuple[PriceFrom, ...] | None) -> tuple[PriceFrom, ...] | None:
        starts = [one.from_hour for one in hours or ()]
        if starts and (starts[0] != 0 or any(later <= earlier for earlier, later in pairwise(starts))):
            raise ValueError("expected from_hour 0 first, then ascending below 24")
        return hours
