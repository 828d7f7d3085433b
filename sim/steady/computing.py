"""Prefill steps of a worker, over its load, as the simulation prices them."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, pdtr

from sim.deployment.pools import PoolPlan
from sim.steady.chunks import COLUMNS, Chunks, typical
from sim.steady.decoding import DRAWS, Decoding
from sim.steady.demand import Demand
from sim.step.cost import SurfaceStepCost
from sim.step.surface import grid, locate

Floats = NDArray[np.float64]

MIXED_POINTS_PER_OCTAVE = 1
"""Batches at which steps that prompts ride along in are priced per doubling."""


@dataclass(frozen=True)
class _Step:
    """A kind of prefill step of a worker: `ranks` of its ranks compute a chunk, all drawn from the same ones."""

    chunks: Chunks
    """Cheapest first."""
    below: Floats
    """Share of the chunks that are no dearer than each."""
    core_s: Floats
    """Attention seconds of each chunk."""
    core_alone_s: Floats
    """The same without the cached prefixes."""
    ranks: float
    prompts: float
    """Prompts that such a step begins on average."""

    @property
    def chance(self) -> Floats:
        """That a step waits for each chunk, the dearest of all its ranks."""
        return np.diff(self.below**self.ranks, prepend=0.0)


@dataclass(frozen=True)
class Computing:
    """Prefill steps of a worker, by the prompts that a step begins on average.

    While these are few, each has ranks of its own, chunk by chunk where it is long; then every rank computes several at
    a time; at last all chunks are full.
    """

    cost: SurfaceStepCost
    steps: tuple[_Step, ...]
    worker_ranks: int
    chunk_tokens: int
    longer: Floats
    """Share of the prompts that take more than 0, 1, 2... chunks of their own."""
    prompts: Floats
    """Of each step, rising."""
    batch: Floats
    """Decoding sequences per rank that take part in the steps, rising from none."""
    ranks: Floats
    """That compute in each step."""
    seconds: Floats
    """Of the steps, by kind of step, batch and chance (DRAWS)."""
    cached: Floats
    """Share of their seconds that goes into re-reading cached prefixes, by kind of step."""

    @property
    def chunks_per_prompt(self) -> float:
        """Steps that a prompt takes which has a rank to itself."""
        return float(self.longer.sum())

    @property
    def most(self) -> float:
        """Prompts that steps of full chunks begin."""
        return float(self.prompts[-1])

    def step_s(self, prompts: Floats, batch: Floats | float = 0.0) -> Floats:
        """Seconds of steps that begin `prompts` prompts beside `batch` decoding sequences per rank; the last axis are
        equal chances."""
        i, u = locate(self.prompts, np.clip(prompts, self.prompts[0], self.most))
        u = u[:, None]
        if len(self.batch) == 1:
            return np.asarray(self.seconds[i, 0] * (1 - u) + self.seconds[i + 1, 0] * u)
        j, v = locate(self.batch, np.minimum(np.broadcast_to(batch, i.shape), self.batch[-1]))
        v = v[:, None]
        low = self.seconds[i, j] * (1 - v) + self.seconds[i, j + 1] * v
        high = self.seconds[i + 1, j] * (1 - v) + self.seconds[i + 1, j + 1] * v
        return np.asarray(low * (1 - u) + high * u)

    def others(self, prompts: Floats) -> Floats:
        """Share of the ranks that have none of the prompts of a step that begins so many."""
        return 1 - np.interp(prompts, self.prompts, self.ranks) / self.worker_ranks

    def full_s(self, batch: float = 0.0) -> float:
        """Mean seconds of a step of full chunks."""
        return float(self.step_s(np.array([self.most]), batch).mean())

    def burst_s(self, prompts: float) -> float:
        """Seconds until `prompts` prompts that begin together are all computed."""
        every = max(self.most, self.worker_ranks)
        alone = min(prompts, every)
        some = 1 - (1 - np.minimum(self.longer, 1.0)) ** max(alone, 1.0)
        active = alone * self.longer / np.maximum(some, 1e-9)
        begun = active / self.chunks_per_prompt
        seconds = float((some * self.step_s(begun).mean(axis=-1)).sum())
        return seconds + max(0.0, prompts - every) / self.most * self.full_s()

    def crowded_s(self, prompts: float) -> float:
        """Seconds that it takes longer where chance decides on which ranks so many prompts are.

        Those of the fullest rank wait for one another, m on average where the others have one: as long as m prompts
        on every rank over one on each, less the experts' part, which sees the tokens of all ranks alike.
        """
        ranks = self.worker_ranks
        if ranks == 1:
            return 0.0
        most = np.arange(1, 2 + int(4 * prompts / ranks) + 12)
        fullest = 1 + float((1 - pdtr(most, prompts / ranks) ** ranks).sum())
        each = self.burst_s(ranks)
        experts_s = (each - self.burst_s(1.0)) * ranks / (ranks - 1)
        even = max(1.0, prompts / ranks)
        return max(
            0.0, self.burst_s(ranks * fullest) - self.burst_s(ranks * even) - (fullest - even) * experts_s
        )

    def cached_share(self, prompts: float) -> float:
        """Share of a step's seconds that goes into re-reading cached prefixes."""
        return float(np.interp(prompts, self.prompts, self.cached))

    def priced_by(self, prompts: float) -> Floats:
        """Shares of a step's seconds by what priced them, as in PRICED_BY: over the numbers of prompts that steps begin
        at times (Poisson's about `prompts`)."""
        begun = np.clip(prompts + np.sqrt(prompts) * ndtri(DRAWS), self.prompts[0], self.most)
        i, u = locate(self.prompts, begun)
        kinds, seconds = self._priced
        weight = seconds * (np.bincount(i, 1 - u, len(kinds)) + np.bincount(i + 1, u, len(kinds)))
        return np.asarray(weight @ kinds / weight.sum())

    @cached_property
    def _priced(self) -> tuple[Floats, Floats]:
        """Shares by source of each kind of step, and its seconds."""
        kinds, total = [], []
        for step in self.steps:
            seconds = step.chance * _seconds(self.cost, step, self.worker_ranks)
            chunks = zip(step.chunks.tokens.tolist(), step.chunks.context.tolist(), strict=True)
            shares = np.array([self.cost.prefill.shares(*chunk) for chunk in chunks])
            kinds.append(seconds @ shares / seconds.sum())
            total.append(seconds.sum())
        return np.array(kinds), np.array(total)


