"""What follows from a load: throughput, utilisation, price, and where the seconds come from."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sim.cluster.record import PoolRecord, Tokens
from sim.cost.latency import PRICED_BY
from sim.price import RunPrice, price_tokens
from sim.steady.service import NEXT_TO_NOTHING, Service
from sim.units import HOUR_S


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The service at one load."""

    batch: float
    """Decoding sequences per attention-DP rank."""
    requests_per_s: float
    tpot_s: float
    ttft_s: float
    """Mean time to first token: ingress, the step that runs, its own prefill step, KV transfer; no queue for more."""
    output_tokens_per_s: float
    output_tokens_per_s_per_gpu: float
    kv_cache_share: float
    """Of the decode side's KV cache in use."""
    prefill_share: float
    """Disaggregated: of the prefill pool's capacity. Aggregated: of the time, spent on prompts."""
    price: RunPrice

    @property
    def interactivity(self) -> float:
        """Tokens per second that one user sees, 1 / TPOT."""
        return 1 / self.tpot_s


def point(service: Service, at: Mapping[str, float]) -> OperatingPoint:
    """A point of the curve with what follows from it."""
    rate, tokens = at["requests_per_s"], service.demand.output_tokens * at["requests_per_s"]
    return OperatingPoint(
        batch=at["batch"],
        requests_per_s=rate,
        tpot_s=at["tpot_s"],
        ttft_s=at["ttft_s"],
        output_tokens_per_s=tokens,
        output_tokens_per_s_per_gpu=tokens / service.deployment.gpus,
        kv_cache_share=at["batch"] * service.held_tokens / service.cache_tokens,
        prefill_share=at["prefill_share"],
        price=_price(service, at),
    )


def _price(service: Service, at: Mapping[str, float]) -> RunPrice:
    """What an hour at this load costs, and what its tokens must sell for."""
    prompts, answers = _busy(service, at)
    cached = service.prefill.cached_share(at["prompts"])
    pools: dict[str, PoolRecord] = {}
    for plan, work in (
        (service.prefiller, {"prefill": prompts * (1 - cached), "cached": prompts * cached}),
        (service.decoder, {"decode": answers}),
    ):
        record = pools.setdefault(plan.role, PoolRecord(gpus=plan.total_gpus))
        record.busy_gpu_s |= work
    served = at["requests_per_s"] * HOUR_S
    demand = service.demand
    return price_tokens(
        service.deployment,
        service.price,
        pools,
        1.0,
        Tokens(served * demand.cached_tokens, served * demand.new_tokens, served * demand.output_tokens),
    )


def _busy(service: Service, at: Mapping[str, float]) -> tuple[float, float]:
    """Busy GPU-seconds of an hour on prompts and on answers.

    A step that does both is shared as the two would have taken alone.
    """
    prompts, answers = at["prefill_busy"], 0.0
    if service.decode_tokens > NEXT_TO_NOTHING:
        answers = service.decode.busy(at["batch"]) * (1 - prompts if service.joint else 1.0)
    if service.joint and not service.pauses:
        begun = np.array([at["prompts"]])
        alone_s = float(service.prefill.step_s(begun).mean())
        riding_s = service.decode.step_s(at["batch"] * service.decoding(begun))
        decode_s = float(riding_s[0]) * service.decode.busy(at["batch"])
        riding = prompts * decode_s / (alone_s + decode_s)
        prompts, answers = prompts - riding, answers + riding
    return (
        prompts * service.prefiller.total_gpus * HOUR_S,
        max(0.0, answers) * service.decoder.total_gpus * HOUR_S,
    )


def utilization(service: Service, at: Mapping[str, float]) -> dict[str, float]:
    """Share of the time in which the workers of each pool work."""
    busy: dict[str, float] = {}
    for plan, gpu_s in zip((service.prefiller, service.decoder), _busy(service, at), strict=True):
        busy[plan.role] = busy.get(plan.role, 0.0) + gpu_s / (plan.total_gpus * HOUR_S)
    return busy


def priced_by(service: Service, at: Mapping[str, float]) -> dict[str, float]:
    """Shares of busy GPU time by what priced it."""
    prompts, answers = _busy(service, at)
    of_prompts = service.prefill.priced_by(at["prompts"])
    of_answers = service.decode.priced_by(at["batch"], max(1.0, at["prompts"]))
    shares = prompts * of_prompts + answers * of_answers
    return dict(zip(PRICED_BY, (shares / (prompts + answers)).tolist(), strict=True))
