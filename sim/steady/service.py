"""A service in balance: its batches and its speed at a rate of requests."""

from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import pdtr

from sim.cluster.setup import ClusterPlan
from sim.deployment.plan import Deployment
from sim.deployment.pools import PoolPlan
from sim.scenario.schema import Price
from sim.steady.decoding import idle_share
from sim.steady.demand import Demand
from sim.steady.phases import phases

Floats = NDArray[np.float64]
Columns = dict[str, Floats]
Limit = Literal["prefill", "decode batch", "KV cache", "KV transfer"]

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

    def __init__(self, deployment: Deployment, demand: Demand, cluster: ClusterPlan, price: Price) -> None:
        """`price`: what the scenario says of prices."""
        self.deployment, self.demand, self.cluster, self.price = deployment, demand, cluster, price
        self.decoder: PoolPlan = deployment.pool("decode")
        self.prefiller: PoolPlan = deployment.pool("prefill")
        self.joint = self.prefiller is self.decoder
        self.mixed = cluster.pools[self.prefiller.role].mixed and self.joint
        self.others_decode = cluster.rules.other_ranks_decode and not self.mixed
        lengths = replace(demand, rate_per_s=None, concurrency=None, requests=None, too_long=0.0)
        self.decode, self.prefill = phases(deployment, lengths)
        self.decode_tokens = max(demand.output_tokens - 1, NEXT_TO_NOTHING)
        room = cluster.pools[self.decoder.role]  # beside what the prefix cache holds for itself
        self.held_tokens = demand.decode_context + room.request_tokens
        each = self.held_tokens + cluster.rules.growth_reserve_tokens
        self.cache_tokens = room.kv_blocks * room.block_tokens
        # The next prompt waits for as much room as it needs: half of that is free on average.
        self.cache_batch = max(self.cache_tokens - demand.input_tokens / 2, self.cache_tokens / 2) / each
        self.largest = min(float(self.decoder.max_sequences), self.cache_batch)
        self.ranks = self.decoder.workers * self.decoder.dp
        self.in_step = self.joint and demand.answers_alike and not deployment.drafts.tokens

    def tokens_per_step(self, batch: Floats) -> Floats:
        """Tokens of an answer per decode step: those of the drafts that run at each batch, less what the last step of
        an answer generates in vain."""
        drafts = [self.cluster.speculation.at(max(1, ceil(b))) for b in batch]
        accepted, vain = np.reshape([(d.accept_length, d.overshoot) for d in drafts], (-1, 2)).T
        return accepted * self.decode_tokens / (self.decode_tokens + vain * min(1.0, self.decode_tokens))

    def token_s(self, batch: Floats, full: bool = False) -> Floats:
        """Seconds of a token while nothing but decode runs; `full`: where the batch is all that there is room for."""
        seen = batch if full else np.minimum(self.decode.seen(batch), max(self.largest, 1 / self.decoder.dp))
        return self.decode.step_s(seen) / self.tokens_per_step(batch)

    def unshared(self, batch: Floats, token_s: Floats) -> Floats:
        """Requests per second that keep `batch` sequences decoding on every rank, by Little's law."""
        return self.ranks * batch / (token_s * self.decode_tokens)

    def batches(self) -> Floats:
        """Sequences per rank from light load up to what cap and KV cache allow."""
        points = np.array([*self.decode.load, self.largest])
        return np.unique(points[points <= self.largest])

    def at_rates(self, rate: Floats) -> Columns:
        """The service at these requests per second, none above its capacity."""
        low, high = np.full(len(rate), self.largest * SMALLEST), np.full(len(rate), self.largest)
        prompts = self.beside_decode(rate, high).prompts
        for _ in range(HALVINGS):
            middle = np.sqrt(low * high)
            carried = self.unshared(middle, self.token_s(middle))
            if self.joint:
                beside = self.beside_decode(rate, middle, prompts, rounds=2)
                carried, prompts = carried * (1 - beside.share), beside.prompts
            low, high = np.where(carried >= rate, low, middle), np.where(carried >= rate, middle, high)
        return self.columns(high, rate)

    def at_batches(self, most: float) -> Columns:
        """A decode pool at the batches that were priced, as far as it takes less than `most` requests per second."""
        batch = self.batches()
        rate = self.unshared(batch, self.token_s(batch))
        inside = rate < most
        return self.columns(batch[inside], rate[inside])

    def columns(self, batch: Floats, rate: Floats) -> Columns:
        """All that is known of a rate and the batch that goes with it."""
        prompts, token_s, rules = self.beside_decode(rate, batch), self.token_s(batch), self.cluster.rules
        # A batch at its largest has no room for more prompts, and decodes although some wait.
        alone = np.clip(rate / self.unshared(batch, token_s), 1 - prompts.share, 1.0)
        ttft_s = rules.ingress_s + prompts.wait_s + prompts.seconds
        if self.joint:
            ttft_s = ttft_s + alone * self.decode.busy_at(batch) * self.look_s(batch)
        else:
            ttft_s = ttft_s + self.transfer_s(rest=True) + self.first_token_s(batch, prompts)
        return {
            "batch": batch,
            "requests_per_s": rate,
            "tpot_s": token_s / alone if self.joint else token_s,
            "ttft_s": ttft_s,
            "prefill_share": 1 - alone if self.joint else rate / self.computed_at_most(),
            "prefill_busy": np.minimum(prompts.busy, 1 - alone if self.pauses else 1.0),
            "prompts": prompts.prompts,
        }

    @property
    def pauses(self) -> bool:
        """Whether nobody decodes in a step with prompts."""
        return self.joint and not self.mixed and not self.others_decode

    def decoding(self, prompts: Floats) -> Floats:
        """Share of the ranks that decode in a step that begins so many prompts."""
        if self.others_decode:
            return self.prefill.others(prompts)
        return np.full(len(prompts), 1.0 if self.mixed else 0.0)

    def look_s(self, batch: Floats) -> Floats:
        """From a prompt's arrival in a worker that decodes to the boundary at which it may begin, on average."""
        step_s, rules = self.decode.step_s(self.decode.seen(batch)), self.cluster.rules
        return step_s * (rules.poll_every_steps + rules.held_steps) / 2

    def first_token_s(self, batch: Floats, prompts: _Prompts) -> Floats:
        """What the handover adds to a transfer on average: the relay, the rest of the decode steps up to the next look
        for KV, if any run, or of the prefill step after which the other side answers, whichever is later (of two even
        spreads), and the first step where the engine answers only then."""
        rules, step_s = self.cluster.handover, self.decode.step_s(self.decode.seen(batch))
        joins_s = self.decode.busy_at(batch) * step_s * rules.poll_every_steps / 2
        answers_s = prompts.wait_s if rules.answers_between_steps else np.zeros(len(batch))
        later_s, sooner_s = np.maximum(joins_s, answers_s), np.minimum(joins_s, answers_s)
        wait_s: Floats = rules.relay_s + later_s + sooner_s**2 / (3 * np.maximum(later_s, NEXT_TO_NOTHING))
        return wait_s + step_s if rules.first_token == "stepped" else wait_s

    def beside_decode(
        self, rate: Floats, batch: Floats, prompts: Floats | None = None, rounds: int = ROUNDS
    ) -> _Prompts:
        """Prefill steps at `rate` requests per second, found from `prompts` that begin in a step.

        Prompts that arrive in a step begin in the next one. With steps of S seconds and prompts that take L of them,
        the prompts under way in W workers are Poisson's about W r S L (each leaves a step with chance 1 / L); the
        router gives a new one to a worker that has none, if any, so that P0 = E[max(0, W - N)] / W have none, and each
        of those waits for r P(N < W) / P0 prompts per second. So it is in a pool of prompts alone; where workers hold
        answers, too, the router follows these and each worker is for itself, W = 1. `batch` decoding sequences take
        part in a step where the engine mixes, or on the ranks without prompts where these decode; they stand by in
        other aggregated workers, and are elsewhere otherwise.
        """
        prefill, chunks = self.prefill, self.prefill.chunks_per_prompt
        arriving = np.maximum(rate / self.prefiller.workers, NEXT_TO_NOTHING)
        riding = batch if self.mixed or self.others_decode else np.zeros(len(batch))
        filling = riding if self.mixed else np.zeros(len(batch))
        decoding = (self.decode.busy_at(batch) if self.joint else np.zeros(len(batch)))[:, None]
        look_s = 2 * self.look_s(batch)[:, None]
        most = prefill.most * (1 - np.minimum(0.9, filling / self.prefiller.chunk_tokens))
        prompts = np.full(len(arriving), prefill.prompts[0]) if prompts is None else np.minimum(prompts, most)
        apart = (
            np.exp(-arriving * self.decode_tokens * self.token_s(batch))
            if self.joint
            else np.ones(len(batch))
        )
        chosen = [(self.prefiller.workers, apart), *([(1, 1 - apart)] if self.joint else [])]
        for _ in range(rounds):
            step_s = prefill.step_s(prompts, riding)
            idle_s = np.zeros_like(step_s)
            for workers, share in chosen:
                here = np.minimum(arriving[:, None] * step_s * chunks * workers, MOST_HERE)
                idle = idle_share(workers, here)
                sought = arriving[:, None] * pdtr(workers - 1, here) / idle
                nobody = idle / (1 - idle) * -np.expm1(-sought * step_s)
                resume_s = decoding * look_s / -np.expm1(-sought * look_s) + (1 - decoding) / sought
                idle_s += share[:, None] * nobody * resume_s
            prompts = np.clip(arriving * (step_s + idle_s).mean(axis=1), prefill.prompts[0], most)
        steps_per_s, seconds = arriving / prompts, step_s.mean(axis=1)
        added_s = seconds - self.decoding(prompts) * self.decode.step_s(batch)
        return _Prompts(
            prompts,
            seconds * chunks,
            steps_per_s * (step_s**2).mean(axis=1) / 2,
            steps_per_s * seconds,
            steps_per_s * np.maximum(added_s, 0.0),
        )

    def computed_at_most(self) -> float:
        """Requests per second whose prompts a pool of nothing but prefill computes."""
        return self.prefiller.workers * self.prefill.most / self.prefill.full_s()

    def transfer_s(self, rest: bool) -> float:
        """How long the KV cache is on its way to the decode pool; `rest`: what the first token waits for of it."""
        transfer, pool = self.cluster.transfer, self.prefiller
        assert transfer is not None
        gpus_per_rank = min(pool.gpus / pool.dp, self.decoder.gpus / self.decoder.dp)
        sent_bytes = self.demand.input_tokens * transfer.bytes_per_token + transfer.bytes_per_request
        sent_s = sent_bytes / (transfer.bytes_per_s * gpus_per_rank)
        return transfer.latency_s + sent_s * (transfer.tail_fraction if rest else 1.0)

    def room(self) -> Limit:
        return "decode batch" if self.decoder.max_sequences <= self.cache_batch else "KV cache"

    @property
    def evicts(self) -> bool:
        """Whether aggregated workers without room in the KV cache throw out prompts that they have computed.

        An engine that reserves nothing for answers lets prompts in until the cache is full. The tokens that answers
        then grow by are taken from the latest prompts.
        """
        return self.joint and not self.cluster.rules.growth_reserve_tokens and self.room() == "KV cache"