def computing(
    cost: SurfaceStepCost,
    plan: PoolPlan,
    demand: Demand,
    found: list[tuple[Chunks, float, float]],
    decode: Decoding | None,
    others: bool = False,
) -> Computing:
    """Price the prefill steps of a pool; `decode`: the decode steps that they are part of, where the engine mixes.
    `others`: only on the ranks that compute no prompt."""
    steps = [_step(cost, plan.chunk_tokens, *kind) for kind in found]
    batch, riding, reading_s = np.zeros(1), np.zeros(1), np.zeros(1)
    if decode is not None:
        batch = np.array([0.0, *grid(1, decode.load[-1], MIXED_POINTS_PER_OCTAVE)])
        riding, reading_s = batch * decode.tokens_per_sequence(batch), decode.reading_s(batch)
        reading_s[0] = 0.0
    seconds = np.array(
        [
            [
                _at_chances(s, _seconds(cost, s, plan.dp, r, c, others))
                for r, c in zip(riding, reading_s, strict=True)
            ]
            for s in steps
        ]
    )
    cached = [
        1 - min(1.0, float((s.chance @ _seconds(cost, _alone(s), plan.dp)) / (s.chance @ _seconds(cost, s, plan.dp))))
        for s in steps
    ] if demand.cached_tokens else [0.0] * len(steps)  # fmt: skip
    chunks = np.ceil(np.array(demand.new_quantiles) / plan.chunk_tokens - 1e-9)
    return Computing(
        cost=cost,
        steps=tuple(steps),
        worker_ranks=plan.dp,
        chunk_tokens=plan.chunk_tokens,
        longer=(chunks[:, None] > np.arange(max(1.0, chunks.max()))).mean(axis=0),
        prompts=np.array([s.prompts for s in steps]),
        ranks=np.array([s.ranks for s in steps]),
        batch=batch,
        seconds=seconds,
        cached=np.array(cached),
    )


