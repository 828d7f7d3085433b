"""Clusters whose workers come and go. They serve as the others do; only open workers are chosen, and one that fails is
replaced by one that holds nothing."""

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sim.cluster.aggregated import AggregatedCluster
from sim.cluster.clock import Clock
from sim.cluster.disaggregated import DisaggregatedCluster
from sim.cluster.doors import Door, Doorkeeper, Whereabouts
from sim.cluster.ledger import Meter
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
        self._loads.put(worker, [0] * self._setup.dp)
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

    def __init__(
        self, clock: Clock, ledger: RetryLedger, plan: ClusterPlan, costs: Mapping[str, StepCost], router: str,
        window: Window,
    ) -> None:  # fmt: skip
        self._staff = Staff(plan.pools, ledger)
        self._doors = self._staff.doors
        self._computed_on: dict[int, int] = {}
        """The prefill worker that each request was last sent to."""
        self.costs = costs
        ledger.left = self._left
        super().__init__(clock, ledger, plan, costs, router, window)

    @property
    def waits(self) -> bool:
        return bool(self._staff.parked) or bool(
            self._handoff.waiting and self._doors["decode"].ranks is not None
        )

    def submit(self, sequences: list[ServedRequest]) -> None:
        if self._doors["prefill"].shut:
            self._staff.parked += sequences
        else:
            super().submit(sequences)

    def open(self, role: str, worker: int) -> None:
        self._doors[role].set(worker, True)
        if role == "decode":
            self._handoff.pump(worker)
        else:
            self.submit(self._staff.unparked())

    def close(self, role: str, worker: int) -> None:
        self._doors[role].set(worker, False)

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
        self._loads.put(worker, [0] * self._prefill.dp)
        return self._staff.holders.take(role, worker)

    def requests(self, role: str, worker: int) -> int:
        return self._staff.holders.count(role, worker)

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
        self._decode_loads.put(worker, [0] * self._decode.dp)
        self.close("decode", worker)
        return self._staff.holders.take("decode", worker)

    def _fail_prefill(self, worker: int) -> list[ServedRequest]:
        """Computed prompts that wait there for a place are lost with it, and KV that it was sending."""
        old, heir, holders = self._prefillers[worker], self._prefiller(worker), self._staff.holders
        sending = old.stop()
        for before, after in zip(old.blocks, heir.blocks, strict=True):
            after.peak = before.peak
        waiting = self._handoff.waiting
        stranded = [sequence for sequence, sender, _ in waiting if sender is old]
        self._handoff.waiting = deque(entry for entry in waiting if entry[1] is not old)
        freed, on_their_way = [], []
        for index, decoder in enumerate(self._decoders):
            gone = decoder.turn_away(lambda sequence: self._computed_on[sequence.id] == worker)
            on_their_way += gone
            freed += [index] if gone else []
        lost = holders.take("prefill", worker) + on_their_way
        for sequence in on_their_way:
            holders.forget(sequence.id)

        def take(sequence: ServedRequest, rank: int) -> None:
            self._loads.add(worker, rank, sequence.context_tokens - sequence.cached_tokens)

        silent: Any = Silent(heir, take)
        self._prefillers[worker] = silent
        self._prefixes.lose(worker, stranded + sending)
        for index in freed:
            self._freed(index)
        return lost

    def _recompute(self, sequence: ServedRequest) -> None:
        if self._doors["prefill"].shut:
            self._staff.holders.forget(sequence.id)
            self._staff.parked.append(sequence)
        else:
            super()._recompute(sequence)

    def _freed(self, decode_worker: int) -> None:
        if decode_worker in self._doors["decode"]:
            super()._freed(decode_worker)

    def _router_of(self, role: str, name: str) -> Router:
        chosen = self._compute_on if role == "prefill" else partial(self._staff.holders.put, role)
        return Doorkeeper(super()._router_of(role, name), self._doors[role], chosen)

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
