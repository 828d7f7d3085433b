"""The curve of a service: prefill and decode in balance at every batch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sim.cluster.record import PoolRecord
from sim.cluster.setup import ClusterPlan
from sim.cluster.window import Tokens
from sim.cost.latency import PRICED_BY
from sim.model.deployment import Deployment, PoolPlan
from sim.price import RunPrice, price_tokens
from sim.scenario.schema import Objectives, Price, Scenario, Workload
from sim.steady.demand import Demand
from sim.steady.phases import phases
from sim.units import HOUR_S

Floats = NDArray[np.float64]
Limit = Literal["prefill", "decode batch", "KV cache"]

BESIDE_A_STEP = {
    "workload": Workload(trace="any"),
    "duration_s": None,
    "warmup_s": 0.0,
    "objectives": Objectives(),
    "price": Price(),
}
"""What no step depends on beyond the means of the workload: the same for all scenarios that share priced steps."""
LIGHT_LOADS = (0.01, 0.03, 0.1, 0.3)
"""Sequences per rank below one at which the curve has points."""
HALVINGS = 24
"""Bisections of an arrival rate: its relative error is 2^-24."""
NEXT_TO_NOTHING = 1e-9
"""Tokens that answers of one token still decode, and requests per second that still reach an idle worker: both are
divided by."""
ROUNDS = 12
"""Rounds in which the number of prompts per prefill step settles."""


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


@dataclass(frozen=True, slots=True)
class _Prompts:
    """Prefill steps at the loads of a curve."""

    tokens: Floats
    """On the fullest rank."""
    seconds: Floats
    wait_s: Floats
    """Mean wait of a new prompt for the prefill step that runs, if one does: its share of time x E[S^2] / (2 E[S])."""
    share: Floats
    """Of a worker's time, beyond what decode steps would have taken in it."""


