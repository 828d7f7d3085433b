"""Seconds of the two phases of serving at the mean context of a workload, over the load of a rank."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sim.cost.latency import PRICED_BY, CostModel
from sim.model.deployment import PoolPlan, plan_pool
from sim.model.operations import Operation
from sim.scenario.engine import engine_of
from sim.scenario.schema import Scenario
from sim.steady.demand import QUANTILES, Demand
from sim.step.assemble import cost_model, step_operations
from sim.step.operations import StepOperations, equal_prompts, typical_prompts
from sim.step.surface import Surface, grid

Floats = NDArray[np.float64]

POINTS_PER_OCTAVE = {"decode": 2, "prefill": 1}
"""Loads at which steps are priced per doubling; between them seconds are linear."""
LENGTHS = 12
"""Prompt lengths that are priced where a step waits for its longest prompt."""


@dataclass(frozen=True)
class Decoding:
    """Decode steps of a worker whose ranks hold equally many sequences."""

    levels: tuple[tuple[float, Surface], ...]
    """(largest batch, steps up to there), rising: several where drafts depend on the batch."""
    context: float
    load: Floats
    """Sequences per rank at which steps were priced."""
    tokens: Floats
    """Tokens that a step computes for each sequence: 1 + drafts."""
    seconds: Floats
    cache_s: Floats
    """Seconds that reading the cache adds over an empty one."""

    def step_s(self, batch: Floats) -> Floats:
        """Seconds of a step of `batch` sequences per rank; fewer than one on average still take a step of one."""
        return np.interp(batch, self.load, self.seconds)

    def reading_s(self, batch: Floats) -> Floats:
        """Seconds of the same step that go into reading the cache."""
        return np.interp(batch, self.load, self.cache_s)

    def tokens_per_sequence(self, batch: Floats) -> Floats:
        """Tokens that the same step computes for each sequence."""
        return np.interp(batch, self.load, self.tokens)

    def priced_by(self, batch: float) -> dict[str, float]:
        """Shares of a step's seconds by what priced them."""
        surface = next(surface for up_to, surface in self.levels if batch <= up_to)
        return _shares(surface, [(batch, self.context, 1.0)])


@dataclass(frozen=True)
class _Chunk:
    """What a rank's prompts in a chunk are like: equal prompts with the three sums of `sim.step.prompts`."""

    context: float
    """KV tokens that a new token attends to on average."""
    held: float
    """KV tokens of a prompt per new token."""
    step: StepOperations
    """In the form of attention that the longest of them asks for."""

    def attention(self, tokens: float) -> list[Operation]:
        new = (self.context - 0.5) / (self.held - 0.5)
        return self.step.prefill_attention(*equal_prompts(tokens, self.context, new))


@dataclass(frozen=True)
class Computing:
    """Prefill steps of a worker whose ranks compute equally many prompt tokens."""

    surface: Surface
    """Its second axis numbers kinds of chunks, the first of them those of `shares`."""
    shares: Floats
    """Of a step's seconds, by load and kind of chunk."""
    chunk_tokens: int
    load: Floats
    """New tokens per rank at which steps were priced."""
    seconds: Floats
    seconds_alone: Floats
    """The same without the cached prefixes."""
    prompt_s: Floats
    """Seconds of a step with a prompt on one rank (column 0) and with the same on every rank (column 1), one row
    for each of LENGTHS equal shares of the prompts, shortest first, scaled to their mean."""
    ranks: int

    def step_s(self, tokens: Floats) -> Floats:
        """Seconds in which each rank computes `tokens` new tokens: one step, or as many chunks as they fill."""
        within = np.minimum(tokens, self.load[-1])
        return np.asarray(np.interp(within, self.load, self.seconds) * tokens / within)

    def waiting(self, prompts: Floats) -> tuple[Floats, Floats]:
        """(chance, seconds) that a step of `prompts` prompts on ranks of their own waits for each quantile.

        Quantile i of Q is the longest of k draws with chance (i / Q)^k - ((i - 1) / Q)^k; its seconds lie between
        those of a lone prompt and of one on every rank, since the experts see the tokens of all ranks. Both have
        the quantiles as last axis.
        """
        prompts = np.asarray(prompts)[..., None]
        chance = np.diff(np.linspace(0, 1, len(self.prompt_s) + 1) ** prompts)
        alone_s, full_s = self.prompt_s.T
        return chance, alone_s + (full_s - alone_s) * (prompts - 1) / max(1, self.ranks - 1)

    def cached_share(self, tokens: float) -> float:
        """Share of those seconds that go into re-reading cached prefixes."""
        whole, alone = (np.interp(tokens, self.load, s) for s in (self.seconds, self.seconds_alone))
        return max(0.0, 1 - float(alone / whole))

    def priced_by(self, tokens: float) -> dict[str, float]:
        """Shares of a step's seconds by what priced them."""
        at = min(int(self.load.searchsorted(tokens)), len(self.load) - 1)
        kinds = enumerate(self.shares[at].tolist())
        return _shares(self.surface, [(self.load[at], kind, share) for kind, share in kinds])


