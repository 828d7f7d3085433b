"""The shape grid of a model: which values each axis of each kernel family takes.

An operation's FLOP and bytes come from the constructors that the simulator itself prices, and the widths of its
GEMMs from the model's own layers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any, Final

from sim.catalog import Model, kv_layouts
from sim.kernels import collectives, exchange
from sim.kernels.family import Phase
from sim.kernels.formats import activation_bytes
from sim.model import operations as ops
from sim.model.attention import Batch, attention_operations, kinds
from sim.model.exchanges import all_to_all, collective
from sim.model.layers import token_operations
from sim.model.layout import ExpertRows, Layout
from sim.model.operations import Operation
from sim.units import DTYPE_BYTES

Level = int
"""0 for the corners of a grid, 1 for the points halfway between them, and so on."""


@dataclass(frozen=True)
class Axes:
    """Axis values of a grid; pairs and triples are axes of their own."""

    tp: tuple[int, ...]
    """Tensor parallelism of the attention and of the experts, which shards heads and widths."""
    rows: tuple[int, ...]
    """Rows of FP8 GEMMs: tokens of a step, of all ranks where they are gathered, of a prefix that is expanded."""
    tokens: tuple[int, ...]
    """Tokens of everything else that is counted in tokens."""
    batch: tuple[int, ...]
    context: tuple[int, ...]
    """KV lengths of dense decode, and with the indexer and sparse attention."""
    queries: int
    """Queries per sequence of the longest draft that is measured, beside one."""
    prompts: tuple[tuple[int, int], ...]
    """Prefill: sequences, and new tokens each."""
    cached: tuple[int, ...]
    """Tokens cached before the new ones of dense prefill."""
    experts: tuple[tuple[int, int], ...]
    """Expert parallelism and MoE tensor parallelism."""
    load: tuple[float, ...]
    """Token-expert pairs per local expert."""
    traffic: tuple[int, ...]
    """Bytes of copies and elementwise kernels."""
    ceiling: tuple[int, ...]
    """Sides of the square GEMMs that show the compute ceiling."""
    exchanged: tuple[int, ...]
    """Bytes of collectives."""
    routed: tuple[int, ...]
    """Tokens per rank of dispatch and combine; the low-latency mode stops at `MOST_LOW_LATENCY_TOKENS`."""


KILO: Final = 1024
MEGA: Final = 2**20

GPU_AXES: Final = Axes(
    tp=(1, 8),
    rows=(1, 16, 64, 128, 256, 512, 2048, 8192, 131072),
    tokens=(1, 32, 128, 512, 2048, 16384),
    batch=(1, 8, 32, 128, 512),
    context=(512, 4 * KILO, 32 * KILO, 128 * KILO),
    queries=4,
    prompts=((1, 256), (1, 1024), (1, 3072), (1, 8192), (8, 256), (8, 1024), (8, 4096), (32, 256), (32, 1024)),
    cached=(0, 8 * KILO, 120 * KILO),
    experts=((4, 1), (8, 1), (32, 1), (144, 1), (1, 8)),
    load=(1 / 32, 1 / 4, 1, 4, 16, 64, 256, 1024, 8192, 24576),
    traffic=(KILO, 32 * KILO, MEGA, 8 * MEGA, 64 * MEGA, 512 * MEGA, 2048 * MEGA),
    ceiling=(4096, 8192),
    exchanged=(64 * KILO, MEGA, 8 * MEGA, 64 * MEGA, 256 * MEGA),
    routed=(16, 64, 128, 1024, 4096),
)  # fmt: skip
"""For a data-centre GPU: what steps ask for from one sequence to batches of 512, chunks of 256 to 8,192 tokens of one
or several prompts, contexts from 512 tokens, drafts of up to three tokens."""

CPU_AXES: Final = Axes(
    tp=(1,),
    rows=(1, 16, 64),
    tokens=(1, 16, 64),
    batch=(1, 4),
    context=(512, 2 * KILO, 4 * KILO),
    queries=2,
    prompts=((1, 12), (1, 128), (2, 64)),
    cached=(0, 256),
    experts=((32, 1),),
    load=(1, 4, 16),
    traffic=(64 * KILO, MEGA, 32 * MEGA),
    ceiling=(512,),
    exchanged=(64 * KILO, MEGA),
    routed=(16,),
)
"""For one CPU thread: enough of every family to exercise the whole chain in a minute."""

MOST_LOW_LATENCY_TOKENS: Final = 256
"""DeepEP's README recommends its low-latency mode below this many tokens per rank."""


def levels(count: int) -> list[Level]:
    """Level of each of `count` values on an axis: ends 0, the middle 1, the quarters 2.

    >>> levels(5)
    [0, 2, 1, 2, 0]
    """
    found = [0] * count

    def split(low: int, high: int, level: Level) -> None:
        if high - low < 2:
            return
        middle = (low + high) // 2
        found[middle] = level
        split(low, middle, level + 1)
        split(middle, high, level + 1)

    split(0, count - 1, 1)
    return found


