"""Routing policies: which rank serves a request, and the loads that they compare.

Ranks of a pool are numbered so that neighbours sit on different workers: rank r of worker w is r x workers + w.

A load counts what waits and what is under way, so that a busy worker never looks idle:

- prefill: prompt tokens, of the queue and of the step that runs. The ranks of a worker step together, so a step
  takes its fullest rank's tokens away from each of them, until it ends;
- decode, and workers that do both: requests, from the choice of the rank to the last token. Looking for prefixes,
  workers that do both count the prompt tokens of these requests.

Routers of engines count alike: SGLang's data-parallel controller the requests of a rank, running and waiting, or their
tokens (`--load-balance-method`); vLLM 4 x waiting + running requests of a rank (`DPLBAsyncMPClient`, v0.10.2); NVIDIA
Dynamo's KV router the prompt tokens assigned to a rank and not yet computed, and its active KV blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Final, Protocol

from sim.serving.sequence import Sequence as Served

FEW_RANKS: Final = 64
"""Ranks of a pool up to which looking at all of them is as fast as keeping them in order."""
STALE: Final = 8
"""Entries of the heap per worker at which the stale ones are cleared out."""

Fits = Callable[[int], bool] | None
"""Rank of the pool -> whether it can take the request now; None: any can."""


class PoolLoads:
    """Loads of a pool's ranks and workers, changed in place as work comes and goes.

    Of a large pool each worker's best rank is on a heap. What a change makes stale is left there until it comes up.
    """

    def __init__(self, workers: int, dp: int) -> None:
        self.ranks = [0] * (workers * dp)
        """In the numbering of the pool."""
        self.workers = [0] * workers
        """Sums over the ranks of each."""
        self._heap: list[tuple[int, int, int]] = []
        """(load of the rank, load of its worker, rank) of each worker's best rank, and stale ones. Empty: not kept."""
        self._best: list[tuple[int, int, int]] = []
        self._changed: set[int] = set()
        """Workers whose best rank may be another one by now."""
        if workers > 1 and workers * dp > FEW_RANKS:
            self._best = [(0, 0, worker) for worker in range(workers)]
            self._heap = [*self._best]

    def add(self, worker: int, rank: int, load: int) -> None:
        """Rank `rank` of a worker has so much more to do, or less."""
        self.ranks[rank * len(self.workers) + worker] += load
        self.workers[worker] += load
        if self._heap:
            self._changed.add(worker)

    def put(self, worker: int, loads: Sequence[int]) -> None:
        """The ranks of a worker now have these loads."""
        self.ranks[worker :: len(self.workers)] = loads
        self.workers[worker] = sum(loads)
        if self._heap:
            self._changed.add(worker)

    def without(self, found: Sequence[int]) -> PoolLoads:
        """The same, less what each rank has `found`."""
        less = PoolLoads(len(self.workers), 0)
        less.ranks = [load - there for load, there in zip(self.ranks, found, strict=True)]
        less.workers = self.workers
        return less

    def unsound(self) -> list[str]:
        """What should not be when everything is over: load that nobody carries."""
        return [f"{sum(self.ranks):,} of load were never taken off"] if any(self.ranks) else []

    def order(self, rank: int) -> tuple[int, int]:
        """What a rank is chosen by: its load, and among equals that of its worker, with which it steps."""
        return self.ranks[rank], self.workers[rank % len(self.workers)]

    def least(self) -> int:
        """The rank that comes first by `order`; the lowest number among equals."""
        count = len(self.workers)
        if self._heap:
            for worker in self._changed:
                self._note(worker)
            self._changed.clear()
            heap, best = self._heap, self._best
            while heap[0] != best[heap[0][2] % count]:
                heappop(heap)
            return heap[0][2]
        load = min(self.ranks)
        first = self.ranks.index(load)
        if count == 1 or self.workers[first % count] == min(self.workers):
            return first
        equals = [rank for rank, one in enumerate(self.ranks) if one == load]
        return min(equals, key=lambda rank: self.workers[rank % count])

    def _note(self, worker: int) -> None:
        """The loads of a worker have changed."""
        count = len(self.workers)
        loads = self.ranks[worker::count]
        least = min(loads)
        best = least, self.workers[worker], loads.index(least) * count + worker
        if best == self._best[worker]:
            return
        self._best[worker] = best
        if len(self._heap) < STALE * count:
            heappush(self._heap, best)
        else:
            self._heap = sorted(self._best)


class Router(Protocol):
    """A policy. It may keep state; every pool has its own."""

    by_prefix: bool
    """Whether loads are tokens, and count less where the prompt's prefix is cached."""

    def pick(self, request: Served, loads: PoolLoads, ranks: Sequence[int], fits: Fits) -> int | None:
        """The rank for `request` among `ranks`, or None if it fits none of them."""
        ...


class RoundRobin:
    """Each request to the rank after the last one that took a request."""

    by_prefix = False

    def __init__(self) -> None:
        self._next = 0

    def pick(self, request: Served, loads: PoolLoads, ranks: Sequence[int], fits: Fits) -> int | None:
        """See `Router.pick`."""
        count = len(loads.ranks)
        for rank in sorted(ranks, key=lambda r: (r - self._next) % count):
            if fits is None or fits(rank):
                self._next = (rank + 1) % count
                return rank
        return None


class LeastLoaded:
    """Each request to the rank with the smallest load; among equals to the worker with the smallest, then the lowest
    number."""

    by_prefix = False

    def pick(self, request: Served, loads: PoolLoads, ranks: Sequence[int], fits: Fits) -> int | None:
        """See `Router.pick`."""
        everywhere = len(ranks) == len(loads.ranks)
        best = loads.least() if everywhere else min(ranks, key=loads.order)
        if fits is None or fits(best):
            return best
        for rank in sorted(ranks, key=loads.order):
            if rank != best and fits(rank):
                return rank
        return None


class PrefixAware(LeastLoaded):
    """Each prompt to the rank with the least to compute: its load in tokens, less the prompt's prefix that it has.

    So a longer prefix makes up for a longer queue, token for token (the cost function of NVIDIA Dynamo's KV router
    with `overlap_score_weight` 1).
    """

    by_prefix = True


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
