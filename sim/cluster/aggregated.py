"""A cluster of one pool whose workers compute prompts and generate tokens on the same GPUs."""

from collections.abc import Mapping, Sequence

from sim.cluster.clock import Clock
from sim.cluster.ledger import Ledger, Meter
from sim.cluster.prefixes import Prefixes
from sim.cluster.record import PoolRecord
from sim.cluster.serve_worker import ServeWorker
from sim.cluster.setup import ClusterPlan
from sim.cluster.window import Window
from sim.serving.routing import PoolLoads, Router, make_router
from sim.serving.served_request import ServedRequest
from sim.step import StepCost


class AggregatedCluster:
    """Router and serve workers."""

    def __init__(
        self, clock: Clock, ledger: Ledger, plan: ClusterPlan, costs: Mapping[str, StepCost], router: str,
        window: Window,
    ) -> None:  # fmt: skip
        self._ledger, self._plan, self._setup = ledger, plan, plan.pools["serve"]
        self._meter = Meter(self._setup, window)
        self._prefixes = Prefixes(plan.prefixes, self._setup, self._held_blocks)
        self._router = self._router_of("serve", router)
        self._loads = PoolLoads(self._setup.workers, self._setup.dp)
        self._clock, self._cost = clock, costs["serve"]
        self._workers = [self._worker(w) for w in range(self._setup.workers)]

    def submit(self, sequences: list[ServedRequest]) -> None:
        """See `Frontend.submit`."""
        woken = []
        for sequence in sequences:
            if sequence.prompt_tokens + sequence.output_tokens <= self._plan.most_tokens:
                woken.append(self._enqueue(sequence))
            else:
                self._ledger.reject(sequence)
        for worker in woken:
            worker.wake()

    def records(self) -> dict[str, PoolRecord]:
        """Totals of the pool."""
        batches = [worker.batch for worker in self._workers]
        ranks = [rank for batch in batches for rank in batch.ranks]
        peak, left = self._meter.peak.blocks, sum(r.demand for r in ranks)
        return {"serve": self._meter.record(peak, left, batches)}

    def unsound(self) -> list[str]:
        """What should not be when no timer is left: work that nobody does."""
        return (
            [
                f"serve worker {index} stands still with work before it"
                for index, worker in enumerate(self._workers)
                if worker.stands_still()
            ]
            + self._prefixes.unsound()
            + self._loads.unsound()
        )

    def _router_of(self, role: str, name: str) -> Router:
        return make_router(name)

    def _worker(self, index: int) -> ServeWorker:
        """One that holds nothing."""
        return ServeWorker(
            index, self._weigh, self._clock, self._ledger, self._meter, self._plan, self._cost, self._prefixes
        )

    def _held_blocks(self, worker: int, ranks: Sequence[int]) -> int:
        batch = self._workers[worker].batch
        return sum([batch.ranks[rank].used_after(batch.step) for rank in ranks])

    def _enqueue(self, sequence: ServedRequest) -> ServeWorker:
        place = self._prefixes.place(sequence, self._router, self._loads)
        worker = self._workers[place.worker]
        worker.submit(sequence, place.rank)
        return worker

    def _weigh(self, worker: int, rank: int, sequence: ServedRequest, sign: int) -> None:
        """A request has come to a rank (`sign` 1) or is done (-1)."""
        self._loads.add(worker, rank, sign * (sequence.prompt_tokens if self._router.by_prefix else 1))
