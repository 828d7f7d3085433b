"""Decode steps in a row, at the cost of one.

While nobody joins or leaves, a rank's attention seconds are a line over the worker's steps, up to the next knot of the
table that prices them. So are a step's seconds, as long as the same rank is the slowest.
"""

from collections.abc import Iterable, Sequence
from math import inf, sqrt
from typing import Final, Protocol

from sim.step.overlap import Line
from sim.step.protocol import DecodeTable, StepCost

STRAIGHT: Final = 1e-5
"""A run of steps counts as straight when its middle is this close to the mean of its ends (relative to the step)."""
ENOUGH: Final = 8
"""Steps of a run with which it ends at the next bend: most are cut before that anyway. Of 8, 16, 32 and 64 the cheapest
for 256 replicas of 32 GPUs, and no dearer at long answers under low load (docs/MEASUREMENTS.md)."""

Piece = tuple[int, float, float]
"""(steps, seconds of the first, what each one takes longer than the one before)"""


class DecodeRun:
    """Decode steps in a row with the same sequences, as straight pieces: mostly a single one."""

    __slots__ = ("_first", "_more", "seconds", "steps")

    def __init__(self, first: Piece, more: Sequence[Piece] = ()) -> None:
        self._first, self._more = first, more
        steps, first_s, longer_s = first
        self.steps, self.seconds = steps, first_s * steps + longer_s * (steps * (steps - 1) * 0.5)
        for piece in more:
            self.steps += piece[0]
            self.seconds += _total_s(piece, piece[0])

    def total_s(self, steps: int) -> float:
        """Seconds of the first `steps` steps."""
        total_s = 0.0
        for piece in (self._first, *self._more):
            if steps <= piece[0]:
                return total_s + _total_s(piece, steps)
            total_s += _total_s(piece, piece[0])
            steps -= piece[0]
        return total_s

    def within(self, elapsed_s: float) -> tuple[int, float]:
        """The step that runs `elapsed_s` after the start (the smallest number, from 1, whose `total_s` reaches it, or
        the last), and the seconds up to its end."""
        done, done_s = _within(self._first, elapsed_s)
        if done_s >= elapsed_s:
            return done, done_s
        for piece in self._more:
            step, seconds = _within(piece, elapsed_s - done_s)
            if done_s + seconds >= elapsed_s:
                return done + step, done_s + seconds
            done, done_s = done + step, done_s + seconds
        return done, done_s


def _total_s(piece: Piece, steps: int) -> float:
    """Seconds of the first `steps` steps of a piece."""
    return piece[1] * steps + piece[2] * (steps * (steps - 1) * 0.5)


def _within(piece: Piece, elapsed_s: float) -> tuple[int, float]:
    """The smallest step of a piece, from 1, whose end reaches `elapsed_s`, or its last one, and the seconds up to its
    end: the root of `_total_s`, rounded up."""
    steps, first_s, longer_s = piece
    linear = first_s - longer_s / 2
    square = linear * linear + 2 * longer_s * elapsed_s
    # A rounding below the root, so that only steps upwards are left to try.
    step = int(2 * elapsed_s / (linear + sqrt(square)) * (1 - 1e-12)) if square > 0 else steps
    if step >= steps:
        return steps, _total_s(piece, steps)
    while True:
        step += 1
        seconds = first_s * step + longer_s * (step * (step - 1) * 0.5)
        if seconds >= elapsed_s or step == steps:
            return step, seconds


class DecodingRank(Protocol):
    """A rank that decodes."""

    def load(self, step: int) -> tuple[int, float, float]:
        """Its sequences, their mean KV tokens in a step of the worker, and the growth of these per step."""
        ...


RankLine = tuple[float, float, float, float, float, float]
"""(seconds at step 0, more with each step, the most that a later one may add, first and last step for which it holds,
context at which the segment of the table ends)"""
EMPTY: Final = (0.0, 0.0, 0.0, 0.0, inf, 0.0)
"""That of a rank without sequences."""
UNKNOWN: Final = (0.0, 0.0, 0.0, inf, -inf, 0.0)
"""One to be drawn."""


