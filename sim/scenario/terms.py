"""The sections of a scenario that say what was promised to users, and what a GPU-hour costs."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from sim.scenario.section import NonNegativeFloat, PositiveFloat, PositiveSeconds, Section, unit


class Objectives(Section):
    """What the user promises its users; goodput counts the requests that keep all of it."""

    ttft_p99_s: PositiveSeconds | None = Field(default=None, description="time to first token, seconds")
    tpot_p99_s: PositiveSeconds | None = Field(default=None, description="time per output token, seconds")
    e2e_p99_s: PositiveSeconds | None = Field(default=None, description="arrival to last token, seconds")


class Price(Section):
    """What a GPU-hour costs."""

    displaces: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "tier": ("usd_per_gpu_hour",),
        "usd_per_gpu_hour": ("tier",),
    }

    tier: str | None = Field(default=None, description="a price tier of the catalog, such as rent_3yr")
    usd_per_gpu_hour: PositiveFloat | None = Field(
        default=None, description="USD per GPU-hour, instead of the catalog's", json_schema_extra=unit("USD")
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
        if self.tier is not None and self.usd_per_gpu_hour is not None:
            raise ValueError("expected `tier` or `usd_per_gpu_hour`, not both")
        return self
