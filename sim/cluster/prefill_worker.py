"""A prefill worker: computes prompts in chunks and keeps their KV until it has been sent."""

import math
from collections import deque
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

    __slots__ = (
        "_budgets", "_cached_s", "_chunk", "_clock", "_cost", "_hand_over", "_index", "_leaving", "_ledger",
        "_loads", "_meter", "_prefixes", "_refusals", "_seconds", "_setup", "_start_s", "_timer", "_unanswered",
        "blocks", "queues", "sending_until",
    )  # fmt: skip

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
        self._chunk: Chunk | None = None
        """What the step that runs computes."""
        self._timer = Timer(self._end_step)
        self._budgets = [setup.chunk_tokens] * setup.dp
        self._leaving: list[deque[tuple[float, int, ServedRequest]]] = [deque() for _ in range(setup.dp)]
        """Per rank: (time, blocks, sequence) of the KV on its way to a decode rank, in the order of sending."""
        self.sending_until = [0.0] * setup.dp
        """When the NICs of each rank have sent what they are to send."""
        self._unanswered: list[ServedRequest] = []
        """Those whose KV goes until after the step that runs, or the last one."""
        self._start_s = self._seconds = self._cached_s = 0.0
        """Of the step that runs; `_cached_s` of its seconds are for cached prefixes."""

    def submit(self, sequence: ServedRequest, rank: int, front: bool = False) -> None:
        """Queue a prompt; `wake` starts it."""
        if self._refusals.any:
            sequence.blocked_s -= self._refusals.seconds(rank, self._clock.now)
        self.queues.add(sequence, rank, front)
        self._loads.changed(self._index, self.queues.tokens_left, self._chunk.fullest if self._chunk else 0)
        sequence.prefill_blocks = self._setup.blocks_of(sequence.prefill_tokens)

    def wake(self) -> None:
        """Start a step if none is running and there is something to compute."""
        if self._chunk or not self.queues.tokens_left:
            return
        chunk = self.queues.plan(self._budgets, self._admit)
        if chunk is None:
            return
        now = self._clock.now
        self._ledger.start_prefill(chunk.started, now)
        self._chunk, self._start_s = chunk, now
        self._loads.changed(self._index, self.queues.tokens_left, chunk.fullest)
        self._seconds, self._cached_s = prefill_seconds(self._cost, chunk)
        if self._unanswered:
            self._keep_from_answering()
        self._cost.book_prefill(chunk, self._seconds)
        self._meter.steps += 1
        self._meter.new_tokens += chunk.tokens
        self._clock.set(self._timer, now + self._seconds)

    def release_at(self, time_s: float, sequence: ServedRequest, rank: int) -> None:
        """The KV of a sequence will have left then.

        That is an event only if somebody waits for its room, or looks at what the prefix cache holds.
        """
        self._leaving[rank].append((time_s, sequence.prefill_blocks, sequence))
        if self._prefixes.kept or (self._refusals.any and self._refusals.refuses(rank)):
            self._clock.at(time_s, self._released, (time_s, rank))

    def answer(self, sequence: ServedRequest, gone_s: float) -> None:
        """The KV of a sequence goes until `gone_s`, which the worker sees, and tells the router, between two steps.

        The ends of steps are known at their start, so this is no event: who asks, asks later than `gone_s`.
        """
        sequence.answered_s = gone_s
        self._unanswered.append(sequence)
        if self._chunk:
            self._keep_from_answering()

    def _keep_from_answering(self) -> None:
        """Answers that fall into the step that runs wait for its end; later ones may have to wait for another step."""
        start_s, end_s = self._start_s, self._start_s + self._seconds
        unanswered, self._unanswered = self._unanswered, []
        for sequence in unanswered:
            if sequence.answered_s > end_s:
                self._unanswered.append(sequence)
            elif sequence.answered_s >= start_s:
                sequence.answered_s = end_s

    def settle(self, rank: int, until_s: float = math.inf) -> None:
        """Take off what has left until then."""
        leaving = self._leaving[rank]
        while leaving and leaving[0][0] <= until_s:
            _, blocks, sequence = leaving.popleft()
            self.blocks[rank].release(blocks)
            if self._prefixes.kept:
                self._prefixes.release(sequence)

    def stop(self) -> list[ServedRequest]:
        """It fails: what it has worked until now is booked, nothing after. The sequences whose KV it was sending."""
        now = self._clock.now
        self._clock.forget(self)
        if self._chunk:
            done = (now - self._start_s) / self._seconds if self._seconds else 0.0
            self._meter.work(self._start_s, now, "prefill", (self._seconds - self._cached_s) * done)
            self._meter.spend("cached", self._cached_s * done)
        return [sequence for leaving in self._leaving for _, _, sequence in leaving]

    def sends(self) -> bool:
        """Whether KV is still on its way to a decode rank."""
        now = self._clock.now
        return any(time_s > now for leaving in self._leaving for time_s, _, _ in leaving)

    def stands_still(self) -> bool:
        """Whether it stands still though a waiting prompt would fit: never, if the scheduling is sound."""
        if self._chunk:
            return False
        for rank in range(self._setup.dp):
            self.settle(rank, self._clock.now)
            head = self.queues.head(rank)
            if head is not None and self.blocks[rank].used + head.prefill_blocks <= self._setup.kv_blocks:
                return True
        return False

    def _released(self, timer: Timer) -> None:
        time_s, rank = timer.value
        self.settle(rank, time_s)
        self.wake()

    def _admit(self, sequence: ServedRequest, rank: int) -> bool:
        now, refusals = self._clock.now, self._refusals
        if self._leaving[rank]:
            self.settle(rank, now)
        if not self.blocks[rank].take(sequence.prefill_blocks):
            if not refusals.refuses(rank) and not self._prefixes.kept:
                for time_s, _, _ in self._leaving[rank]:
                    self._clock.at(time_s, self._released, (time_s, rank))
            refusals.refuse(rank, now)
            return False
        if refusals.any:
            sequence.blocked_s += refusals.admit(rank, now)
        if self._prefixes.kept:
            self._prefixes.admit(sequence)
        return True

    def _end_step(self, _: Timer) -> None:
        chunk, now = self._chunk, self._clock.now
        assert chunk is not None
        self._chunk = None
        self._meter.work(self._start_s, now, "prefill", self._seconds - self._cached_s)
        if self._cached_s:
            self._meter.spend("cached", self._cached_s)
        for sequence, rank in chunk.completed:
            self._ledger.end_prefill(sequence, now)
            if self._prefixes.kept:
                self._prefixes.computed(sequence)
            if sequence.generated_tokens < sequence.output_tokens:
                self._hand_over(sequence, self, rank)
            else:
                self._ledger.receive(sequence, now, now)
                self._ledger.deliver_first(sequence, now)
                self.blocks[rank].release(sequence.prefill_blocks)
                self._prefixes.release(sequence)
                self._ledger.finish(sequence, now)
        self.wake()
        if self._chunk is None:
            self._loads.changed(self._index, self.queues.tokens_left)


def prefill_seconds(cost: StepCost, chunk: Chunk) -> tuple[float, float]:
    """Seconds of a step that computes `chunk`, and how many of them are for its cached prefixes.

    cached = step - the same step with the context of its new tokens and earlier chunks only. A step that fetches
    prefixes lasts at least as long as that.
    """
    seconds = cost.prefill_s(chunk)
    if chunk.alone is None:
        return seconds, 0.0
    alone_s = cost.prefill_s(chunk.without_prefix())
    alone_s = alone_s if alone_s < seconds else seconds
    seconds = chunk.fetch_s if chunk.fetch_s > seconds else seconds
    return seconds, seconds - alone_s
