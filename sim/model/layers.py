"""Which operations a prefill chunk or a decode step runs beside attention, per attention-DP rank.

They depend only on how many tokens the rank has; see `Layout` for what is sharded over what.
"""

from dataclasses import replace

from sim.catalog import Model
from sim.model import operations as ops
from sim.model.exchanges import all_to_all, collective
from sim.model.layout import ExpertRows, Layout
from sim.model.operations import Operation
from sim.units import DTYPE_BYTES

BF16 = DTYPE_BYTES["bf16"]
NORM_PASSES = 8
"""Hidden states that a layer's two residual adds with RMS norm move: each reads branch and residual and writes the
sum and its norm."""
MIXED_NORM_PASSES = 4
"""Of these, beside hyper-connections: two norms read a stream and write it."""


def token_operations(layout: Layout, tokens: float, experts: ExpertRows, logits: float) -> list[Operation]:
    """Everything of a step but attention: norms, experts, dense FFN, head and what moves between GPUs.

    `tokens` on this rank in this step, of which `logits` need the head (all in decode, the last of each prompt
    in prefill). `experts` tells what the routing of all ranks' tokens puts on the most loaded rank.
    """
    model = layout.model
    moe_layers = model.layers - model.dense_layers if model.n_routed else 0
    extra = model.nextn if layout.mtp and not model.drafts_in_block else 0
    dense_layers = model.layers - moe_layers
    step = _residuals(model, tokens, layout.attention_layers)
    if dense_layers:
        step += _dense_ffn(layout, tokens, dense_layers)
    if moe_layers:
        step += _moe(layout, tokens, experts, moe_layers + extra)
    if layout.tp > 1:
        size = tokens * model.hidden * BF16
        reduced = layout.attention_layers + (dense_layers if layout.over.dense_ffn == layout.tp else 0)
        step.append(collective("all_reduce", "tensor-parallel all-reduce", size, layout.tp, reduced))
    if extra:
        step.append(ops.gemm("MTP eh_proj", "dense", tokens, model.hidden, 2 * model.hidden, "bf16", extra))
        step += [replace(o, name=f"MTP {o.name}", layers=extra) for o in head_operations(layout, logits)]
    return step + head_operations(layout, logits) if logits else step


def _residuals(model: Model, tokens: float, layers: int) -> list[Operation]:
    """The residual stream of a layer with its norms; several streams are mixed by hyper-connections instead."""
    passes = MIXED_NORM_PASSES if model.streams > 1 else NORM_PASSES
    name = "norms" if model.streams > 1 else "residual adds and norms"
    norms = ops.elementwise(name, "other", tokens * model.hidden * passes * BF16, layers)
    if model.streams == 1:
        return [norms]
    return [*ops.hyper_connections(tokens, model.streams, model.hidden, layers), norms]


def head_operations(layout: Layout, logits: float) -> list[Operation]:
    """Final projection to the vocabulary (BF16), its shards gathered, and sampling, for the tokens that need logits."""
    model, over = layout.model, layout.over.head
    seen = _seen(layout, logits, over)
    operations = [ops.gemm("head", "dense", seen, model.vocab / over, model.hidden, "bf16")]
    if over > 1:
        size = seen * model.vocab * BF16
        operations.append(collective("all_gather", "gather logits", size, over))
    if seen > logits:
        size = seen * model.hidden * BF16
        operations.insert(0, collective("all_gather", "gather tokens for the head", size, over))
    operations.append(ops.elementwise("sampling", "other", logits * model.vocab * DTYPE_BYTES["fp32"]))
    return [replace(o, stream="once") for o in operations]


def _seen(layout: Layout, tokens: float, over: int) -> float:
    """Tokens that each of `over` GPUs computes, which share one copy of a matrix, where a rank has `tokens`."""
    return tokens * over / layout.tp


def _dense_ffn(layout: Layout, tokens: float, layers: int) -> list[Operation]:
    """FFN of the dense layers; over several ranks their tokens are gathered before, and the sums scattered after."""
    model, over = layout.model, layout.over.dense_ffn
    seen = _seen(layout, tokens, over)
    parts = _ffn(layout, "dense FFN", "dense", seen, model.dense_inter / over, layers)
    if over <= layout.tp:
        return parts
    there, back = _to_all_ranks(layout, "dense FFN", seen * model.hidden, BF16, over, layers)
    return [replace(o, gathered=True) for o in (there, *parts, back)]


def _to_all_ranks(
    layout: Layout, name: str, elements: float, each: float, gpus: int, layers: int
) -> tuple[Operation, Operation]:
    """The ranks' tokens to all of them, in `each` bytes per element, and the sums of the results back, in BF16."""
    if layout.gathered_by == "all_reduce":
        whole = elements * BF16
        return (
            collective("all_reduce", f"{name} gather by all-reduce", whole, gpus, layers),
            collective("all_reduce", f"{name} all-reduce", whole, gpus, layers),
        )
    return (
        collective("all_gather", f"{name} all-gather", elements * each, gpus, layers),
        collective("reduce_scatter", f"{name} reduce-scatter", elements * BF16, gpus, layers),
    )


