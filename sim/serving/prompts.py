"""Chunked prefill of one worker: which prompt tokens its next step computes."""

from collections import deque
from collections.abc import Callable
from itertools import compress, islice

from sim.serving.served_request import ServedRequest
from sim.step import PromptLoad, RankPrompts

Admit = Callable[[ServedRequest, int], bool]
"""(sequence, rank) -> whether its KV fits; if so it is reserved, and what is cached is looked up for good."""


class Chunk(PromptLoad):
    """The prompt tokens of one step, and whose they are."""

    __slots__ = ("completed", "fetch_s", "fullest", "started", "tokens")

    def __init__(self, ranks: int) -> None:
        self.ranks, self.prompts, self.alone = ranks, [], None
        self.tokens = self.fullest = 0
        """New ones, of all ranks and of the rank that has most."""
        self.started: list[ServedRequest] = []
        self.completed: list[tuple[ServedRequest, int]] = []
        """Prompts whose last token is in this step, with their ranks."""
        self.fetch_s = 0.0
        """Until the slowest rank has fetched the cached prefixes of the prompts that start."""


class PromptQueues:
    """Waiting prompts, first in first out on each rank. The ranks step together.

    A step takes up to a budget of new tokens per rank: several short prompts, or a part of a long one, which goes
    on in the next step. `whole`: no part of a prompt is taken where the step already has another; only one that is
    larger than a whole step goes in parts (TensorRT-LLM without enable_chunked_prefill, which refuses even that).
    """

    __slots__ = (
        "_partial", "_whole", "queued_tokens", "tokens_left", "waiting",
    )  # fmt: skip

    def __init__(self, ranks: int, whole: bool = False) -> None:
        self._whole = whole
        self.queued_tokens = [0] * ranks
        """Prompt tokens that no step has taken yet, per rank."""
        self.tokens_left = 0
        """Of all ranks."""
        self.waiting: list[deque[ServedRequest]] = [deque() for _ in range(ranks)]
        self._partial: list[ServedRequest | None] = [None] * ranks

    def add(self, sequence: ServedRequest, rank: int, front: bool = False) -> int:
        """Queue a prompt (`front`: before those that wait); generated tokens are part of it. The tokens to compute."""
        cached = sequence.cached_tokens
        sequence.prefill_tokens = prefill = sequence.prompt_tokens + sequence.generated_tokens
        sequence.computed_tokens = cached
        tokens = prefill - cached
        self.queued_tokens[rank] += tokens
        self.tokens_left += tokens
        if front:
            self.waiting[rank].appendleft(sequence)
        else:
            self.waiting[rank].append(sequence)
        return tokens

    @property
    def empty(self) -> bool:
        """Whether no prompt waits or is under way."""
        return not self.tokens_left

    @property
    def under_way(self) -> bool:
        """Whether a prompt has begun that is not done."""
        return any(self._partial)

    def head(self, rank: int) -> ServedRequest | None:
        """The next prompt to start on a rank."""
        waiting = self.waiting[rank]
        return waiting[0] if waiting else None

    def tokens(self, rank: int, waiting: int) -> int:
        """Tokens that a rank's prompt under way and the first `waiting` others still have to compute."""
        partial = self._partial[rank]
        heads = islice(self.waiting[rank], waiting)
        return sum(map(_new_tokens, heads), _new_tokens(partial) if partial else 0)

    def plan(self, budgets: list[int], admit: Admit) -> Chunk | None:
        """The prompt tokens of the next step, at most `budgets[rank]`; None if there are none."""
        step: Chunk | None = None
        for rank in compress(range(len(budgets)), self.queued_tokens):
            if budgets[rank]:
                if step is None:
                    step = Chunk(len(budgets))
                self._plan_rank(step, rank, budgets[rank], admit)
        return step if step is not None and step.tokens else None

    def _plan_rank(self, step: Chunk, rank: int, budget: int, admit: Admit) -> None:
        """Put up to `budget` prompt tokens of a rank into the step.

        pairs of new token and key = sum(new x before + new (new + 1) / 2), where `before` counts the cached prefix and
        earlier chunks.
        """
        waiting, sequence, left = self.waiting[rank], self._partial[rank], budget
        held = longest = prefix_held = longest_alone = more_cached = 0
        pairs = prefix_pairs = fetch_s = 0.0
        while left:
            if sequence is None:
                if not waiting or (self._whole and left < budget and _new_tokens(waiting[0]) > left):
                    break
                if not admit(waiting[0], rank):
                    break
                sequence = waiting.popleft()
                more_cached += sequence.cached_tokens - sequence.computed_tokens
                sequence.computed_tokens = sequence.cached_tokens
                fetch_s += sequence.fetch_s
                step.started.append(sequence)
            before, cached = sequence.computed_tokens, sequence.cached_tokens
            rest = sequence.prefill_tokens - before
            new = left if left < rest else rest
            after = before + new
            left -= new
            held += after
            pairs += new * before + new * (new + 1) / 2
            longest = after if after > longest else longest
            sequence.computed_tokens = after
            if cached:
                prefix_held += cached
                prefix_pairs += new * cached
                after -= cached
            longest_alone = after if after > longest_alone else longest_alone
            if new == rest:
                step.completed.append((sequence, rank))
                sequence = None
        self._partial[rank] = sequence
        tokens = budget - left
        self.queued_tokens[rank] -= tokens + more_cached
        self.tokens_left -= tokens + more_cached
        if not tokens:
            return
        several = new < tokens < held  # several prompts, one of them with KV before it
        prompts = alone = RankPrompts(rank, tokens, pairs / tokens, held, longest, several)
        if prefix_pairs:
            context = (pairs - prefix_pairs) / tokens
            alone = RankPrompts(rank, tokens, context, held - prefix_held, longest_alone, several)
            step.fetch_s = fetch_s if fetch_s > step.fetch_s else step.fetch_s
            step.alone = step.alone or [*step.prompts]
        if step.alone is not None:
            step.alone.append(alone)
        step.prompts.append(prompts)
        step.tokens += tokens
        step.fullest = tokens if tokens > step.fullest else step.fullest


def _new_tokens(sequence: ServedRequest) -> int:
    """Tokens of a prompt that are still to compute."""
    return sequence.prefill_tokens - sequence.computed_tokens
