"""The section of a scenario about routed experts: where they are, and how unevenly tokens choose them."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from sim import catalog
from sim.scenario.section import FileName, Flag, Fraction, PositiveInt, Replicas, Section, Spread


def _limit(value: object) -> object:
    """`off` is no limit."""
    return None if value == "off" else value


def _balanced(value: object) -> object:
    """`balanced` is no spread."""
    return 0.0 if value == "balanced" else value


class Experts(Section):
    """How the routed experts are placed, and how unevenly tokens choose them."""

    displaces: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "counts": ("popularity_sigma",),
        "popularity_sigma": ("counts",),
        "staleness_rho": ("drift_rho", "drift_every_steps", "rebalance_every_steps"),
        "drift_rho": ("staleness_rho",),
    }

    redundant: Replicas = Field(default=0, description="replicas of hot experts, over the whole EP group")
    placement: Literal["contiguous", "global", "hierarchical"] | None = Field(
        default=None,
        description="how slots are filled: contiguous (in the experts' order), global or hierarchical (EPLB); default: "
        "contiguous without replicas; with them hierarchical where node_limit is set and the nodes divide, else global",
    )
    shared_expert_as_slot: Flag = Field(
        default=False,
        description="the shared expert takes a slot among the routed ones, not a copy on every GPU",
    )
    popularity_sigma: Annotated[Spread | None, BeforeValidator(_balanced)] = Field(
        default=None,
        description="sigma of the lognormal popularity of experts, per layer, or balanced (0: each as often as any "
        "other, as forced in benchmarks); default: that of recorded traffic, 1.05",
    )
    counts: FileName | None = Field(
        default=None,
        description="recorded token counts of the experts of each layer (JSON, CSV, NPZ), instead of popularity_sigma",
    )
    staleness_rho: Fraction = Field(
        default=1.0,
        description="correlation between the load that the placement was computed from and the live load",
    )
    drift_rho: Fraction | None = Field(
        default=None,
        description="correlation of the load with that of drift_every_steps before; together with "
        "rebalance_every_steps in place of staleness_rho",
    )
    drift_every_steps: PositiveInt = Field(default=1, description="steps over which drift_rho is stated")
    rebalance_every_steps: PositiveInt | None = Field(
        default=None,
        description="steps after which the placement is computed anew and experts fetch their weights; default: never",
    )
    node_limit: Annotated[PositiveInt | None, BeforeValidator(_limit)] = Field(
        default=None,
        description="nodes that one token may reach (the gate's group limit), or off; default: off",
    )

    @property
    def sigma(self) -> float:
        """Sigma of the popularity: given, or that of recorded traffic; 0 where `counts` take its place."""
        if self.popularity_sigma is not None:
            return self.popularity_sigma
        return 0.0 if self.counts is not None else catalog.popularity_sigma()

    @property
    def even(self) -> bool:
        """Whether every expert is chosen as often as any other."""
        return self.counts is None and self.sigma == 0

    @model_validator(mode="after")
    def _one_popularity(self) -> "Experts":
        if self.counts is not None and self.popularity_sigma:
            raise ValueError("expected `counts` or `popularity_sigma`, not both")
        return self

    @model_validator(mode="after")
    def _one_staleness(self) -> "Experts":
        if (self.drift_rho is None) != (self.rebalance_every_steps is None):
            raise ValueError("expected `drift_rho` and `rebalance_every_steps` together, or neither")
        if self.drift_rho is not None and self.staleness_rho < 1:
            raise ValueError(
                "expected `staleness_rho`, or `drift_rho` with `rebalance_every_steps`, not both"
            )
        return self
