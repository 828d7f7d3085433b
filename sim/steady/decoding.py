"""Decode steps of a worker, over its load, as the simulation prices them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, pdtr

from sim.deployment.pools import PoolPlan
from sim.steady.demand import MIDDLES, Demand
from sim.step.cost import SurfaceStepCost
from sim.step.surface import grid

Floats = NDArray[np.float64]

POINTS_PER_OCTAVE = 2
"""Batches at which decode steps are priced per doubling; between them seconds are linear."""
DRAWS = (np.arange(8) + 0.5) / 8
"""Equal chances of a step; what it is at each of them stands for all steps at a load."""


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

        Those of independent users are spread as Poisson's: to one of them, there is one more, on one of all ranks.
        """
        return np.asarray(np.maximum(1 / self.ranks, batch + 1 / (self.ranks * self.workers)))

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

    def priced_by(self, batch: float, together: float) -> Floats:
        """Shares of a step's seconds by what priced them, as in PRICED_BY: over the numbers of sequences that there are
        at times, and over the contexts of the rank that has the most.

        Where `together` arrive at once, their number has (1 + together) / 2 times the variance of Poisson's: exactly so
        for stays that are exponential.
        """
        all_ranks = self.ranks * self.workers
        here = batch * all_ranks + np.sqrt(batch * all_ranks * (1 + together) / 2) * ndtri(DRAWS)
        each = np.clip(np.ceil(here / all_ranks), 1, max(1.0, np.floor(self.load[-1])))
        ranks = min(self.ranks, max(1.0, batch * self.ranks))
        shares = []
        for x in each.tolist():
            surface = self.cost.level(x).surface
            shares += [surface.shares(x, context) for context in longest(self.demand, ranks, x).tolist()]
        return np.asarray(np.mean(shares, axis=0))


def longest(demand: Demand, ranks: float, each: float) -> Floats:
    """Mean context of the rank that has the most, of `ranks` with `each` sequences, at equal chances (DRAWS).

    With contexts of mean m and standard deviation s it is m + z s / sqrt(n), z the largest of so many normal deviates;
    or that of the one rank whose n sequences have the longest prompt of all among them, if that is more.
    """
    mean, prompts = (
        demand.decode_context,
        np.array(demand.new_quantiles) * demand.input_tokens / demand.new_tokens,
    )
    many = mean + ndtri(DRAWS ** (1 / ranks)) * demand.decode_context_sd / each**0.5
    one = np.interp(DRAWS ** (1 / (ranks * each)), MIDDLES, prompts) + mean - demand.input_tokens
    return np.asarray(np.maximum(np.maximum(many, (one + (each - 1) * mean) / each), 1.0))


def decoding(cost: SurfaceStepCost, plan: PoolPlan, demand: Demand, edges: list[float]) -> Decoding:
    """Price the decode steps of a pool. A step waits for the rank whose sequences have the most context."""
    largest = max(plan.max_sequences, 2)
    few = 2.0 ** np.arange(np.log2(plan.dp)) / plan.dp
    load = np.concatenate((few, grid(1, largest, POINTS_PER_OCTAVE, edges)))
    rows = []
    for batch in load:
        each, ranks = max(1.0, batch), min(plan.dp, max(1, round(batch * plan.dp)))
        level = cost.level(each)
        surface = level.surface
        most = min(float(longest(demand, ranks, each).mean()), surface.context[-1])
        core, empty = surface.core_s(np.full(2, each), np.array([most, 1.0]))
        line = surface.line_at(int(each), float(batch))
        rows.append((1.0 * level.tokens_per_sequence, float(line.seconds(core)), core - empty))
    tokens, seconds, cache_s = np.array(rows).T
    return Decoding(cost, plan.workers, plan.dp, demand, load, tokens, seconds, cache_s)