class DecodeLines:
    """Attention of each rank of a worker over its decode steps, and which rank is the slowest for how long.

    Steps are numbered by the worker. The slowest rank is the slowest from `_sure_since` to `_sure_until`: its own line
    holds, and no other rank's can have overtaken it, even if each further token cost that one the most that any does.
    """

    __slots__ = (
        "_cost", "_count", "_lines", "_ranks", "_slowest", "_sure_since", "_sure_until", "_table", "_top", "fullest",
    )  # fmt: skip

    def __init__(self, cost: StepCost, ranks: Sequence[DecodingRank]) -> None:
        self._cost, self._ranks = cost, ranks
        self._table: DecodeTable | None = None
        self.fullest = 0
        """Sequences of the fullest rank; see `hold`."""
        self._lines: list[RankLine] = [EMPTY] * len(ranks)
        self._count, self._slowest = len(ranks), 0
        self._top: RankLine = EMPTY
        """That of the slowest rank."""
        self._sure_since, self._sure_until = 0.0, -1.0

    def hold(self, fullest: int) -> None:
        """The fullest rank now holds so many sequences, on which drafts may depend: to be said before ranks change."""
        self.fullest = fullest
        table = self._cost.decode_table(fullest)
        if table is not self._table:
            self._table = table
            self._lines = [UNKNOWN] * self._count
            self._sure_until = -1.0

    def renew(self, ranks: Iterable[int], step: int) -> None:
        """From `step` on these ranks have other loads."""
        for rank in ranks:
            top_s, top_slope_s, _, _, _, _ = self._top
            line = self._draw(rank, step)
            sure = self._sure_until
            if not self._sure_since <= step <= sure:
                continue
            start_s, slope_s, steepest_s, _, until, _ = line
            self._sure_since = step
            ahead_s = start_s - top_s + (slope_s - top_slope_s) * step
            if ahead_s >= 0:  # above the line that no other rank overtakes, until that catches up
                self._slowest, self._top = rank, line
                sure = until if until < sure else sure
                if slope_s < top_slope_s:
                    sure = min(sure, step + ahead_s / (top_slope_s - slope_s))
            elif rank == self._slowest:
                sure = -1.0
            elif (steepest_s - top_slope_s) * (sure - step) > -ahead_s:  # else not even at its steepest
                overtakes = _overtakes(line, step, -ahead_s, top_slope_s)
                sure = overtakes if overtakes < sure else sure
            self._sure_until = sure

    def attention_s(self, rank: int, step: int) -> float:
        """Attention seconds of a rank in a step."""
        start_s, slope_s, _, since, until, _ = self._lines[rank]
        if not since <= step <= until:
            start_s, slope_s, *_ = self._draw(rank, step)
        return start_s + slope_s * step

    def sit_out(self, rank: int) -> None:
        """A rank takes no part in a step: whatever was to come comes one step later, and it overtakes nobody sooner."""
        start_s, slope_s, steepest_s, since, until, up_to = self._lines[rank]
        self._lines[rank] = start_s - slope_s, slope_s, steepest_s, since + 1, until + 1, up_to
        if rank == self._slowest:
            self._sure_until = -1.0

    def without(self, step: int, waiting: Sequence[int]) -> float:
        """Attention seconds of the slowest rank in a step that some sit out."""
        if not self._sure_since <= step <= self._sure_until:
            self._settle(step)
        if self._slowest not in waiting:
            return self._top[0] + self._top[1] * step
        seconds = [self.attention_s(rank, step) for rank in range(self._count)]
        for rank in waiting:
            seconds[rank] = 0.0
        return max(seconds)

    def step_s(self, fullest: int, sequences: int, attention_s: float) -> float:
        """Seconds of a step of so many sequences on the fullest rank and on all, by the slowest rank's attention."""
        assert self._table is not None
        return self._table.line(fullest, sequences / self._count).seconds(attention_s)

    def run(self, step: int, steps: int, sequences: int) -> DecodeRun:
        """Up to `steps` steps from `step` on: fewer where they bend often. `sequences`: of all ranks."""
        assert self._table is not None
        line = self._table.line(self.fullest, sequences / self._count)
        pieces: list[Piece] = []
        end, enough = step + steps, step + ENOUGH
        while step < end and (not pieces or step < enough):
            if not self._sure_since <= step <= self._sure_until:
                self._settle(step)
            left, ahead = end - step, self._sure_until - step + 1
            count = left if left <= ahead else int(ahead)
            start_s, slope_s, _, _, _, _ = self._top
            if line.beside or line.launch:
                _straighten(pieces, line, start_s, slope_s, step, count)
            else:
                piece = count, line.base + line.alone * (start_s + slope_s * step), line.alone * slope_s
                if count == steps:
                    return DecodeRun(piece)
                pieces.append(piece)
            step += count
        return DecodeRun(pieces[0], pieces[1:])

    def book(self, seconds: float) -> None:
        """Steps that lasted `seconds` have been run: count them, at the slowest rank, in `StepCost.provenance_s`."""
        assert self._table is not None
        self._table.book(self.fullest, self._top[5], seconds)

    def _draw(self, rank: int, step: int) -> RankLine:
        """The line of a rank as it is at `step`."""
        sequences, context, growth = self._ranks[rank].load(step)
        if not sequences:
            line = EMPTY
        else:
            assert self._table is not None
            seconds, per_token_s, up_to, steepest_s = self._table.attention(sequences, context)
            slope_s = per_token_s * growth
            until = step + (up_to - context) / growth if growth else inf
            line = (seconds - slope_s * step, slope_s, steepest_s * growth, step, until, up_to)
        self._lines[rank] = line
        if rank == self._slowest:
            self._top = line
            if step < self._sure_since:  # it was found further ahead, on another line
                self._sure_until = -1.0
        return line

    def _settle(self, step: int) -> None:
        """Find the slowest rank at `step`, and how long it is sure to be that.

        A line that has ended goes on as steeply as it may, and is drawn anew only where that is not good enough.
        """
        lines = self._lines
        seconds = [
            start_s + slope_s * step
            if since <= step <= until
            else start_s + slope_s * until + steepest_s * (step - until)
            if since <= step
            else inf
            for start_s, slope_s, steepest_s, since, until, _ in lines
        ]
        while True:
            most_s = max(seconds)
            slowest = seconds.index(most_s)
            top = lines[slowest]
            if top[3] <= step <= top[4]:
                break
            seconds[slowest] = self.attention_s(slowest, step)
        self._slowest, self._top = slowest, top
        _, slope_s, _, _, sure, _ = top
        for rank, here_s in enumerate(seconds):
            # Not even at its steepest from here on, most of the time.
            if (lines[rank][2] - slope_s) * (sure - step) > most_s - here_s and rank != slowest:
                behind_s = most_s - self.attention_s(rank, step)
                overtakes = _overtakes(lines[rank], step, behind_s, slope_s)
                sure = overtakes if overtakes < sure else sure
        self._sure_since, self._sure_until = step, sure if sure > step else step


