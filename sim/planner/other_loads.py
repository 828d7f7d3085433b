"""What candidates hold beyond where the search left them: those that could not win at this load may at another.

The rates that one replica is tried at do not depend on the load, so that what was simulated stays known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sim.parallel import Crew
from sim.planner.budgets import budget, telling
from sim.planner.entry import SAFE, Entry
from sim.planner.holding import Bracket, Held, HoldJob, Target, hold, lost
from sim.planner.search import Found, wanted
from sim.planner.sizing import NEARLY, Rank, rate_to_win


@dataclass
class Ends:
    """The rate that one replica holds with the margin, and the one that it does not, as far as is known by now."""

    found: Found
    seed: int
    crew: Crew
    resumed: dict[str, Held] = field(default_factory=dict)
    """By candidate: all that was simulated of it, where that was here."""
    asked: set[tuple[float, str]] = field(default_factory=set)
    """Load and candidate: a load asks each once."""

    def of(self, entry: Entry) -> tuple[float, float]:
        """(held, not held), arrivals per second of a replica alone."""
        low, high = 0.0, self.found.bound(entry, SAFE)
        for held in (entry.held, self.resumed.get(_name(entry))):
            if held is not None:
                low, high = max(low, held.brackets[-1].low), min(high, held.brackets[-1].high)
        return low, max(low, high)

    def finished(self, entry: Entry) -> bool:
        """Whether no simulation would tell more: its ends are a step apart, or it cannot be simulated."""
        held = self.resumed.get(_name(entry)) or entry.held
        low, high = self.of(entry)
        step = entry.screened.capacity * (1 + budget().estimate_tolerance) / 2 ** budget().halvings
        return high - low <= step * (1 + NEARLY) or (held is not None and held.why_not is not None)

    def resume(self, left: Sequence[Entry], load: float, best: Rank) -> bool:
        """Simulate the first of these as far as they may win over the best under a load, in shares of the traffic's;
        False where it has asked for as many as it may."""
        found = self.found
        room = telling().sensitivity_resumed - sum(asked == load for asked, _ in self.asked)
        some = [e for e in left if (load, _name(e)) not in self.asked][: min(room, budget().round)]
        jobs = []
        for entry in some:
            peak_per_s, at_most = found.peak_per_s(entry, SAFE) * load, found.bound(entry, SAFE)
            to_win, _ = rate_to_win(found.question, entry.screened, best, at_most, peak_per_s)
            target = Target(wanted(entry, found.question, SAFE), at_most, to_win)
            held = self.resumed.get(_name(entry)) or entry.held
            known = held.points if held else ()
            jobs.append(HoldJob(found.question, found.traffic, entry.screened, (target,), self.seed, known))
        for entry, job, held in zip(some, jobs, self.crew.map(hold, jobs, lost), strict=True):
            found.requests += max(0, held.requests - sum(point.requests for point in job.known))
            low, high = self.of(entry)
            [now] = held.brackets
            known_by_now = Bracket(
                max(low, now.low), min(high, now.high)
            )  # a load may stop earlier than the last
            self.resumed[_name(entry)] = replace(held, brackets=(known_by_now,))
            self.asked.add((load, _name(entry)))
        return bool(some)


def _name(entry: Entry) -> str:
    return entry.screened.candidate.name