@lru_cache(maxsize=64)
def phases(scenario: Scenario, demand: Demand) -> tuple[Decoding, Computing]:
    """Both phases of a scenario at the contexts of a demand, wherever they run; kept, because pricing takes time.

    Only what a step costs may differ between the arguments of two calls: see `sim.steady.service`, which leaves out
    loads and prices.
    """
    pools, cost = (
        {role: plan_pool(scenario, role) for role in scenario.deployment.pools()},
        cost_model(scenario),
    )
    decoder, prefiller = (pools.get(role) or pools["serve"] for role in ("decode", "prefill"))
    decode = _decoding(scenario, decoder, demand, cost)
    mixed = prefiller is decoder and engine_of(scenario).mixes_prefill_with_decode
    riding = int((decode.load * decode.tokens).max()) if mixed else 0
    return decode, _computing(scenario, prefiller, demand, cost, riding)


def _decoding(scenario: Scenario, plan: PoolPlan, demand: Demand, cost: CostModel) -> Decoding:
    """Price the decode steps of a pool at the workload's mean context."""
    step = step_operations(scenario, plan, "decode")
    context, largest = max(demand.decode_context, 2.0), max(plan.max_sequences, 2)
    edges = [x for up_to, _ in step.adaptive for x in (up_to, up_to + 1)]
    points = grid(1, largest, POINTS_PER_OCTAVE["decode"], edges)
    levels: list[tuple[float, Surface]] = []
    columns: list[tuple[float, float, float]] = []
    for up_to, level in step.levels():
        below = levels[-1][0] if levels else 0.0
        load = points[(points > below) & (points <= up_to)]
        if not len(load):
            continue
        parts = (level.decode_attention, level.decode_rest, cost, level.overlap, plan.dp)
        surface = Surface(load, np.array([1.0, context]), *parts)
        levels.append((up_to, surface))
        for x in load:
            cache_s = _core_s(surface, x, context) - _core_s(surface, x, 1.0)
            columns.append((1.0 + level.draft_tokens, _step_s(surface, x, context), cache_s))
    tokens, seconds, reading_s = np.array(columns).T
    return Decoding(tuple(levels), context, points, tokens, seconds, reading_s)


