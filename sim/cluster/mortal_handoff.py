"""The handover where workers come and go: who goes on elsewhere, and who is lost.

Only open decode workers are chosen. One that is closed takes no more than those who wait for it alone. When one fails,
those who wait for it choose again at once, since it does not answer; a prompt that is still to be computed has lost its
place there, and is asked again when it is computed. With a prefill worker all its prompts are lost, the computed ones
that wait and those whose KV is on its way; the places that were kept for them are free.
"""

from collections import deque
from collections.abc import Callable, Sequence

from sim.cluster.clock import Clock, Timer
from sim.cluster.decode_worker import DecodeWorker
from sim.cluster.doors import Door, Doorkeeper, Whereabouts
from sim.cluster.ledger import Ledger
from sim.cluster.prefill_worker import PrefillWorker
from sim.cluster.setup import ClusterPlan
from sim.cluster.transfer import Handoff, Sender
from sim.serving.ranks import RankAddress
from sim.serving.routing import PoolLoads
from sim.serving.served_request import ServedRequest


class MortalHandoff(Handoff):
    """See `Handoff`."""

    def __init__(
        self, clock: Clock, ledger: Ledger, plan: ClusterPlan, router: str, loads: PoolLoads, chosen: PoolLoads,
        workers: list[DecodeWorker], start: Callable[[list[ServedRequest]], None], door: Door, holders: Whereabouts,
        ask_again: Callable[[ServedRequest], None],
    ) -> None:  # fmt: skip
        """`door`: of the decode ranks; `holders` learn when a request goes over to the decode side."""
        super().__init__(clock, ledger, plan, router, loads, chosen, workers, start)
        self._door, self._choice = door, Door(len(workers), 1)
        self._router = Doorkeeper(self._router, self._door)
        self._chooser = Doorkeeper(self._chooser, self._choice)
        self._holders, self._ask_again = holders, ask_again
        self._unsent: set[ServedRequest] = set()
        """Computed prompts whose KV has not set out."""

    @property
    def waits(self) -> bool:
        """Whether somebody waits who may need a worker that is not there."""
        return self.waiting > 0 and self._door.ranks is not None

    def requests(self, worker: int) -> int:
        """Of a decode worker: those there and those that have chosen it, or have a place there."""
        loads = self.chosen if self._rules.chooses_worker else self.loads
        return loads.of(worker)

    def open(self, worker: int) -> None:
        """A decode worker serves."""
        self._door.set(worker, True)
        self._choice.set(worker, True)
        self._choose_again(self._nowhere)
        self.pump(worker)

    def close(self, worker: int) -> None:
        """It is not chosen any more."""
        self._door.set(worker, False)
        self._choice.set(worker, False)

    def lose_worker(self, worker: int) -> None:
        """A decode worker has failed, and another that holds nothing stands in its place."""
        self.close(worker)
        self._places = {index: at for index, at in self._places.items() if at.worker != worker}
        self.loads.follow(worker, [0] * len(self._ranks_of[worker]))
        self.chosen.follow(worker, [0])
        if self._rules.chooses_worker:
            self._choose_again(self._queues[worker])

    def lose(self, lost: Sequence[ServedRequest]) -> tuple[list[ServedRequest], set[int]]:
        """Requests that have failed with their prefill worker; their KV has not set out.

        Those of them that were computed, and the decode workers that may have room for others now: `pump` them.
        """
        gone, freed, queues = set(lost), set[int](), self._queues
        for worker, queue in enumerate(queues):
            left = [entry for entry in queue if entry[0] not in gone]
            if len(left) < len(queue):
                self.chosen.add(worker, 0, (len(left) - len(queue)) * self._rules.chooses_worker)
                queues[worker] = deque(left)
                freed |= {worker} if self._rules.chooses_worker else {*range(len(self._workers))}
        self._nowhere = deque(entry for entry in self._nowhere if entry[0] not in gone)
        for sequence in lost:
            if place := self._places.pop(sequence.id, None):
                self._workers[place.worker].cancel(place.rank, self._tokens(sequence, None))
                freed.add(place.worker)
        computed = [sequence for sequence in lost if sequence in self._unsent]
        self._unsent.difference_update(computed)
        return computed, freed

    def reserve(self, sequence: ServedRequest) -> bool:
        """See `Handoff.reserve`. One that found no prefill worker may have its place already."""
        return sequence.id in self._places or super().reserve(sequence)

    def offer(self, sequence: ServedRequest, sender: PrefillWorker, sender_rank: int) -> None:
        """See `Handoff.offer`. Where room comes first, no computed prompt waits for it, which might block the prefill:
        one that has lost its place is asked again."""
        if self._rules.room_first and sequence.id not in self._places:
            self._holders.forget(sequence.id)
            sender.release_at(self._clock.now, sequence, sender_rank)
            self._clock.at(self._clock.now, self._without_place, sequence)
        else:
            self._unsent.add(sequence)
            super().offer(sequence, sender, sender_rank)

    def pump(self, worker: int) -> None:
        """See `Handoff.pump`."""
        if self._rules.chooses_worker or worker in self._door:
            super().pump(worker)

    def _choose_again(self, waiting: deque[tuple[ServedRequest, Sender | None]]) -> None:
        """The worker that these wait for is not there, or there was none."""
        entries, started = [*waiting], list[ServedRequest]()
        waiting.clear()
        for sequence, sender in entries:
            place = self._ask(sequence, sender)
            if place is not None:
                self._go_on(sequence, sender, place, started)
        if started:
            self._start(started)

    def _without_place(self, timer: Timer) -> None:
        self._ask_again(timer.value)

    def _hear(self, sequence: ServedRequest, sender: Sender) -> None:
        """Unless it was lost on the way."""
        if sequence in self._unsent:
            super()._hear(sequence, sender)

    def _send(self, sequence: ServedRequest, sender: Sender, place: RankAddress, early: bool = False) -> None:
        self._unsent.discard(sequence)
        self._holders.put("decode", sequence, place.worker)
        super()._send(sequence, sender, place, early)
