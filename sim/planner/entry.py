"""A candidate in the search, and what is known of it so far."""

from dataclasses import dataclass, field

from sim.planner.holding import Held
from sim.planner.margin import Margin
from sim.planner.screening import Screened
from sim.planner.sizing import Rank, Size, rank

PLAIN, SAFE = 0, 1
"""Targets: the objectives as they are, and with the expected error as margin."""


@dataclass(eq=False)
class Entry:
    """A candidate and what is known of it."""

    screened: Screened
    bound: float
    """Arrivals per second of a replica, by the estimate, without queues."""
    optimistic: Size | None = None
    """What it would cost at that."""
    margin: Margin | None = None
    held: Held | None = None
    sizes: list[Size | None] = field(default_factory=lambda: [None, None])
    """For PLAIN and SAFE, where it holds; beyond the GPUs that are allowed, too."""
    together: list[float] = field(default_factory=lambda: [1.0, 1.0])
    """For PLAIN and SAFE: what its replicas hold behind one router over what they hold each alone."""

    def held_per_s(self, target: int) -> float:
        """Arrivals per second that a replica alone holds, as simulated; 0 where none was."""
        return self.held.brackets[target].low if self.held else 0.0

    def rank(self, target: int) -> Rank:
        """Its place among those that hold."""
        size = self.sizes[target]
        assert size is not None
        return rank(self.screened, size, self.held_per_s(target))