def _overtakes(line: RankLine, step: int, behind_s: float, slope_s: float) -> float:
    """The step from which a rank that is `behind_s` at `step` may be ahead of one whose line rises by `slope_s`, less
    than its own one may: on its own line, and from the end of that as steeply as it ever rises."""
    _, own_slope_s, steepest_s, _, until, _ = line
    ahead_s = (own_slope_s - slope_s) * (until - step)
    if ahead_s > behind_s:
        return step + behind_s / (own_slope_s - slope_s)
    return until + (behind_s - ahead_s) / (steepest_s - slope_s) if steepest_s > slope_s else inf


def _straighten(
    pieces: list[Piece], line: Line, start_s: float, slope_s: float, step: int, count: int
) -> None:
    """Add `count` steps from `step` on, whose attention is a line: one piece, or halves until each is straight."""
    first_s = line.seconds(start_s + slope_s * step)
    if count == 1:
        pieces.append((1, first_s, 0.0))
        return
    last_s = line.seconds(start_s + slope_s * (step + count - 1))
    if count > 2:
        straight_s = (first_s + last_s) / 2
        middle_s = line.seconds(start_s + slope_s * (step + (count - 1) / 2))
        if abs(middle_s - straight_s) > STRAIGHT * straight_s:
            half = count // 2
            _straighten(pieces, line, start_s, slope_s, step, half)
            _straighten(pieces, line, start_s, slope_s, step + half, count - half)
            return
    pieces.append((count, first_s, (last_s - first_s) / (count - 1)))
