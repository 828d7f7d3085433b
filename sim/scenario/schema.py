"""The form of a scenario: frozen pydantic models that refuse unknown keys.

A field's description is its documentation: it reaches the JSON schema and the reference in the docs.
Whether the deployment fits the machine is checked one room up, in `sim.model.deployment`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]

EngineName = Literal["sglang", "trtllm", "vllm", "deepseek"]
RouterName = Literal["round_robin", "least_loaded", "prefix_aware"]


class Section(BaseModel):
    """A part of a scenario: frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Experts(Section):
    """How the routed experts are placed, and how unevenly tokens choose them."""

    redundant: Annotated[int, Field(ge=0)] = Field(0, description="replicas of hot experts, over the whole EP group")
    popularity_sigma: Annotated[float, Field(ge=0)] = Field(
        0.0, description="sigma of the lognormal popularity of experts, per layer; 0 is perfectly balanced"
    )
    staleness_rho: Fraction = Field(
        1.0, description="correlation between the load that the placement was computed from and the live load"
    )
    node_limit: PositiveInt | None = Field(
        None, description="nodes that one token may reach (the gate's group limit); off unless given"
    )


class Pool(Section):
    """Identical workers. Attention data parallelism is gpus / tp; MoE tensor parallelism is gpus / ep."""

    workers: PositiveInt = Field(1, description="number of workers")
    gpus: PositiveInt = Field(description="GPUs of one worker")
    tp: PositiveInt = Field(1, description="tensor parallelism of the attention")
    ep: PositiveInt = Field(1, description="expert parallelism of the routed experts")
    max_batch_per_gpu: PositiveInt = Field(128, description="running sequences per GPU at most (decode)")
    chunk_tokens: PositiveInt | None = Field(
        None, description="new prompt tokens per attention-DP rank and step at most (prefill); default by engine"
    )
    experts: Experts | None = Field(None, description="overrides the scenario's `experts` for this pool")


class Deployment(Section):
    """Either disaggregated (`prefill` and `decode`) or aggregated (`serve`)."""

    prefill: Pool | None = Field(None, description="workers that compute prompts")
    decode: Pool | None = Field(None, description="workers that generate tokens")
    serve: Pool | None = Field(None, description="workers that do both on the same GPUs")

    @model_validator(mode="after")
    def _one_kind(self) -> "Deployment":
        split = self.prefill is not None and self.decode is not None
        if split == (self.serve is not None) or (self.serve and (self.prefill or self.decode)):
            raise ValueError("expected either `prefill` and `decode`, or one `serve` pool")
        return self

    def pools(self) -> dict[str, Pool]:
        """The pools that are present, by role, in the order prefill, decode, serve."""
        return {r: p for r in ("prefill", "decode", "serve") if (p := getattr(self, r)) is not None}


class Precision(Section):
    """Numeric formats of weights and of the KV cache."""

    weights: Literal["bf16", "fp8", "nvfp4"] = Field("fp8", description="nvfp4 applies to the routed experts only")
    kv_cache: Literal["bf16", "fp8"] = Field(
        "fp8", description="fp8: 656 bytes per token and layer for DSA models, 576 for dense MLA"
    )


class Speculation(Section):
    """Multi-token prediction: drafts proposed by the MTP module and verified in one step."""

    draft_tokens: Annotated[int, Field(ge=0, le=16)] = Field(0, description="draft tokens per step; 0 is off")
    acceptance: Annotated[list[Fraction], Field(min_length=1)] | None = Field(
        None, description="chance that draft i is accepted given that all before it were; default from the catalog"
    )


class PrefixCache(Section):
    """Reuse of the KV cache of shared prompt prefixes."""

    enabled: bool = Field(False, description="whether prompts look for cached prefixes")
    scope: Literal["rank", "worker", "cluster"] = Field("worker", description="what one cache serves")
    block_tokens: PositiveInt = Field(64, description="tokens per hashed block")
    hbm_tokens: Annotated[int, Field(ge=0)] | None = Field(
        None, description="tokens cached in GPU memory per unit of scope; default: what the KV budget leaves"
    )
    host_gb: Annotated[float, Field(ge=0)] = Field(0.0, description="host memory per unit of scope, GB")
    disk_gb: Annotated[float, Field(ge=0)] = Field(0.0, description="disk per unit of scope, GB")


class PoissonArrivals(Section):
    """Arrivals without memory."""

    rate_per_s: PositiveFloat = Field(description="mean arrivals per second")


class GammaArrivals(Section):
    """Gamma-distributed gaps: bursty above cv 1, regular below."""

    rate_per_s: PositiveFloat = Field(description="mean arrivals per second")
    cv: PositiveFloat = Field(description="coefficient of variation of the gaps")


class ClosedLoop(Section):
    """A fixed number of requests in flight: each completion starts the next."""

    concurrency: PositiveInt = Field(description="requests in flight")


class Diurnal(Section):
    """Poisson arrivals whose rate follows a daily curve."""

    mean_rate_per_s: PositiveFloat = Field(description="mean arrivals per second over the curve")
    curve: str = Field(description="name of a shipped curve, or a CSV file with columns hour,load")


