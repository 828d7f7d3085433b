"""A decode worker: continuous batching, many steps per timer.

Between two changes (a join, a finish, blocks running out) every step is the same batch with longer contexts, so the
worker advances to the next change at once. A request that comes in meanwhile cuts the advance at the end of the
running step.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sim.cluster.clock import Clock, Timer
from sim.cluster.ledger import Ledger, Meter
from sim.cluster.setup import ClusterPlan
from sim.serving.decode_batch import DecodeBatch
from sim.serving.sequence import Sequence
from sim.step import StepCost

Floats = NDArray[np.float64]


class Advance:
    """Decode steps under way: `steps` steps from `start_s` on. One timer; `epoch` tells it from superseded ones."""

    def __init__(self, clock: Clock, cost: StepCost, callback: Callable[[], None]) -> None:
        self._clock, self._cost, self._callback = clock, cost, callback
        self.steps = 0
        """Steps at whose end the timer rings; 0 when none are under way."""
        self.start_s = 0.0
        self._epoch = 0
        self._cut = False
        self._load: tuple[Floats, Floats, Floats]

    def begin(self, batch: DecodeBatch, steps: int) -> None:
        """Start `steps` steps of the batch."""
        self.steps, self._cut = steps, steps == 1
        self.start_s = now = self._clock.now
        self._load = batch.load()
        self._set(now + self._cost.decode_steps_s(*self._load, steps))

    def cut(self) -> int:
        """End with the running step; which of the steps that is."""
        if not self._cut:
            self._cut = True
            elapsed_s = self._clock.now - self.start_s
            steps, seconds = self._cost.decode_steps_within(*self._load, self.steps, elapsed_s)
            if steps < self.steps:
                self.steps = steps
                self._set(self.start_s + seconds)
        return self.steps

    @property
    def in_last_step(self) -> bool:
        """Whether the running step is known to be the last."""
        return self._cut

    def _set(self, end_s: float) -> None:
        self._epoch += 1
        self._clock.at(end_s, self._ring, self._epoch)

    def _ring(self, timer: Timer) -> None:
        if timer.value == self._epoch:
            self._callback()


class DecodeWorker:
    """One worker. `preempted` takes the sequences that lost their blocks; `freed` hears that there is room."""

    def __init__(
        self, index: int, clock: Clock, ledger: Ledger, meter: Meter, plan: ClusterPlan, cost: StepCost,
        preempted: Callable[[Sequence], None], freed: Callable[[int], None],
    ) -> None:  # fmt: skip
        setup = plan.pools["decode"]
        self._clock, self._ledger, self._meter = clock, ledger, meter
        self._index, self._preempted, self._freed = index, preempted, freed
        self._speculation = plan.speculation
        self.batch = DecodeBatch(
            setup.dp, setup.max_sequences, setup.kv_blocks, setup.block_tokens,
            plan.rules.growth_reserve_tokens,
        )  # fmt: skip
        self._advance = Advance(clock, cost, self._end_steps)
        self._ready: list[tuple[Sequence, int]] = []

    def fits(self, rank: int, tokens: int) -> bool:
        """Whether a sequence of `tokens` tokens could be reserved now, with the blocks that the running (or next)
        step still takes left aside."""
        return fits(self.batch, self._advance, rank, tokens)

    def receive(self, sequence: Sequence, rank: int) -> None:
        """The KV of a sequence has arrived; it joins at the next step boundary."""
        self._ready.append((sequence, rank))
        if not self._advance.steps:
            self._go()
        elif len(self._ready) == 1:
            self._advance.cut()

    def stands_still(self) -> bool:
        """Whether it does nothing though it holds sequences: never, if the scheduling is sound."""
        return not self._advance.steps and bool(self._ready or self.batch.running)

    def _end_steps(self) -> None:
        advance, now = self._advance, self._clock.now
        finished = self.batch.advance(advance.steps)
        self._meter.work(advance.start_s, now)
        self._meter.charge("decode", now - advance.start_s)
        self._meter.steps += advance.steps
        advance.steps = 0
        for sequence, _ in finished:
            self._ledger.finish(sequence, now)
        self._go(freed=bool(finished))

    def _go(self, freed: bool = False) -> None:
        """At a step boundary: let the ready ones join, make room, and start the next steps."""
        batch = self.batch
        for sequence, rank in self._ready:
            batch.join(sequence, rank, self._speculation.steps(sequence.id, sequence.remaining_tokens))
        self._ready.clear()
        for sequence, _ in batch.preempt():
            self._ledger.preempt(sequence)
            self._preempted(sequence)
            freed = True
        if freed:
            self._freed(self._index)
        if batch.running:
            self._advance.begin(batch, batch.next_change() - batch.step)


def fits(batch: DecodeBatch, advance: Advance, rank: int, tokens: int) -> bool:
    """Whether `batch` has a seat and blocks on `rank`, at the end of the step that `advance` is in (or starts next).

    Blocks in use only grow until then, so the running step must be cut out of many only where it decides.
    """
    if batch.seats[rank] >= batch.max_sequences:
        return False
    need, first = batch.need(rank, tokens), batch.step + 1
    if not advance.steps:
        return batch.room_after(rank, first) >= need
    if batch.room_after(rank, batch.step + advance.steps) >= need:
        return True
    if advance.in_last_step or batch.room_after(rank, first) < need:
        return False
    return batch.room_after(rank, batch.step + advance.cut()) >= need
