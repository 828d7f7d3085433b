"""The sections of a scenario about workers that come and go: autoscaling, failures, and fleets of alike replicas."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from sim.scenario.section import (
    MOST_GPUS,
    MOST_SECONDS,
    FileName,
    Fraction,
    GpuCount,
    PositiveFloat,
    Seconds,
    Section,
    WholeNumber,
    unit,
)

Hours = Annotated[float, Field(ge=0, le=1e5, allow_inf_nan=False, strict=True, json_schema_extra=unit("h"))]
PerGpuHour = Annotated[
    float, Field(ge=0, le=10, allow_inf_nan=False, strict=True, json_schema_extra=unit("per hour"))
]
Period = Annotated[
    float, Field(ge=1, le=MOST_SECONDS, allow_inf_nan=False, strict=True, json_schema_extra=unit("s"))
]
SpareNodes = Annotated[int, Field(ge=0, le=MOST_GPUS, strict=True), WholeNumber]

Signal = Literal["utilization", "requests_per_s", "concurrency"]


class ScaledPool(Section):
    """Bounds of one pool, in whole workers; it starts with the workers of its deployment."""

    min: GpuCount = Field(default=1, description="workers at least")
    max: GpuCount = Field(description="workers at most")
    target: PositiveFloat | None = Field(
        default=None, description="of this pool, instead of the section's `target`"
    )

    @model_validator(mode="after")
    def _in_order(self) -> "ScaledPool":
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class ScaledPools(Section):
    """The pools that are scaled; the others keep the workers of their deployment."""

    prefill: ScaledPool | None = Field(default=None, description="workers that compute prompts")
    decode: ScaledPool | None = Field(default=None, description="workers that generate tokens")
    serve: ScaledPool | None = Field(default=None, description="workers that do both")

    def given(self) -> dict[str, ScaledPool]:
        """Those that are scaled, by role."""
        every = {role: getattr(self, role) for role in type(self).model_fields}
        return {role: pool for role, pool in every.items() if pool is not None}

    def check(self, deployed: Mapping[str, tuple[int, int]]) -> None:
        """Raises ValueError unless these pools are deployed, within their bounds: (workers, GPUs of each) by role."""
        for role, scaled in self.given().items():
            if role not in deployed:
                raise ValueError(f"pools: there is no `{role}` pool; expected {' or '.join(deployed)}")
            workers, gpus = deployed[role]
            if not scaled.min <= workers <= scaled.max:
                bounds = f"min {scaled.min} to max {scaled.max}"
                raise ValueError(f"pools: {role} is deployed with {workers} workers; expected {bounds}")
            if scaled.max * gpus > MOST_GPUS:
                raise ValueError(f"pools: {role} of at most {MOST_GPUS:,} GPUs, not {scaled.max} workers")


class Autoscale(Section):
    """Workers that follow the load: bounds and a signal, or a given schedule."""

    pools: ScaledPools | None = Field(default=None, description="which pools, and their bounds")
    schedule: FileName | None = Field(
        default=None,
        description="CSV file with columns hour and a role each (hour,prefill,decode): workers from that hour of the "
        "day on, instead of `pools`",
    )
    signal: Signal = Field(
        default="utilization",
        description="what is held at `target`: the share of its capacity that a pool's load takes; requests per second "
        "and worker; or requests in flight per worker",
    )
    target: PositiveFloat | None = Field(
        default=None, description="of the signal; default for utilization from the catalog"
    )
    period_s: Period | None = Field(
        default=None, description="between two looks at the signal; default from the catalog"
    )
    tolerance: Fraction | None = Field(
        default=None, description="share off the target that changes nothing; default from the catalog"
    )
    start_up_s: Seconds | None = Field(
        default=None,
        description="until a new worker serves; default: bytes of the weights / read bandwidth of a node, and a fixed "
        "time",
    )
    scale_down_after_s: Seconds | None = Field(
        default=None,
        description="for so long fewer workers must have sufficed; default from the catalog",
    )

    @model_validator(mode="after")
    def _one_way(self) -> "Autoscale":
        if (self.pools is None) == (self.schedule is None):
            raise ValueError("expected exactly one of `pools` and `schedule`")
        if self.pools is not None:
            if not self.pools.given():
                raise ValueError("`pools` names none of prefill, decode, serve")
            if self.signal != "utilization" and any(
                (pool.target or self.target) is None for pool in self.pools.given().values()
            ):
                raise ValueError(f"signal {self.signal} needs a `target`: it has no default")
        return self


class Failures(Section):
    """GPUs fail; the worker of a failed GPU, an EP group, restarts as a whole and its requests are asked again."""

    per_gpu_hour: PerGpuHour | None = Field(
        default=None, description="failures per GPU and hour in service; default from the catalog"
    )
    detect_s: Seconds | None = Field(
        default=None,
        description="until the router knows that a worker has failed; default from the catalog",
    )
    restart_s: Seconds | None = Field(
        default=None,
        description="of the whole worker, once it has its GPUs; default from the catalog",
    )
    repair_h: Hours | None = Field(
        default=None,
        description="hours that a failed node is away; default: drawn by class of failure from the catalog",
    )
    spare_nodes: SpareNodes = Field(
        default=0, description="nodes that stand by, paid for, to replace one that is away"
    )
    retry: Literal["prefix_cache", "start"] = Field(
        default="start",
        description="what a request that is asked again finds of its prompt: what the prefix cache holds, or nothing",
    )


class Fleet(Section):
    """Alike replicas of the deployment behind one router, of which a sample is simulated."""

    replicas: GpuCount = Field(description="copies of the deployment that share the traffic")
    simulated: GpuCount | None = Field(
        default=None, description="copies that are simulated, under their share of it; default: all"
    )

    @model_validator(mode="after")
    def _a_part(self) -> "Fleet":
        if self.simulated is not None and self.simulated > self.replicas:
            raise ValueError(f"simulated {self.simulated} is above replicas {self.replicas}")
        return self

    @property
    def sample(self) -> int:
        """Copies that are simulated."""
        return self.simulated or self.replicas
