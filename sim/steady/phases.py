"""Seconds of the two phases of serving, over the load of a worker, as the simulation prices them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, pdtr

from sim.model.deployment import PoolPlan, plan_pool
from sim.scenario.engine import engine_of
from sim.scenario.schema import Scenario
from sim.steady.chunks import COLUMNS, SUMS, Chunks, cut, typical
from sim.steady.demand import MIDDLES, QUANTILES, Demand
from sim.step.assemble import pool_step_cost
from sim.step.build import Range
from sim.step.cost import SurfaceStepCost
from sim.step.surface import grid, locate

Floats = NDArray[np.float64]

POINTS_PER_OCTAVE = 2
"""Batches at which decode steps are priced per doubling; between them seconds are linear."""
MIXED_POINTS_PER_OCTAVE = 1
"""The same where prompts ride along."""
DRAWS = (np.arange(8) + 0.5) / 8
"""Equal chances of a prefill step; its seconds at each of them stand for those of all steps at a load."""
CROWD = QUANTILES // 8
"""Prompts that are alike in the sum: more of them in a chunk differ from one another by their number only."""
FULL_CHUNKS = 8
"""Full chunks that QUANTILES prompts must fill so that they can be told apart."""
NEARLY = 0.7
"""Of the prompts that fill all chunks: as many at a time are no kind of step of their own."""
FEW_OUTSIDE = (0.03, 0.999)
"""Quantiles of the chunks' contexts between which steps are priced; beyond them seconds go on in a straight line."""


def idle_share(workers: int, here: Floats) -> Floats:
    """Share of the workers that have nothing where `here` requests are on average, Poisson's, and as many workers as
    there are requests have one: E[max(0, W - N)] / W."""
    return np.asarray(pdtr(np.arange(workers), np.asarray(here)[..., None]).mean(axis=-1))


@dataclass(frozen=True)
class Decoding:
    """Decode steps of a worker, by its mean sequences per rank."""

    cost: SurfaceStepCost
    workers: int
    ranks: int
    demand: Demand
    load: Floats
    """Sequences per rank at which steps were priced, from one on a single rank."""
    tokens: Floats
    """Tokens that a step computes for each sequence: 1 + drafts."""
    seconds: Floats
    cache_s: Floats
    """Seconds that reading the cache adds over an empty one."""

    def seen(self, batch: Floats) -> Floats:
        """Sequences per rank that a token finds in its step, itself among them, where `batch` are there on average.

        Those of independent users are spread as Poisson's: to one of them, there is one more. The router fills idle
        workers first, and no rank beyond the next whole number.
        """
        more = np.minimum(batch + 1 / (self.ranks * self.workers), np.ceil(batch))
        return np.maximum(1 / self.ranks, more)

    def step_s(self, batch: Floats) -> Floats:
        """Seconds of a step of `batch` sequences per rank."""
        return np.interp(batch, self.load, self.seconds)

    def reading_s(self, batch: Floats) -> Floats:
        """Seconds of the same step that go into reading the cache."""
        return np.interp(batch, self.load, self.cache_s)

    def tokens_per_sequence(self, batch: Floats) -> Floats:
        """Tokens that the same step computes for each sequence."""
        return np.interp(batch, self.load, self.tokens)

    def busy_at(self, batch: Floats) -> Floats:
        """Share of the workers that hold a sequence: as many as there are, at most all; see `seen`."""
        return np.asarray(1 - idle_share(self.workers, batch * self.ranks * self.workers))

    def busy(self, batch: float) -> float:
        """The same of one batch."""
        return float(self.busy_at(np.array([batch]))[0])

    def priced_by(self, batch: float) -> Floats:
        """Shares of a step's seconds by what priced them, as in PRICED_BY: over the numbers of sequences that there are
        at times (Poisson's), and over the contexts of the rank that has the most."""
        all_ranks = self.ranks * self.workers
        here = batch * all_ranks + np.sqrt(batch * all_ranks) * ndtri(DRAWS)
        each = np.clip(np.ceil(here / all_ranks), 1, max(1.0, np.floor(self.load[-1])))
        ranks = min(self.ranks, max(1.0, batch * self.ranks))
        shares = []
        for x in each.tolist():
            surface = self.cost.level(np.array([x])).surface
            shares += [surface.shares(x, context) for context in longest(self.demand, ranks, x).tolist()]
        return np.mean(shares, axis=0)


