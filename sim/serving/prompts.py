"""Chunked prefill of one worker: which prompt tokens its next step computes."""

from collections import deque
from collections.abc import Callable

from sim.serving.sequence import Sequence
from sim.step import RankPrompts

Admit = Callable[[Sequence, int], bool]
"""(sequence, rank) -> whether its KV fits; if so it is reserved, and what is cached is looked up for good."""


class Chunk:
    """The prompt tokens of one step."""

    __slots__ = (
        "completed", "fetch_s", "fullest", "has_prefix", "prompts", "started", "tokens", "without_prefix",
    )  # fmt: skip

    def __init__(self) -> None:
        self.prompts: list[RankPrompts] = []
        """Of the ranks that compute some."""
        self.without_prefix: list[RankPrompts] = []
        """The same if no prefix had been cached."""
        self.has_prefix = False
        """Whether one was."""
        self.started: list[Sequence] = []
        self.completed: list[tuple[Sequence, int]] = []
        """Prompts whose last token is in this step, with their ranks."""
        self.fetch_s = 0.0
        """Until the slowest rank has fetched the cached prefixes of the prompts that start."""
        self.tokens = self.fullest = 0
        """New ones of all ranks, and of the rank that has most."""


class PromptQueues:
    """Waiting prompts, first in first out on each rank. The ranks step together.

    A step takes up to a budget of new tokens per rank: several short prompts, or a part of a long one, which goes
    on in the next step.
    """

    __slots__ = (
        "_partial", "queued_tokens", "waiting",
    )  # fmt: skip

    def __init__(self, ranks: int) -> None:
        self.queued_tokens = [0] * ranks
        """Prompt tokens that no step has taken yet, per rank."""
        self.waiting: list[deque[Sequence]] = [deque() for _ in range(ranks)]
        self._partial: list[Sequence | None] = [None] * ranks

    def add(self, sequence: Sequence, rank: int, front: bool = False) -> int:
        """Queue a prompt (`front`: before those that wait); generated tokens are part of it. The tokens to compute."""
        cached = sequence.cached_tokens
        sequence.prefill_tokens = prefill = sequence.prompt_tokens + sequence.generated_tokens
        sequence.computed_tokens = cached
        tokens = prefill - cached
        self.queued_tokens[rank] += tokens
        if front:
            self.waiting[rank].appendleft(sequence)
        else:
            self.waiting[rank].append(sequence)
        return tokens

    @property
    def empty(self) -> bool:
        """Whether no prompt waits or is under way."""
        return not any(self.queued_tokens)

    def head(self, rank: int) -> Sequence | None:
        """The next prompt to start on a rank."""
        waiting = self.waiting[rank]
        return waiting[0] if waiting else None

    def under_way(self) -> bool:
        """Whether a prompt is partly computed."""
        return any(p is not None for p in self._partial)

    def plan(self, budgets: list[int], admit: Admit) -> Chunk | None:
        """The prompt tokens of the next step, at most `budgets[rank]`; None if there are none."""
        chunk = Chunk()
        for rank, queued in enumerate(self.queued_tokens):
            if queued and budgets[rank]:
                self._plan_rank(chunk, rank, budgets[rank], admit)
        return chunk if chunk.prompts else None

    def _plan_rank(self, chunk: Chunk, rank: int, budget: int, admit: Admit) -> None:
        """Put up to `budget` prompt tokens of a rank into the step."""
        waiting, sequence, left = self.waiting[rank], self._partial[rank], budget
        held = longest = prefix_held = longest_alone = more_cached = 0
        pairs = prefix_pairs = fetch_s = 0.0
        several = False  # a rank has several prompts, one of them with KV before it
        while left:
            if sequence is None:
                if not waiting or not admit(waiting[0], rank):
                    break
                sequence = waiting.popleft()
                more_cached += sequence.cached_tokens - sequence.computed_tokens
                sequence.computed_tokens = sequence.cached_tokens
                fetch_s += sequence.fetch_s
                chunk.started.append(sequence)
            before, cached = sequence.computed_tokens, sequence.cached_tokens
            rest = sequence.prefill_tokens - before
            new = left if left < rest else rest
            after = before + new
            several = several or (left < budget and (before > 0 or held > budget - left))
            left -= new
            held += after
            pairs += new * before + new * (new + 1) / 2
            longest = after if after > longest else longest
            if cached:
                prefix_held += cached
                prefix_pairs += new * cached
                after -= cached
            longest_alone = after if after > longest_alone else longest_alone
            sequence.computed_tokens = before + new
            if new == rest:
                chunk.completed.append((sequence, rank))
                sequence = None
        self._partial[rank] = sequence
        tokens = budget - left
        self.queued_tokens[rank] -= tokens + more_cached
        if not tokens:
            return
        prompts = alone = RankPrompts(rank, tokens, pairs / tokens, held, longest, several)
        if prefix_pairs:
            chunk.has_prefix = True
            held -= prefix_held
            alone = RankPrompts(rank, tokens, (pairs - prefix_pairs) / tokens, held, longest_alone, several)
        chunk.prompts.append(prompts)
        chunk.without_prefix.append(alone)
        chunk.tokens += tokens
        chunk.fullest = max(chunk.fullest, tokens)
        chunk.fetch_s = max(chunk.fetch_s, fetch_s)
