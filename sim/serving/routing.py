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
from typing import Final, Protocol

from sim.serving.ranks import RankAddress, pool_ranks
from sim.serving.served_request import ServedRequest

Fits = Callable[[RankAddress], bool]
"""Rank of the pool -> whether it can take the request now."""


class PoolLoads:
    """Loads of a pool's ranks and workers, changed in place as work comes and goes."""

    def __init__(self, workers: int, dp: int) -> None:
        self.addresses = pool_ranks(workers, dp)
        self.ranks = [0] * (workers * dp)
        """In the order of `addresses`."""
        self.workers = [0] * workers
        """Sums over the ranks of each."""

    def add(self, worker: int, rank: int, load: int) -> None:
        """Rank `rank` of a worker has so much more to do, or less."""
        self.ranks[self.number(worker, rank)] += load
        self.workers[worker] += load

    def put(self, worker: int, loads: Sequence[int]) -> None:
        """The ranks of a worker now have these loads."""
        self.ranks[worker :: len(self.workers)] = loads
        self.workers[worker] = sum(loads)

    def without(self, found: Sequence[int]) -> PoolLoads:
        """The same, less what each rank has `found`."""
        less = PoolLoads(len(self.workers), 0)
        less.addresses = self.addresses
        less.ranks = [load - there for load, there in zip(self.ranks, found, strict=True)]
        less.workers = self.workers
        return less

    def unsound(self) -> list[str]:
        """What should not be when everything is over: load that nobody carries."""
        return [f"{sum(self.ranks):,} of load were never taken off"] if any(self.ranks) else []

    def number(self, worker: int, rank: int) -> int:
        """Where a rank stands in `addresses`."""
        return rank * len(self.workers) + worker

    def order(self, address: RankAddress) -> tuple[int, int]:
        """What a rank is chosen by: its load, and among equals that of its worker, with which it steps."""
        return self.ranks[self.number(*address)], self.workers[address.worker]

    def least(self) -> RankAddress:
        """The rank that comes first by `order`; among equals the first of `addresses`."""
        load = min(self.ranks)
        first = self.addresses[self.ranks.index(load)]
        if self.workers[first.worker] == min(self.workers):
            return first
        equals = [at for at, one in zip(self.addresses, self.ranks, strict=True) if one == load]
        return min(equals, key=lambda at: self.workers[at.worker])


class Router(Protocol):
    """A policy. It may keep state; every pool has its own."""

    by_prefix: bool
    """Whether loads are tokens, and count less where the prompt's prefix is cached."""

    def pick(
        self, request: ServedRequest, loads: PoolLoads, ranks: Sequence[RankAddress], fits: Fits
    ) -> RankAddress | None:
        """The rank for `request` among `ranks`, or None if it fits none of them."""
        ...


class RoundRobin:
    """Each request to the rank after the last one that took a request."""

    by_prefix = False

    def __init__(self) -> None:
        self._next = 0

    def pick(
        self, request: ServedRequest, loads: PoolLoads, ranks: Sequence[RankAddress], fits: Fits
    ) -> RankAddress | None:
        """See `Router.pick`."""
        count, number = len(loads.ranks), loads.number
        for rank in sorted(ranks, key=lambda at: (number(*at) - self._next) % count):
            if fits(rank):
                self._next = (number(*rank) + 1) % count
                return rank
        return None


class LeastLoaded:
    """Each request to the rank with the smallest load; among equals to the worker with the smallest, then to the first
    of `pool_ranks`."""

    by_prefix = False

    def pick(
        self, request: ServedRequest, loads: PoolLoads, ranks: Sequence[RankAddress], fits: Fits
    ) -> RankAddress | None:
        """See `Router.pick`."""
        everywhere = len(ranks) == len(loads.ranks)
        best = loads.least() if everywhere else min(ranks, key=loads.order)
        if fits(best):
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
