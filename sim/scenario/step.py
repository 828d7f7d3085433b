"""The sections of a scenario that say what a step runs: formats, drafts, overlap, and an engine's habits."""

from itertools import pairwise
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from sim.scenario.section import (
    MOST_GB,
    Flag,
    Fraction,
    NonNegativeInt,
    PositiveInt,
    Seconds,
    Section,
    WholeNumber,
    WholeTokens,
    unit,
)


class Precision(Section):
    """Numeric formats of weights and of the KV cache."""

    weights: Literal["checkpoint", "bf16", "fp8", "mxfp4", "nvfp4", "int4"] = Field(
        default="checkpoint",
        description="format of the weights; checkpoint: as published, which a scenario resolves when it is read. "
        "mxfp4, nvfp4 and int4 apply to the routed experts; the rest is fp8, or bf16 beside int4, unless said",
    )
    attention: Literal["bf16", "fp8"] | None = Field(
        default=None,
        description="format of the attention's projections; default: fp8, or bf16 where the weights are bf16 or int4",
    )
    dense: Literal["bf16", "fp8", "nvfp4"] | None = Field(
        default=None,
        description="format of the shared expert and of dense FFNs; default as the attention's",
    )
    kv_cache: Literal["bf16", "fp8", "fp8_fp4"] = Field(
        default="fp8",
        description="format of the KV cache; fp8: 656 bytes per token and layer for DSA models, 576 for dense MLA, 584 "
        "per entry for V4; fp8_fp4: V4's with index keys in MXFP4 (Blackwell)",
    )

    @property
    def attention_format(self) -> str:
        """Format of the attention's projections."""
        return self.attention or self._beside

    @property
    def dense_format(self) -> str:
        """Format of the shared expert and of dense FFNs."""
        return self.dense or self._beside

    @property
    def _beside(self) -> str:
        """What is not a routed expert, unless said: INT4 checkpoints leave it in BF16."""
        return "bf16" if self.weights in ("bf16", "int4") else "fp8"


MOST_DRAFTS: Final = 16
"""Per step: three times what engines are run with; each has its own chance, and a level of its own at most."""
DraftCount = Annotated[
    int, Field(ge=0, le=MOST_DRAFTS, strict=True, json_schema_extra=unit("tokens")), WholeNumber
]


class DraftLevel(Section):
    """Drafts of the steps in which no attention-DP rank decodes more sequences than this."""

    up_to_batch: PositiveInt = Field(description="sequences of the fullest attention-DP rank")
    draft_tokens: DraftCount = Field(description="draft tokens per step up to there")


class Speculation(Section):
    """Drafts, proposed by the model's own modules and verified in one step."""

    draft_tokens: DraftCount = Field(
        default=0, description="draft tokens per step, at most where `adaptive` is given; 0 is off"
    )
    method: Literal["mtp", "dspark"] | None = Field(
        default=None,
        description="mtp: drafts one after the other (default); dspark: a block in one pass of DeepSeek-V4's drafter",
    )
    adaptive: Annotated[tuple[DraftLevel, ...], Field(min_length=1, max_length=MOST_DRAFTS)] | None = Field(
        default=None,
        description="drafts by batch, levels from small to large; none beyond the last; default always draft_tokens",
    )
    acceptance: Annotated[tuple[Fraction, ...], Field(min_length=1, max_length=MOST_DRAFTS)] | None = Field(
        default=None,
        description="chance that draft i is accepted given that all before it were; default from the catalog",
    )
    task: str | None = Field(
        default=None,
        description="what the catalog's acceptance is of, such as chat or coding; default general",
    )
    thinking: Flag | None = Field(
        default=None, description="the catalog's acceptance with or without thinking; default either"
    )

    @model_validator(mode="after")
    def _one_acceptance(self) -> "Speculation":
        if self.acceptance is not None and (self.task is not None or self.thinking is not None):
            raise ValueError("expected `acceptance`, or the catalog's for a `task` and `thinking`, not both")
        return self

    @model_validator(mode="after")
    def _rising_levels(self) -> "Speculation":
        levels = self.adaptive or ()
        if any(later.up_to_batch <= level.up_to_batch for level, later in pairwise(levels)):
            raise ValueError("expected levels of `adaptive` whose up_to_batch rises")
        if any(level.draft_tokens > self.draft_tokens for level in levels):
            raise ValueError(
                f"expected at most draft_tokens {self.draft_tokens} in every level of `adaptive`"
            )
        return self