def longest(demand: Demand, ranks: float, each: float) -> Floats:
    """Mean context of the rank that has the most, of `ranks` with `each` sequences, at equal chances (DRAWS).

    With contexts of mean m and standard deviation s it is m + z s / sqrt(n), z the largest of so many normal deviates;
    or that of the one rank whose n sequences have the longest prompt of all among them, if that is more.
    """
    mean, prompts = demand.decode_context, np.array(demand.new_quantiles) * demand.input_tokens / demand.new_tokens
    many = mean + ndtri(DRAWS ** (1 / ranks)) * demand.decode_context_sd / each**0.5
    one = np.interp(DRAWS ** (1 / (ranks * each)), MIDDLES, prompts) + mean - demand.input_tokens
    return np.maximum(np.maximum(many, (one + (each - 1) * mean) / each), 1.0)


def decoding(cost: SurfaceStepCost, plan: PoolPlan, demand: Demand, edges: list[float]) -> Decoding:
    """Price the decode steps of a pool. A step waits for the rank whose sequences have the most context."""
    largest = max(plan.max_sequences, 2)
    few = 2.0 ** np.arange(np.log2(plan.dp)) / plan.dp
    load = np.concatenate((few, grid(1, largest, POINTS_PER_OCTAVE, edges)))
    rows = []
    for batch in load:
        each, ranks = max(1.0, batch), min(plan.dp, max(1, round(batch * plan.dp)))
        level = cost.level(np.array([each]))
        surface = level.surface
        most = min(float(longest(demand, ranks, each).mean()), surface.context[-1])
        core, empty = surface.core_s(np.full(2, each), np.array([most, 1.0]))
        line = surface.line_at(int(each), float(batch))
        rows.append((1.0 * level.tokens_per_sequence, float(line.seconds(core)), core - empty))
    tokens, seconds, cache_s = np.array(rows).T
    return Decoding(cost, plan.workers, plan.dp, demand, load, tokens, seconds, cache_s)


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
        weight = np.bincount(i, 1 - u, len(kinds)) + np.bincount(i + 1, u, len(kinds))
        weight *= seconds
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
) -> Computing:
    """Price the prefill steps of a pool; `decode`: the decode steps that they are part of, where the engine mixes."""
    steps = [_step(cost, plan.chunk_tokens, *kind) for kind in found]
    batch, riding, reading_s = np.zeros(1), np.zeros(1), np.zeros(1)
    if decode is not None:
        batch = np.array([0.0, *grid(1, decode.load[-1], MIXED_POINTS_PER_OCTAVE)])
        riding, reading_s = batch * decode.tokens_per_sequence(batch), decode.reading_s(batch)
        reading_s[0] = 0.0
    seconds = np.array(
        [
            [_at_chances(s, _seconds(cost, s, plan.dp, r, c)) for r, c in zip(riding, reading_s, strict=True)]
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
        batch=batch,
        seconds=seconds,
        cached=np.array(cached),
    )


def kinds(plan: PoolPlan, demand: Demand) -> list[tuple[Chunks, float, float]]:
    """Chunks of the ranks of a step, how many of the ranks have one, and how many prompts the step begins: from one
    prompt to full chunks."""
    new = np.random.default_rng(0).permutation(np.array(demand.new_quantiles))
    budget, ranks, per_new = float(plan.chunk_tokens), plan.dp, demand.cached_tokens / demand.new_tokens
    mean = float(new.mean())
    varied = mean * len(new) > FULL_CHUNKS * budget

    def chunks(together: float) -> Chunks:
        if varied or together <= CROWD:
            return cut(new, per_new, max(1, round(together)), budget)
        crowd, part = cut(new, per_new, len(new), 2 * mean * len(new)), together / len(new)
        return replace(crowd, **{name: getattr(crowd, name) * part for name in SUMS})

    lone = chunks(1)
    per_prompt = len(lone.tokens) / len(new)
    active = np.unique([*2.0 ** np.arange(np.log2(ranks)), ranks]).tolist()
    found = [(lone, some, some / per_prompt) for some in active]
    full, together = ranks * budget / mean, 2
    while ranks * together < NEARLY * full:
        found.append((chunks(together), ranks, float(ranks * together)))
        together *= 2
    most = max(full, found[-1][2] * (1 + 1e-6))
    return [*found, (chunks(len(new) if varied else budget / mean), ranks, most)]


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
    tokens, context = chunks.tokens, chunks.context
    several = chunks.several > 0.5
    if not several.any():
        return cost.prompts.core_s(tokens, context, None, chunks.longest)
    core = cost.prompts.core_s(tokens, context, chunks.held, chunks.longest)
    return np.where(several, core, cost.prompts.core_s(tokens, context, None, chunks.longest))


def _seconds(
    cost: SurfaceStepCost, step: _Step, ranks: int, riding: float = 0.0, reading_s: float = 0.0
) -> Floats:
    """Seconds of a step that waits for each of its chunks, with `riding` decode tokens per rank; see
    `SurfaceStepCost.mixed_s`."""
    tokens, surface = step.chunks.tokens, cost.prefill
    share = np.diff(step.below, prepend=0.0)
    mean = float(share @ tokens) * step.ranks / ranks + riding
    core_s = step.core_s
    if riding:
        context = step.chunks.context
        core_s = (
            core_s
            + surface.core_s(np.round(tokens + riding), context)
            - surface.core_s(tokens, context)
            + reading_s
        )
    fullest = np.maximum.accumulate(tokens) + riding
    return np.array(
        [
            float(surface.line_at(round(x), min(mean, x)).seconds(core))
            for x, core in zip(fullest, core_s, strict=True)
        ]
    )


def _at_chances(step: _Step, seconds: Floats) -> Floats:
    """Seconds of a kind of step at DRAWS: of what it waits for, the shares' means."""
    ends = np.concatenate(([0.0], np.cumsum(step.chance)))
    total = np.concatenate(([0.0], np.cumsum(step.chance * seconds)))
    edges = np.linspace(0, ends[-1], len(DRAWS) + 1)
    return np.diff(np.interp(edges, ends, total)) / np.diff(edges)


@lru_cache(maxsize=64)
def costs(scenario: Scenario, contexts: tuple[Range, Range]) -> Mapping[str, SurfaceStepCost]:
    """The step costs of a scenario's pools for contexts of decode and of prefill; kept, because pricing takes time."""
    within = dict(zip(("decode", "prefill"), contexts, strict=True))
    pools = scenario.deployment.pools()
    return {role: pool_step_cost(scenario, plan_pool(scenario, role), within) for role in pools}


@lru_cache(maxsize=256)
def phases(scenario: Scenario, demand: Demand) -> tuple[Decoding, Computing]:
    """Both phases of a scenario for the lengths of a demand, wherever they run.

    Only what a step costs may differ between the arguments of two calls: see `sim.steady.service`, which leaves out
    loads and prices.
    """
    pools = {role: plan_pool(scenario, role) for role in scenario.deployment.pools()}
    decoder, prefiller = (pools.get(role) or pools["serve"] for role in ("decode", "prefill"))
    found = kinds(prefiller, demand)
    chunks = np.concatenate(
        [x for some, *_ in found[:: len(found) - 1] for x in (some.context, some.context_alone)]
    )
    decoded = np.array([longest(demand, 1, 1).min(), longest(demand, decoder.dp, 1).max()])
    priced = costs(scenario, (_octaves(decoded), _octaves(np.quantile(chunks, FEW_OUTSIDE))))
    levels = scenario.speculation.adaptive or ()
    edges = [float(x) for level in levels for x in (level.up_to_batch, level.up_to_batch + 1)]
    decode = decoding(priced[decoder.role], decoder, demand, edges)
    mixed = prefiller is decoder and engine_of(scenario).mixes_prefill_with_decode
    return decode, computing(priced[prefiller.role], prefiller, demand, found, decode if mixed else None)


def _octaves(contexts: Floats) -> Range:
    """Powers of two around them: the same for workloads that are alike."""
    low, high = np.log2(np.maximum(contexts, 1.0))[[0, -1]]
    return 2.0 ** np.floor(low), 2.0 ** np.ceil(high)
