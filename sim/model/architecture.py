"""What a model is made of: parameters of every part, weight bytes per GPU, cache bytes per token.

Attention in the words of the DeepSeek-V2 and V3 papers: a token is compressed into a QUERY LATENT (c^Q, width
`q_lora_rank`) and a KEY-VALUE LATENT (c^KV, width `kv_lora_rank`); beside the latter stands the DECOUPLED RoPE KEY
(k^R, width `qk_rope`), one for all heads. Latent and RoPE key are all that is cached.

Norms and the gate's bias (1.0 M of V3's 671 B parameters) are left out everywhere. FLOP = 2 x MAC.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from sim.catalog import Model, kv_layouts
from sim.kernels.formats import weight_bytes
from sim.model.sharding import Sharding
from sim.units import DTYPE_BYTES

Part = Literal[
    "attention",
    "absorbed",
    "indexer",
    "routed",
    "shared",
    "dense_ffn",
    "gate",
    "embedding",
    "head",
    "mtp_projection",
]
FFN_MATRICES: Final = 3
"""Gate, up and down projection of a gated FFN (SwiGLU)."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """One weight matrix of the attention."""

    name: str
    inputs: int
    outputs: int
    heads: int
    """Heads that tensor parallelism can divide it by; 1 where every GPU keeps it whole."""

    @property
    def parameters(self) -> int:
        """Inputs x outputs."""
        return self.inputs * self.outputs

    def parameters_on_gpu(self, tp: int) -> float:
        """Parameters that one of `tp` GPUs holds; more GPUs than heads hold copies."""
        return self.parameters / min(tp, self.heads)


def attention_matrices(model: Model) -> tuple[Matrix, ...]:
    """The projections of one attention layer, without the indexer.

    MLA (DeepSeek-V3 report, equations 1 to 10): W^DQ; W^UQ and W^QR; W^DKV and W^KR; W^UK and W^UV; W^O.
    V2-Lite has no query latent. GQA: W^Q, W^K and W^V, W^O.
    """
    d, h = model.hidden, model.heads
    if model.attention == "gqa":
        kv = model.kv_heads
        return (
            Matrix("query", d, h * model.head_dim, h),
            Matrix("key and value", d, 2 * kv * model.head_dim, kv),
            Matrix("output", h * model.v_head_dim, d, h),
        )
    query = h * (model.qk_nope + model.qk_rope)
    key_value = (
        Matrix("key-value latent and RoPE key, down", d, model.kv_lora_rank + model.qk_rope, 1),
        Matrix("key-value latent, up", model.kv_lora_rank, h * (model.qk_nope + model.v_head_dim), h),
        Matrix("output", h * model.v_head_dim, d, h),
    )
    if not model.q_lora_rank:
        return (Matrix("query", d, query, h), *key_value)
    return (
        Matrix("query latent, down", d, model.q_lora_rank, 1),
        Matrix("query latent, up", model.q_lora_rank, query, h),
        *key_value,
    )


def indexer_matrices(model: Model) -> tuple[Matrix, ...]:
    """The lightning indexer of DSA (DeepSeek-V3.2 report, section 2.1; `Indexer` of its reference model.py).

    Queries come from the query latent, the key and the heads' weights from the token. TP does not shard it.
    """
    if not model.sparse:
        return ()
    return (
        Matrix("indexer query", model.q_lora_rank, model.index_heads * model.index_head_dim, 1),
        Matrix("indexer key", model.hidden, model.index_head_dim, 1),
        Matrix("indexer weights", model.hidden, model.index_heads, 1),
    )


def attention_parameters(model: Model) -> int:
    """Parameters of one attention layer without the indexer."""
    return sum(m.parameters for m in attention_matrices(model))


def indexer_parameters(model: Model) -> int:
    """Parameters of one layer's indexer; 0 without DSA."""
    return sum(m.parameters for m in indexer_matrices(model))


def expert_parameters(model: Model) -> int:
    """Parameters of one routed expert; a shared expert has as many."""
    return FFN_MATRICES * model.hidden * model.moe_inter


def dense_ffn_parameters(model: Model) -> int:
    """Parameters of the FFN of one dense layer."""
    return FFN_MATRICES * model.hidden * model.dense_inter


def parameters(model: Model) -> dict[Part, int]:
    """Parameters of the main model by part, over all layers."""
    moe = model.moe_layers
    vocabulary = model.vocab * model.hidden
    return {
        "attention": model.layers * attention_parameters(model),
        "indexer": model.layers * indexer_parameters(model),
        "routed": moe * model.n_routed * expert_parameters(model),
        "shared": moe * model.n_shared * expert_parameters(model),
        "dense_ffn": model.dense_layers * dense_ffn_parameters(model),
        "gate": moe * model.n_routed * model.hidden,
        "embedding": vocabulary,
        "head": 0 if model.tied_embedding else vocabulary,
        "mtp_projection": 0,
    }


def mtp_parameters(model: Model) -> dict[Part, int]:
    """Parameters of the multi-token prediction modules by part: one MoE layer and the projection eh_proj
    (2 hidden x hidden) each. Embedding and head are the main model's (DeepSeek-V3 report, section 2.2)."""
    layer = parameters(model.only_layer())
    own: dict[Part, int] = {part: model.nextn * count for part, count in layer.items()}
    return own | {"embedding": 0, "head": 0, "mtp_projection": model.nextn * 2 * model.hidden**2}


def total_parameters(model: Model) -> int:
    """Parameters of the main model, without MTP modules."""
    return sum(parameters(model).values())


