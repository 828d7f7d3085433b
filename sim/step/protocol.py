"""A batch -> one step's seconds.

The cluster asks only through `StepCost`; `sim.step.cost` makes the real one from surfaces of priced operations.
"""

from collections.abc import Sequence
from typing import Protocol

from sim.step.load import PromptLoad
from sim.step.overlap import Line


class DecodeTable(Protocol):
    """What decode steps cost at one number of drafts."""

    def attention(self, x: int, context: float) -> tuple[float, float, float, float]:
        """Attention seconds of a rank with `x` sequences of `context` KV tokens on average, what each further token of
        that context adds, the context up to which it does, and the most that a token adds at any longer one."""
        ...

    def line(self, fullest: int, mean: float) -> Line:
        """Seconds of a step by those of its slowest rank's attention; by the sequences of the fullest rank and their
        mean over the ranks."""
        ...

    def book(self, x: int, context: float, seconds: float) -> None:
        """Steps that lasted `seconds` have been run: count them in `StepCost.provenance_s`. `context`: the end of the
        segment that `attention` told."""
        ...


class StepCost(Protocol):
    """Seconds of the steps of one worker, whose ranks run in lock-step: a step lasts as long as its slowest rank."""

    def decode_table(self, fullest: int) -> DecodeTable:
        """Of decode steps whose fullest rank holds so many sequences; the same object until drafts change."""
        ...

    def prefill_s(self, load: PromptLoad) -> float:
        """One prefill step. Books nothing."""
        ...

    def together_s(self, sequences: Sequence[int], attention_s: Sequence[float], load: PromptLoad) -> float:
        """One step that decodes and computes prompt tokens together (aggregated serving); `sequences` per rank, and the
        `attention_s` of their decode alone. Books nothing."""
        ...

    def beside_s(self, fullest: int, sequences: int, attention_s: float, load: PromptLoad) -> float:
        """One step in which some ranks compute prompt tokens and others decode: sequences of the `fullest` of these and
        of them all, and the `attention_s` of the slowest. Books nothing."""
        ...

    def book_prefill(self, load: PromptLoad, seconds: float) -> None:
        """A step, or the part of a mixed one, that computed these prompt tokens for `seconds` has been run: count it in
        `provenance_s`."""
        ...

    def provenance_s(self) -> dict[str, float]:
        """Booked seconds so far, by the source that priced them."""
        ...
