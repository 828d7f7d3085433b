"""A cluster whose prompts are computed on one pool and whose tokens are generated on another."""

from collections.abc import Iterable, Mapping, Sequence

from sim.cluster.clock import Clock
from sim.cluster.decode_worker import DecodeWorker
from sim.cluster.ledger import Ledger, Meter
from sim.cluster.prefill_worker import PrefillWorker
from sim.cluster.prefixes import Prefixes
from sim.cluster.record import PoolRecord
from sim.cluster.setup import ClusterPlan
from sim.cluster.transfer import Handoff
from sim.cluster.window import Window
from sim.serving.routing import PoolLoads, Router, make_router
from sim.serving.served_request import ServedRequest
from sim.step import StepCost


class DisaggregatedCluster:
    """Router, prefill workers, handoff, decode workers."""

    def __init__(
        self, clock: Clock, ledger: Ledger, plan: ClusterPlan, costs: Mapping[str, StepCost], router: str,
        window: Window,
    ) -> None:  # fmt: skip
        self._ledger, self._most_tokens = ledger, plan.most_tokens
        self._clock, self._plan, self._costs = clock, plan, costs
        self._prefill, self._decode = plan.pools["prefill"], plan.pools["decode"]
        self.meters = {role: Meter(plan.pools[role], window) for role in ("prefill", "decode")}
        self._prefixes = Prefixes(plan.prefixes, self._prefill, self._held_blocks)
        self._decode_loads = PoolLoads(self._decode.workers, self._decode.dp)
        self._chosen = PoolLoads(self._decode.workers, 1)
        self._decoders = [self._decoder(w) for w in range(self._decode.workers)]
        self._handoff = self._handoff_by(router)
        self._room_first = plan.handover.room_first
        self._loads = PoolLoads(self._prefill.workers, self._prefill.dp)
        self._prefillers = [self._prefiller(w) for w in range(self._prefill.workers)]
        for index, worker in enumerate(self._prefillers):
            self._loads.follow(index, worker.queues.queued_tokens)
        self._router = self._router_of("prefill", router)

    def submit(self, sequences: list[ServedRequest]) -> None:
        """See `Frontend.submit`."""
        ready = []
        for sequence in sequences:
            if sequence.prompt_tokens + sequence.output_tokens > self._most_tokens:
                self._ledger.reject(sequence)
            elif self._may_start(sequence):
                ready.append(sequence)
        self._start(ready)

    def records(self) -> dict[str, PoolRecord]:
        """Totals per pool."""
        batches = [worker.batch for worker in self._decoders]
        for worker in self._prefillers:
            for rank in range(self._prefill.dp):
                worker.settle(rank)
        sent = [blocks for worker in self._prefillers for blocks in worker.blocks]
        ranks = [rank for batch in batches for rank in batch.ranks]
        return {
            "prefill": self.meters["prefill"].record(max(b.peak for b in sent), sum(b.used for b in sent)),
            "decode": self.meters["decode"].record(
                self.meters["decode"].peak.blocks, sum(r.demand for r in ranks), batches
            ),
        }

    def unsound(self) -> list[str]:
        """What should not be when no timer is left: work that nobody does."""
        workers: dict[str, Iterable[PrefillWorker | DecodeWorker]] = {
            "prefill": self._prefillers,
            "decode": self._decoders,
        }
        found = [
            f"{role} worker {index} stands still with work before it"
            for role, pool in workers.items()
            for index, worker in enumerate(pool)
            if worker.stands_still()
        ]
        if self._handoff.waiting:
            found.append(f"{self._handoff.waiting} prompts never found a decode rank")
        loads = self._loads, self._decode_loads, self._chosen
        return found + self._prefixes.unsound() + [fault for load in loads for fault in load.unsound()]

    def _router_of(self, role: str, name: str) -> Router:
        return make_router(name)

    def _prefiller(self, index: int) -> PrefillWorker:
        """One that holds nothing; likewise below."""
        return PrefillWorker(
            index, self._loads, self._clock, self._ledger, self.meters["prefill"], self._prefill,
            self._costs["prefill"], self._prefixes, self._handoff.offer,
        )  # fmt: skip

    def _decoder(self, index: int) -> DecodeWorker:
        return DecodeWorker(
            index, self._decode_loads, self._chosen, self._clock, self._ledger, self.meters["decode"], self._plan,
            self._costs["decode"], self._prefixes, self._recompute, self._freed,
        )  # fmt: skip

    def _handoff_by(self, router: str) -> Handoff:
        return Handoff(
            self._clock, self._ledger, self._plan, router, self._decode_loads, self._chosen, self._decoders,
            self._start,
        )  # fmt: skip

    def _enqueue(self, sequence: ServedRequest, front: bool = False) -> PrefillWorker:
        place = self._prefixes.place(sequence, self._router, self._loads)
        worker = self._prefillers[place.worker]
        worker.submit(sequence, place.rank, front)
        return worker

    def _may_start(self, sequence: ServedRequest) -> bool:
        """Whether its prompt may be computed now; else it waits for room to decode. A last token needs none."""
        return not self._room_first or sequence.remaining_tokens == 1 or self._handoff.reserve(sequence)

    def _start(self, sequences: list[ServedRequest], front: bool = False) -> None:
        """Their prompts may be computed."""
        for worker in [self._enqueue(sequence, front) for sequence in sequences]:
            worker.wake()

    def _held_blocks(self, worker: int, ranks: Sequence[int]) -> int:
        blocks = self._prefillers[worker].blocks
        return sum([blocks[rank].used for rank in ranks])

    def _recompute(self, sequence: ServedRequest) -> None:
        if self._may_start(sequence):
            self._start([sequence], front=True)

    def _freed(self, decode_worker: int) -> None:
        self._handoff.pump(decode_worker)
