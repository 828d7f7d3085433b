"""Whether an engine starts the prompts that it has room for, or holds them for company. Asked before every step.

TensorRT-LLM has both rules: `_torch/pyexecutor`, `scheduler/scheduler.py` (`_balance_adp_context_requests`) and
`py_executor.py` (`_waiting_requests`). Both count iterations, that is steps of the worker.
"""

from collections.abc import Sequence as Several
from typing import Protocol

from sim.serving.admission import AdmissionRules


class PromptGate(Protocol):
    """`prompts`: tokens of the prompts that could start or go on, per attention-DP rank; `decoding`: its sequences."""

    def opens(self, prompts: Several[float], decoding: Several[float]) -> bool:
        """Whether the next step may hold prompts."""
        ...

    def steps(self) -> int:
        """Decode steps from here to the next that may be answered otherwise, if nothing comes and nothing leaves."""
        ...

    def pass_by(self, steps: int) -> None:
        """So many steps were begun with the same before them, and no prompt started."""
        ...


class BalanceGate:
    """Attention-DP balance: prompts start on all ranks together, or after a number of steps.

    - Every rank has a prompt, and none has all its seats decoding: the wait is over. Where every rank also decodes,
      `gather` steps more are spent before they start.
    - Otherwise one more step is waited, and all prompts are held, until it was `limit` of them or a rank decodes
      nothing. The count runs freely: also where nothing waits, and from 0 again at its end.

    A rank that has no request at all counts as one that decodes unless `idle_rank_opens`: later releases pad it.
    """

    def __init__(self, limit: int, gather: int, seats: int, idle_rank_opens: bool) -> None:
        self._limit, self._gather, self._seats, self._idle_rank_opens = limit, gather, seats, idle_rank_opens
        self._waited = self._gathered = 0
        self._company = self._idle = False
        """At the last question: whether every rank had a prompt and a seat, and whether one decoded nothing."""

    def opens(self, prompts: Several[float], decoding: Several[float]) -> bool:
        """See `PromptGate`."""
        idle = [new for new, old in zip(prompts, decoding, strict=True) if not old]
        self._idle = bool(idle) and (self._idle_rank_opens or max(idle) > 0)
        self._company = min(prompts) > 0 and max(decoding) < self._seats
        if self._company:
            self._waited = 0
            if idle:
                return True
            gathering = self._gathered < self._gather
            self._gathered = self._gathered + 1 if gathering else 0
            return not gathering
        self._waited += 1
        if self._waited >= self._limit or self._idle:
            self._waited = 0
            return True
        return False

    def steps(self) -> int:
        """See `PromptGate`."""
        return 1 if self._company else self._limit - self._waited

    def pass_by(self, steps: int) -> None:
        """See `PromptGate`."""
        if not self._company:
            self._waited = 0 if self._idle else (self._waited + steps) % self._limit


class FullStepGate:
    """Batch waiting: prompts are held until the step would have enough tokens, or for a number of steps.

    Only beside decoding sequences; each counts `per_sequence` tokens, itself and its drafts.
    """

    def __init__(self, limit: int, tokens: float, per_sequence: int) -> None:
        self._limit, self._tokens, self._per_sequence = limit, tokens, per_sequence
        self._held = 0

    def opens(self, prompts: Several[float], decoding: Several[float]) -> bool:
        """See `PromptGate`."""
        new, old = sum(prompts), sum(decoding)
        if not new or not old:
            return True
        if self._held < self._limit and new + old * self._per_sequence < self._tokens:
            self._held += 1
            return False
        self._held = 0
        return True

    def steps(self) -> int:
        """See `PromptGate`."""
        return 1

    def pass_by(self, steps: int) -> None:
        """Nothing: it counts only where a prompt could start, and then step by step."""


def prompt_gate(rules: AdmissionRules, ranks: int, seats: int) -> PromptGate | None:
    """The gate of a worker with so many attention-DP ranks and seats on each; None where prompts start at once."""
    if rules.wait_all_ranks_steps and ranks > 1:
        return BalanceGate(
            rules.wait_all_ranks_steps, rules.gather_prompts_steps, seats, rules.idle_rank_opens
        )
    if rules.batch_wait_steps and ranks == 1:
        return FullStepGate(rules.batch_wait_steps, rules.batch_wait_tokens, rules.tokens_per_sequence)
    return None
