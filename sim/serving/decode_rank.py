"""One attention-DP rank while it decodes: its seats, its KV blocks, and the context of its sequences."""

from collections.abc import Iterable
from dataclasses import dataclass

from sim.serving.kv_blocks import blocks_for, growth_steps
from sim.serving.served_request import ServedRequest


@dataclass(slots=True)
class Peak:
    """The most KV blocks that a rank has held."""

    blocks: int = 0


class DecodeRank:
    """Sequences of one rank, counted in tokens and blocks. Steps are numbered by the worker; inside, and in a
    sequence's `first_step`, those do not count that the rank has sat out.

    The summed context is `base + step x slope`, so that a step costs nothing: only joining and leaving do. Blocks are
    known by a bound, what the sequences hold at their longest. Up to the capacity that is all that matters; where it is
    more, or somebody asks what is held after a step, each sequence's growth is followed from then on until the rank is
    empty.
    """

    __slots__ = (
        "_base", "_block_tokens", "_coming", "_growth", "_request_blocks", "_settled", "_slope", "_used", "capacity",
        "demand", "members", "peak", "sat_out", "seats",
    )  # fmt: skip

    def __init__(
        self, capacity: int, block_tokens: int, peak: Peak | None = None, request_blocks: int = 0
    ) -> None:
        """`request_blocks`: of each sequence, however long it is."""
        self.capacity = capacity
        """KV blocks."""
        self._block_tokens, self._request_blocks = block_tokens, request_blocks
        self.sat_out = 0
        """Steps of the worker in which nobody here took part: whatever was to come came later by so many."""
        self.seats = 0
        """Sequences running or on their way."""
        self.members: dict[int, ServedRequest] = {}
        """Those that run, by id."""
        self._base = self._slope = 0.0
        self.demand = 0
        """Blocks that the present sequences hold at their longest; up to `capacity` nothing can run out."""
        self.peak = peak or Peak()
        """Most blocks held, as far as `capacity` goes, on any rank that shares this."""
        self._coming = 0
        """Blocks of sequences on their way."""
        self._growth: dict[int, int] | None = None
        """Blocks needed after each step to come, where they are followed; then `_used` are held after `_settled`."""
        self._used = self._settled = 0

    def load(self, step: int) -> tuple[int, float, float]:
        """Running sequences, their mean context in the step after `step`, and its growth per step."""
        count = len(self.members)
        if not count:
            return 0, 0.0, 0.0
        return count, (self._base + (step - self.sat_out) * self._slope) / count, self._slope / count

    def reserve(self, tokens: int) -> None:
        """Hold a seat and the blocks of a sequence on its way."""
        blocks = self._request_blocks - (-tokens // self._block_tokens)
        self.seats += 1
        self.demand += blocks
        self._coming += blocks
        if self._growth is not None:
            self._used += blocks

    def cancel(self, tokens: int, step: int) -> None:
        """Give back what `reserve` held, after `step`."""
        self._note_peak(step - self.sat_out - 1)
        blocks = self._blocks_of(tokens)
        self.seats -= 1
        self.demand -= blocks
        self._coming -= blocks
        if self._growth is not None:
            self._used -= blocks
        if not self.seats:
            self._growth = None

    def join(self, sequence: ServedRequest) -> None:
        """A sequence whose place was reserved runs from its `first_step` on."""
        steps, context = sequence.steps, sequence.prompt_tokens + sequence.generated_tokens
        tokens = sequence.output_tokens - sequence.generated_tokens
        sequence.growth = tokens / steps
        block, of_request = self._block_tokens, self._request_blocks
        sequence.most_blocks = of_request - (-(context + tokens * (steps - 1) // steps) // block)
        self._slope += sequence.growth
        self._base += context - sequence.growth * sequence.first_step
        self.members[sequence.id] = sequence
        blocks = of_request - (-context // block)
        self._coming -= blocks
        self.demand += sequence.most_blocks - blocks
        if self._growth is not None:
            self._grow(sequence)

    def leave(self, sequence: ServedRequest, step: int, done: int) -> None:
        """A sequence leaves after `step`, its own step `done`. It holds the blocks of its step before the last, if that
        was its last."""
        step -= self.sat_out
        self._note_peak(step if done < sequence.steps else step - 1)
        context, held = sequence.prompt_tokens + sequence.generated_tokens, sequence.most_blocks
        del self.members[sequence.id]
        self.seats -= 1
        self.demand -= held
        if self.members:
            self._slope -= sequence.growth
            self._base -= context - sequence.growth * sequence.first_step
        else:
            self._slope = self._base = 0.0
        if self._growth is None:
            return
        if done < sequence.steps:
            held = self._blocks_of(context + sequence.tokens_after(done))
            for at in self._growth_steps(sequence):
                if at > step:
                    self._growth[at] -= 1
        self._used -= held
        if not self.seats:
            self._growth = None

    def used_after(self, step: int) -> int:
        """Blocks held at the end of `step`, not before the last change, if nobody joins or leaves."""
        growth = self._followed()
        step -= self.sat_out
        if step - self._settled <= len(growth):
            return self._used + sum(growth.get(s, 0) for s in range(self._settled + 1, step + 1))
        return self._used + sum(blocks for s, blocks in growth.items() if s <= step)

    def first_shortage(self, step: int, end: int) -> int:
        """First step from `step` on, before `end`, after which the blocks do not suffice; `end` if there is none."""
        if self.demand <= self.capacity:
            return end
        now = step - self.sat_out
        self._settle(now)
        used, growth = self._used, self._followed()
        if used > self.capacity:
            return step
        for s in range(now + 1, end - self.sat_out):
            used += growth.get(s, 0)
            if used > self.capacity:
                return s + self.sat_out
        return end

    def _blocks_of(self, tokens: int) -> int:
        return blocks_for(tokens, self._block_tokens, self._request_blocks)

    def _note_peak(self, step: int) -> None:
        """Blocks only grow until somebody leaves, so what is held before that is all that counts.

        Looked at closely only where the bounds, at their longest and by tokens, say that it may be more than ever.
        """
        if self.demand <= self.peak.blocks:
            return
        if self._growth is None:
            block = self._block_tokens
            each = block - 1 + self._request_blocks * block
            tokens = self._base + step * self._slope + len(self.members) * each
            if (self._coming * block + tokens) / block + 1 <= self.peak.blocks:
                return
        self.peak.blocks = max(self.peak.blocks, min(self._held(step), self.capacity))

    def _held(self, step: int) -> int:
        """Blocks held at the end of `step`."""
        if self._growth is not None:
            self._settle(step)
            return self._used
        return self._coming + sum(
            self._blocks_of(s.context_tokens + s.tokens_after(step - s.first_step))
            for s in self.members.values()
        )

    def _followed(self) -> dict[int, int]:
        """The growth to come; followed from now on."""
        if self._growth is None:
            self._growth = {}
            self._settled = min((s.first_step for s in self.members.values()), default=self._settled)
            self._used = self._coming
            for sequence in self.members.values():
                self._used += self._blocks_of(sequence.context_tokens)
                self._grow(sequence)
        return self._growth

    def _growth_steps(self, sequence: ServedRequest) -> Iterable[int]:
        """Steps after which the sequence needs one more block."""
        context, tokens, steps = sequence.context_tokens, sequence.remaining_tokens, sequence.steps
        first = sequence.first_step
        return (first + step for step in growth_steps(context, tokens, steps, self._block_tokens))

    def _grow(self, sequence: ServedRequest) -> None:
        growth = self._followed()
        for step in self._growth_steps(sequence):
            growth[step] = growth.get(step, 0) + 1

    def _settle(self, step: int) -> None:
        """Bring `_used` up to the end of `step`."""
        growth = self._followed()
        if growth and step > self._settled:
            due: Iterable[int] = range(self._settled + 1, step + 1)
            if step - self._settled > len(growth):
                due = [s for s in growth if s <= step]
            for s in due:
                self._used += growth.pop(s, 0)
        self._settled = max(step, self._settled)
