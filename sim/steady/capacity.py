"""The rate of requests at which a service is full, and its curve up to there."""

import numpy as np
from numpy.typing import NDArray

from sim.steady.service import HALVINGS, SMALLEST, Columns, Limit, Service

Floats = NDArray[np.float64]

LOADS = (
    *(0.001, 0.003, 0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7),
    *(0.77, 0.83, 0.88, 0.92, 0.95, 0.97, 0.99),
)
"""Shares of the capacity at which the curve has points."""


def full(service: Service) -> tuple[Columns, Limit]:
    """The service at its capacity, and what ends it there: one entry in each column."""
    if not service.joint:
        return _full_pools(service)
    if service.in_step:
        kinds = together(service, np.array([service.largest])), _full_workers(service)
        return max(kinds, key=lambda c: float(c["requests_per_s"][0])), service.room()
    return _full_workers(service), service.room()


def _full_pools(service: Service) -> tuple[Columns, Limit]:
    """The capacity of a prefill and a decode pool; a sequence has its place from the moment it is sent."""
    batch, one, sent_s = np.array([service.largest]), np.ones(1), service.transfer_s(rest=False)
    stay_s = service.token_s(batch, full=True) * service.decode_tokens
    if service.cluster.handover.room_first:
        stay_s = stay_s + service.prefill.full_s() * service.prefill.chunks_per_prompt
    decoded = float(service.ranks * service.largest / (stay_s + service.transfer_s(rest=True))[0])
    sent = min(service.ranks, service.prefiller.workers * service.prefiller.dp) / sent_s
    rates: dict[Limit, float] = {
        "prefill": service.computed_at_most(), service.room(): decoded, "KV transfer": sent,
    }  # fmt: skip
    limit = min(rates, key=lambda name: rates[name])
    rate = rates[limit]
    columns = service.at_rates(rate * one)
    if rate == decoded:
        batch = batch * stay_s / (stay_s + service.transfer_s(rest=True))
        columns |= {"batch": batch, "tpot_s": service.token_s(np.array([service.largest]), full=True)}
    return columns, limit


def overloaded(service: Service, at_capacity: Columns) -> Columns:
    """The service when more comes than it can serve: as at its capacity, but where it has to evict."""
    return _full_workers(service, _computed_again(service)) if service.evicts else at_capacity


def _computed_again(service: Service) -> float:
    """How often a prompt is computed then: an answer's growth takes as many tokens from others as it has."""
    return 1 + (service.demand.output_tokens - 1) / service.demand.input_tokens


def _full_workers(service: Service, again: float = 1.0) -> Columns:
    """The capacity of workers that do both, when prompts wait everywhere: those that leave between two decode steps
    make room for as many, which are computed together in the next step, each of them `again` times in all.

    A sequence has its place while its prompt is computed, on the rank where another one left.
    """
    prefill, ranks, limit = service.prefill, service.decoder.dp, max(service.largest, 1 / service.decoder.dp)
    batch, chunks = np.array([limit]), prefill.chunks_per_prompt
    steps = service.decode_tokens / float(service.tokens_per_step(batch)[0])
    if not service.pauses:
        most = prefill.most
        if service.mixed:
            most *= 1 - min(0.9, limit / service.prefiller.chunk_tokens)
        waits = _waits(service, steps, limit) if service.others_decode else 1.0
        leaving = min(ranks * limit / (steps * waits + chunks), most / again)
        batch = np.array([max(leaving * steps * waits / ranks, limit * SMALLEST)])
        begun = leaving * again
        some = -np.expm1(-begun * chunks)
        step_s = float(service.decode.step_s(batch)[0])
        together_s = float(prefill.step_s(np.array([begun / some]), batch).mean())
        if begun < most:  # else prompts wait on every rank
            together_s += prefill.crowded_s(begun / some)
        busy_s = some * together_s
        cycle_s = busy_s + (1 - some) * step_s
        added_s, place_s = max(0.0, cycle_s - step_s / waits), chunks * cycle_s
    else:
        leaving = min(ranks * limit / steps, ranks * limit)
        begun = leaving * again
        some = -np.expm1(-begun)
        place_s = prefill.burst_s(begun / some) + prefill.crowded_s(begun / some)
        busy_s = added_s = some * place_s
        cycle_s = added_s + float(service.decode.step_s(batch)[0]) * min(
            1.0, steps * leaving / (ranks * limit)
        )
        batch = batch * max(0.0, 1 - leaving / cycle_s * place_s / (ranks * limit))
    rate = leaving / cycle_s
    return {
        "batch": batch,
        "requests_per_s": np.array([rate * service.decoder.workers]),
        "tpot_s": batch * ranks / (rate * np.array([service.decode_tokens])),
        "ttft_s": np.array([service.cluster.rules.ingress_s + place_s]),
        "prefill_share": np.array([added_s / cycle_s]),
        "prefill_busy": np.array([busy_s / cycle_s]),
        "prompts": np.array([min(begun / some, prefill.most)]),
    }


