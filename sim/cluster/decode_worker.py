"""A decode worker: continuous batching of sequences whose prompts were computed elsewhere."""

import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush

from sim.cluster.advance import Advance
from sim.cluster.clock import Clock, Timer
from sim.cluster.ledger import Ledger, Meter
from sim.cluster.prefixes import Prefixes
from sim.cluster.setup import ClusterPlan
from sim.serving.decode_batch import DecodeBatch
from sim.serving.routing import PoolLoads
from sim.serving.served_request import ServedRequest
from sim.serving.speculation import Pace
from sim.step import StepCost


class DecodeWorker:
    """One worker. `preempted` takes the sequences that lost their blocks; `freed` hears that there is room."""

    __slots__ = (
        "_advance", "_chosen", "_clock", "_coming", "_deciding", "_freed", "_index", "_joined", "_ledger", "_loads",
        "_meter", "_pace", "_preempted", "_prefixes", "_rules", "_sent", "batch", "fits",
    )  # fmt: skip

    def __init__(
        self, index: int, loads: PoolLoads, chosen: PoolLoads, clock: Clock, ledger: Ledger, meter: Meter,
        plan: ClusterPlan, cost: StepCost, prefixes: Prefixes, preempted: Callable[[ServedRequest], None],
        freed: Callable[[int], None],
    ) -> None:  # fmt: skip
        setup = plan.pools["decode"]
        self._clock, self._ledger, self._meter = clock, ledger, meter
        self._prefixes, self._preempted, self._freed = prefixes, preempted, freed
        self._index, self._loads, self._chosen = index, loads, chosen
        self._rules = plan.handover
        self.batch = DecodeBatch(
            setup.dp, setup.max_sequences, setup.kv_blocks, setup.block_tokens,
            plan.rules.growth_reserve_tokens, setup.request_blocks, meter.peak,
        )  # fmt: skip
        self._pace = Pace(plan.speculation, self.batch)
        self._advance = Advance(clock, cost, self.batch, self._end_steps)
        self.fits = self._advance.fits
        """(rank, tokens) -> whether a sequence of so many could be reserved now, with the blocks that the running (or
        next) step still takes left aside."""
        self._coming: list[tuple[float, int, ServedRequest, int]] = []
        """(time, order of sending, sequence, rank), the next first."""
        self._sent = 0
        self._joined: list[ServedRequest] = []
        """Those whose first step here makes the token that the client waits for."""
        self._deciding = False

    def reserve(self, rank: int, tokens: int) -> None:
        """Keep a place for a sequence of `tokens` tokens that is on its way. The caller has checked that it fits."""
        self.batch.reserve(rank, tokens)
        self._loads.add(self._index, rank, 1)

    def cancel(self, rank: int, tokens: int) -> None:
        """Give back a place that `reserve` kept for a sequence that will not come."""
        self.batch.cancel(rank, tokens)
        self._leave(rank)

    def expect(self, sequence: ServedRequest, rank: int, time_s: float) -> None:
        """The KV of a sequence will be here at `time_s`; it joins at the next step boundary.

        Known beforehand, this is no event: the steps that run end with the one that runs then.
        """
        self._sent += 1
        heappush(self._coming, (time_s, self._sent, sequence, rank))
        if self._advance.steps:
            if time_s < self._advance.end_s:
                self._cut(time_s)
        elif not self._deciding and self._coming[0][2] is sequence:
            self._clock.at(time_s, self._begin, time_s)

    def stop(self) -> None:
        """It fails: what it has worked until now is booked, and nothing after."""
        now, advance = self._clock.now, self._advance
        self._clock.forget(self, advance)
        if advance.steps:
            self._meter.work(advance.start_s, now, "decode", now - advance.start_s)

    def turn_away(self, lost: Callable[[ServedRequest], bool]) -> list[ServedRequest]:
        """Sequences whose KV was on its way and will never come; their places are free."""
        now = self._clock.now
        gone = [coming for coming in self._coming if coming[0] > now and lost(coming[2])]
        if not gone:
            return []
        self._coming = [coming for coming in self._coming if coming not in gone]
        heapify(self._coming)
        for _, _, sequence, rank in gone:
            self.cancel(rank, sequence.context_tokens)
        if self._coming and not self._advance.steps:
            next_s = self._coming[0][0]
            self._clock.at(next_s, self._begin, next_s)
        return [sequence for _, _, sequence, _ in gone]

    def stands_still(self) -> bool:
        """Whether it does nothing though it holds sequences: never, if the scheduling is sound."""
        here = bool(self._coming) and self._coming[0][0] < self._clock.now
        return not self._advance.steps and (here or self.batch.running > 0)

    def _begin(self, timer: Timer) -> None:
        """The KV of a sequence has come to an idle worker, which starts with it at once."""
        if not self._advance.steps and self._coming and self._coming[0][0] <= timer.value:
            self._join(self._clock.now)
            self._go(self._clock.now)

    def _end_steps(self) -> None:
        advance, batch, meter, now = self._advance, self.batch, self._meter, self._clock.now
        steps = advance.end()
        finished = batch.advance(steps)
        meter.steps += steps
        meter.work(advance.start_s, now, "decode", now - advance.start_s)
        for sequence, rank in finished:
            self._leave(rank)
            if sequence.answer_blocks:
                self._prefixes.answer(sequence)
            self._ledger.finish(sequence, now if now > sequence.answered_s else sequence.answered_s)
        coming = self._coming
        if coming and (not batch.running or not batch.step % self._rules.poll_every_steps):
            while coming and coming[0][0] <= advance.end_s:
                self._join(now)
        self._go(now, freed=bool(finished))

    def _join(self, now: float) -> None:
        """The next of those that have come becomes part of the batch."""
        _, _, sequence, rank = heappop(self._coming)
        self._pace.join(sequence, rank)
        if self._rules.first_token == "stepped":
            self._joined.append(sequence)
        elif self._rules.first_token == "joined":
            self._ledger.deliver_first(sequence, now if now > sequence.answered_s else sequence.answered_s)

    def _leave(self, rank: int) -> None:
        """A sequence has left the batch, or will not come."""
        self._loads.add(self._index, rank, -1)
        if self._rules.chooses_worker:
            self._chosen.add(self._index, 0, -1)

    def _cut(self, at_s: float) -> None:
        """End the steps that run where it looks for KV that has come by then."""
        every = self._rules.poll_every_steps
        self._advance.cut(at_s, every, -self.batch.step % every)

    def _go(self, now: float, freed: bool = False) -> None:
        """At a step boundary, when those who are here have joined: make room, and start the next steps."""
        batch = self.batch
        self._deciding = True
        if batch.tight:
            for sequence, rank in batch.preempt():
                self._leave(rank)
                if sequence in self._joined:
                    self._joined.remove(sequence)
                self._ledger.preempt(sequence)
                self._preempted(sequence)
                freed = True
        if freed:
            self._freed(self._index)
        if not self._pace.fixed:
            self._pace.adapt()
        self._deciding = False
        next_s = self._coming[0][0] if self._coming else math.inf
        if batch.running:
            steps = batch.next_change() - batch.step
            if self._rules.poll_every_steps == 1:
                self._advance.begin(now, steps, next_s)
            else:
                self._advance.begin(now, steps)
                if next_s < self._advance.end_s:
                    self._cut(next_s)
            if self._joined:
                first_s = now + self._advance.first_s
                for sequence in self._joined:
                    self._ledger.deliver_first(sequence, max(first_s, sequence.answered_s))
                self._joined.clear()
        elif self._coming:
            self._clock.at(next_s, self._begin, next_s)