def _ffn(layout: Layout, name: str, group: ops.Group, m: float, inter: float, layers: int) -> list[Operation]:
    """Gated FFN: gate and up fused, SiLU x up, down; inputs quantised where the weights are FP8."""
    hidden = layout.model.hidden
    dtype = layout.dense_weights
    parts = [
        ops.gemm(f"{name}: gate and up", group, m, 2 * inter, hidden, dtype, layers),
        replace(
            ops.elementwise(f"{name}: activation", group, m * 3 * inter * BF16, layers),
            options={"function": "silu_mul"},
        ),
        ops.gemm(f"{name}: down", group, m, hidden, inter, dtype, layers),
    ]
    if dtype != "bf16":
        parts.insert(0, ops.quantize(f"{name}: quantise input", group, m, hidden, layers, dtype))
        parts.insert(3, ops.quantize(f"{name}: quantise hidden", group, m, inter, layers, dtype))
    return parts


def _moe(layout: Layout, tokens: float, experts: ExpertRows, layers: int) -> list[Operation]:
    model, over = layout.model, layout.over.shared
    seen = _seen(layout, tokens, over)
    gathered = over > layout.tp
    gate = ops.gemm("gate", "moe", seen, model.n_routed, model.hidden, "bf16", layers)
    parts = [replace(gate, gathered=gathered)]
    experts_here = (
        experts.rows,
        experts.slots,
        experts.active,
        model.hidden,
        model.moe_inter / layout.moe_tp,
    )
    fused = layout.exchange_in_experts
    if fused:
        grouped = ops.mega_moe_experts(*experts_here, layout.weights, layout.ep, layers)
    else:
        grouped = replace(
            ops.routed_experts(*experts_here, layout.weights, layers),
            options=_experts_options(layout),
            in_situ=layout.experts_factor,
        )
    parts.append(replace(grouped, stream="experts"))
    if layout.whole_batch_experts and layout.ep > 1 and not layout.all_to_all:
        parts.append(_foreign_rows(layout, tokens, experts, layers))
    if model.n_shared and not layout.shared_as_slot:
        inter = model.n_shared * model.moe_inter / over
        shared = _ffn(layout, "shared expert", "dense", seen, inter, layers)
        parts += [replace(o, stream="shared", gathered=gathered) for o in shared]
    return parts if fused else parts + _exchange(layout, tokens, experts, layers)


def _experts_options(layout: Layout) -> dict[str, str]:
    """What selects the kernels of the routed experts."""
    options: dict[str, str] = {"backend": layout.moe_backend} if layout.moe_backend else {}
    if layout.all_to_all:
        # What a rank's experts receive, padded batches or contiguous rows, selects their kernel.
        options["mode"] = layout.dispatch_mode
    return options


def _foreign_rows(layout: Layout, tokens: float, experts: ExpertRows, layers: int) -> Operation:
    """Traffic of token-expert pairs whose expert is on another rank, in kernels that leave out only their arithmetic.

    Per pair: zeros written by both GEMMs (2 inter, hidden), activation (2 inter in, inter out), quantisation (inter in
    and, in FP8, out), and the sum over the chosen experts (hidden). Source: vLLM's TritonExperts, pull request 58051.
    """
    model, inter = layout.model, layout.model.moe_inter / layout.moe_tp
    pairs = max(0.0, tokens * layout.dp * model.top_k - experts.rows)
    per_pair = (5 * inter + 2 * model.hidden) * BF16
    if layout.weights != "bf16":
        per_pair += inter * BF16 + inter * DTYPE_BYTES["fp8"]
    rows = ops.elementwise("rows of other ranks' experts", "moe", pairs * per_pair, layers)
    return replace(rows, stream="experts")


def _exchange(layout: Layout, tokens: float, experts: ExpertRows, layers: int) -> list[Operation]:
    """How tokens reach their experts and come back.

    One attention rank (dp = 1): every GPU has every token, and one all-reduce sums the partial results.
    Several ranks: dispatch and combine, or all-gather and reduce-scatter of the ranks' tokens. Where attention has
    `tp` > 1, the two halves of its all-reduce stand around the exchange: reduce-scatter before, all-gather after.
    """
    model = layout.model
    if layout.gpus == 1:
        return []
    if layout.dp == 1:
        size = tokens * model.hidden * BF16
        return [collective("all_reduce", "MoE all-reduce", size, layout.gpus, layers)]
    if layout.all_to_all:
        # The exchange lasts until the most loaded rank has its tokens, and until it has sent them back.
        busiest = tokens / layout.tp * experts.skew
        shape = (busiest, layout.ep, layout.nodes, model.hidden, model.top_k)
        route = (layout.dispatch_mode, experts.copies, experts.remote_copies, layers)
        return [all_to_all("dispatch", *shape, *route), all_to_all("combine", *shape, *route)]
    quantised = layout.weights == "nvfp4" and layout.quantised_gather
    each = ops.activation_bytes(1, "nvfp4" if quantised else "bf16")
    exchange = _to_all_ranks(layout, "MoE", tokens * layout.dp * model.hidden, each, layout.gpus, layers)
    return [replace(o, stream="exchange", gathered=True) for o in exchange]