def _computing(
    scenario: Scenario, plan: PoolPlan, demand: Demand, cost: CostModel, riding_tokens: int
) -> Computing:
    """Price the prefill steps of a pool at the workload's mean context, up to a chunk and `riding_tokens` more."""
    step = step_operations(scenario, plan, "prefill")
    load = grid(1, max(plan.chunk_tokens + riding_tokens, 2), POINTS_PER_OCTAVE["prefill"])
    alone = replace(
        demand,
        input_tokens=demand.new_tokens,
        cached_tokens=0.0,
        prefill_context=demand.prefill_context_alone,
    )
    mixes = [_mix(step, one, load) for one in ((demand, alone) if demand.cached_tokens else (demand,))]
    chunks = [chunk for kinds, _ in mixes for chunk in kinds]

    rest = (step.prefill_rest, cost, step.overlap, plan.dp)

    def single(tokens: Floats, keys: Floats) -> Surface:
        return Surface(tokens, keys, lambda x, c: step.prefill_attention(*typical_prompts(x, c)), *rest)

    kinds = np.arange(len(chunks), dtype=float)
    whole = Surface(load, kinds, lambda x, kind: chunks[int(kind)].attention(x), *rest)
    each_s = np.array([[whole.step_s(core, x) for core in whole.rows(x).T[:, None]] for x in load[:, None]])
    weighed_s = each_s * np.hstack([weights for _, weights in mixes])
    with_prefix, without = weighed_s[:, : len(mixes[0][0])], weighed_s[:, -len(mixes[-1][0]) :]
    seconds = with_prefix.sum(axis=1)
    return Computing(
        surface=whole,
        shares=with_prefix / seconds[:, None],
        chunk_tokens=plan.chunk_tokens,
        load=load,
        seconds=seconds,
        seconds_alone=without.sum(axis=1),
        prompt_s=np.array([*_prompts_s(single, demand, plan.dp, load[-1])]),
        ranks=plan.dp,
    )


def _mix(step: StepOperations, demand: Demand, load: Floats) -> tuple[list[_Chunk], Floats]:
    """Kinds of chunks, and their shares of the steps at each load.

    A step of DSA is dense where all prompts of all ranks are short enough, with chance share^(prompts), sparse
    otherwise; that of another model is of one kind.
    """
    layout = step.layout
    share, short = demand.short(layout.dense_prefill_max_kv) if layout.model.sparse else (1.0, demand)
    prompts = layout.dp * np.maximum(1.0, load / demand.new_tokens)
    dense, longest = share**prompts, layout.model.max_positions
    forms = [(short, longest, dense), (demand, 0, 1 - dense)]
    kinds = [
        (
            _Chunk(
                prompts_of.prefill_context,
                prompts_of.input_tokens / prompts_of.new_tokens,
                replace(step, layout=replace(layout, dense_prefill_max_kv=up_to)),
            ),
            weights,
        )
        for prompts_of, up_to, weights in forms
        if weights.any()
    ]
    return [chunk for chunk, _ in kinds], np.stack([weights for _, weights in kinds], axis=1)


def _prompts_s(
    surface: Callable[[Floats, Floats], Surface], demand: Demand, ranks: int, most: float
) -> Iterator[tuple[float, float]]:
    """See `Computing.prompt_s`; a prompt beyond `most` tokens takes several steps."""
    middles = np.reshape(demand.new_quantiles, (LENGTHS, -1))[:, QUANTILES // LENGTHS // 2]
    for new in (middles * (demand.new_tokens / middles.mean())).tolist():
        prompt = max(1.0, new)
        tokens = float(round(min(prompt, most)))
        keys = prompt * demand.cached_tokens / demand.new_tokens + (prompt + 1) / 2
        here = surface(np.unique([max(1.0, round(tokens / ranks)), tokens]), np.array([keys, keys + 1]))
        core, steps = np.array([_core_s(here, tokens, keys)]), max(1.0, prompt / tokens)
        lone = np.eye(1, ranks)[0] * tokens
        yield here.step_s(core, lone) * steps, here.step_s(core, np.full(ranks, tokens)) * steps


def _core_s(surface: Surface, load: float, context: float) -> float:
    return float(surface.core_s(np.array([load]), np.array([context]))[0])


def _step_s(surface: Surface, load: float, context: float) -> float:
    return surface.step_s(np.array([_core_s(surface, load, context)]), np.array([load]))


def _shares(surface: Surface, spent: Iterable[tuple[float, float, float]]) -> dict[str, float]:
    """Shares by source of seconds spent at (load, context)."""
    before = surface.provenance_s()
    for load, context, seconds in spent:
        surface.charge(load, context, seconds)
    return dict(zip(PRICED_BY, (surface.provenance_s() - before).tolist(), strict=True))
