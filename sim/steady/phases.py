"""Both phases of a deployment, on step costs that its workloads share."""

from functools import lru_cache

from sim.cluster.plan import other_ranks_decode
from sim.deployment.plan import Deployment
from sim.steady.chunks import kinds
from sim.steady.computing import Computing, computing
from sim.steady.decoding import Decoding, decoding
from sim.steady.demand import Demand
from sim.step.pricing import pool_step_cost


@lru_cache(maxsize=256)
def phases(deployment: Deployment, demand: Demand) -> tuple[Decoding, Computing]:
    """Both phases of a deployment for the lengths of a demand, wherever they run.

    Only what a step costs may differ between the arguments of two calls: see `sim.steady.service`, which leaves out
    loads.
    """
    decoder, prefiller = deployment.pool("decode"), deployment.pool("prefill")
    found = kinds(prefiller, demand, deployment.engine.whole_prompts)
    decode_cost = pool_step_cost(deployment, decoder.role)
    prefill_cost = decode_cost if prefiller is decoder else pool_step_cost(deployment, prefiller.role)
    edges = [float(x) for batch, _ in deployment.drafts.levels for x in (batch, batch + 1)]
    decode = decoding(decode_cost, decoder, demand, edges)
    mixed = prefiller is decoder and deployment.engine.mixes_prefill_with_decode
    others = prefiller is decoder and not mixed and other_ranks_decode(deployment)
    beside = decode if mixed or others else None
    return decode, computing(prefill_cost, prefiller, demand, found, beside, others)
