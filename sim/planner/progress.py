"""How far a search is: simulated requests done, and how many there may be."""

from collections.abc import Callable

Tick = Callable[[int, int], None]
"""Is told (requests done, of all as far as is known)."""


class Progress:
    """Simulated requests done, and how many there may be, as far as is known."""

    def __init__(self, tick: Tick | None, estimates: int) -> None:
        self.tick, self.done, self.estimates = tick, 0, estimates
        self.candidates, self.simulated = 0, 0

    def __call__(self, done: int, candidates: int | None = None, left: int = 0) -> None:
        self.done += done
        total = 2 * self.estimates  # before the first round: as much again
        if candidates is not None:
            self.candidates, self.simulated = self.candidates + 1, self.simulated + done
            total = self.done + min(left, candidates * self.simulated // self.candidates)
        if self.tick:
            self.tick(self.done, max(self.done, total))

    def finish(self) -> None:
        if self.tick:
            self.tick(self.done, self.done)
