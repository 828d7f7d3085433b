"""Seconds of the two phases of serving, over the load of a worker, as the simulation prices them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, pdtr

from sim.cost.latency import PRICED_BY
from sim.model.deployment import PoolPlan, plan_pool
from sim.scenario.engine import engine_of
from sim.scenario.schema import Scenario
from sim.steady.chunks import Chunks, cut, typical
from sim.steady.demand import QUANTILES, Demand
from sim.step.assemble import pool_step_cost
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
    context: float
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
        workers first.
        """
        return np.maximum(1 / self.ranks, batch + 1 / (self.ranks * self.workers))

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
        """Shares of a step's seconds by what priced them, as in PRICED_BY."""
        fullest = max(1.0, ceil(batch))
        return self.cost.level(np.array([fullest])).surface.shares(fullest, self.context)


def decoding(cost: SurfaceStepCost, plan: PoolPlan, demand: Demand, edges: list[float]) -> Decoding:
    """Price the decode steps of a pool. A step waits for the rank whose sequences have the most context.

    With n sequences on each of k ranks, contexts of mean m and standard deviation s, that rank's mean context is
    m + z s / sqrt(n), z the expected largest of k normal deviates (Blom 1958).
    """
    largest = max(plan.max_sequences, 2)
    few = 2.0 ** np.arange(np.log2(plan.dp)) / plan.dp
    load = np.concatenate((few, grid(1, largest, POINTS_PER_OCTAVE, edges)))
    rows = []
    for batch in load:
        each, ranks = max(1.0, batch), min(plan.dp, max(1.0, round(batch * plan.dp)))
        level = cost.level(np.array([each]))
        surface = level.surface
        deviates = float(ndtri((ranks - 0.375) / (ranks + 0.25)))
        longest = min(demand.decode_context + deviates * demand.decode_context_sd / each**0.5, surface.context[-1])
        core, empty = surface.core_s(np.full(2, each), np.array([max(longest, 1.0), 1.0]))
        line = surface.line_at(int(each), float(batch))
        rows.append((1.0 * level.tokens_per_sequence, float(line.seconds(core)), core - empty))
    tokens, seconds, cache_s = np.array(rows).T
    return Decoding(cost, plan.workers, plan.dp, demand.decode_context, load, tokens, seconds, cache_s)


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
        by_batch = _between(self.batch, np.moveaxis(self.seconds, 1, 0), np.broadcast_to(batch, np.shape(prompts)))
        i, u = locate(self.prompts, np.clip(prompts, self.prompts[0], self.most))
        low, high = (np.take_along_axis(by_batch, k[:, None, None], 1)[:, 0] for k in (i, i + 1))
        return np.asarray(low + (high - low) * u[:, None])

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

    def cached_share(self, prompts: float) -> float:
        """Share of a step's seconds that goes into re-reading cached prefixes."""
        return float(np.interp(prompts, self.prompts, self.cached))

    def priced_by(self, prompts: float) -> Floats:
        """Shares of a step's seconds by what priced them, as in PRICED_BY."""
        step = self.steps[int(np.abs(self.prompts - prompts).argmin())]
        shares = [
            self.cost.prefill.shares(tokens, context)
            for tokens, context in zip(step.chunks.tokens, step.chunks.context, strict=True)
        ]
        return np.asarray(step.chance @ np.array(shares))


def _between(knots: Floats, rows: Floats, at: Floats) -> Floats:
    """Rows (one per knot) at positions along them, linear in between."""
    if len(knots) == 1:
        return np.broadcast_to(rows[0], (len(at), *rows.shape[1:]))
    i, u = locate(knots, np.minimum(at, knots[-1]))
    u = u.reshape(-1, *(1,) * (rows.ndim - 1))
    return np.asarray(rows[i] + (rows[i + 1] - rows[i]) * u)


