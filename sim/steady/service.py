"""A service in balance: its speed, batches and price at a rate of requests, and the rate at which it is full."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import pdtr

from sim.cluster.record import PoolRecord
from sim.cluster.setup import ClusterPlan
from sim.cluster.window import Tokens
from sim.cost.latency import PRICED_BY
from sim.model.deployment import Deployment, PoolPlan
from sim.price import RunPrice, price_tokens
from sim.scenario.schema import Objectives, Price, Scenario, Workload
from sim.steady.demand import Demand
from sim.steady.phases import idle_share, phases
from sim.units import HOUR_S

Floats = NDArray[np.float64]
Columns = dict[str, Floats]
Limit = Literal["prefill", "decode batch", "KV cache", "KV transfer"]

BESIDE_A_STEP = {
    "workload": Workload(trace="any"),
    "duration_s": None,
    "warmup_s": 0.0,
    "objectives": Objectives(),
    "price": Price(),
}
"""What no step depends on beyond the means of the workload: the same for all scenarios that share priced steps."""
LOADS = (
    *(0.001, 0.003, 0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7),
    *(0.77, 0.83, 0.88, 0.92, 0.95, 0.97, 0.99),
)
"""Shares of the capacity at which the curve has points."""
HALVINGS = 32
"""Bisections of a batch or a rate between its bounds."""
SMALLEST = 1e-9
"""Share of the largest batch that a bisection begins at."""
NEXT_TO_NOTHING = 1e-9
"""Tokens that answers of one token still decode, and prompts per second that still reach an idle worker: both are
divided by."""
MOST_HERE = 700.0
"""Prompts under way beyond which no worker is idle: exp(-700) is still a number."""
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

    prompts: Floats
    """That a step begins."""
    seconds: Floats
    """From the first step of a prompt to the end of its last."""
    wait_s: Floats
    """Mean wait of a new prompt for the prefill step that runs, if one does: its share of time x E[S^2] / (2 E[S])."""
    busy: Floats
    """Share of a worker's time in prefill steps."""
    share: Floats
    """The same beyond what decode steps would have taken in it."""


