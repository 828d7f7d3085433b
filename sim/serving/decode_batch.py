"""Continuous batching of one worker: who decodes on which rank, until when, and who must leave."""

from collections.abc import Callable, Iterable
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from sim.serving.kv_blocks import BLOCK_TOKENS, GrowingKvBlocks, blocks_for, growth_steps
from sim.serving.served_request import ServedRequest

Floats = NDArray[np.float64]


class DecodeBatch:
    """The decoding sequences of one worker. Its attention-DP ranks step together; `step` counts the steps done.

    A sequence first reserves a seat and blocks for its tokens, then joins at a step boundary, and holds blocks for
    its prompt and every token generated. A rank's summed context is `base + step x slope`, so that a step costs
    nothing here: only joining and leaving do.
    """

    def __init__(
        self, ranks: int, max_sequences: int, kv_blocks: int, block_tokens: int = BLOCK_TOKENS,
        growth_reserve_tokens: int = 0, request_blocks: int = 0,
    ) -> None:  # fmt: skip
        """`request_blocks`: of each sequence, however long it is."""
        self.step = 0
        self.running = 0
        self.max_sequences = max_sequences
        self.seats = [0] * ranks
        """Sequences running or reserved, per rank."""
        self.sequences: Floats = np.zeros(ranks)
        """Running sequences per rank."""
        self.blocks = [GrowingKvBlocks(kv_blocks) for _ in range(ranks)]
        self._block_tokens, self._request_blocks = block_tokens, request_blocks
        self._reserve_blocks = blocks_for(growth_reserve_tokens, block_tokens)
        self._base: Floats = np.zeros(ranks)
        self._slope: Floats = np.zeros(ranks)
        self._divisor: Floats = np.ones(ranks)
        self._members: list[dict[int, ServedRequest]] = [{} for _ in range(ranks)]
        self._finishes: list[tuple[int, int, int, int, ServedRequest]] = []
        """(step, order of joining, stint, rank, sequence); stale where the stint has passed."""
        self._joined = 0
        self.decoded_tokens = self.sequence_steps = 0
        """What the sequences that have left generated here, and the steps that each took, added up."""

    def need(self, rank: int, tokens: int) -> int:
        """Blocks that must be free for a sequence of `tokens` tokens: its own and the growth reserve of those there."""
        own = blocks_for(tokens, self._block_tokens, self._request_blocks)
        return own + self._reserve_blocks * self.seats[rank]

    def room_after(self, rank: int, step: int) -> int:
        """Blocks free at the end of `step`, if nobody joins or leaves."""
        blocks = self.blocks[rank]
        return blocks.capacity - blocks.used_after(step)

    def takes(self, rank: int, tokens: Iterable[int]) -> int:
        """How many sequences of these `tokens` find a seat and blocks in the next step, in order, up to the first that
        does not."""
        seats, room = self.seats[rank], self.room_after(rank, self.step + 1)
        before = seats
        for size in tokens:
            own = blocks_for(size, self._block_tokens)
            if seats >= self.max_sequences or own + self._reserve_blocks * seats > room:
                break
            seats, room = seats + 1, room - own
        return seats - before

    def reserve(self, rank: int, tokens: int) -> None:
        """Hold a seat and the blocks of `tokens` tokens. The caller has checked that there is room."""
        self.seats[rank] += 1
        self.blocks[rank].reserve(self._blocks_of(tokens))

    def cancel(self, rank: int, tokens: int) -> None:
        """Give back what `reserve` held."""
        self.seats[rank] -= 1
        self.blocks[rank].settle(self.step - 1)
        self.blocks[rank].release(self._blocks_of(tokens))

    def join(self, sequence: ServedRequest, rank: int, steps: int) -> None:
        """Decode a sequence from the next step on, for `steps` steps. Its context was reserved."""
        tokens, context = sequence.remaining_tokens, sequence.context_tokens
        sequence.first_step, sequence.steps = self.step, steps
        slope = tokens / steps
        self.running += 1
        self.sequences[rank] += 1.0
        self._divisor[rank] = self.sequences[rank]
        self._base[rank] += context - slope * self.step
        self._slope[rank] += slope
        self._members[rank][sequence.id] = sequence
        self._joined += 1
        heappush(self._finishes, (self.step + steps, self._joined, sequence.stint, rank, sequence))
        self.blocks[rank].grow(growth_steps(context, tokens, steps, self._block_tokens), self.step)

    def load(self) -> tuple[Floats, Floats, Floats]:
        """Per rank: sequences, their mean context in the next step, and its growth per step."""
        context = (self._base + self.step * self._slope) / self._divisor
        return self.sequences, context, self._slope / self._divisor

    def next_change(self) -> int:
        """The step after which a sequence finishes or a rank runs out of blocks. There must be a running sequence.

        Equals `step` where blocks are short already: call `preempt`.
        """
        finishes = self._finishes
        while finishes[0][4].stint != finishes[0][2]:
            heappop(finishes)
        end = finishes[0][0]
        for blocks in self.blocks:
            if blocks.demand > blocks.capacity:
                end = blocks.first_shortage(self.step, end)
        return end

    def advance(self, steps: int) -> list[tuple[ServedRequest, int]]:
        """Do `steps` steps, at most up to `next_change`; the sequences that finished, and their ranks."""
        self.step += steps
        finishes, done = self._finishes, []
        while finishes and finishes[0][0] <= self.step:
            _, _, stint, rank, sequence = heappop(finishes)
            if sequence.stint == stint:
                self.blocks[rank].settle(self.step - 1)
                self._leave(sequence, rank, sequence.steps - 1)
                self._count(sequence.remaining_tokens, sequence.steps)
                sequence.generated_tokens = sequence.output_tokens
                done.append((sequence, rank))
        return done

    def preempt(self) -> list[tuple[ServedRequest, int]]:
        """Evict the last arrived sequences of the ranks that are short of blocks; who left, and from which rank."""
        evicted = []
        for rank, blocks in enumerate(self.blocks):
            if blocks.demand <= blocks.capacity:
                continue
            blocks.settle(self.step)
            while blocks.used > blocks.capacity:
                members = self._members[rank]
                sequence = members[max(members)]
                self._interrupt(sequence, rank)
                evicted.append((sequence, rank))
        return evicted

    def redraw(self, steps: Callable[[ServedRequest], int]) -> None:
        """Give every sequence a new number of steps for the tokens that it still needs; nobody loses its place."""
        for rank, members in enumerate(self._members):
            self.blocks[rank].settle(self.step)
            for sequence in list(members.values()):
                self._interrupt(sequence, rank)
                self.reserve(rank, sequence.context_tokens)
                self.join(sequence, rank, steps(sequence))

    def _blocks_of(self, tokens: int) -> int:
        return blocks_for(tokens, self._block_tokens, self._request_blocks)

    def _interrupt(self, sequence: ServedRequest, rank: int) -> None:
        """Take a sequence off its rank before it is done; it keeps its tokens. Call `settle` first."""
        done = self.step - sequence.first_step
        growth = growth_steps(
            sequence.context_tokens, sequence.remaining_tokens, sequence.steps, self._block_tokens
        )
        self.blocks[rank].cancel(growth, sequence.first_step, self.step)
        self._leave(sequence, rank, done)
        self._count(sequence.tokens_after(done), done)
        sequence.generated_tokens += sequence.tokens_after(done)

    def _count(self, tokens: int, steps: int) -> None:
        self.decoded_tokens += tokens
        self.sequence_steps += steps

    def _leave(self, sequence: ServedRequest, rank: int, held_after: int) -> None:
        """Take a sequence off its rank; it holds the blocks of the end of its step `held_after`."""
        context = sequence.context_tokens
        slope = sequence.remaining_tokens / sequence.steps
        held = context + sequence.tokens_after(held_after)
        self.blocks[rank].release(self._blocks_of(held))
        sequence.stint += 1
        del self._members[rank][sequence.id]
        self.seats[rank] -= 1
        self.running -= 1
        left = len(self._members[rank])
        self.sequences[rank] = left
        if left:
            self._divisor[rank] = left
            self._base[rank] -= context - slope * sequence.first_step
            self._slope[rank] -= slope
        else:
            self._divisor[rank] = 1.0
            self._base[rank] = self._slope[rank] = 0.0