def _step(cost: SurfaceStepCost, budget: float, chunks: Chunks, ranks: float, prompts: float) -> _Step:
    """A kind of step with its attention priced."""

    def whole(tokens: Floats) -> Floats:
        return np.round(tokens).clip(1.0, budget)

    some, share = typical(chunks, lambda c: cost.prefill.core_s(whole(c.tokens), c.context))
    some = replace(some, tokens=whole(some.tokens))
    core_s, alone_s = _core_s(cost, some), _core_s(cost, _without_prefix(some))
    order = np.argsort(core_s, kind="stable")
    some = Chunks(*(getattr(some, name)[order] for name in COLUMNS))
    return _Step(some, np.cumsum(share[order]).clip(max=1.0), core_s[order], alone_s[order], ranks, prompts)


def _without_prefix(chunks: Chunks) -> Chunks:
    return replace(chunks, pairs=chunks.pairs_alone, held=chunks.held_alone, longest=chunks.longest_alone)


def _alone(step: _Step) -> _Step:
    return replace(step, chunks=_without_prefix(step.chunks), core_s=step.core_alone_s)


def _core_s(cost: SurfaceStepCost, chunks: Chunks) -> Floats:
    """Attention seconds of each chunk, as the simulation has them."""
    several = chunks.several > 0.5
    if not several.any():
        return cost.prompts.core_s(chunks.load(differ=False))
    core = cost.prompts.core_s(chunks.load(differ=True))
    return np.where(several, core, cost.prompts.core_s(chunks.load(differ=False)))


def _seconds(
    cost: SurfaceStepCost,
    step: _Step,
    ranks: int,
    riding: float = 0.0,
    reading_s: float = 0.0,
    others: bool = False,
) -> Floats:
    """Seconds of a step that waits for each of its chunks, with `riding` decode tokens per rank, or per rank without a
    chunk (`others`); see `SurfaceStepCost.mixed_s`."""
    tokens, surface = step.chunks.tokens, cost.prefill
    mean, fullest = _beside(step)
    mean = mean * step.ranks / ranks
    core_s = step.core_s
    if others and step.ranks < ranks:
        mean, core_s = mean + riding * (1 - step.ranks / ranks), np.maximum(core_s, reading_s)
        fullest = np.maximum(fullest, riding)
    elif riding and not others:
        mean, fullest = mean + riding, fullest + riding
        context = step.chunks.context
        core_s = (
            core_s
            + surface.core_s(np.minimum(np.round(tokens + riding), surface.x[-1]), context)
            - surface.core_s(tokens, context)
            + reading_s
        )
    return np.array(
        [
            float(surface.line_at(round(x), min(m, x)).seconds(core))
            for x, m, core in zip(fullest, mean, core_s, strict=True)
        ]
    )


def _beside(step: _Step) -> tuple[Floats, Floats]:
    """Of the steps that wait for the attention of each chunk: mean tokens of the ranks that compute, and the most.

    The other ranks have chunks whose attention takes no longer, which may well be those of more tokens: kernels of
    short prompts may be slower.
    """
    tokens, others, share = step.chunks.tokens, step.ranks - 1, np.diff(step.below, prepend=0.0)
    mean, fullest = np.empty(len(tokens)), np.empty(len(tokens))
    for i, below in enumerate(step.below):
        order = np.argsort(tokens[: i + 1], kind="stable")
        theirs, chance = tokens[order], share[order] / below
        mean[i] = (tokens[i] + others * (chance @ theirs)) / step.ranks
        most = np.diff(np.minimum(np.cumsum(chance), 1.0) ** others, prepend=0.0)
        fullest[i] = most @ np.maximum(theirs, tokens[i])
    return mean, fullest


def _at_chances(step: _Step, seconds: Floats) -> Floats:
    """Seconds of a kind of step at DRAWS: of what it waits for, the shares' means."""
    ends = np.concatenate(([0.0], np.cumsum(step.chance)))
    total = np.concatenate(([0.0], np.cumsum(step.chance * seconds)))
    edges = np.linspace(0, ends[-1], len(DRAWS) + 1)
    return np.diff(np.interp(edges, ends, total)) / np.diff(edges)