class Service:
    """The pieces of one steady state."""

    def __init__(
        self, scenario: Scenario, deployment: Deployment, demand: Demand, cluster: ClusterPlan
    ) -> None:
        self.scenario, self.deployment, self.demand, self.cluster = scenario, deployment, demand, cluster
        pools = deployment.pools
        self.decoder: PoolPlan = pools.get("decode") or pools["serve"]
        self.prefiller: PoolPlan = pools.get("prefill") or pools["serve"]
        self.joint = self.prefiller is self.decoder
        self.mixed = cluster.pools[self.prefiller.role].mixed and self.joint
        priced = scenario.model_copy(update=BESIDE_A_STEP)
        lengths = replace(demand, rate_per_s=None, concurrency=None, too_long=0.0)
        self.decode, self.prefill = phases(priced, lengths)
        self.decode_tokens = max(demand.output_tokens - 1, NEXT_TO_NOTHING)
        room = cluster.pools[self.decoder.role]  # beside what the prefix cache holds for itself
        each = demand.decode_context + cluster.rules.growth_reserve_tokens
        self.cache_tokens = room.kv_blocks * room.block_tokens
        # The next prompt waits for as much room as it needs: half of that is free on average.
        self.cache_batch = max(self.cache_tokens - demand.input_tokens / 2, self.cache_tokens / 2) / each
        self.largest = min(float(self.decoder.max_sequences), self.cache_batch)
        self.ranks = self.decoder.workers * self.decoder.dp
        self.in_step = self.joint and demand.answers_alike and not scenario.speculation.draft_tokens

    def _tokens_per_step(self, batch: Floats) -> Floats:
        """Tokens of an answer per decode step: those of the drafts that run at each batch, less what the last step of
        an answer generates in vain."""
        drafts = [self.cluster.speculation.at(max(1, ceil(b))) for b in batch]
        accepted, vain = np.reshape([(d.accept_length, d.overshoot) for d in drafts], (-1, 2)).T
        return accepted * self.decode_tokens / (self.decode_tokens + vain * min(1.0, self.decode_tokens))

    def _token_s(self, batch: Floats, full: bool = False) -> Floats:
        """Seconds of a token while nothing but decode runs; `full`: where the batch is all that there is room for."""
        seen = batch if full else np.minimum(self.decode.seen(batch), max(self.largest, 1 / self.decoder.dp))
        return self.decode.step_s(seen) / self._tokens_per_step(batch)

    def _unshared(self, batch: Floats, token_s: Floats) -> Floats:
        """Requests per second that keep `batch` sequences decoding on every rank, by Little's law."""
        return self.ranks * batch / (token_s * self.decode_tokens)

    def batches(self) -> Floats:
        """Sequences per rank from light load up to what cap and KV cache allow."""
        points = np.array([*self.decode.load, self.largest])
        return np.unique(points[points <= self.largest])

    def at_rates(self, rate: Floats) -> Columns:
        """The service at these requests per second, none above its capacity."""
        low, high = np.full(len(rate), self.largest * SMALLEST), np.full(len(rate), self.largest)
        prompts = self._beside_decode(rate, high).prompts
        for _ in range(HALVINGS):
            middle = np.sqrt(low * high)
            carried = self._unshared(middle, self._token_s(middle))
            if self.joint:
                beside = self._beside_decode(rate, middle, prompts, rounds=2)
                carried, prompts = carried * (1 - beside.share), beside.prompts
            low, high = np.where(carried >= rate, low, middle), np.where(carried >= rate, middle, high)
        return self._columns(high, rate)

    def at_batches(self, most: float) -> Columns:
        """A decode pool at the batches that were priced, as far as it takes less than `most` requests per second."""
        batch = self.batches()
        rate = self._unshared(batch, self._token_s(batch))
        inside = rate < most
        return self._columns(batch[inside], rate[inside])

    def _columns(self, batch: Floats, rate: Floats) -> Columns:
        """All that is known of a rate and the batch that goes with it."""
        prompts, token_s, rules = self._beside_decode(rate, batch), self._token_s(batch), self.cluster.rules
        # A batch at its largest has no room for more prompts, and decodes although some wait.
        alone = np.clip(rate / self._unshared(batch, token_s), 1 - prompts.share, 1.0)
        ttft_s = rules.ingress_s + prompts.wait_s + prompts.seconds
        if self.joint:
            ttft_s = ttft_s + alone * self.decode.busy_at(batch) * self._look_s(batch)
        else:
            ttft_s = ttft_s + self._transfer_s(rest=True)
        return {
            "batch": batch,
            "requests_per_s": rate,
            "tpot_s": token_s / alone if self.joint else token_s,
            "ttft_s": ttft_s,
            "prefill_share": 1 - alone if self.joint else rate / self._computed_at_most(),
            "prefill_busy": np.minimum(prompts.busy, 1.0 if self.mixed or not self.joint else 1 - alone),
            "prompts": prompts.prompts,
        }

    def _look_s(self, batch: Floats) -> Floats:
        """From a prompt's arrival in a worker that decodes to the boundary at which it may begin, on average."""
        step_s, rules = self.decode.step_s(self.decode.seen(batch)), self.cluster.rules
        return step_s * (rules.poll_every_steps + rules.wait_all_ranks_steps) / 2

    def _beside_decode(
        self, rate: Floats, batch: Floats, prompts: Floats | None = None, rounds: int = ROUNDS
    ) -> _Prompts:
        """Prefill steps at `rate` requests per second, found from `prompts` that begin in a step.

        Prompts that arrive in a step begin in the next one. With steps of S seconds and prompts that take L of them,
        the prompts under way in W workers are Poisson's about W r S L (each leaves a step with chance 1 / L); the
        router gives a new one to a worker that has none, if any, so that P0 = E[max(0, W - N)] / W have none, and each
        of those waits for r P(N < W) / P0 prompts per second. So it is in a pool of prompts alone; where workers hold
        answers, too, the router follows these and each worker is for itself, W = 1. `batch` decoding sequences take
        part in a step where the engine mixes, stand by in other aggregated workers, and are elsewhere otherwise.
        """
        prefill, chunks = self.prefill, self.prefill.chunks_per_prompt
        arriving = np.maximum(rate / self.prefiller.workers, NEXT_TO_NOTHING)
        riding = batch if self.mixed else np.zeros(len(batch))
        decoding = (self.decode.busy_at(batch) if self.joint else np.zeros(len(batch)))[:, None]
        look_s = 2 * self._look_s(batch)[:, None]
        most = prefill.most * (1 - np.minimum(0.9, riding / self.prefiller.chunk_tokens))
        prompts = np.full(len(arriving), prefill.prompts[0]) if prompts is None else np.minimum(prompts, most)
        apart = np.exp(-arriving * self.decode_tokens * self._token_s(batch)) if self.joint else np.ones(len(batch))
        for _ in range(rounds):
            step_s = prefill.step_s(prompts, riding)
            idle_s = np.zeros_like(step_s)
            for workers, share in ((self.prefiller.workers, apart), (1, 1 - apart)):
                here = np.minimum(arriving[:, None] * step_s * chunks * workers, MOST_HERE)
                idle = idle_share(workers, here)
                sought = arriving[:, None] * pdtr(workers - 1, here) / idle
                nobody = idle / (1 - idle) * -np.expm1(-sought * step_s)
                resume_s = decoding * look_s / -np.expm1(-sought * look_s) + (1 - decoding) / sought
                idle_s += share[:, None] * nobody * resume_s
            prompts = np.clip(arriving * (step_s + idle_s).mean(axis=1), prefill.prompts[0], most)
        steps_per_s, seconds = arriving / prompts, step_s.mean(axis=1)
        added_s = seconds - (self.decode.step_s(batch) if self.mixed else 0.0)
        return _Prompts(
            prompts,
            seconds * chunks,
            steps_per_s * (step_s**2).mean(axis=1) / 2,
            steps_per_s * seconds,
            steps_per_s * np.maximum(added_s, 0.0),
        )

    def _computed_at_most(self) -> float:
        """Requests per second whose prompts a pool of nothing but prefill computes."""
        return self.prefiller.workers * self.prefill.most / self.prefill.full_s()

    def _transfer_s(self, rest: bool) -> float:
        """How long the KV cache is on its way to the decode pool; `rest`: what the first token waits for of it."""
        transfer, pool = self.cluster.transfer, self.prefiller
        assert transfer is not None
        gpus_per_rank = min(pool.gpus / pool.dp, self.decoder.gpus / self.decoder.dp)
        sent_s = self.demand.input_tokens * transfer.bytes_per_token / (transfer.bytes_per_s * gpus_per_rank)
        return transfer.latency_s + sent_s * (transfer.tail_fraction if rest else 1.0)

    def full(self) -> tuple[Columns, Limit]:
        """The service at its capacity, and what ends it there: one entry in each column."""
        if not self.joint:
            return self._full_pools()
        if self.in_step:
            together, apart = self.together(np.array([self.largest])), self._full_workers()
            return max((together, apart), key=lambda c: float(c["requests_per_s"][0])), self._room()
        return self._full_workers(), self._room()

    def _room(self) -> Limit:
        return "decode batch" if self.decoder.max_sequences <= self.cache_batch else "KV cache"

    def _full_pools(self) -> tuple[Columns, Limit]:
        """The capacity of a prefill and a decode pool; a sequence has its place from the moment it is sent."""
        batch, one, sent_s = np.array([self.largest]), np.ones(1), self._transfer_s(rest=False)
        stay_s = self._token_s(batch, full=True) * self.decode_tokens
        decoded = float(self.ranks * self.largest / (stay_s + self._transfer_s(rest=True))[0])
        sent = min(self.ranks, self.prefiller.workers * self.prefiller.dp) / sent_s
        rates: dict[Limit, float] = {
            "prefill": self._computed_at_most(), self._room(): decoded, "KV transfer": sent,
        }  # fmt: skip
        limit = min(rates, key=lambda name: rates[name])
        rate = rates[limit]
        columns = self.at_rates(rate * one)
        if rate == decoded:
            batch = batch * stay_s / (stay_s + self._transfer_s(rest=True))
            columns |= {"batch": batch, "tpot_s": self._token_s(np.array([self.largest]), full=True)}
        return columns, limit

    def overloaded(self, full: Columns) -> Columns:
        """The service when more comes than it can serve: as at its capacity, but where it has to evict."""
        return self._full_workers(self._computed_again()) if self.evicts else full

    @property
    def evicts(self) -> bool:
        """Whether aggregated workers without room in the KV cache throw out prompts that they have computed.

        An engine that reserves nothing for answers lets prompts in until the cache is full. The tokens that answers
        then grow by are taken from the latest prompts.
        """
        return self.joint and not self.cluster.rules.growth_reserve_tokens and self._room() == "KV cache"

    def _computed_again(self) -> float:
        """How often a prompt is computed then: an answer's growth takes as many tokens from others as it has."""
        return 1 + (self.demand.output_tokens - 1) / self.demand.input_tokens

    def _full_workers(self, again: float = 1.0) -> Columns:
        """The capacity of workers that do both, when prompts wait everywhere: those that leave between two decode steps
        make room for as many, which are computed together in the next step, each of them `again` times in all.

        A sequence has its place while its prompt is computed, on the rank where another one left.
        """
        prefill, ranks, limit = self.prefill, self.decoder.dp, max(self.largest, 1 / self.decoder.dp)
        batch, chunks = np.array([limit]), prefill.chunks_per_prompt
        steps = self.decode_tokens / float(self._tokens_per_step(batch)[0])
        if self.mixed:
            most = prefill.most * (1 - min(0.9, limit / self.prefiller.chunk_tokens))
            leaving = min(ranks * limit / (steps + chunks), most / again)
            batch = np.array([max(leaving * steps / ranks, limit * SMALLEST)])
            begun = leaving * again
            some = -np.expm1(-begun * chunks)
            step_s = float(self.decode.step_s(batch)[0])
            together_s = float(prefill.step_s(np.array([begun / some]), batch).mean())
            if begun < most:  # else prompts wait on every rank
                together_s += prefill.crowded_s(begun / some)
            busy_s = some * together_s
            cycle_s = busy_s + (1 - some) * step_s
            added_s, place_s = max(0.0, cycle_s - step_s), chunks * cycle_s
        else:
            leaving = min(ranks * limit / steps, ranks * limit)
            begun = leaving * again
            some = -np.expm1(-begun)
            place_s = prefill.burst_s(begun / some) + prefill.crowded_s(begun / some)
            busy_s = added_s = some * place_s
            cycle_s = added_s + float(self.decode.step_s(batch)[0]) * min(
                1.0, steps * leaving / (ranks * limit)
            )
            batch = batch * max(0.0, 1 - leaving / cycle_s * place_s / (ranks * limit))
        rate = leaving / cycle_s
        return {
            "batch": batch,
            "requests_per_s": np.array([rate * self.decoder.workers]),
            "tpot_s": batch * ranks / (rate * np.array([self.decode_tokens])),
            "ttft_s": np.array([self.cluster.rules.ingress_s + place_s]),
            "prefill_share": np.array([added_s / cycle_s]),
            "prefill_busy": np.array([busy_s / cycle_s]),
            "prompts": np.array([min(begun / some, prefill.most)]),
        }

    def together(self, batch: Floats) -> Columns:
        """Workers that do both for requests in step: all prompts of a worker first, then all answers.

        A request waits for the prompts before its own, and then for those behind it, because prompts go first.
        """
        prefill, ingress_s, ranks = self.prefill, self.cluster.rules.ingress_s, self.decoder.dp
        token_s = self._token_s(batch, full=True)
        prompts = np.maximum(batch * ranks, 1.0)
        prompts_s = np.array([prefill.burst_s(p) for p in prompts])
        others_s = prompts_s * (1 - 1 / np.maximum(1.0, prompts / prefill.most)) / 2
        cycle_s = ingress_s + prompts_s + token_s * self.decode_tokens
        return {
            "batch": batch,
            "requests_per_s": self.ranks * batch / cycle_s,
            "tpot_s": token_s + others_s / self.decode_tokens,
            "ttft_s": ingress_s + prompts_s - others_s,
            "prefill_share": prompts_s / cycle_s,
            "prefill_busy": prompts_s / cycle_s,
            "prompts": np.minimum(prompts, prefill.most),
        }

    def curve(self, full: Columns) -> Columns:
        """The service from light load to `full`, in order of its rate."""
        if self.in_step and self.demand.rate_per_s is None:
            return self.together(self.batches())
        most = float(full["requests_per_s"][0])
        parts = [self.at_rates(most * np.array(LOADS)), full]
        if not self.joint:
            parts.append(self.at_batches(most))
        columns = {name: np.concatenate([part[name] for part in parts]) for name in full}
        order = np.argsort(columns["requests_per_s"], kind="stable")
        return {name: column[order] for name, column in columns.items()}

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
            kv_cache_share=at["batch"] * self.demand.decode_context / self.cache_tokens,
            prefill_share=at["prefill_share"],
            price=self._price(at),
        )

    def _price(self, at: Mapping[str, float]) -> RunPrice:
        """What an hour at this load costs, and what its tokens must sell for."""
        prompts, answers = self._busy(at)
        cached = self.prefill.cached_share(at["prompts"])
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
        """Busy GPU-seconds of an hour on prompts and on answers.

        A step that does both is shared as the two would have taken alone.
        """
        prompts, answers = at["prefill_busy"], 0.0
        if self.decode_tokens > NEXT_TO_NOTHING:
            answers = self.decode.busy(at["batch"]) * (1 - prompts if self.joint else 1.0)
        if self.mixed:
            alone_s = float(self.prefill.step_s(np.array([at["prompts"]])).mean())
            decode_s = float(self.decode.step_s(np.array([at["batch"]]))[0]) * self.decode.busy(at["batch"])
            riding = prompts * decode_s / (alone_s + decode_s)
            prompts, answers = prompts - riding, answers + riding
        return (
            prompts * self.prefiller.total_gpus * HOUR_S,
            max(0.0, answers) * self.decoder.total_gpus * HOUR_S,
        )

    def utilization(self, at: Mapping[str, float]) -> dict[str, float]:
        """Share of the time in which the workers of each pool work."""
        busy: dict[str, float] = {}
        for plan, gpu_s in zip((self.prefiller, self.decoder), self._busy(at), strict=True):
            busy[plan.role] = busy.get(plan.role, 0.0) + gpu_s / (plan.total_gpus * HOUR_S)
        return busy

    def priced_by(self, at: Mapping[str, float]) -> dict[str, float]:
        """Shares of busy GPU time by what priced it."""
        prompts, answers = self._busy(at)
        shares = prompts * self.prefill.priced_by(at["prompts"]) + answers * self.decode.priced_by(
            at["batch"]
        )
        return dict(zip(PRICED_BY, (shares / (prompts + answers)).tolist(), strict=True))
