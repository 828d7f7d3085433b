"""Many decode steps on one timer.

Between two changes (a join, a finish, blocks running out) every step is the same batch with longer contexts, so a
worker advances to the next change at once. What comes in meanwhile cuts the advance at the end of the running step.
"""

import math
from collections.abc import Callable, Iterable, Sequence

from sim.cluster.clock import Clock, Timer
from sim.serving.decode_batch import DecodeBatch
from sim.step import StepCost
from sim.step.decode_lines import DecodeLines, DecodeRun


class Advance:
    """Decode steps of a batch under way.

    The timer stays set when the steps are cut; where it rings before the next ones end, it is not set again until then.
    """

    __slots__ = (
        "_batch", "_callback", "_clock", "_lines", "_rings", "_run", "_timer", "end_s", "start_s", "steps",
    )  # fmt: skip

    def __init__(
        self, clock: Clock, cost: StepCost, batch: DecodeBatch, callback: Callable[[], None]
    ) -> None:
        self._clock, self._batch, self._callback = clock, batch, callback
        self._lines = DecodeLines(cost, batch.ranks)
        self.steps = 0
        """Steps at whose end `callback` is called; 0 when none are under way."""
        self.start_s = self.end_s = 0.0
        self._timer = Timer(self._ring)
        self._rings: list[float] = []
        """When it will ring, the next time last."""
        self._run: DecodeRun

    def begin(self, now: float, steps: int, arrival_s: float = math.inf) -> None:
        """Start up to `steps` steps of the batch: to the end of the one that runs at `arrival_s`, if that is sooner."""
        batch = self._batch
        if batch.changed:
            self._renew()
        self._run = run = self._lines.run(batch.step, steps, batch.running)
        steps, seconds = run.steps, run.seconds
        if arrival_s < now + seconds:
            steps, seconds = run.within(arrival_s - now)
        self.steps, self.start_s, self.end_s = steps, now, now + seconds
        self._set()

    def cut(self, at_s: float, every: int = 1, offset: int = 0) -> None:
        """End with the step that runs at `at_s`, or the first one after it whose number is `offset` plus a multiple of
        `every`."""
        if self.steps == 1:
            return
        running, seconds = self._run.within(at_s - self.start_s)
        last = running + (offset - running) % every
        if last < self.steps:
            self.steps = last
            self.end_s = self.start_s + (seconds if last == running else self._run.total_s(last))
            self._set()

    @property
    def first_s(self) -> float:
        """Seconds of the first of the steps that are under way."""
        return self._run.total_s(1)

    def fits(self, rank: int, tokens: int) -> bool:
        """Whether the batch has a seat and blocks for `tokens` tokens at the end of the running step (or the next one,
        at a step boundary).

        Blocks in use only grow until then, so the running step must be found among many only where it decides.
        """
        batch, of_rank = self._batch, self._batch.ranks[rank]
        if of_rank.seats >= batch.max_sequences:
            return False
        need = batch.need(rank, tokens)
        if of_rank.demand + need <= of_rank.capacity:
            return True
        first = batch.step + 1
        if not self.steps:
            return batch.room_after(rank, first) >= need
        if batch.room_after(rank, batch.step + self.steps) >= need:
            return True
        if self.steps == 1 or batch.room_after(rank, first) < need:
            return False
        running, _ = self._run.within(self._clock.now - self.start_s)
        return batch.room_after(rank, batch.step + min(running, self.steps)) >= need

    def one_step(self) -> tuple[list[int], list[float], float]:
        """Of one decode step of the batch as it is: sequences and attention seconds by rank, and its seconds."""
        batch, lines = self._batch, self._lines
        self._renew()
        alone_s = lines.run(batch.step, 1, batch.running).seconds
        attention_s = [lines.attention_s(rank, batch.step) for rank in range(len(batch.ranks))]
        return batch.sequences, attention_s, alone_s

    def step_without(self, waiting: Sequence[int]) -> tuple[int, int, float, float]:
        """Of one decode step that these ranks sit out: sequences of the fullest rank and of all, attention seconds of
        the slowest, and its seconds."""
        self._renew()
        lines, each = self._lines, [*self._batch.sequences]
        for rank in waiting:
            each[rank] = 0
        attention_s = lines.without(self._batch.step, waiting)
        fullest, sequences = max(each), sum(each)
        return fullest, sequences, attention_s, lines.step_s(fullest, sequences, attention_s)

    def sit_out(self, ranks: Iterable[int]) -> None:
        """The sequences of these ranks take no part in the next step. To be said right before the batch does it."""
        batch = self._batch
        for rank in ranks:
            if batch.sequences[rank]:
                self._lines.sit_out(rank)
                batch.sit_out(rank)

    def book(self, seconds: float) -> None:
        """Decode has taken `seconds` of the steps that `one_step`, `step_without` or `begin` looked at."""
        self._lines.book(seconds)

    def end(self) -> int:
        """The steps are done: how many they were."""
        self._lines.book(self.end_s - self.start_s)
        steps, self.steps = self.steps, 0
        return steps

    def _renew(self) -> None:
        """Tell the lines what has changed."""
        batch, lines = self._batch, self._lines
        if batch.fullest != lines.fullest:
            lines.hold(batch.fullest)
        if batch.changed:
            lines.renew(batch.changed, batch.step)
            batch.changed.clear()

    def _set(self) -> None:
        """Have the timer ring at the end, or before."""
        rings, end_s = self._rings, self.end_s
        if not rings or rings[-1] > end_s:
            rings.append(end_s)
            self._clock.set(self._timer, end_s)

    def _ring(self, _: Timer) -> None:
        rang_s = self._rings.pop()
        if self.steps:
            if rang_s >= self.end_s:
                self._callback()
            else:
                self._set()