def _waits(service: Service, steps: float, limit: float) -> float:
    """Steps of a full worker per decode step of a rank that decodes only where it has no prompt.

    A rank whose seats are given up by l sequences a step has a prompt in a share q = 1 - exp(-l c) of the steps, with c
    of them for each prompt. A sequence decodes for s / (1 - q) of them: limit = l (s / (1 - q) + c).
    """
    chunks = service.prefill.chunks_per_prompt
    low, high = 0.0, limit / (steps + chunks)
    for _ in range(HALVINGS):
        leaving = (low + high) / 2
        kept = leaving * (steps * np.exp(leaving * chunks) + chunks)
        low, high = (leaving, high) if kept < limit else (low, leaving)
    return float(np.exp(high * chunks))


def together(service: Service, batch: Floats) -> Columns:
    """Workers that do both for requests in step: all prompts of a worker first, then all answers.

    A request waits for the prompts before its own, and then for those behind it, because prompts go first. Ranks that
    decode beside the prompts of others come apart in the long run, unless prompts are alike, too.
    """
    prefill, ingress_s, ranks = service.prefill, service.cluster.rules.ingress_s, service.decoder.dp
    token_s = service.token_s(batch, full=True)
    prompts = np.maximum(batch * ranks, 1.0)
    prompts_s = np.array([prefill.burst_s(p) for p in prompts])
    others_s = prompts_s * (1 - 1 / np.maximum(1.0, prompts / prefill.most)) / 2
    cycle_s = ingress_s + prompts_s + token_s * service.decode_tokens
    return {
        "batch": batch,
        "requests_per_s": service.ranks * batch / cycle_s,
        "tpot_s": token_s + others_s / service.decode_tokens,
        "ttft_s": ingress_s + prompts_s - others_s,
        "prefill_share": prompts_s / cycle_s,
        "prefill_busy": prompts_s / cycle_s,
        "prompts": np.minimum(prompts, prefill.most),
    }


def curve(service: Service, at_capacity: Columns) -> Columns:
    """The service from light load to `at_capacity`, in order of its rate."""
    if service.in_step and service.demand.rate_per_s is None:
        return together(service, service.batches())
    most = float(at_capacity["requests_per_s"][0])
    parts = [service.at_rates(most * np.array(LOADS)), at_capacity]
    if not service.joint:
        parts.append(service.at_batches(most))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in at_capacity}
    order = np.argsort(columns["requests_per_s"], kind="stable")
    return {name: column[order] for name, column in columns.items()}


def closed(service: Service, columns: Columns, requests: int) -> dict[str, float]:
    """Where on the curve `columns` so many requests in flight settle.

    A request that joins finds the others there, one fewer than all (the arrival theorem of closed networks: Sevcik and
    Mitrani, JACM 28(2), 1981); users in step find what `together` says, their own request included.
    """
    points = np.arange(len(columns["batch"]))

    def at(place: float) -> dict[str, float]:
        return {name: float(np.interp(place, points, column)) for name, column in columns.items()}

    stay_s = columns["ttft_s"] + service.decode_tokens * columns["tpot_s"]
    in_flight = np.maximum.accumulate(columns["requests_per_s"] * stay_s)
    if service.in_step:
        return at(float(np.interp(requests, in_flight, points)))
    found = at(float(np.interp(requests - 1, in_flight, points)))
    stays_s = found["ttft_s"] + service.decode_tokens * found["tpot_s"]
    rate = min(requests / stays_s, float(columns["requests_per_s"][-1]))
    batch = rate * service.decode_tokens * found["tpot_s"] / service.ranks
    load = at(float(np.interp(rate, columns["requests_per_s"], points)))
    same = {"requests_per_s": rate, "batch": batch, "tpot_s": found["tpot_s"], "ttft_s": found["ttft_s"]}
    return load | same
