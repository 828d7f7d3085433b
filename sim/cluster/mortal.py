"""Clusters whose workers come and go. They serve as the others do; only open workers are chosen, and one that fails is
replaced by one that holds nothing."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sim.cluster.aggregated import AggregatedCluster
from sim.cluster.clock import Clock
from sim.cluster.disaggregated import DisaggregatedCluster
from sim.cluster.doors import Door, Doorkeeper, Whereabouts
from sim.cluster.ledger import Meter
from sim.cluster.mortal_handoff import MortalHandoff
from sim.cluster.retries import RetryLedger
from sim.cluster.setup import ClusterPlan, PoolSetup
from sim.cluster.window import Window
from sim.serving.decode_batch import DecodeBatch
from sim.serving.routing import Router
from sim.serving.served_request import ServedRequest
from sim.step import StepCost


class Silent:
    """A worker that has failed, as long as nobody knows. It takes requests and does nothing; `heir` has its place
    then."""

    def __init__(self, heir: Any, take: Callable[[ServedRequest, int], None]) -> None:
        self.heir, self._take = heir, take

    def submit(self, sequence: ServedRequest, rank: int, front: bool = False) -> None:
        """Count as a load, like any other request."""
        self._take(sequence, rank)

    def wake(self) -> None:
        """Nothing."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.heir, name)


class Staff:
    """What both kinds of cluster have beside their workers."""

    def __init__(self, pools: Mapping[str, PoolSetup], ledger: RetryLedger) -> None:
        self.doors = {role: Door(pool.workers, pool.dp) for role, pool in pools.items()}
        self.holders = Whereabouts()
        self.parked: list[ServedRequest] = []
        """They came when no worker was there to choose."""
        ledger.left = self.holders.forget

    def unparked(self) -> list[ServedRequest]:
        """Those that may go on."""
        gone, self.parked = self.parked, []
        return gone

    def unsound(self) -> list[str]:
        """What should not be when no timer is left."""
        return [f"{len(self.parked)} requests wait for a worker that never came"] if self.parked else []


class MortalAggregated(AggregatedCluster):
    """See `sim.cluster.mortality.Mortal`."""

    def __init__(
        self, clock: Clock, ledger: RetryLedger, plan: ClusterPlan, costs: Mapping[str, StepCost], router: str,
        window: Window,
    ) -> None:  # fmt: skip
        self._staff = Staff(plan.pools, ledger)
        self._door = self._staff.doors["serve"]
        super().__init__(clock, ledger, plan, costs, router, window)
        self.meters: Mapping[str, Meter] = {"serve": self._meter}
        self.costs = costs

    @property
    def waits(self) -> bool:
        return bool(self._staff.parked)

    def submit(self, sequences: list[ServedRequest]) -> None:
        if self._door.shut:
            self._staff.parked += sequences
        else:
            super().submit(sequences)

    def open(self, role: str, worker: int) -> None:
        self._door.set(worker, True)
        self.submit(self._staff.unparked())

    def close(self, role: str, worker: int) -> None:
        self._door.set(worker, False)

    def empty(self, role: str, worker: int) -> bool:
        return not self.requests(role, worker)

    def retire(self, role: str, worker: int) -> None:
        self._prefixes.lose(worker, [])

    def fail(self, role: str, worker: int) -> list[ServedRequest]:
        old, heir = self._workers[worker], self._worker(worker)
        old.stop()
        _bequeath(old.batch, heir.batch)
        silent: Any = Silent(heir, lambda sequence, rank: self._weigh(worker, rank, sequence, 1))
        self._workers[worker] = silent
        self._prefixes.lose(worker, _members(old.batch))
        return self._staff.holders.take(role, worker)

    def detect(self, role: str, worker: int) -> list[ServedRequest]:
        silent: Any = self._workers[worker]
        self._workers[worker] = silent.heir
        self._loads.follow(worker, [0] * self._setup.dp)
        return self._staff.holders.take(role, worker)

    def requests(self, role: str, worker: int) -> int:
        return self._staff.holders.count(role, worker)

    def batches(self, role: str) -> list[DecodeBatch]:
        return [worker.batch for worker in self._workers]

    def unsound(self) -> list[str]:
        return super().unsound() + self._staff.unsound()

    def _router_of(self, role: str, name: str) -> Router:
        return Doorkeeper(super()._router_of(role, name), self._door, partial(self._staff.holders.put, role))


