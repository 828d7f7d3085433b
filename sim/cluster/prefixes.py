"""The prefix caches of the pool that computes prompts: which prompt finds what, and when its blocks are kept.

A prompt looks for its prefix twice: where it is routed, to know what is left to compute, and for good when its prefill
starts. Others find its own blocks from the end of its prefill on; nobody waits for a prefix that another prompt is just
computing. What is found below the GPU's own memory is fetched layer by layer while the layers before compute (SGLang
HiCache, Mooncake): the step that starts the prompt lasts at least as long as the fetch.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import starmap
from operator import mul

from sim.cluster.setup import PoolSetup, PrefixSetup
from sim.serving.prefix_cache import BlockCache
from sim.serving.ranks import RankAddress, pool_ranks
from sim.serving.routing import PoolLoads, Router
from sim.serving.served_request import ServedRequest


class Prefixes:
    """One cache per rank, per worker, or one for the pool. Without a setup, what the workload says is cached."""

    def __init__(
        self, setup: PrefixSetup | None, pool: PoolSetup, held_blocks: Callable[[int, Sequence[int]], int]
    ) -> None:
        """`held_blocks`: worker of the pool, ranks of it -> KV blocks that their sequences hold."""
        self._setup, self._held_blocks = setup, held_blocks
        self._block_tokens = pool.block_tokens
        ranks = pool_ranks(pool.workers, pool.dp) if setup else ()
        self._ranks_of = _units(setup.scope, ranks) if setup else []
        self._unit_of = {at: unit for unit, ranks in enumerate(self._ranks_of) for at in ranks}
        self._shares = [_by_worker(ranks) for ranks in self._ranks_of]
        """Of each cache: its workers, and the ranks of each."""
        each = [RankAddress(worker, 0) for worker in range(pool.workers)]
        of_rank = setup is not None and setup.scope == "rank"
        self._units = [self._unit_of[at] for at in (ranks if of_rank else each)] if setup else []
        """Of all ranks in turn, or of all workers where the ranks of each share one."""
        self._caches = [BlockCache(setup.tiers, setup.block_tokens) for _ in self._ranks_of] if setup else []
        self.kept = bool(self._caches)
        """Whether there are caches: what they hold depends on when KV is released."""

    def place(self, sequence: ServedRequest, router: Router, loads: PoolLoads) -> RankAddress:
        """The rank of the pool that a router chooses for a prompt, and what the prompt expects to find there.

        Where the router looks for prefixes, loads are tokens: less what each rank would not have to compute.
        """
        caches, blocks, tokens = self._caches, sequence.blocks, sequence.prompt_tokens
        found: list[int] = []
        if router.by_prefix and len(caches) > 1:
            found = [cache.found(blocks, tokens) for cache in caches]
            if any(found):
                loads = loads.without([found[unit] for unit in self._units])
        at = router.pick(sequence, loads)
        assert at is not None
        if caches:
            sequence.unit = unit = self._unit_of[at]
            sequence.cached_tokens = found[unit] if found else caches[unit].found(blocks, tokens)
        return at

    def admit(self, sequence: ServedRequest) -> None:
        """Its prefill starts: what is cached now need not be computed, but fetched."""
        if self._setup is None:
            return
        cache = self._caches[sequence.unit]
        sequence.cached_by_tier = cache.lookup(sequence.blocks, sequence.prompt_tokens)
        sequence.cached_tokens = sum(sequence.cached_by_tier)
        sequence.fetch_s = sum(map(mul, sequence.cached_by_tier, self._setup.fetch_s_per_token))

    def computed(self, sequence: ServedRequest) -> None:
        """Its prefill has ended: others find the prompt's blocks, which it holds."""
        if self._caches:
            sequence.held = self._caches[sequence.unit].hold(sequence.blocks)
            self._make_room(sequence.unit)

    def release(self, sequence: ServedRequest, answered: bool = False) -> None:
        """The pool's KV blocks of the sequence have been given back; `answered`: its answer stands behind the prompt.

        Blocks of an answer are kept where it is known that a later prompt goes on from them.
        """
        if not self._caches:
            return
        self._make_room(sequence.unit)
        cache = self._caches[sequence.unit]
        assert sequence.held is not None
        cache.release(sequence.held)
        sequence.held = None
        if answered and sequence.answer_blocks:
            cache.insert((*sequence.blocks, *sequence.answer_blocks))

    def answer(self, sequence: ServedRequest) -> None:
        """Another pool has generated the answer: its KV returns to a cache that serves the whole cluster."""
        if self._setup is not None and self._setup.scope == "cluster" and sequence.answer_blocks:
            self._caches[0].insert((*sequence.blocks, *sequence.answer_blocks))

    def lose(self, worker: int, holding: Iterable[ServedRequest]) -> None:
        """A worker is gone, with the caches that only its ranks used; `holding`: sequences that held blocks there.

        A cache of the whole cluster stays: what one worker had of it is not told apart.
        """
        for unit, ranks in enumerate(self._ranks_of):
            if self._setup is not None and all(at.worker == worker for at in ranks):
                self._caches[unit] = BlockCache(self._setup.tiers, self._setup.block_tokens)
                holding = [sequence for sequence in holding if sequence.unit != unit]
        for sequence in holding:
            self.release(sequence)

    def unsound(self) -> list[str]:
        """What should not be when everything is over: blocks that are held by nobody."""
        held = sum(cache.running_blocks for cache in self._caches)
        return [f"{held:,} blocks of the prefix cache were never released"] if held else []

    def _make_room(self, unit: int) -> None:
        """Where nothing is set aside for the cache, it has what running sequences leave."""
        assert self._setup is not None
        if self._setup.shares_hbm:
            held = sum(starmap(self._held_blocks, self._shares[unit]))
            room = self._setup.tiers[0].capacity_tokens - held * self._block_tokens
            self._caches[unit].resize(0, room)


def _units(scope: str, ranks: Iterable[RankAddress]) -> list[list[RankAddress]]:
    """The ranks that each cache serves."""
    units: dict[object, list[RankAddress]] = {}
    for at in ranks:
        units.setdefault({"cluster": None, "worker": at.worker, "rank": at}[scope], []).append(at)
    return list(units.values())


def _by_worker(ranks: Iterable[RankAddress]) -> list[tuple[int, list[int]]]:
    """The same ranks, those of a worker together."""
    workers: dict[int, list[int]] = {}
    for at in ranks:
        workers.setdefault(at.worker, []).append(at.rank)
    return [*workers.items()]
