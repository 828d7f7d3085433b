"""The gate: which experts a token chooses.

DeepSeek-V3's gate scores every expert by a sigmoid, adds a bias that only the selection sees, keeps the best groups
of experts, and takes the top-k experts inside them (DeepSeek-V3 report, arXiv 2412.19437, section 2.1.2 and
equations 12 to 16; node-limited routing in the same section).
"""

import pickle
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]

SMALLEST_CHANCE = float(np.finfo(np.float32).eps)
"""Keeps the single-precision logits of a sampled token finite."""


def select(scores: Floats, top_k: int, groups: int = 1, group_limit: int | None = None) -> Ints:
    """The `top_k` experts of each token, within its `group_limit` best groups.

    scores: (tokens, experts), the biased affinities; experts of one group are adjacent.
    A group's score is the sum of its K / M best scores (V3 report 2.1.2; 2 for top-8 from 4 groups).
    Returns (tokens, top_k) expert numbers, in no particular order.
    Raises ValueError where the groups that are kept hold fewer than `top_k` experts.
    """
    tokens, experts = scores.shape
    if group_limit is not None and group_limit < groups:
        size = experts // groups
        if group_limit * size < top_k:
            raise ValueError(f"{group_limit} groups of {size} experts cannot give top-{top_k}")
        grouped = scores.reshape(tokens, groups, size)
        best = max(1, top_k // group_limit)
        group_scores = np.partition(grouped, size - best, axis=2)[:, :, size - best :].sum(axis=2)
        cut = np.argpartition(group_scores, groups - group_limit - 1, axis=1)[:, : groups - group_limit]
        kept = np.ones((tokens, groups, 1), dtype=bool)
        np.put_along_axis(kept, cut[:, :, None], False, axis=1)
        scores = np.where(kept, grouped, -np.inf).reshape(tokens, experts)
    return np.argpartition(scores, experts - top_k, axis=1)[:, experts - top_k :]


def gate(logits: Floats, bias: Floats, top_k: int, groups: int = 1, group_limit: int | None = None) -> Ints:
    """DeepSeek-V3's gate: affinity s = sigmoid(u . e), selection by s + bias, group limit, top-k.

    logits: (tokens, experts); bias: (experts,), the auxiliary-loss-free balancing term. Returns and raises as
    `select`.
    """
    return select(1.0 / (1.0 + np.exp(-logits)) + bias, top_k, groups, group_limit)


def draw_choices(
    selection: Floats,
    top_k: int,
    tokens: int,
    rng: np.random.Generator,
    groups: int = 1,
    group_limit: int | None = None,
) -> Ints:
    """Experts that `tokens` tokens per layer choose when expert e is wanted with probability `selection[., e]`.

    A token's logit for an expert is standard logistic noise shifted by log(q / (1 - q)), so that it exceeds 0 with
    probability q: without a group limit the top-k, whose threshold lies near 0, meets the popularity within a few
    percent. A group limit favours groups with several hot experts over a lone one, as the real gate does; q itself
    stays what the load is computed from. A token's affinities to different experts are independent.

    selection: (layers, experts), from `popularity.selection_probability`.
    Returns (layers, tokens, top_k).
    """
    state = pickle.dumps(rng.bit_generator.state)
    wanted = np.asarray(selection, dtype=np.float64)
    chosen, after = _drawn(wanted.tobytes(), len(wanted), top_k, tokens, state, groups, group_limit)
    rng.bit_generator.state = pickle.loads(after)
    return chosen


@lru_cache(maxsize=4)
def _drawn(
    selection: bytes, layers: int, top_k: int, tokens: int, state: bytes, groups: int, group_limit: int | None
) -> tuple[Ints, bytes]:
    """`draw_choices` from a state of a generator, and the state that it is left in: the pools of a deployment ask for
    the same."""
    rng = np.random.default_rng()
    rng.bit_generator.state = pickle.loads(state)
    q = np.frombuffer(selection).reshape(layers, -1)
    experts = q.shape[1]
    q = np.clip(q, SMALLEST_CHANCE, 1.0 - SMALLEST_CHANCE)
    shift = np.log(q / (1.0 - q)).astype(np.float32)
    bias, chosen = np.zeros(experts, dtype=np.float32), np.empty((layers, tokens, top_k), dtype=np.int64)
    for layer in range(layers):  # one at a time: all of them leave the cache, and take fresh memory
        uniform = rng.random((tokens, experts), dtype=np.float32)
        np.clip(uniform, SMALLEST_CHANCE, 1.0 - SMALLEST_CHANCE, out=uniform)
        logits = np.log(uniform / (1.0 - uniform)) + shift[layer]
        chosen[layer] = gate(logits, bias, top_k, groups, group_limit)
    chosen.flags.writeable = False
    return chosen, pickle.dumps(rng.bit_generator.state)
