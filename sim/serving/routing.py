"""Routing policies: which rank serves a request, and the loads that they compare.

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
from heapq import heappush, heapreplace
from operator import sub
from typing import Final, Protocol

from sim.scatter import scattered
from sim.serving.ranks import RankAddress, pool_ranks
from sim.serving.served_request import ServedRequest

FEW_WORKERS: Final = 8
"""Up to which looking at all of them is as fast as keeping them in order."""
STALE: Final = 2
"""Entries of the heap per worker at which the stale ones are cleared out."""
DIGIT: Final = 64
"""Bits that hold the load of any worker."""

Ranks = Sequence[RankAddress] | None
"""Some of the pool; None: all."""
Fits = Callable[[RankAddress], bool] | None
"""Rank of the pool -> whether it can take the request now; None: any can."""


class PoolLoads:
    """Loads of a pool's ranks and workers, changed in place as work comes and goes; none is below 0.

    Of each worker the best rank is known, and of many workers these are on a heap. A worker that has more to do stays
    where it is on it until it comes up. What they are ordered by is one number, (load of the rank, load of its worker,
    where the rank stands in `addresses`) in its digits: comparing three of them is slower.
    """

    __slots__ = (
        "_best", "_changed", "_count", "_dp", "_each", "_heap", "_loads", "_sums", "addresses", "of_worker",
    )  # fmt: skip

    def __init__(self, workers: int, dp: int) -> None:
        self.addresses = pool_ranks(workers, dp)
        self.of_worker = [self.addresses[worker::workers] for worker in range(workers)]
        """The ranks of each worker."""
        self._count, self._dp = workers, dp
        self._loads = [[0] * dp for _ in range(workers)]
        self._each = [0] * workers
        self._sums = [0] * workers
        """Of each worker, over its ranks."""
        self._best: list[int] = [*range(workers)]
        """Of each worker's best rank."""
        self._changed: set[int] = set()
        """Workers whose best rank may be another one by now."""
        self._heap = [*self._best] if workers > FEW_WORKERS else []
        """At least one entry of each worker that is no more than its best rank's; others are stale."""

    @property
    def ranks(self) -> list[int]:
        """In the order of `addresses`."""
        return [
            loads[rank] + each
            for rank in range(self._dp)
            for loads, each in zip(self._loads, self._each, strict=True)
        ]

    def of(self, worker: int) -> int:
        """The load of a worker: the sum over its ranks."""
        return self._sums[worker]

    def add(self, worker: int, rank: int, load: int) -> None:
        """Rank `rank` of a worker has so much more to do, or less."""
        self._loads[worker][rank] += load
        self._sums[worker] += load
        self._changed.add(worker)

    def follow(self, worker: int, loads: list[int]) -> None:
        """From now on the ranks of a worker have these loads, which their owner changes, and says so: `changed`."""
        self._loads[worker] = loads
        self.changed(worker, sum(loads))

    def changed(self, worker: int, load: int, each: int = 0) -> None:
        """The loads of a worker that are followed add up to `load` now, and each rank has `each` to do besides."""
        self._sums[worker], self._each[worker] = load + each * self._dp, each
        self._changed.add(worker)

    def without(self, found: Sequence[int]) -> PoolLoads:
        """The same, less what each rank has `found`, or each worker where its ranks find the same. What a worker has to
        do, by which equal ranks are told apart, is no less for that."""
        self._renew()
        less, count = PoolLoads.__new__(PoolLoads), self._count
        less.addresses, less.of_worker = self.addresses, self.of_worker
        less._count, less._dp, less._sums = count, self._dp, self._sums
        less._heap, less._changed = [], set()
        if len(found) == count:
            less._loads, less._each = self._loads, [*map(sub, self._each, found)]
            digit = len(self.addresses) << DIGIT
            less._best = [best - cached * digit for best, cached in zip(self._best, found, strict=True)]
            return less
        less._loads = [
            [load - cached for load, cached in zip(loads, found[worker::count], strict=True)]
            for worker, loads in enumerate(self._loads)
        ]
        less._each = self._each
        less._best = [*map(less._best_of, range(count))]
        return less

    def unsound(self) -> list[str]:
        """What should not be when everything is over: load that nobody carries."""
        return [f"{sum(self.ranks):,} of load were never taken off"] if any(self.ranks) else []

    def number(self, worker: int, rank: int) -> int:
        """Where a rank stands in `addresses`."""
        return rank * self._count + worker

    def order(self, address: RankAddress) -> tuple[int, int]:
        """What a rank is chosen by: its load, and among equals that of its worker, with which it steps."""
        worker, rank = address
        return self._loads[worker][rank] + self._each[worker], self.of(worker)

    def least(self) -> RankAddress:
        """The rank that comes first by `order`; among equals the first of `addresses`."""
        if self._changed:
            self._renew()
        best, heap, count = self._best, self._heap, self._count
        if not heap:
            return self.addresses[min(best) % len(self.addresses)]
        while (first := heap[0]) != (now := best[first % count]):
            heapreplace(heap, now)  # it has more to do by now
        return self.addresses[first % len(self.addresses)]

    def least_of(self, ranks: Sequence[RankAddress]) -> RankAddress:
        """The same of some ranks, there must be one: often all those of a worker, as they stand in `of_worker`."""
        worker = ranks[0].worker
        every = self.of_worker[worker]
        if ranks is every:
            loads = self._loads[worker]
            return every[loads.index(min(loads))]
        return min(ranks, key=self.order)

    def _renew(self) -> None:
        """Find the best ranks of the workers that have changed."""
        best, heap = self._best, self._heap
        for worker in self._changed:
            found = self._best_of(worker, self._sums[worker] == self._each[worker] * self._dp)
            if heap and found < best[worker]:
                heappush(heap, found)
            best[worker] = found
        self._changed.clear()
        if len(heap) > STALE * self._count:
            self._heap = sorted(best)

    def _best_of(self, worker: int, idle: bool = False) -> int:
        """The best rank of a worker: the three as digits, where `number` is the remainder by the number of ranks, the
        worker that by theirs. `idle`: its ranks have nothing of their own, so that the first is the best."""
        least, number = 0, worker
        if not idle:
            loads = self._loads[worker]
            least = min(loads)
            number += loads.index(least) * self._count
        return (((least + self._each[worker]) << DIGIT) + self._sums[worker]) * len(self.addresses) + number


