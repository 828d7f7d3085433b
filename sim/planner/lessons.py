"""What one simulation says of other candidates: a pool that missed its objective misses it beside any other pool.

TTFT is the prefill pool's and TPOT the decode pool's, as long as the other one has room to spare.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sim.planner.budgets import budget
from sim.planner.holding import Simulated
from sim.planner.question import Objective
from sim.planner.screening import LATENCIES, PARTNER, Screened

Key = tuple[str, str, int]


@dataclass
class Lessons:
    """What was measured of each pool: so many workers of a shape, under a setting."""

    seen: dict[Key, list[Simulated]] = field(default_factory=dict)

    def learn(self, screened: Screened, points: Sequence[Simulated]) -> None:
        """Keep a candidate's points for its pools; where the partner was nearly full, they say nothing of a pool."""
        for role in screened.candidate.pools:
            partner = PARTNER.get(role)
            if partner is None:
                continue
            spare = screened.candidate.ratio[partner] * screened.parts[partner].capacity
            spare *= 1 - budget().estimate_tolerance
            known = self.seen.setdefault(_key(screened, role), [])
            known += [point for point in points if point.rate_per_s < spare]

    def bound(self, screened: Screened, objectives: Sequence[Objective]) -> float:
        """Arrivals per second of a replica that its pools were seen not to hold; infinite where nothing was seen."""
        allowed = 1 + budget().estimate_tolerance
        best = float("inf")
        for role in screened.candidate.pools:
            own = [one for one in objectives if one.metric in LATENCIES[role]]
            for point in self.seen.get(_key(screened, role), ()):
                if any(point.values_s[one.key] > one.bound_s for one in own):
                    best = min(best, point.rate_per_s * allowed)
        return best


def _key(screened: Screened, role: str) -> Key:
    one = screened.candidate
    return repr(sorted(one.setting.items())), repr((role, sorted(one.pools[role].items()))), one.ratio[role]
