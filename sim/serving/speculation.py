"""How many decode steps a sequence needs."""

from typing import Protocol


class Speculation(Protocol):
    """Draws the steps of a sequence once, when it is admitted to decode."""

    def steps(self, request: int, tokens: int) -> int:
        """Steps in which `request` generates `tokens` tokens, between 1 and `tokens`.

        A pure function of the run's seed and its arguments, whatever else happens in the run.
        """
        ...


class OneTokenPerStep:
    """No speculation."""

    def steps(self, request: int, tokens: int) -> int:
        """See `Speculation.steps`."""
        return tokens