class AllAtOnce(Section):
    """Everything arrives at time zero: an offline batch."""


class Arrivals(Section):
    """When requests arrive: exactly one kind."""

    poisson: PoissonArrivals | None = None
    gamma: GammaArrivals | None = None
    closed_loop: ClosedLoop | None = None
    diurnal: Diurnal | None = None
    all_at_once: AllAtOnce | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "Arrivals":
        if sum(v is not None for v in self.__dict__.values()) != 1:
            raise ValueError(f"expected exactly one of {', '.join(type(self).model_fields)}")
        return self


class Lognormal(Section):
    """Lognormal lengths given by their own mean and coefficient of variation."""

    mean: PositiveFloat = Field(description="mean number of tokens")
    cv: PositiveFloat = Field(description="standard deviation / mean")


class Length(Section):
    """A distribution of token counts: exactly one kind."""

    constant: PositiveInt | None = Field(None, description="always this many tokens")
    uniform: tuple[PositiveInt, PositiveInt] | None = Field(None, description="low and high, both included")
    lognormal: Lognormal | None = None
    histogram: str | None = Field(None, description="CSV file with columns tokens,weight")

    @model_validator(mode="after")
    def _exactly_one(self) -> "Length":
        if sum(v is not None for v in self.__dict__.values()) != 1:
            raise ValueError(f"expected exactly one of {', '.join(type(self).model_fields)}")
        if self.uniform and self.uniform[0] > self.uniform[1]:
            raise ValueError(f"uniform: low {self.uniform[0]} is above high {self.uniform[1]}")
        return self


class Lengths(Section):
    """Prompt and answer lengths."""

    input: Length = Field(description="prompt tokens")
    output: Length = Field(description="generated tokens")


class Workload(Section):
    """A trace, or arrivals and lengths."""

    trace: str | None = Field(None, description="a shipped trace or a file (.csv, .jsonl, .xz)")
    arrivals: Arrivals | None = None
    lengths: Lengths | None = None
    requests: PositiveInt | None = Field(None, description="stop after this many requests")
    cached_fraction: Fraction | None = Field(None, description="share of prompt tokens that hit the prefix cache")

    @model_validator(mode="after")
    def _trace_or_synthetic(self) -> "Workload":
        if self.trace is None and (self.arrivals is None or self.lengths is None):
            raise ValueError("expected `trace`, or both `arrivals` and `lengths`")
        if self.trace is not None and self.lengths is not None:
            raise ValueError("a trace brings its own `lengths`; leave one of the two out")
        return self


class Objectives(Section):
    """What the user promises its users; goodput counts the requests that keep all of it."""

    ttft_p99_s: PositiveFloat | None = Field(None, description="time to first token, seconds")
    tpot_p99_s: PositiveFloat | None = Field(None, description="time per output token, seconds")
    e2e_p99_s: PositiveFloat | None = Field(None, description="arrival to last token, seconds")


class Price(Section):
    """What a GPU-hour costs."""

    tier: str | None = Field(None, description="a price tier of the catalog, such as rent_3yr")
    usd_per_gpu_hour: PositiveFloat | None = Field(None, description="overrides the catalog")
    overhead_fraction: Annotated[float, Field(ge=0)] | None = Field(
        None, description="cost beside GPUs as a fraction of the GPU cost; default from the catalog"
    )
    margin: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="share of the selling price kept as margin")

    @model_validator(mode="after")
    def _one_source(self) -> "Price":
        if self.tier is not None and self.usd_per_gpu_hour is not None:
            raise ValueError("expected `tier` or `usd_per_gpu_hour`, not both")
        return self


class Scenario(Section):
    """One deployment under one workload. The file that a user writes."""

    model: str = Field(description="catalog name of the model (aliases allowed)")
    gpu: str = Field(description="catalog name of the GPU (aliases allowed)")
    engine: EngineName = Field("sglang", description="thresholds, overheads and measured profile")
    profile: str | None = Field(None, description="a shipped profile such as h200_sxm/sglang, `analytic`, or a file")
    deployment: Deployment
    precision: Precision = Precision()
    speculation: Speculation = Speculation()
    experts: Experts = Experts()
    prefix_cache: PrefixCache = PrefixCache()
    router: RouterName = Field("least_loaded", description="how a request finds its worker")
    workload: Workload
    duration_s: PositiveFloat | None = Field(None, description="arrivals stop here; the run goes on until all is served")
    warmup_s: Annotated[float, Field(ge=0)] = Field(0.0, description="left out of every statistic")
    objectives: Objectives = Objectives()
    price: Price = Price()

    @model_validator(mode="after")
    def _ends(self) -> "Scenario":
        w = self.workload
        if w.trace is None and self.duration_s is None and w.requests is None:
            raise ValueError("a synthetic workload needs `duration_s` or `workload.requests` to end")
        if self.duration_s is not None and self.warmup_s >= self.duration_s:
            raise ValueError(f"warmup_s {self.warmup_s:g} leaves nothing of duration_s {self.duration_s:g}")
        return self
