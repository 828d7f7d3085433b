"""Random weights of a DeepSeek architecture, and a model of the catalog at a size that this device can serve.

Names and shapes follow DeepSeek's reference `inference/model.py`: each matrix is [outputs, inputs].
"""

from dataclasses import dataclass, fields, is_dataclass, replace
from math import sqrt
from typing import Any, Final

import torch
from torch import Tensor

from sim.catalog import Model

SHARPNESS: Final = 4.0
"""Standard deviation of the logits of random weights: large enough that no two of them are equal by rounding."""


def reduced(model: Model, layers: int, hidden: int, heads: int, experts: int, vocab: int) -> Model:
    """The model with fewer and narrower layers; what attention and routing are made of stays as it is in kind.

    Latents, head widths and the indexer shrink with `hidden`; the number of chosen experts and groups stays below that
    of the experts.
    """
    share = hidden / model.hidden

    def narrow(width: int, least: int) -> int:
        return max(least, round(width * share / 8) * 8) if width else 0

    groups = min(model.n_group, max(1, experts // 4))
    top_k = min(model.top_k, max(1, experts // 4))
    index_heads = max(2, round(model.index_heads * share)) if model.index_heads else 0
    group = replace(model.attention[-1], layers=layers)
    return replace(
        model,
        name=f"{model.name}, reduced",
        attention=(group,),
        dense_layers=min(1, layers - 1),
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        q_lora_rank=narrow(model.q_lora_rank, 32),
        kv_lora_rank=narrow(model.kv_lora_rank, 32),
        qk_nope=narrow(model.qk_nope, 16),
        qk_rope=narrow(model.qk_rope, 8),
        v_head_dim=narrow(model.v_head_dim, 16),
        moe_inter=narrow(model.moe_inter, 32),
        dense_inter=narrow(model.dense_inter, 64),
        n_routed=experts,
        top_k=top_k,
        n_group=groups,
        topk_group=max(1, groups // 2),
        vocab=vocab,
        index_heads=index_heads,
        index_head_dim=narrow(model.index_head_dim, 16),
    )


@dataclass(frozen=True)
class Indexer:
    """Weights of DSA's lightning indexer."""

    query: Tensor
    """[index heads x width, q_lora]."""
    key: Tensor
    """[width, hidden]."""
    weight: Tensor
    """[index heads, hidden]."""


@dataclass(frozen=True)
class Attention:
    """Weights of one layer's MLA."""

    norm: Tensor
    q_a: Tensor
    q_norm: Tensor
    q_b: Tensor
    """[heads x (nope + rope), q_lora], or from `hidden` where there is no query latent (`q_a` is then empty)."""
    kv_a: Tensor
    """[kv_lora + rope, hidden]."""
    kv_norm: Tensor
    kv_b: Tensor
    """[heads, nope + v, kv_lora]: W^UK over W^UV of each head."""
    out: Tensor
    """[hidden, heads x v]."""
    indexer: Indexer | None


@dataclass(frozen=True)
class FeedForward:
    """A gated FFN: `up` [2 inter, hidden] with the gate first, `down` [hidden, inter]."""

    up: Tensor
    down: Tensor


@dataclass(frozen=True)
class Experts:
    """The routed experts of one layer and the shared one."""

    gate: Tensor
    """[experts, hidden]."""
    bias: Tensor
    up: Tensor
    """[experts, 2 inter, hidden]."""
    down: Tensor
    shared: FeedForward | None


@dataclass(frozen=True)
class Layer:
    """One decoder layer."""

    attention: Attention
    norm: Tensor
    ffn: FeedForward | Experts


@dataclass(frozen=True)
class Module:
    """The MTP module (DeepSeek-V3 report, section 2.2): norms of state and embedding, their projection, a layer."""

    hidden_norm: Tensor
    embedding_norm: Tensor
    project: Tensor
    """[hidden, 2 hidden]."""
    layer: Layer
    norm: Tensor


@dataclass(frozen=True)
class Weights:
    """A whole model; embedding and head are shared with its MTP module."""

    model: Model
    embedding: Tensor
    layers: tuple[Layer, ...]
    norm: Tensor
    head: Tensor
    module: Module | None

    def to(self, device: torch.device) -> "Weights":
        """A copy on another device."""
        moved: Weights = _moved(self, device)
        return moved


def _moved(part: Any, device: torch.device) -> Any:
    """The same part with all its tensors on a device."""
    if isinstance(part, Tensor):
        return part.to(device)
    if isinstance(part, tuple):
        return tuple(_moved(each, device) for each in part)
    if is_dataclass(part) and not isinstance(part, (Model, type)):
        found = {each.name: _moved(getattr(part, each.name), device) for each in fields(part)}
        return type(part)(**found)
    return part


class _Maker:
    def __init__(self, model: Model, seed: int, device: torch.device, dtype: torch.dtype) -> None:
        self.model, self.device, self.dtype = model, device, dtype
        self.generator = torch.Generator(device).manual_seed(seed)

    def matrix(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Normal numbers that keep the size of what they multiply."""
        values = torch.randn(shape, generator=self.generator, device=self.device, dtype=torch.float32)
        return (values * (scale / sqrt(shape[-1]))).to(self.dtype)

    def ones(self, width: int) -> Tensor:
        return torch.ones(width, device=self.device, dtype=self.dtype)

    def attention(self) -> Attention:
        m = self.model
        qk, q_in = m.qk_nope + m.qk_rope, m.q_lora_rank or m.hidden
        indexer = None
        if m.index_topk:
            indexer = Indexer(
                self.matrix(m.index_heads * m.index_head_dim, q_in),
                self.matrix(m.index_head_dim, m.hidden),
                self.matrix(m.index_heads, m.hidden),
            )
        return Attention(
            norm=self.ones(m.hidden),
            q_a=self.matrix(m.q_lora_rank, m.hidden) if m.q_lora_rank else self.ones(0),
            q_norm=self.ones(m.q_lora_rank),
            q_b=self.matrix(m.heads * qk, q_in),
            kv_a=self.matrix(m.kv_lora_rank + m.qk_rope, m.hidden),
            kv_norm=self.ones(m.kv_lora_rank),
            kv_b=self.matrix(m.heads, m.qk_nope + m.v_head_dim, m.kv_lora_rank),
            out=self.matrix(m.hidden, m.heads * m.v_head_dim),
            indexer=indexer,
        )

    def ffn(self, inter: int) -> FeedForward:
        return FeedForward(self.matrix(2 * inter, self.model.hidden), self.matrix(self.model.hidden, inter))

    def experts(self) -> Experts:
        m = self.model
        return Experts(
            gate=self.matrix(m.n_routed, m.hidden),
            bias=self.matrix(1, m.n_routed)[0],
            up=self.matrix(m.n_routed, 2 * m.moe_inter, m.hidden),
            down=self.matrix(m.n_routed, m.hidden, m.moe_inter),
            shared=self.ffn(m.n_shared * m.moe_inter) if m.n_shared else None,
        )

    def layer(self, dense: bool) -> Layer:
        ffn = self.ffn(self.model.dense_inter) if dense or not self.model.n_routed else self.experts()
        return Layer(self.attention(), self.ones(self.model.hidden), ffn)

    def module(self) -> Module:
        width = self.model.hidden
        return Module(
            self.ones(width), self.ones(width), self.matrix(width, 2 * width), self.layer(False), self.ones(width)
        )  # fmt: skip


def random_weights(
    model: Model,
    seed: int = 0,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Weights:
    """Weights of a model from one seed, on a device (default: the CPU)."""
    make = _Maker(model, seed, device or torch.device("cpu"), dtype)
    return Weights(
        model=model,
        embedding=make.matrix(model.vocab, model.hidden, scale=sqrt(model.hidden)),
        layers=tuple(make.layer(index < model.dense_layers) for index in range(model.layers)),
        norm=make.ones(model.hidden),
        head=make.matrix(model.vocab, model.hidden, scale=SHARPNESS),
        module=make.module() if model.nextn else None,
    )
