"""Which operations a prefill chunk or a decode step runs, per attention-DP rank.

Attention is one block per layer, with its parts, because that is how modules are measured. Everything else
depends only on how many tokens the rank has; see `Layout` for what is sharded over what.
"""

from dataclasses import dataclass, replace
from typing import Literal

from sim.catalog import Model
from sim.model import operations as ops
from sim.model.architecture import cache_entry_bytes
from sim.model.operations import Operation
from sim.units import DTYPE_BYTES

Phase = Literal["prefill", "decode"]
BF16 = DTYPE_BYTES["bf16"]


@dataclass(frozen=True)
class Layout:
    """How one worker shards a model. `tp` shards attention heads, dense FFN, shared expert and head;
    `ep` spreads routed experts, whose intermediate width `moe_tp` = gpus / ep shards."""

    model: Model
    gpus: int
    tp: int
    ep: int
    gpus_per_node: int
    """GPUs that share the fast link: 8, or 72 in an NVL72 rack."""
    weights: str = "fp8"
    attention_weights: str = "fp8"
    kv_cache: str = "fp8"
    dense_prefill_max_kv: int = 0
    """DSA models run masked MHA in prefill while no sequence is longer than this (engine threshold)."""
    dispatch_mode: Literal["low_latency", "normal"] = "normal"
    exchange: Literal["all_to_all", "all_gather"] = "all_to_all"
    """How attention-DP ranks reach the experts: DeepEP-like all-to-all, or all-gather and reduce-scatter."""
    mtp: bool = False
    """The MTP module is loaded: the prompt passes through it, and it has a cache."""

    @property
    def dp(self) -> int:
        """Attention-DP ranks of the worker."""
        return self.gpus // self.tp

    @property
    def moe_tp(self) -> int:
        """GPUs that share one expert."""
        return self.gpus // self.ep

    @property
    def heads(self) -> int:
        """Attention heads per GPU."""
        return self.model.heads // self.tp

    @property
    def nodes(self) -> int:
        """Fast-link domains that the worker spans."""
        return -(-self.gpus // self.gpus_per_node)

    @property
    def attention_layers(self) -> int:
        """Layers with a KV cache, the MTP module's included when it is loaded."""
        return self.model.layers + (self.model.nextn if self.mtp else 0)


@dataclass(frozen=True)
class ExpertRows:
    """What routing makes of a step: the load of the most loaded rank, and how far tokens travel."""

    rows: float
    """Token-expert pairs on the most loaded rank."""
    slots: float
    """Expert slots on a rank."""
    active: float
    """Of these, touched by at least one token."""
    copies: float
    """Copies of a token that leave its GPU in the layout's dispatch mode."""
    remote_copies: float
    """Of these, the ones that cross the NIC to another node."""


def attention_block(
    layout: Layout, phase: Phase, batch: float, new: float, cached: float, layers: int
) -> Operation:
    """The whole attention of one layer: `batch` sequences with `new` tokens each, behind `cached` ones.

    A block named after the module tables that measure it as a whole (projections, quantisation, absorb BMMs,
    indexer, core and o_proj); its parts are what runs inside.
    """
    model = layout.model
    if model.attention == "gqa":
        parts, kernel = _gqa_parts(layout, phase, batch, new, cached, layers), f"gqa_{phase}_block"
    else:
        kernel = f"{'dsa' if model.index_topk else 'mla'}_{phase}_block"
        parts = _mla_parts(layout, phase, batch, new, cached, layers)
    shape: dict[str, float] = {"heads": layout.heads, "batch": batch}
    shape |= (
        {"new": new, "cached": cached} if phase == "prefill" else {"context": cached + new, "queries": new}
    )
    return Operation(
        "attention block", "attention", kernel, shape, layout.attention_weights,
        sum(p.flop for p in parts), sum(p.bytes for p in parts), layers, tuple(parts),
        options={"kv_cache": layout.kv_cache},
    )  # fmt: skip


def _projection(layout: Layout, name: str, m: float, n: float, k: float, layers: int) -> list[Operation]:
    """A linear layer of the attention, with the quantisation of its input where the weights are FP8."""
    dtype = layout.attention_weights
    matrix = ops.gemm(name, "attention", m, n, k, dtype, layers)
    if dtype == "bf16":
        return [matrix]
    return [ops.quantize(f"quantise for {name}", "attention", m, k, layers), matrix]


def _mla_parts(
    layout: Layout, phase: Phase, batch: float, new: float, cached: float, layers: int
) -> list[Operation]:
    model, heads = layout.model, layout.heads
    tokens, context = batch * new, batch * (new + cached)
    qk = model.qk_nope + model.qk_rope
    latents = model.kv_lora_rank + model.qk_rope
    parts = _projection(layout, "q_a and kv_a", tokens, model.q_lora_rank + latents, model.hidden, layers)
    norms = tokens * 2 * (model.q_lora_rank + latents) * BF16
    parts.append(ops.elementwise("latent norms and RoPE", "attention", norms, layers))
    parts += _projection(layout, "q_b", tokens, heads * qk, model.q_lora_rank or model.hidden, layers)
    if model.index_topk:
        parts += _index_projections(layout, tokens, layers)
    sparse = model.index_topk and (phase == "decode" or new + cached > layout.dense_prefill_max_kv)
    if sparse:
        parts += _sparse_core(layout, phase, batch, new, cached, layers)
    elif phase == "prefill":
        expand = heads * (model.qk_nope + model.v_head_dim)
        parts += _projection(
            layout, "kv_b (expand keys and values)", context, expand, model.kv_lora_rank, layers
        )
        parts.append(
            ops.mla_prefill(heads, batch, new, cached, qk, model.v_head_dim, layout.kv_cache, layers)
        )
    else:
        entry = cache_entry_bytes(model, layout.kv_cache)
        core = ops.mla_decode(
            heads, batch, cached + new, new, model.kv_lora_rank, model.qk_rope, entry, layout.kv_cache, layers
        )
        parts += _absorbed(model, heads, tokens, core, layers)
    return [*parts, *_projection(layout, "o_proj", tokens, model.hidden, heads * model.v_head_dim, layers)]


def _absorbed(model: Model, heads: int, tokens: float, core: Operation, layers: int) -> list[Operation]:
    pre = ops.absorb_bmm("pre", tokens, heads, model.qk_nope, model.kv_lora_rank, layers)
    post = ops.absorb_bmm("post", tokens, heads, model.v_head_dim, model.kv_lora_rank, layers)
    return [pre, core, post]


def _index_projections(layout: Layout, tokens: float, layers: int) -> list[Operation]:
    """The indexer's query, key and weight projections; replicated under TP (its heads are not sharded)."""
    model = layout.model
    query = _projection(
        layout, "indexer q_b", tokens, model.index_heads * model.index_head_dim, model.q_lora_rank, layers
    )
    key = _projection(layout, "indexer key", tokens, model.index_head_dim, model.hidden, layers)
    weights = ops.gemm(
        "indexer weights", "attention", tokens, model.index_heads, model.hidden, "bf16", layers
    )
    return [*query, *key, weights]


def _sparse_core(
    layout: Layout, phase: Phase, batch: float, new: float, cached: float, layers: int
) -> list[Operation]:
    model = layout.model
    key_bytes = ops.activation_bytes(model.index_head_dim, "fp8")
    logits = ops.index_logits(batch, new, cached, model.index_heads, model.index_head_dim, key_bytes, layers)
    select = ops.index_topk(batch, new, cached, model.index_topk, layers)
    core = ops.sparse_mla(
        phase, layout.heads, batch, new, cached, model.index_topk, model.kv_lora_rank, model.qk_rope,
        cache_entry_bytes(model, layout.kv_cache), layout.kv_cache, layers,
    )  # fmt: skip
    return [logits, select, *_absorbed(model, layout.heads, batch * new, core, layers)]


def _gqa_parts(
    layout: Layout, phase: Phase, batch: float, new: float, cached: float, layers: int
) -> list[Operation]:
    model, heads = layout.model, layout.heads
    kv_heads = max(1, model.kv_heads // layout.tp)
    width = (heads + 2 * kv_heads) * model.head_dim
    core = ops.gqa(
        phase, heads, kv_heads, model.head_dim, batch, new, cached, DTYPE_BYTES[layout.kv_cache], layers
    )
    return [
        *_projection(layout, "qkv", batch * new, width, model.hidden, layers),
        core,
        *_projection(layout, "o_proj", batch * new, model.hidden, heads * model.head_dim, layers),
    ]


def token_operations(layout: Layout, tokens: float, experts: ExpertRows, logits: float) -> list[Operation]:
    """Everything of a step but attention: norms, experts, dense FFN, head and what moves between GPUs.

    `tokens` on this rank in this step, of which `logits` need the head (all in decode, the last of each prompt
    in prefill). `experts` tells what the routing of all ranks' tokens puts on the most loaded rank.
    """
    model = layout.model
    moe_layers = model.layers - model.dense_layers if model.n_routed else 0
    extra = model.nextn if layout.mtp else 0
    dense_layers = model.layers - moe_layers
    step = [
        ops.elementwise(
            "residual adds and norms", "other", tokens * model.hidden * 8 * BF16, layout.attention_layers
        )
    ]
    if dense_layers:
        step += _ffn(layout, "dense FFN", "dense", tokens, model.dense_inter / layout.tp, dense_layers)
    if moe_layers:
        step += _moe(layout, tokens, experts, moe_layers + extra)
    if layout.tp > 1:
        size = tokens * model.hidden * BF16
        reduced = layout.attention_layers + dense_layers
        step.append(ops.collective("all_reduce", "tensor-parallel all-reduce", size, layout.tp, reduced))
    if extra:
        step.append(ops.gemm("MTP eh_proj", "dense", tokens, model.hidden, 2 * model.hidden, "bf16", extra))
    return step + _head(layout, logits)


def _head(layout: Layout, logits: float) -> list[Operation]:
    """Final projection to the vocabulary (BF16) and sampling, for the tokens that need logits."""
    model = layout.model
    vocabulary = model.vocab / layout.tp
    operations = [
        ops.gemm("head", "dense", logits, vocabulary, model.hidden, "bf16"),
        ops.elementwise("sampling", "other", logits * vocabulary * DTYPE_BYTES["fp32"]),
    ]
    return [replace(o, stream="once") for o in operations]


def _ffn(layout: Layout, name: str, group: ops.Group, m: float, inter: float, layers: int) -> list[Operation]:
    """Gated FFN: gate and up fused, SiLU x up, down; inputs quantised where the weights are FP8."""
    hidden = layout.model.hidden
    dtype = "bf16" if layout.weights == "bf16" else "fp8"
    parts = [
        ops.gemm(f"{name}: gate and up", group, m, 2 * inter, hidden, dtype, layers),
        ops.elementwise(f"{name}: activation", group, m * 3 * inter * BF16, layers),
        ops.gemm(f"{name}: down", group, m, hidden, inter, dtype, layers),
    ]
    if dtype == "fp8":
        parts.insert(0, ops.quantize(f"{name}: quantise input", group, m, hidden, layers))
        parts.insert(3, ops.quantize(f"{name}: quantise hidden", group, m, inter, layers))
    return parts


def _moe(layout: Layout, tokens: float, experts: ExpertRows, layers: int) -> list[Operation]:
    model = layout.model
    parts = [ops.gemm("gate", "moe", tokens, model.n_routed, model.hidden, "bf16", layers)]
    experts_here = (
        experts.rows,
        experts.slots,
        experts.active,
        model.hidden,
        model.moe_inter / layout.moe_tp,
    )
    grouped = ops.routed_experts(*experts_here, layout.weights, layers)
    exchanged = layout.dp > 1 and layout.ep > 1 and layout.exchange == "all_to_all"
    # What a rank's experts receive, padded batches or contiguous rows, selects their kernel.
    parts.append(replace(grouped, options={"mode": layout.dispatch_mode}) if exchanged else grouped)
    if model.n_shared:
        inter = model.n_shared * model.moe_inter / layout.tp
        shared = _ffn(layout, "shared expert", "dense", tokens, inter, layers)
        parts += [replace(o, stream="shared") for o in shared]
    return parts + _exchange(layout, tokens, experts, layers)


def _exchange(layout: Layout, tokens: float, experts: ExpertRows, layers: int) -> list[Operation]:
    """How tokens reach their experts and come back.

    One attention rank (dp = 1): every GPU has every token, and one all-reduce sums the partial results.
    Several ranks: dispatch and combine, or all-gather and reduce-scatter of the ranks' tokens.
    """
    model = layout.model
    if layout.gpus == 1:
        return []
    if layout.dp == 1:
        size = tokens * model.hidden * BF16
        return [ops.collective("all_reduce", "MoE all-reduce", size, layout.gpus, layers)]
    if layout.ep > 1 and layout.exchange == "all_to_all":
        shape = (tokens / layout.tp, layout.ep, layout.nodes, model.hidden, model.top_k)
        route = (layout.dispatch_mode, experts.copies, experts.remote_copies, layers)
        return [ops.all_to_all("dispatch", *shape, *route), ops.all_to_all("combine", *shape, *route)]
    size = tokens * layout.dp * model.hidden * BF16
    exchange = [
        ops.collective("all_gather", "MoE all-gather", size, layout.gpus, layers),
        ops.collective("reduce_scatter", "MoE reduce-scatter", size, layout.gpus, layers),
    ]
    return [replace(o, stream="exchange") for o in exchange]