class MortalDisaggregated(DisaggregatedCluster):
    """See `sim.cluster.mortality.Mortal`."""

    _handoff: MortalHandoff

    def __init__(
        self, clock: Clock, ledger: RetryLedger, plan: ClusterPlan, costs: Mapping[str, StepCost], router: str,
        window: Window,
    ) -> None:  # fmt: skip
        self._staff, self._retries = Staff(plan.pools, ledger), ledger
        self._door = self._staff.doors["prefill"]
        self._computed_on: dict[int, int] = {}
        """The prefill worker that each request was last sent to."""
        self.costs = costs
        ledger.left = self._left
        super().__init__(clock, ledger, plan, costs, router, window)

    @property
    def waits(self) -> bool:
        return bool(self._staff.parked) or self._handoff.waits

    def submit(self, sequences: list[ServedRequest]) -> None:
        if self._door.shut:
            self._staff.parked += sequences
        else:
            super().submit(sequences)

    def open(self, role: str, worker: int) -> None:
        if role == "decode":
            self._handoff.open(worker)
        else:
            self._door.set(worker, True)
            self.submit(self._staff.unparked())

    def close(self, role: str, worker: int) -> None:
        if role == "decode":
            self._handoff.close(worker)
        else:
            self._door.set(worker, False)

    def empty(self, role: str, worker: int) -> bool:
        idle = not self.requests(role, worker)
        return idle and (role == "decode" or not self._prefillers[worker].sends())

    def retire(self, role: str, worker: int) -> None:
        if role == "prefill":
            for rank in range(self._prefill.dp):
                self._prefillers[worker].settle(rank)
            self._prefixes.lose(worker, [])

    def fail(self, role: str, worker: int) -> list[ServedRequest]:
        return self._fail_decode(worker) if role == "decode" else self._fail_prefill(worker)

    def detect(self, role: str, worker: int) -> list[ServedRequest]:
        if role == "decode":
            return []
        silent: Any = self._prefillers[worker]
        self._prefillers[worker] = silent.heir
        self._loads.follow(worker, silent.heir.queues.queued_tokens)
        lost = self._staff.holders.take(role, worker)
        self._pump(self._handoff.lose(lost)[1])
        return lost

    def requests(self, role: str, worker: int) -> int:
        return self._handoff.requests(worker) if role == "decode" else self._staff.holders.count(role, worker)

    def batches(self, role: str) -> list[DecodeBatch]:
        return [worker.batch for worker in self._decoders] if role == "decode" else []

    def unsound(self) -> list[str]:
        return super().unsound() + self._staff.unsound()

    def _fail_decode(self, worker: int) -> list[ServedRequest]:
        """Nothing is sent to it any more: it does not answer when a place is asked for."""
        old, heir = self._decoders[worker], self._decoder(worker)
        old.stop()
        _bequeath(old.batch, heir.batch)
        self._decoders[worker] = heir
        lost = self._staff.holders.take("decode", worker)
        self._handoff.lose_worker(worker)
        return lost

    def _fail_prefill(self, worker: int) -> list[ServedRequest]:
        """Computed prompts that wait there for a place are lost with it, and KV that it was sending."""
        old, heir, holders = self._prefillers[worker], self._prefiller(worker), self._staff.holders
        sending = old.stop()
        for before, after in zip(old.blocks, heir.blocks, strict=True):
            after.peak = before.peak
        lost = holders.take("prefill", worker)
        stranded, freed = self._handoff.lose(lost)
        for index, decoder in enumerate(self._decoders):
            gone = decoder.turn_away(lambda sequence: self._computed_on[sequence.id] == worker)
            for sequence in gone:
                holders.forget(sequence.id)
            lost += gone
            freed |= {index} if gone else set()

        def take(sequence: ServedRequest, rank: int) -> None:
            self._loads.add(worker, rank, sequence.context_tokens - sequence.cached_tokens)

        silent: Any = Silent(heir, take)
        self._prefillers[worker] = silent
        self._prefixes.lose(worker, stranded + sending)
        self._pump(freed)
        return lost

    def _pump(self, decode_workers: set[int]) -> None:
        for index in sorted(decode_workers):
            self._handoff.pump(index)

    def _start(self, sequences: list[ServedRequest], front: bool = False) -> None:
        if self._door.shut:
            self._staff.parked += sequences
        else:
            super()._start(sequences, front)

    def _recompute(self, sequence: ServedRequest) -> None:
        self._staff.holders.forget(sequence.id)
        super()._recompute(sequence)

    def _ask_again(self, sequence: ServedRequest) -> None:
        self.submit([self._retries.retry(sequence, self._clock.now)])

    def _handoff_by(self, router: str) -> MortalHandoff:
        return MortalHandoff(
            self._clock, self._retries, self._plan, router, self._decode_loads, self._chosen, self._decoders,
            self._start, self._staff.doors["decode"], self._staff.holders, self._ask_again,
        )  # fmt: skip

    def _router_of(self, role: str, name: str) -> Router:
        return Doorkeeper(super()._router_of(role, name), self._door, self._compute_on)

    def _compute_on(self, sequence: ServedRequest, worker: int) -> None:
        self._computed_on[sequence.id] = worker
        self._staff.holders.put("prefill", sequence, worker)

    def _left(self, index: int) -> None:
        self._staff.holders.forget(index)
        del self._computed_on[index]


def _bequeath(old: DecodeBatch, new: DecodeBatch) -> None:
    """What was counted on a worker goes on where it left off."""
    new.decoded_tokens, new.sequence_steps = old.decoded_tokens, old.sequence_steps


def _members(batch: DecodeBatch) -> list[ServedRequest]:
    return [sequence for rank in batch.ranks for sequence in rank.members.values()]
