"""From prefill to decode: a queue for a place on a decode rank, and the KV cache's way over the NICs.

A transfer starts when a decode rank has reserved a seat and blocks for it; until then the KV stays on the prefill
worker, unless the place was reserved before the prefill. Each rank's NICs carry one transfer after another, in both
directions independently: a transfer begins when sender and receiver are free and takes

    seconds = (tokens x bytes_per_token + bytes_per_request) / (bytes_per_s x GPUs of the rank)

with the slower side counting, where `bytes_per_token` is the whole cache of a token: each GPU of a rank sends its slice
of it, once. The decode side has it `latency_s` later. With a `tail_fraction` below 1 the KV leaves while the prompt is
computed, layer by layer: the transfer may begin as early as the prefill did, if a decode rank was free at once, but its
tail only follows the end of the prefill. Who chooses the place and when, see `sim.serving.handover`.
"""

from collections import deque
from collections.abc import Callable, Sequence

from sim.cluster.clock import Clock, Timer
from sim.cluster.decode_worker import DecodeWorker
from sim.cluster.ledger import Ledger
from sim.cluster.prefill_worker import PrefillWorker
from sim.cluster.setup import ClusterPlan
from sim.serving.ranks import RankAddress
from sim.serving.routing import PoolLoads, Router, make_router
from sim.serving.served_request import ServedRequest

Sender = tuple[PrefillWorker, int]
"""A prefill worker and its rank."""
Told = list[tuple[ServedRequest, Sender]]


