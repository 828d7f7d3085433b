"""Routing: the load of the hottest rank by token count, and where a token's copies travel."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.catalog import DispatchMode
from sim.experts.placement import Placement

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Touched:
    """What one token reaches, mean over tokens, source ranks and layers.

    A node is a scale-up domain: 8 GPUs of an HGX board, or the whole of an NVL72 rack. A rank is one GPU.
    """

    pairs: float
    """Token-expert pairs of a token: top-k, and one more where the shared expert is routed as a slot."""
    nodes: float
    """Distinct nodes, the token's own included where it holds a chosen expert."""
    gpus: float
    """Distinct GPUs, likewise."""
    remote_nodes: float
    """Distinct nodes other than the token's own."""
    remote_pairs: float
    """Token-expert pairs whose expert is on another node."""
    own_pairs: float
    """Token-expert pairs whose expert is on the token's own GPU."""
    forwarded: float
    """Distinct GPUs less those that already hold the copy which their node received, or which is the source."""
    node_skew: float
    """Tokens that reach a node, each once, per GPU of it: the most loaded node's over the mean. Mean over layers."""


@dataclass(frozen=True, slots=True)
class Copies:
    """Copies of one token's hidden state that cross each network; x bytes per copy = bytes sent per token."""

    rdma: float
    nvlink: float


def copies(touched: Touched, mode: DispatchMode) -> Copies:
    """Copies of a token in DeepEP's two modes (README of deepseek-ai/DeepEP; V3 report section 3.2.2).

    low_latency: one copy per token-expert pair, straight to the expert's GPU.
    normal: one copy per remote node, to the GPU with the sender's own index in it, which forwards one copy over NVLink
    to each other GPU of its node that the token needs; the combine runs the same way back.
    """
    if mode == "low_latency":
        return Copies(
            rdma=touched.remote_pairs, nvlink=touched.pairs - touched.remote_pairs - touched.own_pairs
        )
    return Copies(rdma=touched.remote_nodes, nvlink=touched.forwarded)


def node_sizes(ranks: int, gpus_per_node: int) -> Ints:
    """GPUs of the EP group on each node; only the last node may be partly used."""
    full, rest = divmod(ranks, gpus_per_node)
    return np.array([gpus_per_node] * full + [rest] * (rest > 0))


def touched_evenly(experts: int, top_k: int, ranks: int, gpus_per_node: int) -> Touched:
    """Closed form: any `top_k` of the experts equally likely, contiguous placement, no group limit.

    A set of m experts is missed with probability C(experts - m, k) / C(experts, k) (drawing without replacement).
    """

    def hit(held: int) -> float:
        return 1.0 - math.comb(experts - held, top_k) / math.comb(experts, top_k)

    per_rank = experts // ranks
    sizes = node_sizes(ranks, gpus_per_node)
    node_hit = np.array([hit(per_rank * int(size)) for size in sizes])
    local = float((sizes * sizes).sum()) / ranks**2
    return Touched(
        pairs=top_k,
        nodes=float(node_hit.sum()),
        gpus=ranks * hit(per_rank),
        remote_nodes=float((node_hit * (1.0 - sizes / ranks)).sum()),
        remote_pairs=top_k * (1.0 - local),
        own_pairs=top_k / ranks,
        forwarded=hit(per_rank) * float((sizes - 1).sum()),
        node_skew=float((node_hit / sizes).max() * ranks / node_hit.sum()) if len(set(sizes)) > 1 else 1.0,
    )


def choose_slots(choices: Ints, placement: Placement, rng: np.random.Generator) -> Ints:
    """(layers, tokens, k): the slot that serves each chosen expert, one of its copies at random."""
    replicas = placement.replicas()
    first = np.cumsum(replicas, axis=1) - replicas
    by_expert = np.argsort(placement.experts, axis=1, kind="stable")
    layer = np.arange(len(choices))[:, None, None]
    copy = (rng.random(choices.shape) * replicas[layer, choices]).astype(np.int64)
    slots: Ints = by_expert[layer, first[layer, choices] + copy]
    return slots


def touched_by(slots: Ints, placement: Placement, gpus_per_node: int) -> Touched:
    """What the tokens with these slots (layers, tokens, k) reach; the source is any rank with equal chance."""
    ranks = placement.ranks
    sizes = node_sizes(ranks, gpus_per_node)
    gpu = np.sort(slots // placement.local_slots, axis=2)
    node = gpu // gpus_per_node
    new_gpu = _first(gpu)
    new_node = _first(node)
    elsewhere = (1.0 - sizes / ranks)[node]
    relayed = (1.0 - 1.0 / sizes)[node]
    tokens = node.shape[0] * node.shape[1]
    return Touched(
        pairs=node.shape[2],
        nodes=float(new_node.sum()) / tokens,
        gpus=float(new_gpu.sum()) / tokens,
        remote_nodes=float((elsewhere * new_node).sum()) / tokens,
        remote_pairs=float(elsewhere.sum()) / tokens,
        own_pairs=node.shape[2] / ranks,
        forwarded=float((relayed * new_gpu).sum()) / tokens,
        node_skew=_node_skew(node, new_node, sizes),
    )


def _node_skew(node: Ints, first: NDArray[np.bool_], sizes: Ints) -> float:
    """See `Touched.node_skew`; node (layers, tokens, k) is counted where `first`.

    The most loaded node is chosen by every other token and judged by the rest, so that chance in a sample of tokens
    does not pass for skew; never below 1.
    """
    layers, nodes = np.arange(len(node)), len(sizes)
    places = node + layers[:, None, None] * nodes

    def load(tokens: slice) -> Floats:
        at = places[:, tokens][first[:, tokens]]
        counts = np.bincount(at, minlength=len(node) * nodes).reshape(len(node), nodes)
        return np.asarray(counts / sizes)

    hottest, judged = load(slice(0, None, 2)).argmax(axis=1), load(slice(1, None, 2))
    mean = (judged * sizes).sum(axis=1) / sizes.sum()
    return max(1.0, float((judged[layers, hottest] / mean).mean())) if mean.all() else 1.0


def _first(ordered: Ints) -> NDArray[np.bool_]:
    """Marks the first of each run of equal entries along the last axis."""
    marks = np.ones(ordered.shape, dtype=bool)
    marks[..., 1:] = np.diff(ordered, axis=-1) != 0
    return marks


def sampled_rows(load: Floats, pairs: int, rng: np.random.Generator) -> Ints:
    """One step's token-expert pairs per rank or slot, (layers, ranks or slots).

    load: expected load, any scale. The step's `pairs` fall at random: multinomial given the load.
    """
    return rng.multinomial(pairs, load / load.sum(axis=1, keepdims=True))


def sampled_imbalance(rank_load: Floats, pairs: int, rng: np.random.Generator) -> float:
    """Hottest rank / mean rank of one `sampled_rows` per layer; mean over layers of the maximum over ranks."""
    rows = sampled_rows(rank_load, pairs, rng)
    return float(rows.max(axis=1).mean() * rank_load.shape[1] / pairs)


def expected_imbalance(rank_load: Floats) -> float:
    """Hottest rank / mean rank of the expected load: the limit of many tokens. Mean over layers."""
    return float((rank_load.max(axis=1) / rank_load.mean(axis=1)).mean())


def imbalance_table(rank_load: Floats, pairs: Sequence[int], rng: np.random.Generator) -> Floats:
    """`sampled_imbalance` for each number of pairs."""
    return np.array([sampled_imbalance(rank_load, count, rng) for count in pairs])
