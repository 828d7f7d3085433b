"""The attention of one layer, per attention-DP rank: one block, with its parts, because that is how modules are
measured. MLA in its MHA and its absorbed form, DSA's indexer and sparse core, GQA.
"""

from math import ceil

from sim.catalog import Model
from sim.model import operations as ops
from sim.model.architecture import cache_entry_bytes, index_entry_bytes
from sim.model.layout import Layout, Phase
from sim.model.operations import Operation
from sim.units import DTYPE_BYTES

BF16 = DTYPE_BYTES["bf16"]


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
    options = {"kv_cache": layout.kv_cache}
    if model.sparse and phase == "prefill":
        options["branch"] = "sparse" if _runs_sparse(layout, phase, new + cached) else "dense"
    shape: dict[str, float] = {"heads": layout.heads, "batch": batch}
    shape |= (
        {"new": new, "cached": cached} if phase == "prefill" else {"context": cached + new, "queries": new}
    )
    return Operation(
        "attention block", "attention", kernel, shape, layout.attention_weights,
        sum(p.flop for p in parts), sum(p.bytes for p in parts), layers, tuple(parts),
        options=options, widths=_block_widths(model),
    )  # fmt: skip


def _runs_sparse(layout: Layout, phase: Phase, context: float) -> bool:
    """Whether a DSA model selects keys: always in decode, in prefill where a prompt is longer than the engine's
    threshold for masked MHA (DeepSeek-V3.2 report, section 2.1)."""
    return layout.model.sparse and (phase == "decode" or context > layout.dense_prefill_max_kv)


def index_rereads(layout: Layout, batch: float, new: float, cached: float, layers: int) -> list[Operation]:
    """Index keys that a prefill chunk reads again because its logits do not fit their memory all at once.

    `new` queries against new + cached keys make 4 bytes of logit per pair; with M bytes the queries are scored in
    ceil(new / floor(M / (4 (new + cached)))) rounds, and each round after the first reads every key (132 bytes).
    """
    context = new + cached
    if not layout.index_logits_bytes or not _runs_sparse(layout, "prefill", context):
        return []
    at_once = max(1, int(layout.index_logits_bytes / (DTYPE_BYTES["fp32"] * context)))
    rounds = ceil(new / at_once)
    if rounds == 1:
        return []
    keys = batch * context * index_entry_bytes(layout.model)
    name = f"index keys again ({rounds} rounds of logits)"
    return [ops.elementwise(name, "attention", keys, layers * (rounds - 1))]


def _block_widths(model: Model) -> dict[str, float]:
    """What the projections and cores of a latent attention block depend on beside its heads."""
    if model.attention == "gqa":
        return {}
    widths = {
        "hidden": model.hidden,
        "q_lora": model.q_lora_rank,
        "kv_lora": model.kv_lora_rank,
        "nope": model.qk_nope,
        "rope": model.qk_rope,
        "v_head": model.v_head_dim,
    }
    indexer = {
        "index_heads": model.index_heads,
        "index_dim": model.index_head_dim,
        "index_topk": model.index_topk,
    }
    return {**widths, **(indexer if model.sparse else {})}


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
    if _runs_sparse(layout, phase, new + cached):
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