def _grid(*axes: Sequence[Any]) -> Iterator[tuple[Level, tuple[Any, ...]]]:
    """Every combination of axis values, with the highest level among them."""
    for combination in product(*(list(zip(levels(len(axis)), axis, strict=True)) for axis in axes)):
        yield max((level for level, _ in combination), default=0), tuple(value for _, value in combination)


def ceilings(axes: Axes) -> Iterator[Operation]:
    """The floor under a launch, the largest copy, and square GEMMs: what every other point is compared with."""
    yield moved("launch", {"bytes": 2 * DTYPE_BYTES["bf16"]}, 2 * DTYPE_BYTES["bf16"])
    yield moved("copy", {"bytes": axes.traffic[-1]}, axes.traffic[-1])
    for dtype in ("bf16", "fp8"):
        for side in axes.ceiling:
            yield ops.gemm("ceiling", "other", side, side, side, dtype)


def moved(kernel: str, shape: dict[str, float], traffic_bytes: float, **options: str) -> Operation:
    """A family that the simulator counts as elementwise traffic, or not at all, under its own name."""
    return replace(
        ops.elementwise(kernel, "other", traffic_bytes), kernel=kernel, shape=shape, options=options
    )


def operations(model: Model, axes: Axes) -> Iterator[tuple[Level, Operation]]:
    attention = {kind.name: kind for kind, _ in kinds(model)}
    if attention.keys() & {"mla", "dsa"}:
        yield from _mla(model, axes)
    if "dsa" in attention:
        yield from _dsa(model, axes)
    if model.n_routed:
        yield from _experts(model, axes)
    yield from _matrices(model, axes)
    for level, (size,) in _grid(axes.traffic):
        yield level, ops.elementwise("norm", "other", size)
        yield level + 1, moved("elementwise", {"bytes": size}, size, function="silu_mul")
    for level, (size,) in _grid(axes.traffic[:-1]):  # the largest copy is a ceiling already
        yield level + 1, moved("copy", {"bytes": size}, size)


