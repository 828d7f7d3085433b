"""A prefill worker: computes prompts in chunks and keeps their KV until it has been sent."""

from collections.abc import Callable

from sim.cluster.clock import Clock, Timer
from sim.cluster.ledger import Ledger, Meter
from sim.cluster.prefixes import Prefixes
from sim.cluster.setup import PoolSetup
from sim.serving.admission import Refusals
from sim.serving.kv_blocks import KvBlocks
from sim.serving.prompts import Chunk, PromptQueues
from sim.serving.routing import PoolLoads
from sim.serving.served_request import ServedRequest
from sim.step import StepCost

Handover = Callable[[ServedRequest, "PrefillWorker", int], None]
"""(sequence, worker, rank): its prompt is computed and there is more to generate."""


class PrefillWorker:
    """One worker. Its ranks step together; a step is one timer."""

    def __init__(
        self,
        index: int,
        loads: PoolLoads,
        clock: Clock,
        ledger: Ledger,
        meter: Meter,
        setup: PoolSetup,
        cost: StepCost,
        prefixes: Prefixes,
        hand_over: Handover,
    ) -> None:
        self._clock, self._ledger, self._meter, self._setup, self._cost = clock, ledger, meter, setup, cost
        self._prefixes, self._hand_over = prefixes, hand_over
        self._index, self._loads = index, loads
        self.queues = PromptQueues(setup.dp, setup.whole_prompts)
        self._refusals = Refusals(setup.dp)
        self.blocks = [KvBlocks(setup.kv_blocks) for _ in range(setup.dp)]
        self._busy = False
        self._budgets = [setup.chunk_tokens] * setup.dp
        self._start_s = 0.0
        self._seconds: dict[str, float] = {}
        """Of the step that runs, by activity."""

    def submit(self, sequence: ServedRequest, rank: int, front: bool = False) -> None:
        """Queue a prompt; `wake` starts it."""
        sequence.blocked_s = -self._refusals.seconds(rank, self._clock.now)
        self._loads.add(self._index, rank, self.queues.add(sequence, rank, front))

    def wake(self) -> None:
        """Start a step if none is running and there is something to compute."""
        if self._busy or self.queues.empty:
            return
        chunk = self.queues.plan(self._budgets, self._admit)
        if chunk is None:
            return
        now = self._clock.now
        self._ledger.start_prefill(chunk.started, now)
        self._busy, self._start_s = True, now
        fullest = int(chunk.load.tokens.max())
        self._loads.put(self._index, [queued + fullest for queued in self.queues.queued_tokens])
        seconds, cached_s = prefill_seconds(self._cost, chunk)
        self._cost.book_prefill(chunk.load, seconds)
        self._meter.compute(chunk)
        self._seconds = by_activity(seconds, cached_s)
        self._clock.at(now + seconds, self._end_step, chunk)

    def release(self, sequence: ServedRequest, rank: int) -> None:
        """The KV of a sequence has left."""
        self._give_back(sequence, rank)
        self.wake()

    def stands_still(self) -> bool:
        """Whether it stands still though a waiting prompt would fit: never, if the scheduling is sound."""
        heads = ((rank, self.queues.head(rank)) for rank in range(self._setup.dp))
        return not self._busy and any(
            head is not None and self.blocks[rank].used + self._blocks_of(head) <= self._setup.kv_blocks
            for rank, head in heads
        )

    def _blocks_of(self, sequence: ServedRequest) -> int:
        return self._setup.blocks_of(sequence.prefill_tokens)

    def _give_back(self, sequence: ServedRequest, rank: int) -> None:
        self.blocks[rank].release(self._blocks_of(sequence))
        self._prefixes.release(sequence)

    def _admit(self, sequence: ServedRequest, rank: int) -> bool:
        now = self._clock.now
        if not self.blocks[rank].take(self._blocks_of(sequence)):
            self._refusals.refuse(rank, now)
            return False
        self._refusals.admit(rank, now)
        sequence.blocked_s += self._refusals.seconds(rank, now)
        self._prefixes.admit(sequence)
        return True

    def _end_step(self, timer: Timer) -> None:
        chunk: Chunk = timer.value
        now = self._clock.now
        self._busy = False
        self._loads.put(self._index, self.queues.queued_tokens)
        self._meter.work(self._start_s, now, self._seconds)
        for sequence, rank in chunk.completed:
            self._ledger.end_prefill(sequence, now)
            self._prefixes.computed(sequence)
            if sequence.remaining_tokens:
                self._hand_over(sequence, self, rank)
            else:
                self._ledger.deliver_first(sequence, now)
                self._give_back(sequence, rank)
                self._ledger.finish(sequence, now)
        self.wake()


def prefill_seconds(cost: StepCost, chunk: Chunk) -> tuple[float, float]:
    """Seconds of a step that computes `chunk`, and how many of them are for its cached prefixes.

    cached = step - the same step with the context of its new tokens and earlier chunks only. A step that fetches
    prefixes lasts at least as long as that.
    """
    seconds = cost.prefill_s(chunk.load)
    if not chunk.load.has_prefix:
        return seconds, 0.0
    alone_s = min(seconds, cost.prefill_s(chunk.load.without_prefix()))
    seconds = max(seconds, chunk.fetch_s)
    return seconds, seconds - alone_s


def by_activity(seconds: float, cached_s: float) -> dict[str, float]:
    """The seconds of a step for new prompt tokens and for their cached prefixes, as they are booked."""
    return {"prefill": seconds - cached_s, "cached": cached_s} if cached_s else {"prefill": seconds}
