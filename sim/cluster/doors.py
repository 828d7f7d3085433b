"""Which workers of a pool the router may choose, and where each request is."""

from collections.abc import Callable

from sim.serving.ranks import RankAddress, pool_ranks
from sim.serving.routing import Fits, PoolLoads, Ranks, Router
from sim.serving.served_request import ServedRequest


class Door:
    """Open to some workers of a pool; to none at first."""

    def __init__(self, workers: int, dp: int) -> None:
        self._addresses = pool_ranks(workers, dp)
        self._count = workers
        self._open: set[int] = set()
        self.ranks: Ranks = ()
        """Of the open workers; None: all."""

    def __contains__(self, worker: int) -> bool:
        return worker in self._open

    @property
    def shut(self) -> bool:
        """Whether no worker is open."""
        return not self._open

    def set(self, worker: int, is_open: bool) -> None:
        """Open a worker, or close it."""
        (self._open.add if is_open else self._open.discard)(worker)
        few = len(self._open) < self._count
        self.ranks = tuple(at for at in self._addresses if at.worker in self._open) if few else None


class Doorkeeper:
    """A router that sees only open workers, and tells whom it chose for what."""

    def __init__(
        self, router: Router, door: Door, chosen: Callable[[ServedRequest, int], None] | None = None
    ) -> None:
        self._router, self._door, self._chosen = router, door, chosen
        self.by_prefix = router.by_prefix

    def pick(
        self, request: ServedRequest, loads: PoolLoads, ranks: Ranks = None, fits: Fits = None
    ) -> RankAddress | None:
        """See `Router.pick`."""
        among = self._door.ranks if ranks is None else ranks
        if among is not None and not among:
            return None
        place = self._router.pick(request, loads, among, fits)
        if place is not None and self._chosen is not None:
            self._chosen(request, place.worker)
        return place


class Whereabouts:
    """The worker that answers for each request that is not done."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, int], dict[int, ServedRequest]] = {}
        self._at: dict[int, dict[int, ServedRequest]] = {}

    def put(self, role: str, sequence: ServedRequest, worker: int) -> None:
        """It goes to this worker, and leaves the one where it was."""
        self.forget(sequence.id)
        self._at[sequence.id] = here = self._of.setdefault((role, worker), {})
        here[sequence.id] = sequence

    def forget(self, index: int) -> None:
        """It is done, or with nobody."""
        here = self._at.pop(index, None)
        if here is not None:
            del here[index]

    def count(self, role: str, worker: int) -> int:
        """Requests of a worker."""
        return len(self._of.get((role, worker), ()))

    def take(self, role: str, worker: int) -> list[ServedRequest]:
        """All requests of a worker, which has none any more."""
        gone = [*self._of.get((role, worker), {}).values()]
        for sequence in gone:
            self.forget(sequence.id)
        return gone
