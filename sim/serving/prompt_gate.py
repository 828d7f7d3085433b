"""Whether an engine starts the prompts that it has room for, or holds them for company. Asked before every step.

TensorRT-LLM has the first two rules (`_torch/pyexecutor/scheduler/scheduler.py`: `_balance_adp_context_requests` and
`_apply_batch_waiting`), SGLang the third (`managers/scheduler.py`: `_should_defer_prefill`). All count steps of the
worker.
"""

from collections.abc import Sequence as Several
from typing import Protocol

from sim.serving.admission import AdmissionRules


class PromptGate(Protocol):
    """`prompts`: tokens of the prompts that could start or go on, per attention-DP rank; `decoding`: its sequences."""

    def opens(self, prompts: Several[float], decoding: Several[float]) -> bool:
        """Whether the next step may hold prompts."""
        ...

    def steps(self) -> int | None:
        """Decode steps from here to the next that may be answered otherwise, if nothing comes and nothing leaves; None:
        none will."""
        ...

    def pass_by(self, steps: int) -> None:
        """So many steps were begun with the same before them, and no prompt started."""
        ...

    def started(self) -> None:
        """The step holds prompts."""
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

    def started(self) -> None:
        """Nothing: it counts questions."""


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

    def started(self) -> None:
        """Nothing: it counts questions."""


class RestGate:
    """After a step with prompts, on whichever rank, so many steps without, while anything decodes."""

    def __init__(self, steps: int) -> None:
        self._rest = steps
        self._left = 0
        self._held = False
        """At the last question."""

    def opens(self, prompts: Several[float], decoding: Several[float]) -> bool:
        """See `PromptGate`."""
        self._held = self._left > 0 and sum(decoding) > 0
        self.pass_by(1)
        return not self._held

    def steps(self) -> int | None:
        """See `PromptGate`."""
        return self._left + 1 if self._held else None

    def pass_by(self, steps: int) -> None:
        """See `PromptGate`."""
        self._left = max(0, self._left - steps)

    def started(self) -> None:
        """It counts from here."""
        self._left = self._rest


class PromptDelay:
    """SGLang's prefill delayer (`managers/prefill_delayer.py`): no prompt starts while some ranks have one and others
    none, until it was the `limit`-th question of that kind. Prompts under way go on. Not modelled: its further triggers
    by free seats and by waiting requests."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._holds = False
        """At the last question, if it is the latest step's."""

    def opens(self, ready: Several[bool], idle: bool) -> bool:
        """Whether prompts may start in the next step; `ready`: whether one could, by rank. Of a worker that is `idle`
        the questions take no time."""
        held = any(ready) and not all(ready) and not idle and self._held < self._limit - 1
        self._held = self._held + 1 if held else 0
        self._holds = held
        return not held

    def skip(self) -> None:
        """It is not asked before the next step."""
        self._holds = False

    def steps(self) -> int | None:
        """Decode steps from here to the next in which prompts may start, if nothing comes and nothing leaves; None: it
        holds nothing."""
        return self._limit - self._held if self._holds else None

    def pass_by(self, steps: int) -> None:
        """So many steps were begun with the same before them."""
        self._held += steps if self._holds else 0


class Gates:
    """Several rules at once: each is asked before every step, and all must agree."""

    def __init__(self, gates: Several[PromptGate]) -> None:
        self._gates = gates

    def opens(self, prompts: Several[float], decoding: Several[float]) -> bool:
        """See `PromptGate`."""
        answers = [gate.opens(prompts, decoding) for gate in self._gates]
        return all(answers)

    def steps(self) -> int | None:
        """See `PromptGate`."""
        return min((steps for gate in self._gates if (steps := gate.steps()) is not None), default=None)

    def pass_by(self, steps: int) -> None:
        """See `PromptGate`."""
        for gate in self._gates:
            gate.pass_by(steps)

    def started(self) -> None:
        """See `PromptGate`."""
        for gate in self._gates:
            gate.started()


def prompt_gate(rules: AdmissionRules, ranks: int, seats: int) -> PromptGate | None:
    """The gate of a worker with so many attention-DP ranks and seats on each; None where prompts start at once."""
    gates: list[PromptGate] = []
    if (limit := rules.wait_all_ranks_steps) and ranks > 1:
        gates.append(BalanceGate(limit, rules.gather_prompts_steps, seats, rules.idle_rank_opens))
    if (limit := rules.batch_wait_steps) and ranks == 1:
        gates.append(FullStepGate(limit, rules.batch_wait_tokens, rules.tokens_per_sequence))
    if rules.rest_after_prompts_steps:
        gates.append(RestGate(rules.rest_after_prompts_steps))
    return Gates(gates) if len(gates) > 1 else next(iter(gates), None)