class Router(Protocol):
    """A policy. It may keep state; every pool has its own."""

    by_prefix: bool
    """Whether loads are tokens, and count less where the prompt's prefix is cached."""

    def pick(
        self, request: ServedRequest, loads: PoolLoads, ranks: Ranks = None, fits: Fits = None
    ) -> RankAddress | None:
        """The rank for `request` among `ranks`, or None if it fits none of them."""
        ...


class RoundRobin:
    """Each request to the rank after the last one that took a request."""

    by_prefix = False

    def __init__(self) -> None:
        self._next = 0

    def pick(
        self, request: ServedRequest, loads: PoolLoads, ranks: Ranks = None, fits: Fits = None
    ) -> RankAddress | None:
        """See `Router.pick`."""
        among, number = loads.addresses if ranks is None else ranks, loads.number
        count = len(loads.addresses)
        for rank in sorted(among, key=lambda at: (number(*at) - self._next) % count):
            if fits is None or fits(rank):
                self._next = (number(*rank) + 1) % count
                return rank
        return None


class LeastLoaded:
    """Each request to the rank with the smallest load; among equals to the worker with the smallest, then to the first
    of `pool_ranks`."""

    by_prefix = False

    def pick(
        self, request: ServedRequest, loads: PoolLoads, ranks: Ranks = None, fits: Fits = None
    ) -> RankAddress | None:
        """See `Router.pick`."""
        best = loads.least() if ranks is None else loads.least_of(ranks)
        if fits is None or fits(best):
            return best
        for rank in sorted(loads.addresses if ranks is None else ranks, key=loads.order):
            if rank != best and fits(rank):
                return rank
        return None


class AnyWorker(LeastLoaded):
    """Each request to a worker drawn by its number, of those that can take it, and there to the rank with the smallest
    load: as from several frontends that take turns, each for itself."""

    def pick(
        self, request: ServedRequest, loads: PoolLoads, ranks: Ranks = None, fits: Fits = None
    ) -> RankAddress | None:
        """See `Router.pick`."""
        among = loads.addresses if ranks is None else ranks
        workers = sorted({at.worker for at in among if fits is None or fits(at)})
        if not workers:
            return None
        worker = workers[scattered(request.id) % len(workers)]
        return super().pick(request, loads, [at for at in among if at.worker == worker], fits)


class PrefixAware(LeastLoaded):
    """Each prompt to the rank with the least to compute: its load in tokens, less the prompt's prefix that it has.

    So a longer prefix makes up for a longer queue, token for token (the cost function of NVIDIA Dynamo's KV router
    with `overlap_score_weight` 1).
    """

    by_prefix = True


POLICIES: Final[dict[str, Callable[[], Router]]] = {
    "round_robin": RoundRobin,
    "least_loaded": LeastLoaded,
    "random": AnyWorker,
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