def active_parameters(model: Model, head: bool = True) -> int:
    """Parameters that one token of the main model multiplies with: `top_k` of the routed experts, no embedding
    (a look-up), and the head unless `head` is False."""
    vocabulary = model.vocab * model.hidden if head else 0
    return _active(model, parameters(model)) + vocabulary


def mtp_active_parameters(model: Model) -> int:
    """Parameters that one draft token multiplies with in one MTP module, the shared head included."""
    if not model.nextn:
        return 0
    return _active(model, mtp_parameters(model)) // model.nextn + model.vocab * model.hidden


def _active(model: Model, by_part: Mapping[Part, int]) -> int:
    """Active parameters without embedding and head."""
    routed = by_part["routed"] * model.top_k // model.n_routed if model.n_routed else 0
    apart = by_part["routed"] + by_part["embedding"] + by_part["head"]
    return sum(by_part.values()) - apart + routed


def linear_flop_per_token(model: Model, head: bool = True) -> int:
    """FLOP of all projections and FFNs for one token: 2 x active parameters.

    Decode runs the head on every token; prefill on the last of each prompt only (`head=False` for the others).
    """
    return 2 * active_parameters(model, head)


def cache_entry_bytes(model: Model, kv_cache: str, tp: int = 1) -> int:
    """Bytes of one cached token in one layer on one GPU, without index keys.

    MLA: key-value latent and RoPE key, which TP does not shard: 1152 in BF16; in FP8 576 dense, 656 for DSA (the
    RoPE key stays BF16, each 128 elements of the latent have an FP32 scale). GQA: keys and values of the GPU's
    key-value heads, at least one.
    """
    if model.attention == "gqa":
        return round(2 * max(1, model.kv_heads // tp) * model.head_dim * DTYPE_BYTES[kv_cache])
    layout = f"dsa_{kv_cache}" if model.sparse and kv_cache == "fp8" else f"mla_{kv_cache}"
    return kv_layouts()[layout]


def index_entry_bytes(model: Model) -> int:
    """Bytes of one token's index key in one layer (128 FP8 values and an FP32 scale); 0 without DSA."""
    return kv_layouts()["dsa_index_key"] if model.sparse else 0


def cache_bytes_per_token(model: Model, kv_cache: str, mtp: bool = False, tp: int = 1) -> int:
    """Bytes of one cached token over all layers on one GPU; with `mtp` the module's layer caches too."""
    layers = model.layers + (model.nextn if mtp else 0)
    return layers * (cache_entry_bytes(model, kv_cache, tp) + index_entry_bytes(model))


def part_format(model: Model, part: Part, weights: str, attention: str = "fp8", dense: str = "fp8") -> str:
    """Number format of a part when the deployment's weights are bf16, fp8, nvfp4 or int4.

    NVFP4 and INT4 are for the routed experts; what else is quantised stays FP8 (BF16 beside INT4), but for the
    `attention`'s projections and the `dense` parts (shared expert, dense FFN) where they are given. `bf16_parts` of the
    catalog stay BF16.
    """
    if weights == "bf16" or part in model.bf16_parts:
        return "bf16"
    own: dict[Part, str] = {"routed": weights, "attention": attention, "shared": dense, "dense_ffn": dense}
    return own.get(part, "bf16" if weights == "int4" else "fp8")


def weight_bytes_per_gpu(
    model: Model,
    *,
    gpus: int,
    tp: int = 1,
    redundant: int = 0,
    shared_as_slot: bool = False,
    weights: str = "fp8",
    attention: str = "fp8",
    dense: str = "fp8",
    mtp: bool = False,
    sharding: Sharding | None = None,
    absorbed: str | None = None,
) -> dict[Part, float]:
    """Bytes of the weights on one GPU of a worker by part, with the scales of their formats.

    Attention is sharded over `tp`, and its DP ranks (gpus / tp) hold copies; shared expert, dense FFN, embedding and
    head are as `sharding` says (None: over `tp` too). Each GPU has 1 / gpus of the routed experts and of their
    `redundant` replicas (over the whole group), whatever EP is: slots / ep experts, each sharded over gpus / ep.
    Latent down-projections, indexer, gate and eh_proj are on every GPU. `shared_as_slot`: the shared expert is one
    slot of the group. `mtp`: the modules are loaded; embedding and head are shared. `absorbed`: the format of the
    further copy of W^UK and W^UV that the absorbed form of MLA multiplies with; None: there is none.
    """
    over = sharding or Sharding.over_ranks(tp)
    count = parameters(model)
    if mtp:
        count = {part: n + mtp_parameters(model)[part] for part, n in count.items()}
    slots_per_expert = (model.n_routed + redundant) / model.n_routed if model.n_routed else 0.0
    held = sum(m.parameters_on_gpu(tp) for m in attention_matrices(model))
    share: dict[Part, float] = {
        "attention": held / attention_parameters(model),
        "routed": slots_per_expert / gpus,
        "shared": 1 / gpus if shared_as_slot else 1 / over.shared,
        "dense_ffn": 1 / over.dense_ffn,
        "embedding": 1 / over.embedding,
        "head": 1 / over.head,
    }
    held_bytes: dict[Part, float] = {
        part: weight_bytes(n * share.get(part, 1.0), part_format(model, part, weights, attention, dense))
        for part, n in count.items()
    }
    if absorbed and model.kv_lora_rank:
        layers = model.layers + (model.nextn if mtp else 0)
        up = model.kv_lora_rank * model.heads * (model.qk_nope + model.v_head_dim)
        held_bytes["absorbed"] = weight_bytes(layers * up / min(tp, model.heads), absorbed)
    return held_bytes
