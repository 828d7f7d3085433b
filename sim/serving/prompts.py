"""Chunked prefill of one worker: which prompt tokens its next step computes."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np

from sim.serving.served_request import ServedRequest
from sim.step import PromptLoad

Admit = Callable[[ServedRequest, int], bool]
"""(sequence, rank) -> whether its KV fits; if so it is reserved, and what is cached is looked up for good."""


@dataclass(slots=True, frozen=True)
class Chunk:
    """The prompt tokens of one step, and whose they are."""

    load: PromptLoad
    started: list[ServedRequest]
    completed: list[tuple[ServedRequest, int]]
    """Prompts whose last token is in this step, with their ranks."""
    fetch_s: float
    """Until the slowest rank has fetched the cached prefixes of the prompts that start."""


class PromptQueues:
    """Waiting prompts, first in first out on each rank. The ranks step together.

    A step takes up to a budget of new tokens per rank: several short prompts, or a part of a long one, which goes
    on in the next step. `whole`: no part of a prompt is taken where the step already has another; only one that is
    larger than a whole step goes in parts (TensorRT-LLM without enable_chunked_prefill, which refuses even that).
    """

    def __init__(self, ranks: int, whole: bool = False) -> None:
        self._whole = whole
        self.queued_tokens = [0] * ranks
        """Prompt tokens that no step has taken yet, per rank."""
        self.waiting: list[deque[ServedRequest]] = [deque() for _ in range(ranks)]
        self._partial: list[ServedRequest | None] = [None] * ranks

    def add(self, sequence: ServedRequest, rank: int, front: bool = False) -> int:
        """Queue a prompt (`front`: before those that wait); generated tokens are part of it. The tokens to compute."""
        sequence.prefill_tokens = sequence.context_tokens
        sequence.computed_tokens = sequence.cached_tokens
        tokens = sequence.prefill_tokens - sequence.cached_tokens
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
        step = _Planned(len(budgets))
        for rank, budget in enumerate(budgets):
            if not self.queued_tokens[rank]:
                continue
            left, waiting = budget, self.waiting[rank]
            sequence = self._partial[rank]
            while left:
                if sequence is None:
                    if not waiting or (self._whole and left < budget and _new_tokens(waiting[0]) > left):
                        break
                    if not admit(waiting[0], rank):
                        break
                    sequence = waiting.popleft()
                    self.queued_tokens[rank] -= step.start(sequence, rank)
                left -= step.take(sequence, rank, left)
                if sequence.computed_tokens == sequence.prefill_tokens:
                    step.completed.append((sequence, rank))
                    sequence = None
            self._partial[rank] = sequence
            self.queued_tokens[rank] -= budget - left
        return step.chunk()


def _new_tokens(sequence: ServedRequest) -> int:
    """Tokens of a prompt that are still to compute."""
    return sequence.prefill_tokens - sequence.computed_tokens


class _Planned:
    """A chunk in the making."""

    def __init__(self, ranks: int) -> None:
        self.tokens = [0.0] * ranks
        self.pairs = [0.0] * ranks
        self.held = [0.0] * ranks
        self.prefix_pairs = [0.0] * ranks
        self.prefix_held = [0.0] * ranks
        self.longest = [0.0] * ranks
        self.longest_alone = [0.0] * ranks
        self.several = False
        """Whether a rank has several prompts, one of them with KV before it."""
        self.fetch_s = [0.0] * ranks
        self.started: list[ServedRequest] = []
        self.completed: list[tuple[ServedRequest, int]] = []

    def start(self, sequence: ServedRequest, rank: int) -> int:
        """A prompt is admitted: tokens that are cached beyond those that were when it was queued."""
        more = sequence.cached_tokens - sequence.computed_tokens
        sequence.computed_tokens = sequence.cached_tokens
        self.fetch_s[rank] += sequence.fetch_s
        self.started.append(sequence)
        return more

    def take(self, sequence: ServedRequest, rank: int, budget: int) -> int:
        """Put up to `budget` tokens of a prompt into the step."""
        before = sequence.computed_tokens
        new = min(budget, sequence.prefill_tokens - before)
        sequence.computed_tokens = before + new
        if self.tokens[rank] and (before or self.held[rank] > self.tokens[rank]):
            self.several = True
        self.tokens[rank] += new
        self.held[rank] += before + new
        self.pairs[rank] += new * before + new * (new + 1) / 2
        self.prefix_pairs[rank] += new * sequence.cached_tokens
        self.prefix_held[rank] += sequence.cached_tokens
        self.longest[rank] = max(self.longest[rank], before + new)
        self.longest_alone[rank] = max(self.longest_alone[rank], before + new - sequence.cached_tokens)
        return new

    def chunk(self) -> Chunk | None:
        """The chunk, with sum(new x before + new (new + 1) / 2) pairs of new token and key on each rank, where `before`
        counts the cached prefix and earlier chunks; None without tokens."""
        if not any(self.tokens):
            return None
        tokens, pairs, held = np.array(self.tokens), np.array(self.pairs), np.array(self.held)
        divisor, alone = np.maximum(tokens, 1.0), None
        if any(self.prefix_pairs):
            context = (pairs - np.array(self.prefix_pairs)) / divisor
            held_alone = held - np.array(self.prefix_held)
            alone = PromptLoad(tokens, context, held_alone, np.array(self.longest_alone), self.several)
        load = PromptLoad(tokens, pairs / divisor, held, np.array(self.longest), self.several, alone)
        return Chunk(load, self.started, self.completed, max(self.fetch_s))
