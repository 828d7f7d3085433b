"""Both phases of a deployment, on step costs that its workloads share."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sim.deployment.plan import Deployment
from sim.steady.computing import Computing, computing, kinds
from sim.steady.decoding import Decoding, decoding, longest
from sim.steady.demand import Demand
from sim.step.build import Range
from sim.step.cost import SurfaceStepCost
from sim.step.pricing import pool_step_cost

Floats = NDArray[np.float64]

FEW_OUTSIDE = (0.03, 0.999)
"""Quantiles of the chunks' contexts between which steps are priced; beyond them seconds go on in a straight line."""


@lru_cache(maxsize=64)
def pool_cost(
    deployment: Deployment, role: str, decode: Range | None, prefill: Range | None
) -> SurfaceStepCost:
    """The step cost of a pool for contexts of its phases (None: not its own); kept, because pricing takes time."""
    wanted = {"decode": decode, "prefill": prefill}
    within = {phase: contexts for phase, contexts in wanted.items() if contexts is not None}
    return pool_step_cost(deployment, role, within)


@lru_cache(maxsize=256)
def phases(deployment: Deployment, demand: Demand) -> tuple[Decoding, Computing]:
    """Both phases of a deployment for the lengths of a demand, wherever they run.

    Only what a step costs may differ between the arguments of two calls: see `sim.steady.service`, which leaves out
    loads.
    """
    decoder, prefiller = deployment.pool("decode"), deployment.pool("prefill")
    found = kinds(prefiller, demand, deployment.engine.whole_prompts)
    chunks = np.concatenate(
        [x for some, *_ in found[:: len(found) - 1] for x in (some.context, some.context_alone)]
    )
    most = longest(demand, decoder.dp, 1).max()
    decoded = _octaves(np.array([longest(demand, 1, 1).min(), most]))
    computed = _octaves(np.quantile(chunks, FEW_OUTSIDE))
    if prefiller is decoder:
        decode_cost = prefill_cost = pool_cost(deployment, decoder.role, decoded, computed)
    else:
        decode_cost = pool_cost(deployment, decoder.role, decoded, None)
        prefill_cost = pool_cost(deployment, prefiller.role, None, computed)
    edges = [float(x) for batch, _ in deployment.drafts.levels for x in (batch, batch + 1)]
    decode = decoding(decode_cost, decoder, demand, edges)
    mixed = prefiller is decoder and deployment.engine.mixes_prefill_with_decode
    return decode, computing(prefill_cost, prefiller, demand, found, decode if mixed else None)


def _octaves(contexts: Floats) -> Range:
    """Powers of two around them: the same for workloads that are alike."""
    low, high = np.log2(np.maximum(contexts, 1.0))[[0, -1]]
    return 2.0 ** np.floor(low), 2.0 ** np.ceil(high)
