"""From the rate that one replica holds to a deployment: whole replicas, whole nodes or racks, dollars per hour."""

from dataclasses import dataclass
from math import ceil, inf

from sim.planner.question import Question
from sim.planner.screening import Screened
from sim.price import purchase
from sim.scenario.section import MOST_GPUS

NEARLY = 1e-9
"""By which a quotient may exceed a whole number before it counts as the next: floating point."""


@dataclass(frozen=True)
class Size:
    """A candidate in the number that some traffic needs."""

    replicas: int
    gpus: int
    paid: int
    usd_per_hour: float

    @property
    def stranded(self) -> int:
        """GPUs that are paid for, and that no worker uses."""
        return self.paid - self.gpus


def most_replicas(screened: Screened) -> int:
    """Replicas that a scenario may have, with one to spare."""
    return max(1, MOST_GPUS // screened.candidate.gpus - 1)


def replicas_for(rate_per_s: float, held_per_s: float) -> int:
    """Replicas that carry a rate, each no more than it holds."""
    return max(1, ceil(rate_per_s / held_per_s - NEARLY))


def sized(question: Question, screened: Screened, replicas: int, spare: int = 0) -> Size:
    """So many replicas, with `spare` more workers in each pool.

    USD per hour = whole units of purchase x GPUs in each x USD per GPU-hour x (1 + overhead) + storage
    """
    candidate, part = screened.candidate, screened.any_part
    gpus = replicas * candidate.gpus + spare * sum(int(shape["gpus"]) for shape in candidate.pools.values())
    paid = int(purchase(gpus, part.unit_gpus).bought)
    shared = question.loaded.scenario.prefix_cache.scope == "cluster"
    storage = sum(
        of_pool.storage_usd_per_hour * (1 if shared else replicas * candidate.ratio[role] + spare)
        for role, of_pool in screened.parts.items()
    )
    return Size(replicas, gpus, paid, paid * part.usd_per_gpu_hour + storage)


Rank = tuple[float, int, float, str]
LAST: Rank = (inf, 0, 0.0, "")


def rank(screened: Screened, size: Size, held_per_s: float) -> Rank:
    """What comes first wins: the cheaper, then the smaller, then the one whose replicas hold more, then by name, so
    that there is always one answer. `held_per_s`: of a replica; where nothing was simulated what it holds at most."""
    return size.usd_per_hour, size.gpus, -held_per_s * size.replicas, screened.candidate.name


def most_replicas_below(question: Question, screened: Screened, best: Rank, at_most_per_s: float) -> int:
    """The most replicas that could still win over `best` within the GPUs that are allowed; 0: none could.

    `at_most_per_s`: what a replica holds at most."""
    part, each = screened.any_part, screened.candidate.gpus
    most = inf if question.max_gpus is None else question.max_gpus // each
    if best < LAST:
        most = min(most, best[0] / (part.usd_per_gpu_hour * each) + 1)
    if most == inf:
        return NO_LIMIT
    count = int(most)
    while count > 0:
        size = sized(question, screened, count)
        if rank(screened, size, at_most_per_s) < best and allowed(question, size):
            return count
        count -= 1
    return 0


def rate_to_win(
    question: Question, screened: Screened, best: Rank, at_most_per_s: float, peak_per_s: float
) -> tuple[float, bool]:
    """Arrivals per second that a replica must hold to win over `best`, infinite where it cannot; and whether it then
    wins by its room alone, at the same price on as many GPUs."""
    most = most_replicas_below(question, screened, best, at_most_per_s)
    if most == 0:
        return inf, False
    if most == NO_LIMIT:
        return 0.0, False
    size = sized(question, screened, most)
    if (size.usd_per_hour, size.gpus) != best[:2]:
        return peak_per_s / most, False
    cheaper = peak_per_s / (most - 1) if most > 1 else inf
    roomier = max(peak_per_s, -best[2]) / most
    return min(cheaper, roomier), roomier < cheaper


NO_LIMIT = 10**9
"""Replicas, where neither a price nor a number of GPUs bounds them."""


def allowed(question: Question, size: Size) -> bool:
    """Whether no more GPUs are paid for than the question allows, or than a scenario may have."""
    return size.paid <= (question.max_gpus or MOST_GPUS)