def computing(cost: SurfaceStepCost, plan: PoolPlan, demand: Demand, decode: Decoding | None) -> Computing:
    """Price the prefill steps of a pool; `decode`: the decode steps that they are part of, where the engine mixes."""
    steps = _steps(cost, plan, demand)
    batch, riding, reading_s = np.zeros(1), np.zeros(1), np.zeros(1)
    if decode is not None:
        batch = np.array([0.0, *grid(1, decode.load[-1], MIXED_POINTS_PER_OCTAVE)])
        riding, reading_s = batch * decode.tokens_per_sequence(batch), decode.reading_s(batch)
        reading_s[0] = 0.0
    seconds = np.array(
        [[_at_chances(s, _seconds(cost, s, plan.dp, r, c)) for r, c in zip(riding, reading_s, strict=True)] for s in steps]
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


def _steps(cost: SurfaceStepCost, plan: PoolPlan, demand: Demand) -> list[_Step]:
    """The kinds of steps of a pool, from one prompt to full chunks."""
    new = np.random.default_rng(0).permutation(np.array(demand.new_quantiles))
    budget, ranks, per_new = float(plan.chunk_tokens), plan.dp, demand.cached_tokens / demand.new_tokens
    mean = float(new.mean())

    def chunks(together: float) -> Chunks:
        if together <= CROWD or mean * len(new) > 8 * budget:
            return cut(new, per_new, max(1, round(together)), budget)
        crowd = cut(new, per_new, len(new), mean * len(new) * 2)
        part = together / len(new)
        names = ("tokens", "pairs", "pairs_alone", "held", "held_alone")
        return replace(crowd, **{name: getattr(crowd, name) * part for name in names})

    def kind(found: Chunks, active: float, prompts: float) -> _Step:
        some, share = typical(found, lambda c: cost.prefill.core_s(np.round(c.tokens).clip(1), c.context))
        some = replace(some, tokens=np.round(some.tokens).clip(1.0, budget), pairs=some.pairs)
        core_s, alone_s = _core_s(cost, some), _core_s(cost, _without_prefix(some))
        order = np.argsort(core_s, kind="stable")
        sort = {name: getattr(some, name)[order] for name in Chunks.__dataclass_fields__}
        return _Step(Chunks(**sort), np.cumsum(share[order]).clip(max=1.0), core_s[order], alone_s[order], active, prompts)

    lone = chunks(1)
    per_prompt = len(lone.tokens) / len(new)
    active = np.unique([*2.0 ** np.arange(np.log2(ranks)), ranks])
    first = kind(lone, 1.0, 0.0)
    steps = [replace(first, ranks=a, prompts=a / per_prompt) for a in active]
    full = ranks * budget / mean
    together = 2
    while ranks * together < full * 0.7:
        steps.append(kind(chunks(together), ranks, ranks * float(together)))
        together *= 2
    most = max(full, steps[-1].prompts * (1 + 1e-6))
    steps.append(kind(chunks(len(new) if mean * len(new) > 8 * budget else budget / mean), ranks, most))
    return steps


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


def _seconds(cost: SurfaceStepCost, step: _Step, ranks: int, riding: float = 0.0, reading_s: float = 0.0) -> Floats:
    """Seconds of a step that waits for each of its chunks, with `riding` decode tokens per rank; see
    `SurfaceStepCost.mixed_s`."""
    tokens, surface = step.chunks.tokens, cost.prefill
    share = np.diff(step.below, prepend=0.0)
    mean = float(share @ tokens) * step.ranks / ranks + riding
    core_s = step.core_s
    if riding:
        context = step.chunks.context
        core_s = core_s + surface.core_s(np.round(tokens + riding), context) - surface.core_s(tokens, context) + reading_s
    fullest = np.maximum.accumulate(tokens) + riding
    return np.array(
        [float(surface.line_at(round(x), min(mean, x)).seconds(core)) for x, core in zip(fullest, core_s, strict=True)]
    )


def _at_chances(step: _Step, seconds: Floats) -> Floats:
    """Seconds of a kind of step at DRAWS: of what it waits for, the shares' means."""
    ends = np.concatenate(([0.0], np.cumsum(step.chance)))
    total = np.concatenate(([0.0], np.cumsum(step.chance * seconds)))
    edges = np.linspace(0, ends[-1], len(DRAWS) + 1)
    return np.diff(np.interp(edges, ends, total)) / np.diff(edges)


@lru_cache(maxsize=64)
def costs(scenario: Scenario) -> Mapping[str, SurfaceStepCost]:
    """The step costs of a scenario's pools; kept, because pricing takes time."""
    return {role: pool_step_cost(scenario, plan_pool(scenario, role)) for role in scenario.deployment.pools()}


@lru_cache(maxsize=256)
def phases(scenario: Scenario, demand: Demand) -> tuple[Decoding, Computing]:
    """Both phases of a scenario for the lengths of a demand, wherever they run.

    Only what a step costs may differ between the arguments of two calls: see `sim.steady.service`, which leaves out
    loads and prices.
    """
    pools, priced = {role: plan_pool(scenario, role) for role in scenario.deployment.pools()}, costs(scenario)
    decoder, prefiller = (pools.get(role) or pools["serve"] for role in ("decode", "prefill"))
    levels = scenario.speculation.adaptive or ()
    edges = [float(x) for level in levels for x in (level.up_to_batch, level.up_to_batch + 1)]
    decode = decoding(priced[decoder.role], decoder, demand, edges)
    mixed = prefiller is decoder and engine_of(scenario).mixes_prefill_with_decode
    return decode, computing(priced[prefiller.role], prefiller, demand, decode if mixed else None)