def _mla(model: Model, axes: Axes) -> Iterator[tuple[Level, Operation]]:
    latent, rope, qk = model.kv_lora_rank, model.qk_rope, model.qk_nope + model.qk_rope
    for level, (kv_cache, (batch, queries, context), tp) in _with(_decoding(axes), ("fp8", "bf16"), axes.tp):
        entry = kv_layouts()[f"mla_{kv_cache}"]
        heads = model.heads // tp
        yield level, ops.mla_decode(heads, batch, context, queries, latent, rope, entry, kv_cache)
    for level, ((batch, new), cached, tp) in _grid(axes.prompts, axes.cached, axes.tp):
        yield level, ops.mla_prefill(model.heads // tp, batch, new, cached, qk, model.v_head_dim, "bf16")
    for level, (tp, tokens) in _grid(axes.tp, axes.tokens):
        heads = model.heads // tp
        yield level, ops.absorb_bmm("pre", tokens, heads, model.qk_nope, latent)
        yield level, ops.absorb_bmm("post", tokens, heads, model.v_head_dim, latent)


Step = tuple[int, int, int]
"""Sequences, new tokens each, KV tokens of each at the end of the step."""


def _decoding(axes: Axes) -> Iterator[tuple[Level, Step]]:
    """Decode steps without drafts, and with the longest one over the ends of the contexts and one between."""
    for level, (batch, context) in _grid(axes.batch, axes.context):
        yield level, (batch, 1, context)
    ends = sorted({axes.context[0], axes.context[len(axes.context) // 2], axes.context[-1]})
    for level, (batch, context) in _grid(axes.batch, ends):
        yield max(level, 1), (batch, axes.queries, context)


def _prompting(axes: Axes) -> Iterator[tuple[Level, Step]]:
    """Prefill steps: each prompt alone, and behind as much as fills each context."""
    for level, ((batch, new), context) in _grid(axes.prompts, axes.context):
        yield level, (batch, new, max(new, context))


def _with(steps: Iterator[tuple[Level, Step]], caches: Sequence[str], tp: Sequence[int]) -> Iterator[Any]:
    """Steps with every cache and TP, level by level."""
    for level, step in steps:
        for cache, shards in product(caches, tp):
            yield level, (cache, step, shards)


def _dsa(model: Model, axes: Axes) -> Iterator[tuple[Level, Operation]]:
    key_bytes = activation_bytes(model.index_head_dim, "fp8")
    latent, rope = model.kv_lora_rank, model.qk_rope
    phases: tuple[tuple[Phase, Iterator[tuple[Level, Step]]], ...] = (
        ("decode", _decoding(axes)),
        ("prefill", _prompting(axes)),
    )
    for phase, steps in phases:
        caches = ("fp8", "bf16") if phase == "prefill" else ("fp8",)
        for level, (batch, new, length) in steps:
            of_batch = (batch, new, length - new)
            keys = (model.index_heads, model.index_head_dim, key_bytes)
            yield level, ops.index_logits(*of_batch, *keys)
            select = ops.index_topk(*of_batch, model.index_topk)
            yield level, select
            if level == 0:
                yield 1, replace(select, options={"distribution": "concentrated"})
            for kv_cache, tp in product(caches, axes.tp):
                if kv_cache == "bf16" and length not in (max(new, axes.context[0]), axes.context[-1]):
                    continue
                entry = kv_layouts()["dsa_fp8" if kv_cache == "fp8" else "mla_bf16"]
                core = (*of_batch, model.index_topk, latent, rope, entry, kv_cache)
                yield level, ops.sparse_mla(phase, model.heads // tp, *core)


def _experts(model: Model, axes: Axes) -> Iterator[tuple[Level, Operation]]:
    for level, ((ep, tp), load) in _grid(axes.experts, axes.load):
        experts = max(1, round(model.n_routed / ep))
        rows = max(1, round(experts * load))
        # Expected number of experts that `rows` balanced choices touch.
        active = min(rows, round(experts * (1 - (1 - 1 / experts) ** rows)) or 1)
        for dtype in ("fp8", "bf16") if level == 0 else ("fp8",):
            inter = model.moe_inter // tp
            yield level, ops.routed_experts(rows, experts, active, model.hidden, inter, dtype)
    for level, (tokens,) in _grid(axes.tokens):
        shape = {"tokens": tokens, "experts": model.n_routed, "top_k": model.top_k}
        scores = tokens * model.n_routed * DTYPE_BYTES["fp32"]
        yield level, moved("moe_gate", shape, scores + tokens * model.top_k * 2 * DTYPE_BYTES["fp32"])
        token_bytes = model.hidden * DTYPE_BYTES["bf16"]
        rows = {"tokens": tokens, "top_k": model.top_k, "hidden": model.hidden}
        yield level, moved("moe_permute", {**shape, **rows}, tokens * (1 + model.top_k) * token_bytes)
        yield level, moved("moe_finalise", rows, tokens * (1 + model.top_k) * token_bytes)


def communication(model: Model, axes: Axes, gpus: int) -> Iterator[tuple[Level, Operation]]:
    """Collectives over 2, 4, .. GPUs of one machine, and the expert exchange over all of them."""
    sizes = [2**power for power in range(1, gpus.bit_length()) if 2**power <= gpus]
    for level, (size, moved) in _grid(sizes, axes.exchanged):
        for ring in collectives.KINDS:
            yield level, collective(ring, ring, moved, size)
    if gpus == 1 or not model.n_routed or model.n_routed % gpus:
        return
    # On one node a token reaches min(top_k, gpus) other ranks at most; low latency sends a copy per expert.
    copies = {"low_latency": model.top_k, "normal": min(model.top_k, gpus)}
    for level, (tokens,) in _grid(axes.routed):
        for kind, mode in product(exchange.KINDS, copies):
            if mode == "normal" or tokens <= MOST_LOW_LATENCY_TOKENS:
                yield (
                    level,
                    all_to_all(kind, tokens, gpus, 1, model.hidden, model.top_k, mode, copies[mode], 0.0),
                )


def _matrices(model: Model, axes: Axes) -> Iterator[tuple[Level, Operation]]:
    widths = gemm_widths(model, axes.tp)
    for dtype, n, k in widths:
        for level, (m,) in _grid(axes.rows if dtype == "fp8" else axes.tokens):
            # Ends and middle of a width at once: two row counts say nothing about what lies between them.
            yield max(level - 1, 0), ops.gemm("projection", "dense", m, n, k, dtype)
    inputs = sorted({k for dtype, _, k in widths if dtype == "fp8"})
    for level, (k, m) in _grid(inputs, (*axes.tokens, axes.rows[-1])):
        yield level, ops.quantize("quantise", "dense", m, k)


def gemm_widths(model: Model, tp: Sequence[int]) -> list[tuple[str, int, int]]:
    """(dtype, n, k) of every GEMM that the model's layers run under these tensor parallelisms, each once.

    A step's operations on one token tell; prefill expands keys and values, which decode does not.
    """
    one = ExpertRows(**{field.name: 1.0 for field in fields(ExpertRows)})
    found: dict[tuple[str, int, int], None] = {}
    for shards in (shards for shards in tp if model.heads % shards == 0):
        layout = Layout(
            model,
            gpus=shards,
            tp=shards,
            ep=1,
            gpus_per_node=8,
            dense_prefill_max_kv=model.max_positions,
            mtp=True,
        )
        batches = Batch("prefill", 1, 1, 0), Batch("decode", 1, 1, 1)
        blocks = [o for batch in batches for o in attention_operations(layout, model.attention, batch)]
        parts = [part for block in blocks for part in block.parts] + token_operations(layout, 1, one, 1)
        for part in (part for part in parts if part.kernel == "gemm"):
            found[part.dtype, round(part.shape["n"]), round(part.shape["k"])] = None
    return list(found)
