"""The form of a scenario: frozen pydantic models that refuse unknown keys.

A field's description is its documentation: it reaches the JSON schema, the error messages and the reference in the
docs. Whether the deployment fits the machine is checked one room up, in `sim.model.deployment`.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from sim.scenario.section import (
    GB,
    MOST_GPUS,
    ExpertRanks,
    FileName,
    Flag,
    Fraction,
    GpuCount,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PositiveSeconds,
    Replicas,
    Seconds,
    Section,
    SequenceCount,
    Spread,
    TokenCount,
)
from sim.scenario.step import DraftLevel, Indexer, Overlap, Precision, Scheduling, Speculation
from sim.scenario.workload import Arrivals, Diurnal, Length, Lengths, Workload

__all__ = [
    "Arrivals",
    "Deployment",
    "Diurnal",
    "DraftLevel",
    "Experts",
    "Indexer",
    "Length",
    "Lengths",
    "Objectives",
    "Overlap",
    "Pool",
    "Precision",
    "PrefixCache",
    "Price",
    "Scenario",
    "Scheduling",
    "Speculation",
    "Workload",
]

EngineName = Literal["sglang", "trtllm", "vllm", "deepseek"]
RouterName = Literal["round_robin", "least_loaded", "prefix_aware"]


def _limit(value: object) -> object:
    """`off` is no limit."""
    return None if value == "off" else value


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
    popularity_sigma: Spread = Field(
        default=0.0,
        description="sigma of the lognormal popularity of experts, per layer; 0 is perfectly balanced",
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


class Pool(Section):
    """Identical workers. Attention data parallelism is gpus / tp; MoE tensor parallelism is gpus / ep."""

    workers: GpuCount = Field(default=1, description="number of workers")
    gpus: GpuCount = Field(description="GPUs of one worker")
    tp: GpuCount = Field(default=1, description="tensor parallelism of the attention; divides gpus")
    ep: ExpertRanks = Field(default=1, description="expert parallelism of the routed experts; divides gpus")
    max_batch_per_gpu: SequenceCount = Field(
        default=128, description="running sequences per GPU at most (decode)"
    )
    chunk_tokens: TokenCount | None = Field(
        default=None,
        description="new prompt tokens per attention-DP rank and step at most (prefill); default by engine",
    )
    memory_fraction: Annotated[float, Field(gt=0, le=1, strict=True)] | None = Field(
        default=None,
        description="the engine's own memory flag: SGLang mem_fraction_static (weights and KV cache, of all memory), "
        "vLLM gpu_memory_utilization (of all memory), TensorRT-LLM free_gpu_memory_fraction (KV cache, of what is left "
        "free); default by engine",
    )
    exchange: Literal["all_to_all", "all_gather"] | None = Field(
        default=None,
        description="how tokens of several attention-DP ranks reach the experts: all-to-all (DeepEP, NVLink), or "
        "all-gather and reduce-scatter; default: all-to-all where ep = gpus, the only layout that has it",
    )
    experts: Experts | None = Field(
        default=None, description="replaces the scenario's `experts` for this pool"
    )
    moe_backend: str | None = Field(
        default=None,
        description="kernels of the routed experts, as the profile's tables name them (deepgemm, cutlass, trtllm_gen, "
        "triton); default by engine, GPU and precision",
    )

    @model_validator(mode="after")
    def _of_this_world(self) -> "Pool":
        if self.workers * self.gpus > MOST_GPUS:
            raise ValueError(
                f"{self.workers:,} workers of {self.gpus:,} GPUs; expected at most {MOST_GPUS:,} GPUs in a pool"
            )
        return self


class Deployment(Section):
    """Either disaggregated (`prefill` and `decode`) or aggregated (`serve`)."""

    displaces: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "prefill": ("serve",),
        "decode": ("serve",),
        "serve": ("prefill", "decode"),
    }

    prefill: Pool | None = Field(default=None, description="workers that compute prompts")
    decode: Pool | None = Field(default=None, description="workers that generate tokens")
    serve: Pool | None = Field(default=None, description="workers that do both on the same GPUs")

    @model_validator(mode="after")
    def _one_kind(self) -> "Deployment":
        given = tuple(self.pools())
        if given not in (("prefill", "decode"), ("serve",)):
            got = " and ".join(f"`{role}`" for role in given) or "none"
            raise ValueError(f"expected either `prefill` and `decode`, or one `serve` pool; got {got}")
        return self

    def pools(self) -> dict[str, Pool]:
        """The pools that are present, by role, in the order prefill, decode, serve."""
        return {r: p for r in ("prefill", "decode", "serve") if (p := getattr(self, r)) is not None}


class PrefixCache(Section):
    """Reuse of the KV cache of shared prompt prefixes."""

    enabled: Flag = Field(default=False, description="whether prompts look for cached prefixes")
    scope: Literal["rank", "worker", "cluster"] = Field(default="worker", description="what one cache serves")
    block_tokens: TokenCount = Field(default=64, description="tokens per hashed block")
    hbm_tokens: NonNegativeInt | None = Field(
        default=None,
        description="tokens cached in GPU memory per unit of scope; default: what the KV budget leaves",
    )
    host_gb: GB = Field(default=0.0, description="host memory per unit of scope, GB")
    disk_gb: GB = Field(default=0.0, description="disk per unit of scope, GB")


class Objectives(Section):
    """What the user promises its users; goodput counts the requests that keep all of it."""

    ttft_p99_s: PositiveFloat | None = Field(default=None, description="time to first token, seconds")
    tpot_p99_s: PositiveFloat | None = Field(default=None, description="time per output token, seconds")
    e2e_p99_s: PositiveFloat | None = Field(default=None, description="arrival to last token, seconds")


class Price(Section):
    """What a GPU-hour costs."""

    displaces: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "tier": ("usd_per_gpu_hour",),
        "usd_per_gpu_hour": ("tier",),
    }

    tier: str | None = Field(default=None, description="a price tier of the catalog, such as rent_3yr")
    usd_per_gpu_hour: PositiveFloat | None = Field(
        default=None, description="USD per GPU-hour, instead of the catalog's"
    )
    overhead_fraction: NonNegativeFloat | None = Field(
        default=None, description="cost beside GPUs as a fraction of the GPU cost; default from the catalog"
    )
    host_usd_per_gb_month: NonNegativeFloat | None = Field(
        default=None, description="of the prefix cache's host memory; default from the catalog"
    )
    disk_usd_per_gb_month: NonNegativeFloat | None = Field(
        default=None, description="of the prefix cache's disks; default from the catalog"
    )
    margin: Annotated[float, Field(ge=0, lt=1, strict=True)] = Field(
        default=0.0, description="share of the selling price kept as margin"
    )

    @model_validator(mode="after")
    def _one_source(self) -> "Price":
        if self.tier is not None and self.usd_per_gpu_hour is not None:
            raise ValueError("expected `tier` or `usd_per_gpu_hour`, not both")
        return self


class Scenario(Section):
    """One deployment under one workload. The file that a user writes."""

    directives: ClassVar[tuple[str, ...]] = ("extends",)

    model: FileName = Field(
        description="catalog name of the model (aliases allowed), or a Hugging Face config.json"
    )
    gpu: str = Field(
        description="catalog name of the GPU (aliases allowed), or the device of a fitted profile"
    )
    engine: EngineName = Field(default="sglang", description="thresholds, overheads and measured profile")
    profile: FileName | None = Field(
        default=None,
        description="a shipped profile such as h200_sxm/sglang, `analytic`, or a file; default gpu/engine",
    )
    deployment: Deployment = Field(description="the pools of GPUs and how each is parallelised")
    precision: Precision = Field(default=Precision(), description="formats of weights and KV cache")
    speculation: Speculation = Field(default=Speculation(), description="multi-token prediction; default off")
    experts: Experts = Field(default=Experts(), description="placement and imbalance of the routed experts")
    overlap: Overlap = Field(
        default=Overlap(), description="what runs at the same time in a step; default by engine"
    )
    indexer: Indexer = Field(
        default=Indexer(), description="DSA's indexer: thresholds, memory, scores; default by engine"
    )
    scheduling: Scheduling = Field(
        default=Scheduling(), description="habits of the running engine; default by engine"
    )
    prefix_cache: PrefixCache = Field(
        default=PrefixCache(), description="reuse of shared prompt prefixes; default off"
    )
    router: RouterName = Field(default="least_loaded", description="how a request finds its worker")
    workload: Workload = Field(description="which requests arrive, and when")
    duration_s: PositiveSeconds | None = Field(
        default=None,
        description="arrivals stop here; the run goes on until all is served; default: the trace's end",
    )
    warmup_s: Seconds = Field(default=0.0, description="left out of every statistic")
    objectives: Objectives = Field(
        default=Objectives(), description="latency promises; goodput counts who keeps them"
    )
    price: Price = Field(default=Price(), description="what a GPU-hour costs, and what stands beside it")

    @model_validator(mode="after")
    def _ends(self) -> "Scenario":
        w = self.workload
        if w.trace is None and self.duration_s is None and w.requests is None:
            raise ValueError("a synthetic workload needs `duration_s` or `workload.requests` to end")
        return self

    @field_validator("warmup_s")
    @classmethod
    def _before_the_end(cls, warmup_s: float, info: ValidationInfo) -> float:
        duration_s = info.data.get("duration_s")
        if duration_s is not None and warmup_s >= duration_s:
            raise ValueError(f"{warmup_s:g} leaves nothing of duration_s {duration_s:g}")
        return warmup_s
