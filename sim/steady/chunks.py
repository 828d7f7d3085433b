"""What a rank computes in a prefill step: the chunks that a workload's prompts are cut into."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sim.deployment.pools import PoolPlan
from sim.steady.demand import QUANTILES, Demand
from sim.step import PromptLoad, RankPrompts

Floats = NDArray[np.float64]

EDGES = np.array([*np.arange(8) / 8, *(1 - 0.5 ** np.arange(4, 9)), 1.0])
"""Shares of the chunks, from the cheapest to the dearest, that one chunk each stands for: finer where the dearest are,
because a step waits for the dearest chunk of all its ranks."""
CROWD = QUANTILES // 8
"""Prompts that are alike in the sum: more of them in a chunk differ from one another by their number only."""
FULL_CHUNKS = 8
"""Full chunks that QUANTILES prompts must fill so that they can be told apart."""
NEARLY = 0.7
"""Of the prompts that fill all chunks: as many at a time are no kind of step of their own."""


@dataclass(frozen=True, slots=True)
class Chunks:
    """Chunks of single ranks. Columns have one entry per chunk; see `sim.step.RankPrompts` for what they say."""

    tokens: Floats
    pairs: Floats
    """Pairs of new token and key."""
    pairs_alone: Floats
    """The same if no prefix had been cached."""
    held: Floats
    held_alone: Floats
    longest: Floats
    longest_alone: Floats
    several: Floats
    """Whether the chunk has several prompts, one of them with KV before it: 0 to 1."""

    @property
    def context(self) -> Floats:
        """Mean KV tokens that a chunk's tokens attend to."""
        return self.pairs / self.tokens

    @property
    def context_alone(self) -> Floats:
        """The same if no prefix had been cached."""
        return self.pairs_alone / self.tokens

    def load(self, differ: bool) -> PromptLoad:
        """The chunks as what so many ranks compute; `differ`: as if each had several prompts that differ."""
        columns = self.tokens.astype(int), self.context, self.held, self.longest
        each = enumerate(zip(*(column.tolist() for column in columns), strict=True))
        prompts = [
            RankPrompts(rank, tokens, context, held, longest, differ)
            for rank, (tokens, context, held, longest) in each
        ]
        return PromptLoad(len(prompts), prompts)


COLUMNS = tuple(Chunks.__dataclass_fields__)
SUMS = ("tokens", "pairs", "pairs_alone", "held", "held_alone")
"""Those that grow with the prompts of a chunk."""


def kinds(plan: PoolPlan, demand: Demand, whole: bool = False) -> list[tuple[Chunks, float, float]]:
    """Chunks of the ranks of a step, how many of the ranks have one, and how many prompts the step begins: from one
    prompt to full chunks. `whole`: prompts that fit into a chunk are not divided (`sim.serving.prompts`)."""
    new = np.random.default_rng(0).permutation(np.array(demand.new_quantiles))
    budget, ranks, per_new = float(plan.chunk_tokens), plan.dp, demand.cached_tokens / demand.new_tokens
    mean = float(new.mean())
    varied = mean * len(new) > FULL_CHUNKS * budget

    def chunks(together: float) -> Chunks:
        if varied or together <= CROWD:
            return cut(new, per_new, max(1, round(together)), budget, whole)
        crowd, part = cut(new, per_new, len(new), 2 * mean * len(new)), together / len(new)
        return replace(crowd, **{name: getattr(crowd, name) * part for name in SUMS})

    lone = chunks(1)
    per_prompt = len(lone.tokens) / len(new)
    active = np.unique([*2.0 ** np.arange(np.log2(ranks)), ranks]).tolist()
    found = [(lone, some, some / per_prompt) for some in active]
    packed = chunks(len(new) if varied else budget / mean)
    each = len(new) / len(packed.tokens) if varied and whole else budget / mean
    full, together = ranks * each, 2
    while ranks * together < NEARLY * full:
        found.append((chunks(together), ranks, float(ranks * together)))
        together *= 2
    most = max(full, found[-1][2] * (1 + 1e-6))
    return [*found, (packed, ranks, most)]


def cut(new: Floats, cached_per_new: float, together: int, budget: float, whole: bool = False) -> Chunks:
    """The chunks of prompts that a rank computes `together` at a time, in order, `budget` new tokens in each.

    new: computed tokens of each prompt, in order. A chunk ends with its prompts, however few tokens that leaves it.
    `whole`: and before a prompt that does not fit into what is left of it.
    """
    ends = np.cumsum(new)
    starts = ends - new
    first = starts[_fitting(new, together, budget)] if whole else starts[::together]
    length = np.append(first[1:], ends[-1]) - first
    count = np.maximum(np.ceil(length / budget - 1e-9), 1).astype(int)
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    opens = np.repeat(first, count) + number * budget
    at = np.unique(np.concatenate((starts, opens)))
    piece = np.append(at[1:], ends[-1]) - at
    prompt = np.searchsorted(starts, at, side="right") - 1
    chunk = np.searchsorted(opens, at, side="right") - 1
    earlier = at - starts[prompt]
    cached = new[prompt] * cached_per_new

    def total(values: Floats) -> Floats:
        return np.bincount(chunk, values, len(opens)).astype(np.float64)

    def largest(values: Floats) -> Floats:
        found = np.zeros(len(opens))
        np.maximum.at(found, chunk, values)
        return found

    alone = piece * earlier + piece * (piece + 1) / 2
    pieces, behind = total(np.ones(len(at))), total((cached + earlier > 0).astype(float))
    return Chunks(
        tokens=total(piece),
        pairs=total(alone + piece * cached),
        pairs_alone=total(alone),
        held=total(cached + earlier + piece),
        held_alone=total(earlier + piece),
        longest=largest(cached + earlier + piece),
        longest_alone=largest(earlier + piece),
        several=((pieces > 1) & (behind > 0)).astype(float),
    )


def _fitting(new: Floats, together: int, budget: float) -> list[int]:
    """The prompts that begin a chunk because they are one too many, or do not fit into the last one's rest."""
    begin: list[int] = []
    left, members = 0.0, together
    for i, tokens in enumerate(new.tolist()):
        if members == together or tokens > left:
            begin.append(i)
            left, members = 0.0, 0
        left = (left - tokens) % budget
        members += 1
    return begin


def typical(chunks: Chunks, cost_of: Callable[[Chunks], Floats]) -> tuple[Chunks, Floats]:
    """A chunk for each of the shares between EDGES, cheapest first by `cost_of`, and the share that it stands for."""
    order = np.argsort(cost_of(chunks), kind="stable")
    edges = np.unique(np.round(EDGES * len(order)).astype(int))
    share = np.diff(edges)
    means = [np.add.reduceat(getattr(chunks, name)[order], edges[:-1]) / share for name in COLUMNS]
    return Chunks(*means), share / len(order)
