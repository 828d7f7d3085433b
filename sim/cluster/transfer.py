"""From prefill to decode: a queue for a place on a decode rank, and the KV cache's way over the NICs.

A transfer starts when a decode rank has reserved a seat and blocks for it; until then the KV stays on the prefill
worker. Each rank's NICs carry one transfer after another, in both directions independently: a transfer begins when
sender and receiver are free and takes

    seconds = (tokens x bytes_per_token + bytes_per_request) / (bytes_per_s x GPUs of the rank)

with the slower side counting, where `bytes_per_token` is the whole cache of a token: each GPU of a rank sends its slice
of it, once. The first token reaches the client `latency_s` later. With a `tail_fraction` below 1 the KV leaves while
the prompt is computed, layer by layer: the transfer may begin as early as the prefill did, if a decode rank was free at
once, but its tail only follows the end of the prefill.
"""

from collections import defaultdict, deque
from collections.abc import Sequence

from sim.cluster.clock import Clock
from sim.cluster.decode_worker import DecodeWorker
from sim.cluster.ledger import Ledger
from sim.cluster.prefill_worker import PrefillWorker
from sim.cluster.setup import ClusterPlan
from sim.serving.ranks import RankAddress
from sim.serving.routing import PoolLoads, Router
from sim.serving.served_request import ServedRequest


class Handoff:
    """The queue in front of the decode pool: first in, first out, for all its workers together."""

    def __init__(
        self, clock: Clock, ledger: Ledger, plan: ClusterPlan, router: Router, loads: PoolLoads,
        workers: list[DecodeWorker],
    ) -> None:  # fmt: skip
        """`loads`: requests on the ranks of the decode workers."""
        prefill, decode = plan.pools["prefill"], plan.pools["decode"]
        assert plan.transfer is not None
        self._clock, self._ledger, self._workers = clock, ledger, workers
        self._router, self.loads = router, loads
        self._setup = plan.transfer
        gpus_per_rank = min(prefill.gpus / prefill.dp, decode.gpus / decode.dp)
        bytes_per_s = plan.transfer.bytes_per_s * gpus_per_rank
        self._token_s = plan.transfer.bytes_per_token / bytes_per_s
        self._request_s = plan.transfer.bytes_per_request / bytes_per_s
        self.waiting: deque[tuple[ServedRequest, PrefillWorker, int]] = deque()
        self._ranks_of = [loads.addresses[worker :: decode.workers] for worker in range(decode.workers)]
        self._sending_until: defaultdict[PrefillWorker, list[float]] = defaultdict(lambda: [0.0] * prefill.dp)
        self._receiving_until = dict.fromkeys(loads.addresses, 0.0)

    def offer(self, sequence: ServedRequest, sender: PrefillWorker, sender_rank: int) -> None:
        """A prompt is computed: send it on if a decode rank can take it, else let it wait."""
        place = None if self.waiting else self._place(sequence, None)
        if place is None:
            self.waiting.append((sequence, sender, sender_rank))
        else:
            overlapped = self._setup.tail_fraction < 1
            self._send(sequence, sender, sender_rank, place, sequence.started_s if overlapped else None)

    def pump(self, worker: int) -> None:
        """Decode worker `worker` has gained room, and is at a step boundary."""
        waiting = self.waiting
        ranks: Sequence[RankAddress] | None = self._ranks_of[worker]
        while waiting:
            sequence, sender, sender_rank = waiting[0]
            place = self._place(sequence, ranks)
            if place is None:
                return
            waiting.popleft()
            self._send(sequence, sender, sender_rank, place)
            ranks = None  # all: the others have not seen the new head yet

    def _place(self, sequence: ServedRequest, ranks: Sequence[RankAddress] | None) -> RankAddress | None:
        """Reserve a place on one of `ranks` (None: all)."""
        workers, tokens = self._workers, sequence.prompt_tokens + sequence.generated_tokens
        place = self._router.pick(
            sequence, self.loads, ranks, lambda at: workers[at.worker].fits(at.rank, tokens)
        )
        if place is not None:
            worker, rank = place
            workers[worker].reserve(rank, tokens)
        return place

    def _send(
        self,
        sequence: ServedRequest,
        sender: PrefillWorker,
        sender_rank: int,
        place: RankAddress,
        earliest_s: float | None = None,
    ) -> None:
        """Its way begins at `earliest_s`, or now, if the NICs are free."""
        now, sending_until = self._clock.now, self._sending_until[sender]
        transfer_s = sequence.prefill_tokens * self._token_s + self._request_s
        begin_s = max(
            now if earliest_s is None else earliest_s,
            sending_until[sender_rank],
            self._receiving_until[place],
        )
        end_s = max(begin_s + transfer_s, now + transfer_s * self._setup.tail_fraction)
        sending_until[sender_rank] = self._receiving_until[place] = end_s
        arrival_s = end_s + self._setup.latency_s
        self._ledger.deliver_first(sequence, now, end_s, arrival_s)
        sender.release_at(arrival_s, sequence, sender_rank)
        self._workers[place.worker].expect(sequence, place.rank, arrival_s)