class Service:
    """The pieces of one steady state."""

    def __init__(
        self, scenario: Scenario, deployment: Deployment, demand: Demand, cluster: ClusterPlan
    ) -> None:
        self.scenario, self.deployment, self.demand, self.cluster = scenario, deployment, demand, cluster
        pools = deployment.pools
        self.decoder: PoolPlan = pools.get("decode") or pools["serve"]
        self.prefiller: PoolPlan = pools.get("prefill") or pools["serve"]
        self.mixed = cluster.pools[self.prefiller.role].mixed and self.prefiller is self.decoder
        priced = scenario.model_copy(update=BESIDE_A_STEP)
        self.decode, self.prefill = phases(priced, replace(demand, rate_per_s=None, concurrency=None))
        self.decode_tokens = max(demand.output_tokens - 1, NEXT_TO_NOTHING)
        room = cluster.pools[self.decoder.role]  # beside what the prefix cache holds for itself
        self.cache_batch = room.kv_blocks * room.block_tokens / demand.decode_context

    def _accepted(self, batch: Floats) -> Floats:
        """Tokens per sequence and step: those of the drafts that run at each batch."""
        speculation = self.cluster.speculation
        return np.array([speculation.at(ceil(b)).accept_length for b in batch])

    def batches(self) -> Floats:
        """Sequences per rank from light load up to what cap and KV cache allow."""
        largest = min(self.decoder.max_sequences, self.cache_batch)
        points = np.array([*LIGHT_LOADS, *self.decode.load, largest])
        return np.unique(points[points <= largest])

    def limit(self, batch: float) -> Limit:
        """What ends the curve at its largest batch."""
        if batch < min(self.decoder.max_sequences, self.cache_batch):
            return "prefill"
        return "decode batch" if self.decoder.max_sequences <= self.cache_batch else "KV cache"

    def curve(self) -> dict[str, Floats]:
        """The service from light load to capacity, one entry per batch."""
        if self.prefiller is not self.decoder:
            return self.disaggregated()
        if not self.demand.answers_alike:
            return self.aggregated()
        return self.in_step() if self.demand.rate_per_s is None else self.falling_in_step()

    def disaggregated(self) -> dict[str, Floats]:
        """The curve of a prefill and a decode pool."""
        batch, pool, new = self.batches(), self.prefiller, self.demand.new_tokens
        rate = self._rate(batch, self.decode.step_s(batch) / self._accepted(batch))
        chunk_s = float(self.prefill.step_s(np.array(float(pool.chunk_tokens))))
        most = pool.workers * pool.dp * pool.chunk_tokens / (chunk_s * new)
        if most < rate[-1]:
            last = float(np.interp(most, np.maximum.accumulate(rate), batch))
            batch = np.append(batch[batch < last], last)
            rate = np.minimum(self._rate(batch, self.decode.step_s(batch) / self._accepted(batch)), most)
        prompts = self._prompts(rate / pool.workers, rate / pool.workers, np.zeros(len(batch)))
        return {
            "batch": batch,
            "requests_per_s": rate,
            "tpot_s": self.decode.step_s(batch) / self._accepted(batch),
            "ttft_s": self.cluster.rules.ingress_s + prompts.wait_s + prompts.seconds + self._transfer_s(),
            "prefill_share": rate / most,
            "prefill_tokens": prompts.tokens,
        }

    def aggregated(self) -> dict[str, Floats]:
        """The curve of workers that do both: for each batch the rate at which prefill leaves it the time."""
        batch, step_s = self.batches(), self.decode.step_s(self.batches())
        unshared = self._rate(batch, step_s / self._accepted(batch))
        low, high = np.zeros(len(batch)), unshared
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            enough = unshared * (1 - self._beside_decode(middle, batch, step_s).share) >= middle
            low, high = np.where(enough, middle, low), np.where(enough, high, middle)
        prompts = self._beside_decode(low, batch, step_s)
        look_s = (1 - prompts.share) * step_s * self.cluster.rules.poll_every_steps / 2
        return {
            "batch": batch,
            "requests_per_s": low,
            "tpot_s": step_s / (self._accepted(batch) * (1 - prompts.share)),
            "ttft_s": self.cluster.rules.ingress_s + prompts.wait_s + look_s + prompts.seconds,
            "prefill_share": prompts.share,
            "prefill_tokens": prompts.tokens,
        }

    def falling_in_step(self) -> dict[str, Floats]:
        """The curve of workers that do both for an open loop of answers that are all alike.

        Apart at light load; the more prompts wait when a batch ends, the more of them begin together, and at capacity
        all do. In between, and where prompts ride along in decode steps, that is a rough picture.
        """
        apart, together = self.aggregated(), self.in_step()
        if together["requests_per_s"][-1] <= apart["requests_per_s"].max():
            return apart
        return {name: np.append(column, together[name][-1]) for name, column in apart.items()}

    def in_step(self) -> dict[str, Floats]:
        """The curve of workers that do both for requests in step: all prompts of a worker first, then all answers.

        A request waits for the prompts before its own, and then for those behind it, because prompts go first.
        """
        pool, new, prefill = self.prefiller, self.demand.new_tokens, self.prefill
        ingress_s = self.cluster.rules.ingress_s
        batch, accepted = self.batches(), self._accepted(self.batches())
        step_s = self.decode.step_s(batch)
        chance, each_s = prefill.waiting(np.clip(batch * pool.dp, 1.0, pool.dp))
        more_s = prefill.step_s(np.maximum(batch, 1.0) * new) - prefill.step_s(np.array(new))
        prompts_s = (chance * each_s).sum(axis=1) + more_s
        others_s = prompts_s * (1 - 1 / np.maximum(1.0, batch * new / pool.chunk_tokens)) / 2
        cycle_s = ingress_s + prompts_s + step_s / accepted * self.decode_tokens
        return {
            "batch": batch,
            "requests_per_s": pool.workers * pool.dp * batch / cycle_s,
            "tpot_s": step_s / accepted + others_s / self.decode_tokens,
            "ttft_s": ingress_s + prompts_s - others_s,
            "prefill_share": prompts_s / cycle_s,
            "prefill_tokens": np.maximum(batch, 1.0) * new,
        }

    def _rate(self, batch: Floats, tpot_s: Floats) -> Floats:
        """Requests per second that keep `batch` sequences decoding on every rank, by Little's law."""
        return self.decoder.workers * self.decoder.dp * batch / (tpot_s * self.decode_tokens)

    def _transfer_s(self) -> float:
        """What the KV cache's way to the decode pool adds to the first token."""
        transfer, pool = self.cluster.transfer, self.prefiller
        assert transfer is not None
        gpus_per_rank = min(pool.gpus / pool.dp, self.decoder.gpus / self.decoder.dp)
        sent_s = self.demand.input_tokens * transfer.bytes_per_token / (transfer.bytes_per_s * gpus_per_rank)
        return transfer.latency_s + sent_s * transfer.tail_fraction

    def _beside_decode(self, rate: Floats, batch: Floats, step_s: Floats) -> "_Prompts":
        """Prefill steps of workers that decode when no prompt waits."""
        arriving = np.maximum(rate / self.decoder.workers, NEXT_TO_NOTHING)
        looking_s = step_s * self.cluster.rules.poll_every_steps
        return self._prompts(arriving, -np.expm1(-arriving * looking_s) / looking_s, batch)

    def _prompts(self, arriving: Floats, resumes: Floats, batch: Floats) -> "_Prompts":
        """Prefill steps at `arriving` prompts per second and worker.

        `resumes`: prefill steps per second of the time in which no prompt waits. `batch` decoding sequences take
        part in a step where the engine mixes, else stand by.
        """
        pool, new, prefill, mixed = self.prefiller, self.demand.new_tokens, self.prefill, self.mixed
        # A router that looks at tokens leaves the fullest rank one long prompt above the mean of the others.
        riding = mixed * batch * self.decode.tokens_per_sequence(batch)
        most = pool.dp * np.maximum(1.0, np.maximum(pool.chunk_tokens - mixed * batch, 1.0) / new)
        prompts = np.ones(len(arriving))
        for _ in range(ROUNDS):
            each, ranks = np.maximum(1.0, prompts / pool.dp), np.clip(prompts, 1.0, pool.dp)
            more_s = prefill.step_s(each * new + riding) - prefill.step_s(np.array(new))
            chance, each_s = prefill.waiting(ranks)
            each_s = each_s + (more_s + mixed * self.decode.reading_s(batch))[:, None]
            seconds = (chance * each_s).sum(axis=1)
            nobody = (chance * np.exp(-arriving[:, None] * each_s)).sum(axis=1)
            steps_per_s = 1 / (seconds + nobody / resumes)
            prompts = np.minimum(arriving / steps_per_s, most)
        steps_per_s = arriving / prompts
        wait_s = steps_per_s * (chance * each_s**2).sum(axis=1) / 2
        added_s = seconds - mixed * self.decode.step_s(batch)
        return _Prompts(each * new, seconds, wait_s, steps_per_s * added_s)

    def point(self, at: Mapping[str, float]) -> OperatingPoint:
        """A point of the curve with what follows from it."""
        rate, tokens = at["requests_per_s"], self.demand.output_tokens * at["requests_per_s"]
        return OperatingPoint(
            batch=at["batch"],
            requests_per_s=rate,
            tpot_s=at["tpot_s"],
            ttft_s=at["ttft_s"],
            output_tokens_per_s=tokens,
            output_tokens_per_s_per_gpu=tokens / self.deployment.gpus,
            kv_cache_share=at["batch"] / self.cache_batch,
            prefill_share=at["prefill_share"],
            price=self._price(at),
        )

    def _price(self, at: Mapping[str, float]) -> RunPrice:
        """What an hour at this load costs, and what its tokens must sell for."""
        prompts, answers = self._busy(at)
        cached = self.prefill.cached_share(at["prefill_tokens"])
        pools: dict[str, PoolRecord] = {}
        for plan, work in (
            (self.prefiller, {"prefill": prompts * (1 - cached), "cached": prompts * cached}),
            (self.decoder, {"decode": answers}),
        ):
            record = pools.setdefault(plan.role, PoolRecord(gpus=plan.total_gpus))
            record.busy_gpu_s |= work
        served = at["requests_per_s"] * HOUR_S
        demand = self.demand
        return price_tokens(
            self.scenario,
            pools,
            1.0,
            Tokens(served * demand.cached_tokens, served * demand.new_tokens, served * demand.output_tokens),
        )

    def _busy(self, at: Mapping[str, float]) -> tuple[float, float]:
        """Busy GPU-seconds of an hour on prompts and on answers; a decode pool with sequences never rests."""
        prompts = at["prefill_share"] * self.prefiller.total_gpus * HOUR_S
        time_left = 1 - at["prefill_share"] if self.prefiller is self.decoder else 1.0
        answers = min(1.0, at["batch"] * self.decoder.dp) * time_left * self.decoder.total_gpus * HOUR_S
        return prompts, answers

    def priced_by(self, at: Mapping[str, float]) -> dict[str, float]:
        """Shares of busy GPU time by what priced it."""
        prompts, answers = self._busy(at)
        of_prompts, of_answers = (
            self.prefill.priced_by(at["prefill_tokens"]),
            self.decode.priced_by(at["batch"]),
        )
        total = prompts + answers
        return {s: (prompts * of_prompts[s] + answers * of_answers[s]) / total for s in PRICED_BY}
