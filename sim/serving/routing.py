"""Routing policies: which rank serves a request.

Ranks of a pool are numbered so that neighbours sit on different workers: rank r of worker w is r x workers + w.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from sim.serving.sequence import Sequence as Served

Fits = Callable[[int], bool]
"""Rank of the pool -> whether it can take the request now."""


class Router(Protocol):
    """A policy. It may keep state; every pool has its own."""

    by_prefix: bool
    """Whether loads are tokens, and count less where the prompt's prefix is cached."""

    def pick(self, request: Served, loads: Sequence[int], ranks: Sequence[int], fits: Fits) -> int | None:
        """The rank for `request` among `ranks`, or None if it fits none of them. `loads` are of the whole pool."""
        ...


class RoundRobin:
    """Each request to the rank after the last one that took a request."""

    by_prefix = False

    def __init__(self) -> None:
        self._next = 0

    def pick(self, request: Served, loads: Sequence[int], ranks: Sequence[int], fits: Fits) -> int | None:
        """See `Router.pick`."""
        count = len(loads)
        for rank in sorted(ranks, key=lambda r: (r - self._next) % count):
            if fits(rank):
                self._next = (rank + 1) % count
                return rank
        return None


class LeastLoaded:
    """Each request to the rank with the smallest load; the lowest number among equals."""

    by_prefix = False

    def pick(self, request: Served, loads: Sequence[int], ranks: Sequence[int], fits: Fits) -> int | None:
        """See `Router.pick`."""
        everywhere = len(ranks) == len(loads)
        best = loads.index(min(loads)) if everywhere else min(ranks, key=loads.__getitem__)
        if fits(best):
            return best
        for rank in sorted(ranks, key=loads.__getitem__):
            if rank != best and fits(rank):
                return rank
        return None


class PrefixAware(LeastLoaded):
    """Each prompt to the rank with the least to compute: its load in tokens, less the prompt's prefix that it has.

    So a longer prefix makes up for a longer queue, token for token (the cost function of NVIDIA Dynamo's KV router
    with `overlap_score_weight` 1).
    """

    by_prefix = True


def pool_loads(workers: Sequence[Sequence[int]]) -> list[int]:
    """Loads of all ranks of a pool, in its numbering, from those of each worker."""
    count = len(workers)
    loads = [0] * (count * len(workers[0]))
    for index, ranks in enumerate(workers):
        loads[index::count] = ranks
    return loads


POLICIES: Final[dict[str, Callable[[], Router]]] = {
    "round_robin": RoundRobin,
    "least_loaded": LeastLoaded,
    "prefix_aware": PrefixAware,
}


def make_router(name: str) -> Router:
    """A fresh router by its name in the scenario.

    Raises:
        LookupError: if there is no such policy.
    """
    if name not in POLICIES:
        raise LookupError(f"router '{name}' is not available; available: {', '.join(POLICIES)}")
    return POLICIES[name]()
