"""One decoder layer on the tokens of a step: MLA over the latent cache, dense or over chosen keys, and its FFN.

The mathematics are those of `calibrate.kernels`: `mla` (both forms), `dsa_index`, `routing`, `moe`.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm

from calibrate.engine.cache import LatentCache
from calibrate.engine.weights import Attention, Experts, FeedForward, Indexer, Layer
from calibrate.kernels.dsa_index import index_scores
from calibrate.kernels.elementwise import EPSILON
from calibrate.kernels.moe import gated_ffn
from calibrate.kernels.routing import select_experts, sort_rows
from sim.catalog import Model

MOST_ABSORBED = 8
"""New tokens of a sequence up to which they absorb: one and its drafts."""
ROPE_BASE = 10_000.0
"""Base of the rotary angles (DeepSeek-V3's config.json, `rope_theta`)."""


@dataclass(frozen=True)
class Group:
    """Sequences of a step with equally many new tokens, which attend together; keys are padded to the longest.

    One or a few new tokens absorb W^UK into their queries and attend to the latents; many expand keys and values.
    """

    rows: Tensor
    """Rows of the step, int64 [b, new]."""
    places: Tensor
    """Where the cache has the entries of each sequence, int64 [b, keys]; the first one again where there are fewer."""
    mask: Tensor
    """Keys that each token may see, bool [b, new, keys]."""

    @property
    def absorbed(self) -> bool:
        """Whether it is decode, drafts included."""
        return self.rows.shape[1] <= MOST_ABSORBED


@dataclass(frozen=True)
class Batch:
    """The tokens of a step."""

    positions: Tensor
    """Of each token in its sequence, int64 [t]."""
    written: Tensor
    """Where the cache takes their entries, int64 [t]."""
    groups: tuple[Group, ...]


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Rotary embedding of x [t, .., r] at positions [t]: pairs of neighbouring elements turn."""
    width = x.shape[-1]
    frequency = ROPE_BASE ** (-torch.arange(0, width, 2, device=x.device, dtype=torch.float64) / width)
    angle = (positions.double()[:, None] * frequency).to(x.dtype)
    angle = angle.view(len(positions), *([1] * (x.dim() - 2)), width // 2)
    even, odd = x[..., ::2], x[..., 1::2]
    turned = (even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos())
    return torch.stack(turned, -1).flatten(-2)


def norm(x: Tensor, weight: Tensor) -> Tensor:
    """RMSNorm."""
    return rms_norm(x, weight.shape, weight, EPSILON)


def decoder_layer(
    layer: Layer, index: int, model: Model, x: Tensor, batch: Batch, cache: LatentCache
) -> Tensor:
    """Hidden states x [t, hidden] of a step's tokens -> those after the layer; writes the layer's cache entries."""
    x = x + attention(layer.attention, index, model, norm(x, layer.attention.norm), batch, cache)
    return x + feed_forward(layer.ffn, model, norm(x, layer.norm))


def attention(
    weights: Attention, index: int, model: Model, x: Tensor, batch: Batch, cache: LatentCache
) -> Tensor:
    """MLA of a step: the entries of all tokens are written first, then every sequence attends to its own."""
    latent_query = norm(linear(x, weights.q_a), weights.q_norm) if model.q_lora_rank else x
    q = linear(latent_query, weights.q_b).unflatten(-1, (model.heads, -1))
    q = torch.cat([q[..., : model.qk_nope], rotate(q[..., model.qk_nope :], batch.positions)], -1)
    entry = linear(x, weights.kv_a)
    latent = norm(entry[:, : model.kv_lora_rank], weights.kv_norm)
    rope = rotate(entry[:, model.kv_lora_rank :], batch.positions)
    cache.latents[index, batch.written] = torch.cat([latent, rope], -1)
    output = x.new_empty(len(x), model.heads, model.v_head_dim)
    kept = _index(weights.indexer, index, model, x, latent_query, batch, cache)
    for group, mask in zip(batch.groups, kept, strict=True):
        output[group.rows] = _attend(weights, model, q[group.rows], cache.latents[index, group.places], mask)
    return linear(output.flatten(1), weights.out)


def _attend(weights: Attention, model: Model, q: Tensor, entries: Tensor, mask: Tensor) -> Tensor:
    """q [b, new, heads, nope + rope] over entries [b, keys, kv_lora + rope] where mask [b, new, keys]
    -> [b, new, heads, v]."""
    latent, rope = entries[..., : model.kv_lora_rank], entries[..., model.kv_lora_rank :]
    up, down = weights.kv_b[:, : model.qk_nope], weights.kv_b[:, model.qk_nope :]
    q_nope, q_rope = q[..., : model.qk_nope], q[..., model.qk_nope :]
    scores = torch.einsum("bshr,blr->bhsl", q_rope, rope)
    absorbed = q.shape[1] <= MOST_ABSORBED
    if absorbed:
        scores = scores + torch.einsum("bshc,blc->bhsl", torch.einsum("bshn,hnc->bshc", q_nope, up), latent)
    else:
        keys = torch.einsum("blc,hnc->bhln", latent, up)
        scores = scores + torch.einsum("bshn,bhln->bhsl", q_nope, keys)
    scores = scores / sqrt(model.qk_nope + model.qk_rope)
    share = scores.masked_fill(~mask[:, None], float("-inf")).softmax(-1)
    if absorbed:
        return torch.einsum("bshc,hvc->bshv", torch.einsum("bhsl,blc->bshc", share, latent), down)
    return torch.einsum("bhsl,bhlv->bshv", share, torch.einsum("blc,hvc->bhlv", latent, down))


def _index(
    indexer: Indexer | None, index: int, model: Model, x: Tensor, latent_query: Tensor, batch: Batch,
    cache: LatentCache,
) -> list[Tensor]:  # fmt: skip
    """Which keys each token attends to, a mask of each group: all before it, or the `index_topk` best of them."""
    masks = [group.mask for group in batch.groups]
    if indexer is None:
        return masks
    turned = min(model.qk_rope, model.index_head_dim)
    q = linear(latent_query, indexer.query).unflatten(-1, (model.index_heads, -1))
    q = torch.cat([rotate(q[..., :turned], batch.positions), q[..., turned:]], -1)
    key = linear(x, indexer.key)
    cache.index_keys[index, batch.written] = torch.cat(
        [rotate(key[:, :turned], batch.positions), key[:, turned:]], -1
    )
    weight = linear(x, indexer.weight)
    return [
        mask
        if mask.shape[-1] <= model.index_topk
        else _best(model, q[group.rows], weight[group.rows], cache.index_keys[index, group.places], mask)
        for group, mask in zip(batch.groups, masks, strict=True)
    ]


def _best(model: Model, q: Tensor, weight: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """Of the keys that each token may see the `index_topk` with the best scores."""
    each = zip(q, weight, keys, strict=True)
    scores = torch.stack([index_scores(*sequence) for sequence in each])
    best = scores.masked_fill(~mask, float("-inf")).topk(model.index_topk, -1).indices
    return mask & torch.zeros_like(mask).scatter_(-1, best, True)


def feed_forward(ffn: FeedForward | Experts, model: Model, x: Tensor) -> Tensor:
    """The dense FFN, or the chosen experts' weighted sum with the shared one."""
    if isinstance(ffn, FeedForward):
        return gated_ffn(x, ffn.up, ffn.down)
    chosen, share = select_experts(linear(x, ffn.gate), ffn.bias, model)
    rows, counts = sort_rows(x, chosen, model.n_routed)
    outputs = torch.empty_like(rows)
    first = 0
    for expert, count in enumerate(counts.tolist()):
        if count:
            mine = slice(first, first + count)
            outputs[mine] = gated_ffn(rows[mine], ffn.up[expert], ffn.down[expert])
            first += count
    back = torch.empty_like(outputs)
    back[chosen.flatten().argsort(stable=True)] = outputs
    total = torch.einsum("tk,tkh->th", share, back.view(*chosen.shape, -1))
    return total + gated_ffn(x, ffn.shared.up, ffn.shared.down) if ffn.shared else total
