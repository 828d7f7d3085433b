"""What a model is made of: parameters of every part, weight bytes per GPU, cache bytes per token and request.

Attention, whose kinds have a file each in `sim.model.attention`, in the words of the DeepSeek-V2 and V3 papers: a token
is compressed into a QUERY LATENT (c^Q, width `q_lora_rank`) and a KEY-VALUE LATENT (c^KV, width `kv_lora_rank`); beside
the latter stands the DECOUPLED RoPE KEY (k^R, width `qk_rope`), one for all heads. Latent and RoPE key are all that is
cached.

Norms and the gate's bias (1.0 M of V3's 671 B parameters) are left out everywhere. FLOP = 2 x MAC.
"""

from collections.abc import Mapping
from typing import Final, Literal

from sim.catalog import Model
from sim.kernels import hyper_connections
from sim.kernels.formats import weight_bytes
from sim.model.attention import Attention, kinds
from sim.model.sharding import Sharding

Part = Literal[
    "attention",
    "absorbed",
    "indexer",
    "compressor",
    "hyper_connections",
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


def _parameters_of(kind: Attention, part: Part) -> int:
    """Parameters of one layer's attention, or of its indexer or compressors."""
    return sum(matrix.parameters for matrix in kind.matrices() if matrix.part == part)


def expert_parameters(model: Model) -> int:
    """Parameters of one routed expert; a shared expert has as many."""
    return FFN_MATRICES * model.hidden * model.moe_inter


def dense_ffn_parameters(model: Model) -> int:
    """Parameters of the FFN of one dense layer."""
    return FFN_MATRICES * model.hidden * model.dense_inter


def parameters(model: Model) -> dict[Part, int]:
    """Parameters of the main model by part, over all layers."""
    moe, attention = model.moe_layers, kinds(model)
    vocabulary = model.vocab * model.hidden
    rare: dict[Part, int] = {
        "compressor": sum(layers * _parameters_of(kind, "compressor") for kind, layers in attention),
        "hyper_connections": model.layers * hyper_connections.parameters(model.streams, model.hidden)
        if model.streams > 1
        else 0,
    }
    return {
        "attention": sum(layers * _parameters_of(kind, "attention") for kind, layers in attention),
        "indexer": sum(layers * _parameters_of(kind, "indexer") for kind, layers in attention),
        "routed": moe * model.n_routed * expert_parameters(model),
        "shared": moe * model.n_shared * expert_parameters(model),
        "dense_ffn": model.dense_layers * dense_ffn_parameters(model),
        "gate": moe * model.n_routed * model.hidden,
        "embedding": vocabulary,
        "head": 0 if model.tied_embedding else vocabulary,
        "mtp_projection": 0,
        **{part: count for part, count in rare.items() if count},
    }


def mtp_parameters(model: Model) -> dict[Part, int]:
    """Parameters of the multi-token prediction modules by part: one MoE layer and the projection eh_proj
    (2 hidden x hidden) each. Embedding and head are the main model's (DeepSeek-V3 report, section 2.2).

    A drafter of blocks has one projection, of its target layers' states, and two factors of its Markov head."""
    layer = parameters(model.only_layer())
    own: dict[Part, int] = {part: model.nextn * count for part, count in layer.items()}
    projection = model.nextn * 2 * model.hidden**2
    if model.drafts_in_block:
        projection = model.dspark_target_layers * model.hidden**2 + 2 * model.vocab * model.markov_rank
    return own | {"embedding": 0, "head": 0, "mtp_projection": projection}


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


def cache_bytes(model: Model, kv_cache: str, tokens: int, mtp: bool = False, tp: int = 1) -> float:
    """Bytes of the cache of a sequence of `tokens` tokens over all layers on one GPU; with `mtp` the module's layer
    caches too."""
    return sum(layers * kind.cache_bytes(tokens, kv_cache, tp) for kind, layers in kinds(model, mtp))


def cache_bytes_per_token(model: Model, kv_cache: str, mtp: bool = False, tp: int = 1) -> float:
    """Bytes of one more cached token of a long sequence, as `cache_bytes`."""
    return sum(layers * kind.token_bytes(kv_cache, tp) for kind, layers in kinds(model, mtp))


def cache_bytes_per_request(model: Model, kv_cache: str, mtp: bool = False, tp: int = 1) -> float:
    """Bytes that a long sequence has beside those of its tokens: full windows and states. 0 where the cache of every
    layer is a straight line.

    `cache_bytes` is at most this much and `cache_bytes_per_token` for each token: equal once its windows are full.
    """
    longest = model.max_positions
    in_tokens = longest * cache_bytes_per_token(model, kv_cache, mtp, tp)
    return cache_bytes(model, kv_cache, longest, mtp, tp) - in_tokens


def state_bytes_per_request(model: Model, mtp: bool = False) -> float:
    """Of `cache_bytes_per_request`, what the next entries are computed from."""
    return sum(layers * kind.state_bytes() for kind, layers in kinds(model, mtp))


def part_format(model: Model, part: Part, weights: str, attention: str = "fp8", dense: str = "fp8") -> str:
    """Number format of a part when the deployment's weights are bf16, fp8, mxfp4, nvfp4 or int4.

    MXFP4, NVFP4 and INT4 are for the routed experts; what else is quantised stays FP8 (BF16 beside INT4), but for the
    `attention`'s projections and the `dense` parts (shared expert, dense FFN) where they are given. `bf16_parts` of the
    catalog stay BF16, hyper-connections FP32.
    """
    if part == "hyper_connections":
        return "fp32"
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
    over, groups = sharding or Sharding.over_ranks(tp), kinds(model, mtp)
    count = parameters(model)
    if mtp:
        module = mtp_parameters(model)
        count = {part: n + module.get(part, 0) for part, n in count.items()}
    slots_per_expert = (model.n_routed + redundant) / model.n_routed if model.n_routed else 0.0
    share: dict[Part, float] = {
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
    projections = part_format(model, "attention", weights, attention, dense)
    held_bytes["attention"] = sum(
        weight_bytes(layers * _parameters_of(kind, "attention") * _share_on_gpu(kind, tp), projections)
        for kind, layers in groups
    )
    copied = sum(layers * kind.absorbed_parameters for kind, layers in groups)
    if absorbed and copied:
        held_bytes["absorbed"] = weight_bytes(copied / min(tp, model.heads), absorbed)
    return held_bytes


def _share_on_gpu(kind: Attention, tp: int) -> float:
    """Share of a layer's attention, the indexer aside, that one GPU of a rank holds."""
    held = sum(matrix.parameters_on_gpu(tp) for matrix in kind.matrices() if matrix.part == "attention")
    return held / _parameters_of(kind, "attention")
