"""The form of a scenario: frozen pydantic models that refuse unknown keys.

A field's description is its documentation: it reaches the JSON schema, the error messages and the reference in the
docs. Whether the deployment fits the machine is checked one room up, in `sim.deployment.plan`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from sim.scenario.experts import Experts
from sim.scenario.operations import Autoscale, Failures, Fleet
from sim.scenario.parallelism import dp_times_tp, tp_from_dp
from sim.scenario.prefix_cache import PrefixCache
from sim.scenario.section import (
    MOST_GPUS,
    ExpertRanks,
    FileName,
    Flag,
    GpuCount,
    PositiveSeconds,
    Seconds,
    Section,
    SequenceCount,
    TokenCount,
)
from sim.scenario.spelling import (
    CHECKPOINT,
    ReleaseName,
    checkpoint_formats,
    engine_name,
    gpu_name,
    release_name,
    with_formats,
)
from sim.scenario.step import DraftLevel, Indexer, Overlap, Precision, Scheduling, Speculation
from sim.scenario.terms import Objectives, Price
from sim.scenario.workload import Arrivals, Diurnal, Length, Lengths, Workload

__all__ = [
    "Arrivals",
    "Autoscale",
    "Deployment",
    "Diurnal",
    "DraftLevel",
    "Experts",
    "Failures",
    "Fleet",
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
RouterName = Literal["round_robin", "least_loaded", "random", "prefix_aware"]
Metrics = Literal["rows", "summary"]


class Pool(Section):
    """Identical workers. Attention data parallelism is gpus / tp; MoE tensor parallelism is gpus / ep."""

    displaces: ClassVar[Mapping[str, tuple[str, ...]]] = {"tp": ("dp",), "dp": ("tp",)}

    workers: GpuCount = Field(default=1, description="number of workers")
    gpus: GpuCount = Field(description="GPUs of one worker")
    tp: GpuCount = Field(
        default=1, description="tensor parallelism of the attention; divides gpus; default: 1, or gpus / dp"
    )
    dp: GpuCount | None = Field(
        default=None,
        description="data parallelism of the attention, instead of or beside tp: gpus / tp, always",
    )
    ep: ExpertRanks = Field(default=1, description="expert parallelism of the routed experts; divides gpus")
    max_batch_per_gpu: SequenceCount | None = Field(
        default=None, description="running sequences per GPU at most (decode); default: what the engine takes"
    )
    max_batch_per_rank: SequenceCount | None = Field(
        default=None,
        description="the same per attention-DP rank, where it is no multiple of tp; wins over max_batch_per_gpu",
    )
    chunk_tokens: TokenCount | None = Field(
        default=None,
        description="new prompt tokens per attention-DP rank and step at most (prefill); default by engine, GPU memory "
        "and, in SGLang, ranks",
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

    _tp_from_dp = model_validator(mode="before")(tp_from_dp)
    _dp_times_tp = field_validator("dp")(dp_times_tp)

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


class Scenario(Section):
    """One deployment under one workload. The file that a user writes."""

    directives: ClassVar[tuple[str, ...]] = ("extends", "case", "published")
    """`case` and `published`: what was measured of it, and how it is compared; see `sim.validation.case_file`."""
    foreign: ClassVar[Mapping[str, str]] = {
        "search": "this is a plan; `tokenworks plan` answers it",
        "grid": "this is a sweep; `tokenworks sweep` runs it",
        "base": "this is a plan or a sweep; `tokenworks plan` or `tokenworks sweep` takes it",
    }

    model: Annotated[FileName, BeforeValidator(release_name)] = Field(
        description="catalog or Hugging Face name of the model (aliases allowed), or a Hugging Face config.json"
    )
    gpu: Annotated[FileName, BeforeValidator(gpu_name)] = Field(
        description="catalog name of the GPU (aliases allowed), a YAML file of its datasheet, or the device of a "
        "fitted profile"
    )
    engine: Annotated[EngineName, BeforeValidator(engine_name)] = Field(
        default="sglang", description="thresholds, overheads and measured profile"
    )
    engine_version: ReleaseName | None = Field(
        default=None,
        description="release of the engine, such as 0.5.9: its rules of memory; older ones lack CUDA graphs for "
        "prompts, or expose more of the host; default: the newest that the measured tables are of",
    )
    profile: FileName | None = Field(
        default=None,
        description="a shipped profile such as h200_sxm/sglang, priced as it was timed, `analytic`, or a file; "
        "default: gpu/engine, without what a service does not pay of it (launches, unfused norms)",
    )
    allow_foreign_profile: Flag = Field(
        default=False,
        description="whether `profile` may be another device's, scaled to this one by datasheet",
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
    metrics: Metrics = Field(
        default="rows",
        description="what a run keeps of its requests: a row each, or a `summary` in memory that does not grow with "
        "them (percentiles from histograms, within 0.3%; no table of requests, no timeline)",
    )
    anchor: FileName | None = Field(
        default=None,
        description="factors from one's own measurement of this deployment, a file of `validate --bench --anchor`; "
        "default: none",
    )
    autoscale: Autoscale | None = Field(
        default=None, description="workers that follow the load or a schedule; default: always those deployed"
    )
    failures: Failures | None = Field(
        default=None, description="GPUs that fail, and what becomes of their requests; default: none does"
    )
    fleet: Fleet | None = Field(
        default=None, description="alike copies of the deployment, represented by a sample; default: one"
    )

    _formats = model_validator(mode="before")(checkpoint_formats)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, unchecked, with some parts replaced; formats left to the checkpoint become those of its model."""
        copy = super().model_copy(update=update, deep=deep)
        if copy.precision.weights != CHECKPOINT:
            return copy
        precision = Precision.model_validate(with_formats(copy.model, copy.precision.model_dump()))
        return super(Scenario, copy).model_copy(update={"precision": precision})

    def whole_fleet(self) -> "Scenario":
        """All copies of the deployment as one, with the same traffic."""
        if self.fleet is None:
            return self
        copies = {
            role: pool.model_copy(update={"workers": pool.workers * self.fleet.replicas})
            for role, pool in self.deployment.pools().items()
        }
        return self.model_copy(
            update={"fleet": None, "deployment": self.deployment.model_copy(update=copies)}
        )

    @model_validator(mode="after")
    def _ends(self) -> "Scenario":
        w = self.workload
        if w.trace is None and self.duration_s is None and w.requests is None:
            raise ValueError("a synthetic workload needs `duration_s` or `workload.requests` to end")
        return self

    @field_validator("autoscale")
    @classmethod
    def _of_pools_that_there_are(cls, autoscale: Autoscale | None, info: ValidationInfo) -> Autoscale | None:
        deployment = info.data.get("deployment")
        if autoscale is not None and autoscale.pools is not None and deployment is not None:
            autoscale.pools.check({role: (p.workers, p.gpus) for role, p in deployment.pools().items()})
        return autoscale

    @field_validator("fleet")
    @classmethod
    def _of_one_size(cls, fleet: Fleet | None, info: ValidationInfo) -> Fleet | None:
        if fleet is None:
            return fleet
        if info.data.get("autoscale") is not None:
            raise ValueError("replicas stay as they are; leave `autoscale` or `fleet` out")
        failures = info.data.get("failures")
        if failures is not None and failures.spare_nodes and fleet.sample < fleet.replicas:
            raise ValueError("a sample of the replicas has no share of `failures.spare_nodes`; simulate all")
        deployment = info.data.get("deployment")
        if deployment is not None:
            gpus = fleet.replicas * sum(p.workers * p.gpus for p in deployment.pools().values())
            if gpus > MOST_GPUS:
                raise ValueError(f"{gpus:,} GPUs; expected at most {MOST_GPUS:,}")
        return fleet

    @field_validator("warmup_s")
    @classmethod
    def _before_the_end(cls, warmup_s: float, info: ValidationInfo) -> float:
        duration_s = info.data.get("duration_s")
        if duration_s is not None and warmup_s >= duration_s:
            raise ValueError(f"{warmup_s:g} leaves nothing of duration_s {duration_s:g}")
        return warmup_s
