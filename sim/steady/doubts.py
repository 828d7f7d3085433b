"""Where the estimate may differ from the simulation by more than its usual few percent, in words."""

import math
from collections.abc import Iterator, Mapping

from sim.cluster.window import LEAST_STAYS
from sim.scenario.schema import Scenario
from sim.steady.service import Limit, Service

MOSTLY_PROMPTS = 0.9
"""Share of the time of aggregated workers beyond which little is left for answers."""
OFTEN_PROMPTS = 0.65
"""The same of several workers whose decode steps wait for prompts: a router gives each of them prompts more evenly than
chance, so that fewer come together. From 0.66 TPOT was 30% higher than estimated, from 0.72 twice (24 workers)."""
FEW_PROMPTS = 0.1
"""Share of the time of workers that hold prompts for company, from which it matters how: TPOT was 8 to 27% above the
simulated one (DeepSeek-V4-Pro on 4 B300 and 8 B200, TensorRT-LLM, 64 to 512 in flight at shares of 0.11 to 0.4)."""
FEW_SEQUENCES = 4.0
"""Sequences that a rank has room for, in seats or KV cache, up to which it matters which requests happen to meet."""
FEW_THAT_GROW = 16.0
"""Sequences in a full KV cache up to which their growth does not average out: n of all ages differ from their mean by
2 / sqrt(12 n), 14%."""
MANY_REJECTED = 0.3
"""Share of requests that are too long beyond which the rest depends on a few that just fit."""
MANY_USERS = 64
"""Users per rank of a closed loop on aggregated workers: at 64 the price was 10% off, at 256 25% (8 H200, TP8)."""
NEARLY_FULL = 0.9
"""Load from which the capacity matters for the figures."""


def doubts(
    scenario: Scenario, service: Service, at: Mapping[str, float], limit: Limit, load: float
) -> Iterator[str]:
    """A sentence for each reason why price, throughput or TPOT may be more than 10% off at this point.

    load: arrivals over capacity.
    """
    demand, joint, full = service.demand, service.joint, load > NEARLY_FULL
    if demand.too_long > MANY_REJECTED:
        yield (
            f"{demand.too_long:.0%} of the requests are too long for the model or the KV cache of a rank and are "
            "rejected; the figures are those of the rest."
        )
    apart = not service.mixed and service.prefiller.workers > 1 and demand.rate_per_s is not None
    if joint and at["prefill_share"] > (OFTEN_PROMPTS if apart else MOSTLY_PROMPTS if full else 1.0):
        yield (
            f"At this load the workers spend {at['prefill_share']:.0%} of their time on prompts: a little more or less "
            "changes much for the answers."
        )
    if load > 1 and service.evicts:
        yield (
            "Overloaded, without room in the KV cache: the engine throws out prompts that it has computed, and how "
            "many depends on how the overload came about."
        )
    if load > 1 and not joint and limit != "prefill":
        yield (
            f"Overloaded, limited by {limit}: a simulation goes on computing prompts until the prefill pool has no "
            "room left, and counts them."
        )
    if full and service.largest <= FEW_SEQUENCES:
        yield f"A rank has room for {service.largest:.2g} requests at a time: it matters which ones meet."
    rules = service.cluster.rules
    if joint and rules.held_steps and at["prefill_share"] > FEW_PROMPTS:
        yield (
            f"Prompts are held for company up to {rules.held_steps} steps, before each of their steps anew: "
            "the estimate lets those that wait follow one another: a first token comes sooner there, and answers "
            "are slower."
        )
    growth, kept = demand.output_tokens - 1, service.cluster.rules.growth_reserve_tokens
    few = service.largest <= FEW_THAT_GROW and growth > kept
    if full and joint and service.room() == "KV cache" and (few or _outgrown(service, kept)):
        yield (
            f"A rank's KV cache is full with {service.largest:.2g} requests, whose answers grow by {growth:,.0f} "
            f"tokens where the engine keeps {kept:,} free: it throws some out and computes them again."
        )
    if joint and (demand.concurrency or 0) > MANY_USERS * service.ranks:
        yield (
            f"{demand.concurrency:,} users in a closed loop on {service.ranks} ranks: those who leave together come "
            "back together, and such bursts are not followed."
        )
    if full and joint and demand.answers_alike and demand.output_tokens > 1:
        yield (
            "All answers have the same length: at this load they begin and end together, more or less, and the "
            "capacity depends on it."
        )
    stay_s = at["ttft_s"] + service.decode_tokens * at["tpot_s"]
    lasts_s = scenario.duration_s or math.inf
    if demand.requests is not None:
        lasts_s = min(lasts_s, demand.requests / (demand.rate_per_s or at["requests_per_s"]))
    lasts_s -= scenario.warmup_s
    if LEAST_STAYS * stay_s > lasts_s:
        yield (
            f"A request stays {stay_s:,.3g} s on average, and is measured among those of {lasts_s:,.3g} s only: a "
            "simulation does not reach the steady state and tells of the whole run, its start and end included."
        )


def _outgrown(service: Service, kept_tokens: int) -> bool:
    """Whether what a full rank of n requests keeps free, n k tokens, is less than its answers come and go by.

    A request met at a moment has grown by g tokens on average, by anything up to 2 g where answers are alike: a
    standard deviation of g / sqrt(3), sqrt(n) times that for the rank. So k sqrt(3 n) < g. Simulated around that, with
    27 to 190 requests: from 1.2 g on at most 0.07 of them are thrown out and the price is within 3%, at 0.7 g and below
    0.6 to 0.9 of them are, and the price is 12% higher.
    """
    grown_tokens = service.demand.decode_context - service.demand.input_tokens
    return kept_tokens * math.sqrt(3 * service.largest) < grown_tokens