class Overlap(Section):
    """What runs at the same time within a step; the engine's habit where nothing is said."""

    shared_expert: Flag | None = Field(
        default=None,
        description="the shared expert runs beside the routed ones (decode) and their exchange; default by engine",
    )
    two_batch: Flag | None = Field(
        default=None,
        description="two half batches take turns, one computing while the other exchanges; default by engine",
    )


class Indexer(Section):
    """DSA's indexer, where it differs from the engine's defaults."""

    dense_threshold: WholeTokens | None = Field(
        default=None,
        description="prompts of at most so many KV tokens run masked MHA, not sparse attention; default by engine",
    )
    logits_gb: (
        Annotated[float, Field(ge=1e-3, le=MOST_GB, strict=True, json_schema_extra=unit("GB"))] | None
    ) = Field(
        default=None,
        description="memory of the logits, GB: a prompt's queries are scored in chunks that fit; default by engine",
    )
    scores: Literal["random", "concentrated"] = Field(
        default="random",
        description="how scores lie that top-k selects from: at random, or the best in one place (recent tokens)",
    )


class Scheduling(Section):
    """Habits of the running engine, where they differ from its defaults."""

    host_overhead_s: Seconds | None = Field(
        default=None, description="time of the host per step that no kernel hides, seconds; default by engine"
    )
    communication_factor: Annotated[float, Field(ge=1e-3, le=1e3, strict=True)] | None = Field(
        default=None,
        description="time of communication in the running engine over the same measured alone; default by engine",
    )
    cuda_graphs: Flag | None = Field(
        default=None,
        description="CUDA graphs launch whole steps; without them the host launches every operation; default by engine",
    )
    prefill_graph_tokens: WholeTokens | None = Field(
        default=None,
        description="largest step with prompts, in tokens of a rank, that piecewise CUDA graphs launch; larger ones "
        "wait for the host to launch every operation; default by engine, release and deployment",
    )
    draft_host_s: Seconds | None = Field(
        default=None,
        description="time of the host per decode step with drafts, on top of host_overhead_s, seconds; default by "
        "engine and release",
    )
    ingress_s: Seconds | None = Field(
        default=None,
        description="fixed part of TTFT (HTTP, tokenizer, router, first scheduling), seconds; default by engine",
    )
    poll_every_steps: PositiveInt | None = Field(
        default=None, description="decode steps between looks for new requests; default by engine"
    )
    wait_all_ranks_steps: NonNegativeInt | None = Field(
        default=None,
        description="steps after which prompts start although not every attention-DP rank has one, counted without a "
        "pause (TensorRT-LLM: timeout_iters) or while some ranks have one (SGLang: prefill_delayer_max_delay_passes); "
        "0: they do not wait; default by engine",
    )
    gather_prompts_steps: NonNegativeInt | None = Field(
        default=None,
        description="steps that prompts are held for more of them once every rank has one, where wait_all_ranks_steps "
        "is not 0 (TensorRT-LLM: batching_wait_iters); default by engine",
    )
    batch_wait_steps: NonNegativeInt | None = Field(
        default=None,
        description="without attention DP: steps that prompts are held at most until a step is full enough "
        "(TensorRT-LLM: batch_wait_timeout_iters); default by engine",
    )
    batch_wait_fill: Annotated[float, Field(ge=0, le=1, strict=True)] | None = Field(
        default=None,
        description="share of chunk_tokens that is full enough (TensorRT-LLM: batch_wait_max_tokens_ratio); default by "
        "engine",
    )
    rest_after_prompts_steps: NonNegativeInt | None = Field(
        default=None,
        description="decode steps after every step with prompts before the next one, while anything decodes (SGLang: "
        "prefill_decode_interval); default by engine",
    )
    whole_prompts: Flag | None = Field(
        default=None,
        description="whether a step takes no part of a prompt, unless that is larger than the step (no chunked "
        "prefill); default by engine",
    )
    mix_prompts: Flag | None = Field(
        default=None,
        description="whether prompts are computed in decode steps, not in steps of their own (SGLang: "
        "--enable-mixed-chunk); default by engine",
    )
    decode_poll_steps: PositiveInt | None = Field(
        default=None,
        description="disaggregated: decode steps between looks for KV caches that have come in (SGLang: "
        "disaggregation_decode_polling_interval); default by engine",
    )
    waits_for_prefill_answer: Flag | None = Field(
        default=None,
        description="disaggregated: whether the router gives nothing to the client before the prefill worker has "
        "answered, too, which it does between two of its steps (SGLang's router does, NVIDIA Dynamo does not); default "
        "by engine",
    )
