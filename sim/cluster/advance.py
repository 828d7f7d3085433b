"""Many decode steps on one timer.

Between two changes (a join, a finish, blocks running out) every step is the same batch with longer contexts, so a
worker advances to the next change at once. What comes in meanwhile cuts the advance at the end of the running step.
"""

from collections.abc import Callable

from sim.cluster.clock import Clock, Timer
from sim.serving.decode_batch import DecodeBatch
from sim.step import DecodeRun, StepCost


class Advance:
    """Decode steps under way: one outstanding timer, and an epoch that tells it from superseded ones."""

    def __init__(self, clock: Clock, cost: StepCost, callback: Callable[[], None]) -> None:
        self._clock, self._cost, self._callback = clock, cost, callback
        self.steps = 0
        """Steps at whose end `callback` is called; 0 when none are under way."""
        self.start_s = 0.0
        self._epoch = 0
        self._running = 0
        self._run: DecodeRun
        self._seconds = 0.0

    def begin(self, batch: DecodeBatch, steps: int) -> None:
        """Start `steps` steps of the batch."""
        self.steps, self._running = steps, 0
        self.start_s = self._clock.now
        self._run = self._cost.decode_run(*batch.load())
        self._set(self._run.total_s(steps))

    def cut(self, every: int = 1, offset: int = 0) -> int:
        """End with the running step, or the first one after it whose number is `offset` plus a multiple of `every`.

        Returns the number of the last step, from 1.
        """
        if self.steps in (1, self._running):
            return self.steps
        elapsed_s = self._clock.now - self.start_s
        running, seconds = self._run.within(self.steps, elapsed_s)
        last = running + (offset - running) % every
        if last < self.steps:
            if last > running:
                seconds = self._run.total_s(last)
            self.steps = last
            self._set(seconds)
        self._running = running
        return self.steps

    def fits(self, batch: DecodeBatch, rank: int, tokens: int) -> bool:
        """Whether `batch` has a seat and blocks for `tokens` tokens at the end of the running step (or the next one,
        at a step boundary).

        Blocks in use only grow until then, so the running step must be found among many only where it decides.
        """
        if batch.seats[rank] >= batch.max_sequences:
            return False
        need, first = batch.need(rank, tokens), batch.step + 1
        if batch.blocks[rank].demand + need <= batch.blocks[rank].capacity:
            return True
        if not self.steps:
            return batch.room_after(rank, first) >= need
        if batch.room_after(rank, batch.step + self.steps) >= need:
            return True
        if self.steps == 1 or batch.room_after(rank, first) < need:
            return False
        return batch.room_after(rank, batch.step + self.cut()) >= need

    def end(self) -> int:
        """The steps are done: how many they were."""
        self._run.book(self._seconds)
        steps, self.steps = self.steps, 0
        return steps

    def _set(self, seconds: float) -> None:
        self._epoch += 1
        self._seconds = seconds
        self._clock.at(self.start_s + seconds, self._ring, self._epoch)

    def _ring(self, timer: Timer) -> None:
        if timer.value == self._epoch:
            self._callback()
