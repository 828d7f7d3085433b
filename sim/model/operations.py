"""Operations of a forward step: what runs, on what shape, with how many FLOP and bytes.

FLOP = 2 x MAC. Every number is for ONE GPU, ONE layer, ONE step; `layers` says how often the step repeats it.
The simulator, the calibration and the reports count FLOP and bytes with these functions and no others.

Formulas: DeepSeek-V3 report (arXiv 2412.19437) section 2.1.1 for MLA, DeepSeek-V3.2 report section 2 for the
indexer; shapes follow DeepSeek's reference `inference/model.py`. Traffic counts each operand once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sim.model.layout import Phase
from sim.units import DTYPE_BYTES

BLOCK = 128
"""Width of an FP8 block: activations 1 x 128, weights 128 x 128 (DeepSeek-V3 report, section 3.3.2)."""
SCALE_BYTES = 4
"""One FP32 scale per FP8 block."""
NVFP4_BLOCK = 16
"""Elements that share one one-byte scale in NVFP4."""
INT4_BLOCK = 32
"""Elements that share one BF16 scale in INT4 (Kimi K2 Thinking's quantization_config: group_size)."""

Group = Literal["attention", "moe", "dense", "communication", "other"]
Stream = Literal["layers", "experts", "shared", "exchange", "once"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One kernel, or one block of kernels that a profile may have measured as a whole.

    A block lists its `parts`; its FLOP and bytes are their sums. The cost model prices a block whole where
    the profile measured it whole, and part by part elsewhere.
    """

    name: str
    """What a reader of `explain` sees, such as `q_b projection`."""
    group: Group
    kernel: str
    """The kernel family that a profile measures, such as `gemm` or `mla_decode`."""
    shape: Mapping[str, float]
    """The family's coordinates, such as {m, n, k}; the names are those of the profile's table."""
    dtype: str
    """Precision that the arithmetic runs in: bf16, fp8 or nvfp4; int4 weights are unpacked and multiplied in bf16."""
    flop: float
    bytes: float
    """HBM traffic, read and written; for communication the bytes that one GPU sends."""
    layers: int = 1
    parts: tuple["Operation", ...] = ()
    stream: Stream = field(default="layers", kw_only=True)
    """What may overlap what: routed experts, the shared one, the exchange, the rest of the layers, once per step."""
    gathered: bool = field(default=False, kw_only=True)
    """Whether it runs on the gathered tokens of all attention-DP ranks, beside the routed experts, which always do."""
    options: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    """What else selects a measured table: kv_cache, backend, distribution."""
    cache_bytes: float = field(default=0.0, kw_only=True)
    """Of `bytes`, what is read from the KV cache or the index keys."""
    widths: Mapping[str, float] = field(default_factory=dict, kw_only=True)
    """Widths of the architecture that no axis of the table carries, by their names in `sim.cost.form.Dims`: what was
    measured at other widths does not price this operation."""


def weight_bytes(elements: float, dtype: str) -> float:
    """Bytes of a weight matrix with the scales of its format: FP8 one per 128 x 128 block, NVFP4 one per 16, INT4 one
    per 32."""
    scales = {
        "fp8": SCALE_BYTES / BLOCK**2,
        "nvfp4": 1 / NVFP4_BLOCK,
        "int4": DTYPE_BYTES["bf16"] / INT4_BLOCK,
    }.get(dtype, 0.0)
    return elements * (DTYPE_BYTES[dtype] + scales)


def activation_bytes(elements: float, dtype: str) -> float:
    """Bytes of activations with the scales of their format: FP8 one per 1 x 128 group, NVFP4 one per 16. Beside INT4
    weights they stay BF16."""
    if dtype == "int4":
        dtype = "bf16"
    scales = {"fp8": SCALE_BYTES / BLOCK, "nvfp4": 1 / NVFP4_BLOCK}.get(dtype, 0.0)
    return elements * (DTYPE_BYTES[dtype] + scales)


def causal_pairs(new: Any, cached: Any) -> Any:
    """(query, key) pairs of `new` tokens behind `cached` ones under the causal mask:
    new x cached + new (new + 1) / 2. Numbers or arrays, as in `sparse_pairs`.
    """
    return new * cached + new * (new + 1) / 2


def sparse_pairs(new: Any, cached: Any, top_k: float) -> Any:
    """(query, key) pairs when each query keeps at most `top_k` keys: sum over queries of min(position + 1, top_k)."""
    room = (top_k - cached + abs(top_k - cached)) / 2  # max(top_k - cached, 0)
    dense = (room + new - abs(room - new)) / 2  # min(room, new)
    return causal_pairs(dense, cached) + (new - dense) * top_k


def gemm(name: str, group: Group, m: float, n: float, k: float, dtype: str, layers: int = 1) -> Operation:
    """[m, k] x [k, n] -> BF16 [m, n]: 2 m n k FLOP; activations and weights read once, the result written."""
    traffic = activation_bytes(m * k, dtype) + weight_bytes(n * k, dtype) + m * n * DTYPE_BYTES["bf16"]
    return Operation(name, group, "gemm", {"m": m, "n": n, "k": k}, dtype, 2 * m * n * k, traffic, layers)


def quantize(name: str, group: Group, m: float, k: float, layers: int = 1) -> Operation:
    """BF16 [m, k] -> FP8 with one scale per 1 x 128. No matrix FLOP."""
    traffic = m * k * DTYPE_BYTES["bf16"] + activation_bytes(m * k, "fp8")
    return Operation(name, group, "quantize", {"m": m, "k": k}, "fp8", 0.0, traffic, layers)


def elementwise(name: str, group: Group, traffic_bytes: float, layers: int = 1) -> Operation:
    """Norms, RoPE, activations, residuals: HBM traffic only."""
    return Operation(name, group, "elementwise", {"bytes": traffic_bytes}, "bf16", 0.0, traffic_bytes, layers)


def absorb_bmm(
    stage: Literal["pre", "post"], tokens: float, heads: int, head_dim: int, kv_lora: int, layers: int = 1
) -> Operation:
    """Per-head product between a head's own space and the KV latent: [tokens, head_dim] x [head_dim, kv_lora].

    `pre` absorbs W^UK into the query, `post` applies W^UV to the attention output.
    """
    flop = 2 * tokens * heads * head_dim * kv_lora
    traffic = (heads * head_dim * kv_lora + tokens * heads * (head_dim + kv_lora)) * DTYPE_BYTES["bf16"]
    shape = {"tokens": tokens, "heads": heads}
    widths = {"nope" if stage == "pre" else "v_head": head_dim, "kv_lora": kv_lora}
    return Operation(
        f"absorb BMM ({stage})", "attention", "absorb_bmm", shape, "bf16", flop, traffic, layers,
        options={"stage": stage}, widths=widths,
    )  # fmt: skip


def mla_prefill(
    heads: int,
    batch: float,
    new: float,
    cached: float,
    qk_dim: int,
    v_dim: int,
    kv_cache: str,
    layers: int = 1,
) -> Operation:
    """MHA form of MLA over expanded keys and values: 2 heads (qk_dim + v_dim) FLOP per causal pair (81,920 for V3).

    `batch` prompts of `new` tokens, each behind `cached` ones.
    """
    flop = 2 * heads * (qk_dim + v_dim) * batch * causal_pairs(new, cached)
    elements = batch * heads * (new * (qk_dim + v_dim) + (new + cached) * (qk_dim + v_dim))
    shape = {"heads": heads, "batch": batch, "new": new, "cached": cached}
    return Operation(
        "MLA core, MHA form", "attention", "mla_prefill", shape, "bf16", flop,
        elements * DTYPE_BYTES["bf16"], layers, options={"kv_cache": kv_cache},
        widths={"qk_dim": qk_dim, "v_head": v_dim},
    )  # fmt: skip


def mla_decode(
    heads: int, batch: float, context: float, queries: float, kv_lora: int, rope: int,
    entry_bytes: float, kv_cache: str, layers: int = 1,
) -> Operation:  # fmt: skip
    """Absorbed (MQA) form of MLA: 2 heads (2 kv_lora + rope) FLOP per pair (278,528 for V3); the latent
    is read once.

    `queries` tokens per sequence attend to `context` keys of `entry_bytes` each.
    """
    flop = 2 * heads * (2 * kv_lora + rope) * batch * queries * context
    activations = batch * queries * heads * (2 * kv_lora + rope) * DTYPE_BYTES["bf16"]
    shape = {"heads": heads, "batch": batch, "context": context, "queries": queries}
    return Operation(
        "MLA core, absorbed form", "attention", "mla_decode", shape, "bf16", flop,
        batch * context * entry_bytes + activations, layers, options={"kv_cache": kv_cache},
        widths={"kv_lora": kv_lora, "rope": rope}, cache_bytes=batch * context * entry_bytes,
    )  # fmt: skip


def index_logits(
    batch: float,
    new: float,
    cached: float,
    index_heads: int,
    index_dim: int,
    key_bytes: float,
    layers: int = 1,
) -> Operation:
    """Lightning indexer: 2 index_heads index_dim FLOP per causal pair (16,384 for V3.2), FP32 logits written.

    Keys are read once per sequence: `key_bytes` is 132 for 128 FP8 values and one FP32 scale.
    """
    pairs = batch * causal_pairs(new, cached)
    keys = batch * (new + cached) * key_bytes
    traffic = keys + batch * new * index_heads * (index_dim + 4) + pairs * 4
    shape = {"batch": batch, "new": new, "context": new + cached, "index_heads": index_heads}
    return Operation(
        "index logits", "attention", "index_logits", shape, "fp8",
        2 * index_heads * index_dim * pairs, traffic, layers, widths={"index_dim": index_dim}, cache_bytes=keys,
    )  # fmt: skip


def index_topk(batch: float, new: float, cached: float, top_k: int, layers: int = 1) -> Operation:
    """Selection of the `top_k` best keys of each query: FP32 logits read once, int32 indices written."""
    traffic = batch * causal_pairs(new, cached) * 4 + batch * new * top_k * 4
    shape = {"batch": batch, "new": new, "context": new + cached}
    widths = {"index_topk": top_k}
    return Operation(
        "index top-k", "attention", "index_topk", shape, "fp32", 0.0, traffic, layers, widths=widths
    )


def sparse_mla(
    phase: Phase, heads: int, batch: float, new: float, cached: float, top_k: int,
    kv_lora: int, rope: int, entry_bytes: float, kv_cache: str, layers: int = 1,
) -> Operation:  # fmt: skip
    """Absorbed MLA over the selected keys: the dense form's FLOP per pair, over min(position, top_k) keys per query.

    In decode every query gathers its own entries; in prefill neighbouring queries share them through the cache,
    so the whole context is counted once and the FLOP bind.
    """
    pairs = batch * sparse_pairs(new, cached, top_k)
    gathered = pairs if phase == "decode" else min(pairs, batch * (new + cached))
    activations = batch * new * heads * (2 * kv_lora + rope) * DTYPE_BYTES["bf16"]
    shape = {"heads": heads, "batch": batch, "new": new, "context": new + cached}
    return Operation(
        "sparse MLA core", "attention", f"sparse_mla_{phase}", shape, "bf16", 2 * heads * (2 * kv_lora + rope) * pairs,
        gathered * entry_bytes + activations, layers, options={"kv_cache": kv_cache},
        widths={"kv_lora": kv_lora, "rope": rope, "index_topk": top_k}, cache_bytes=gathered * entry_bytes,
    )  # fmt: skip


def gqa(
    phase: Phase, heads: int, kv_heads: int, head_dim: int, batch: float, new: float,
    cached: float, kv_bytes: float, layers: int = 1,
) -> Operation:  # fmt: skip
    """Grouped-query attention: 4 heads head_dim FLOP per causal pair; 2 kv_heads head_dim cache elements per key."""
    pairs = batch * causal_pairs(new, cached)
    cache = batch * (new + cached) * 2 * kv_heads * head_dim * kv_bytes
    traffic = cache + batch * 2 * new * heads * head_dim * DTYPE_BYTES["bf16"]
    shape = {
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "batch": batch,
        "new": new,
        "cached": cached,
    }
    return Operation(
        "GQA core", "attention", f"gqa_{phase}", shape, "bf16", 4 * heads * head_dim * pairs, traffic, layers,
        cache_bytes=cache,
    )  # fmt: skip


def routed_experts(
    rows: float, experts: float, active: float, hidden: int, inter: float, dtype: str, layers: int = 1
) -> Operation:
    """Gate, up and down projections of the routed experts on the most loaded rank: 6 hidden inter FLOP per row.

    `rows`: token-expert pairs there. `experts`: its slots, of which `active` are touched and so read.
    `inter`: intermediate width on this GPU, after MoE tensor parallelism.
    """
    weights = weight_bytes(active * 3 * hidden * inter, dtype)
    moved = (
        activation_bytes(rows * (hidden + inter), dtype) + rows * (2 * inter + hidden) * DTYPE_BYTES["bf16"]
    )
    shape = {"rows": rows, "experts": experts, "active": active, "hidden": hidden, "inter": inter}
    return Operation(
        "routed experts", "moe", "moe", shape, dtype, 6 * hidden * inter * rows, weights + moved, layers
    )