class Handoff:
    """The queues in front of the decode pool, first in, first out: one for all its workers, or one for each."""

    def __init__(
        self, clock: Clock, ledger: Ledger, plan: ClusterPlan, router: str, loads: PoolLoads, chosen: PoolLoads,
        workers: list[DecodeWorker], start: Callable[[list[ServedRequest]], None],
    ) -> None:  # fmt: skip
        """`loads`: requests on the ranks of the decode workers; `chosen`: those that go to each worker, with or without
        a place. `start` takes those that have found room before their prefill."""
        prefill, decode = plan.pools["prefill"], plan.pools["decode"]
        assert plan.transfer is not None
        self._clock, self._ledger, self._workers, self._start = clock, ledger, workers, start
        self._rules, self._setup = plan.handover, plan.transfer
        self._router: Router = make_router(router)
        self._chooser: Router = make_router(router)
        self.loads, self.chosen = loads, chosen
        gpus_per_rank = min(prefill.gpus / prefill.dp, decode.gpus / decode.dp)
        bytes_per_s = plan.transfer.bytes_per_s * gpus_per_rank
        self._token_s = plan.transfer.bytes_per_token / bytes_per_s
        self._request_s = plan.transfer.bytes_per_request / bytes_per_s
        queues = decode.workers if self._rules.chooses_worker else 1
        self._queues: list[deque[tuple[ServedRequest, Sender | None]]] = [deque() for _ in range(queues)]
        self._nowhere: deque[tuple[ServedRequest, Sender | None]] = deque()
        """Those that found no worker to choose."""
        self._ranks_of = loads.of_worker
        self._places: dict[int, RankAddress] = {}
        """Of the sequences that found room before their prefill, by id."""
        self._receiving_until = [[0.0] * decode.dp for _ in range(decode.workers)]
        """When the NICs of each decode rank are free."""
        self._told_s, self._told = 0.0, Told()
        """Prompts that were computed together, and when the decode side hears of them."""

    @property
    def waiting(self) -> int:
        """Sequences that have no place."""
        return sum(map(len, self._queues)) + len(self._nowhere)

    def reserve(self, sequence: ServedRequest) -> bool:
        """Before the prefill: keep a place for a sequence if there is one, else let it wait and `start` it later."""
        place = self._ask(sequence, None)
        if place is None:
            sequence.blocked_s -= self._clock.now
            return False
        self._places[sequence.id] = place
        return True

    def offer(self, sequence: ServedRequest, sender: PrefillWorker, sender_rank: int) -> None:
        """A prompt is computed: send it on if a decode rank can take it, else let it wait."""
        if self._rules.last_token_again:
            sequence.generated_tokens -= 1
        if place := self._places.pop(sequence.id, None):
            self._send(sequence, (sender, sender_rank), place, early=True)
        elif self._rules.relay_s:
            self._relay(sequence, (sender, sender_rank))
        else:
            self._hear(sequence, (sender, sender_rank))

    def pump(self, worker: int) -> None:
        """Decode worker `worker` has gained room, and is at a step boundary."""
        waiting = self._queues[worker if self._rules.chooses_worker else 0]
        if not waiting:
            return
        mine = self._ranks_of[worker]
        ranks: Sequence[RankAddress] | None = mine
        started: list[ServedRequest] = []
        while waiting:
            sequence, sender = waiting[0]
            place = self._place(sequence, sender, ranks)
            if place is None:
                break
            waiting.popleft()
            self._go_on(sequence, sender, place, started)
            if not self._rules.chooses_worker:
                ranks = None  # all: the others have not seen the new head yet
        if started:
            self._start(started)

    def _go_on(
        self, sequence: ServedRequest, sender: Sender | None, place: RankAddress, started: list[ServedRequest]
    ) -> None:
        """One that waited has a place: its KV sets out, or it joins the `started`, whose prompts may be computed."""
        if sender is None:
            sequence.blocked_s += self._clock.now
            self._places[sequence.id] = place
            started.append(sequence)
        else:
            self._send(sequence, sender, place)

    def _relay(self, sequence: ServedRequest, sender: Sender) -> None:
        """Tell the decode side by way of the router: one timer for what is computed at the same time."""
        heard_s = self._clock.now + self._rules.relay_s
        if heard_s != self._told_s:
            self._told_s, self._told = heard_s, []
            self._clock.at(heard_s, self._relayed, self._told)
        self._told.append((sequence, sender))

    def _relayed(self, timer: Timer) -> None:
        for sequence, sender in timer.value:
            self._hear(sequence, sender)

    def _hear(self, sequence: ServedRequest, sender: Sender) -> None:
        place = self._ask(sequence, sender)
        if place is not None:
            self._send(sequence, sender, place, early=not self._rules.relay_s)

    def _ask(self, sequence: ServedRequest, sender: Sender | None) -> RankAddress | None:
        """A reserved place, or none, and then it waits."""
        worker, ranks = 0, None
        if self._rules.chooses_worker:
            chosen = self._chooser.pick(sequence, self.chosen)
            if chosen is None:
                self._nowhere.append((sequence, sender))
                return None
            worker, ranks = chosen.worker, self._ranks_of[chosen.worker]
            self.chosen.add(worker, 0, 1)
        queue = self._queues[worker]
        place = None if queue else self._place(sequence, sender, ranks)
        if place is None:
            queue.append((sequence, sender))
        return place

    def _place(
        self, sequence: ServedRequest, sender: Sender | None, ranks: Sequence[RankAddress] | None
    ) -> RankAddress | None:
        """Reserve a place on one of `ranks` (None: all), with room for the token that a prefill to come will make."""
        workers, tokens = self._workers, self._tokens(sequence, sender)
        place = self._router.pick(
            sequence, self.loads, ranks, lambda at: workers[at.worker].fits(at.rank, tokens)
        )
        if place is not None:
            worker, rank = place
            workers[worker].reserve(rank, tokens)
        return place

    def _tokens(self, sequence: ServedRequest, sender: Sender | None) -> int:
        """That a place for it must hold."""
        before_prefill = sender is None and not self._rules.last_token_again
        return sequence.context_tokens + before_prefill

    def _send(self, sequence: ServedRequest, sender: Sender, place: RankAddress, early: bool = False) -> None:
        """Its way begins now if the NICs are free; `early`: it may have begun with the prefill."""
        worker, rank = sender
        to_worker, to_rank = place
        now, tail, sending_until = self._clock.now, self._setup.tail_fraction, worker.sending_until
        receiving_until = self._receiving_until[to_worker]
        transfer_s = sequence.prefill_tokens * self._token_s + self._request_s
        begin_s = sequence.started_s if early and tail < 1 else now
        begin_s = sending_until[rank] if sending_until[rank] > begin_s else begin_s
        begin_s = receiving_until[to_rank] if receiving_until[to_rank] > begin_s else begin_s
        end_s, tail_s = begin_s + transfer_s, now + transfer_s * tail
        end_s = tail_s if tail_s > end_s else end_s
        sending_until[rank] = receiving_until[to_rank] = end_s
        arrival_s = end_s + self._setup.latency_s
        self._ledger.receive(sequence, now, end_s, 0.0 if early else self._rules.relay_s)
        worker.release_at(arrival_s, sequence, rank)
        if self._rules.first_token == "received":
            self._ledger.deliver_first(sequence, arrival_s)
        if self._rules.answers_between_steps:
            worker.answer(sequence, end_s)
        self._workers[to_worker].expect(sequence, to_rank, arrival_s)
