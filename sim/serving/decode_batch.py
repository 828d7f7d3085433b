"""Continuous batching of one worker: who decodes on which rank, until when, and who must leave."""

from collections.abc import Callable, Iterable
from heapq import heappop, heappush, heapreplace

from sim.serving.decode_rank import DecodeRank, Peak
from sim.serving.kv_blocks import BLOCK_TOKENS, blocks_for
from sim.serving.served_request import ServedRequest


class DecodeBatch:
    """The decoding sequences of one worker. Its attention-DP ranks step together; `step` counts the steps done.

    A sequence first reserves a seat and blocks for its tokens, then joins at a step boundary, and holds blocks for
    its prompt and every token generated.
    """

    __slots__ = (
        "_block_tokens", "_disturbed", "_finishes", "_joined", "_request_blocks", "_reserve_blocks", "changed",
        "decoded_tokens", "fullest", "max_sequences", "ranks", "running", "sequence_steps", "sequences", "step",
        "tight",
    )  # fmt: skip

    def __init__(
        self, ranks: int, max_sequences: int, kv_blocks: int, block_tokens: int = BLOCK_TOKENS,
        growth_reserve_tokens: int = 0, request_blocks: int = 0, peak: Peak | None = None,
    ) -> None:  # fmt: skip
        """`request_blocks`: of each sequence, however long it is."""
        self.step = 0
        self.running = 0
        self.sequences = [0] * ranks
        """Running ones per rank."""
        self.fullest = 0
        """Those of the fullest rank."""
        self.max_sequences = max_sequences
        self.ranks = [DecodeRank(kv_blocks, block_tokens, peak, request_blocks) for _ in range(ranks)]
        self.changed: set[int] = set()
        """Ranks that somebody has joined or left; whoever prices the batch empties it."""
        self.tight: set[int] = set()
        """Ranks whose sequences will need more blocks than there are."""
        self._block_tokens, self._request_blocks = block_tokens, request_blocks
        self._reserve_blocks = blocks_for(growth_reserve_tokens, block_tokens)
        self._finishes: list[tuple[int, int, int, int, ServedRequest]] = []
        """(step, order of joining, stint, rank, sequence), the next first."""
        self._disturbed = False
        """Whether somebody has ever left before that, whose entry is stale, or sat steps out, whose entry is early."""
        self._joined = 0
        self.decoded_tokens = self.sequence_steps = 0
        """What the sequences that have left generated here, and the steps that each took, added up."""

    def need(self, rank: int, tokens: int) -> int:
        """Blocks that must be free for a sequence of `tokens` tokens: its own and the growth reserve of those there."""
        own = self._request_blocks - (-tokens // self._block_tokens)
        return own + self._reserve_blocks * self.ranks[rank].seats

    def room_after(self, rank: int, step: int) -> int:
        """Blocks free at the end of `step`, if nobody joins or leaves."""
        return self.ranks[rank].capacity - self.ranks[rank].used_after(step)

    def takes(self, rank: int, tokens: Iterable[int]) -> int:
        """How many sequences of these `tokens` find a seat and blocks in the next step, in order, up to the first that
        does not."""
        seats, room = self.ranks[rank].seats, self.room_after(rank, self.step + 1)
        before = seats
        for size in tokens:
            own = blocks_for(size, self._block_tokens, self._request_blocks)
            if seats >= self.max_sequences or own + self._reserve_blocks * seats > room:
                break
            seats, room = seats + 1, room - own
        return seats - before

    def reserve(self, rank: int, tokens: int) -> None:
        """Hold a seat and the blocks of `tokens` tokens. The caller has checked that there is room."""
        of_rank = self.ranks[rank]
        of_rank.reserve(tokens)
        if of_rank.demand > of_rank.capacity:
            self.tight.add(rank)

    def cancel(self, rank: int, tokens: int) -> None:
        """Give back what `reserve` held."""
        self.ranks[rank].cancel(tokens, self.step)
        self._relax(rank)

    def join(self, sequence: ServedRequest, rank: int, steps: int) -> None:
        """Decode a sequence from the next step on, for `steps` steps. Its context was reserved."""
        of_rank = self.ranks[rank]
        sequence.first_step, sequence.steps = self.step - of_rank.sat_out, steps
        of_rank.join(sequence)
        if of_rank.demand > of_rank.capacity:
            self.tight.add(rank)
        self.changed.add(rank)
        self.running += 1
        self.sequences[rank] = count = self.sequences[rank] + 1
        self.fullest = count if count > self.fullest else self.fullest
        self._joined += 1
        heappush(self._finishes, (self.step + steps, self._joined, sequence.stint, rank, sequence))

    def next_change(self) -> int:
        """The step after which a sequence finishes or a rank runs out of blocks. There must be a running sequence.

        Equals `step` where blocks are short already: call `preempt`.
        """
        if self._disturbed:
            self._set_right()
        end = self._finishes[0][0]
        for rank in self.tight:
            end = self.ranks[rank].first_shortage(self.step, end)
        return end

    def advance(self, steps: int) -> list[tuple[ServedRequest, int]]:
        """Do `steps` steps, at most up to `next_change`; the sequences that finished, and their ranks."""
        self.step += steps
        finishes, done = self._finishes, []
        while finishes and finishes[0][0] <= self.step:
            if self._disturbed:
                self._set_right()
                if not finishes or finishes[0][0] > self.step:
                    break
            _, _, _, rank, sequence = heappop(finishes)
            tokens = sequence.output_tokens - sequence.generated_tokens
            self._leave(sequence, rank, sequence.steps, tokens)
            done.append((sequence, rank))
        return done

    def sit_out(self, rank: int) -> None:
        """The sequences of a rank take no part in the next step."""
        self.ranks[rank].sat_out += 1
        self._disturbed = True

    def preempt(self) -> list[tuple[ServedRequest, int]]:
        """Evict the last arrived sequences of the ranks that are short of blocks; who left, and from which rank."""
        evicted = []
        for rank in sorted(self.tight):
            of_rank = self.ranks[rank]
            while of_rank.used_after(self.step) > of_rank.capacity:
                sequence = of_rank.members[max(of_rank.members)]
                self._interrupt(sequence, rank)
                evicted.append((sequence, rank))
        return evicted

    def redraw(self, steps: Callable[[ServedRequest], int]) -> None:
        """Give every sequence a new number of steps for the tokens that it still needs; nobody loses its place."""
        for rank, of_rank in enumerate(self.ranks):
            for sequence in list(of_rank.members.values()):
                self._interrupt(sequence, rank)
                self.reserve(rank, sequence.context_tokens)
                self.join(sequence, rank, steps(sequence))

    def done(self, sequence: ServedRequest, rank: int) -> int:
        """Steps that a running sequence has taken."""
        return self.step - self.ranks[rank].sat_out - sequence.first_step

    def _set_right(self) -> None:
        """Have an entry of `_finishes` come first that is as it says."""
        finishes = self._finishes
        while finishes:
            end, order, stint, rank, sequence = finishes[0]
            if sequence.stint != stint:
                heappop(finishes)
                continue
            last = sequence.first_step + sequence.steps + self.ranks[rank].sat_out
            if last == end:
                break
            heapreplace(finishes, (last, order, stint, rank, sequence))

    def _interrupt(self, sequence: ServedRequest, rank: int) -> None:
        """Take a sequence off its rank before it is done; it keeps its tokens."""
        self._disturbed = True
        done = self.done(sequence, rank)
        self._leave(sequence, rank, done, sequence.tokens_after(done))

    def _leave(self, sequence: ServedRequest, rank: int, done: int, tokens: int) -> None:
        """Take a sequence off its rank after `done` steps, in which it generated `tokens`."""
        self.ranks[rank].leave(sequence, self.step, done)
        if self.tight:
            self._relax(rank)
        self.changed.add(rank)
        self.running -= 1
        self.sequences[rank] = left = self.sequences[rank] - 1
        if left + 1 == self.fullest and self.fullest not in self.sequences:
            self.fullest = left
        sequence.stint += 1
        sequence.generated_tokens += tokens
        self.decoded_tokens += tokens
        self.sequence_steps += done

    def _relax(self, rank: int) -> None:
        """Somebody has left a rank: its blocks may suffice again."""
        if self.ranks[rank].demand <= self.ranks[rank].capacity:
            self.tight.discard(rank)
