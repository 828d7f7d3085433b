"""A decode worker: continuous batching of sequences whose prompts were computed elsewhere."""

from collections.abc import Callable

from sim.cluster.advance import Advance
from sim.cluster.clock import Clock
from sim.cluster.ledger import Ledger, Meter
from sim.cluster.prefixes import Prefixes
from sim.cluster.setup import ClusterPlan
from sim.serving.decode_batch import DecodeBatch
from sim.serving.routing import PoolLoads
from sim.serving.served_request import ServedRequest
from sim.serving.speculation import Pace
from sim.step import StepCost


class DecodeWorker:
    """One worker. `preempted` takes the sequences that lost their blocks; `freed` hears that there is room."""

    def __init__(
        self, index: int, loads: PoolLoads, clock: Clock, ledger: Ledger, meter: Meter, plan: ClusterPlan,
        cost: StepCost, prefixes: Prefixes, preempted: Callable[[ServedRequest], None], freed: Callable[[int], None],
    ) -> None:  # fmt: skip
        setup = plan.pools["decode"]
        self._clock, self._ledger, self._meter = clock, ledger, meter
        self._prefixes, self._preempted, self._freed = prefixes, preempted, freed
        self._index, self._loads = index, loads
        self.batch = DecodeBatch(
            setup.dp, setup.max_sequences, setup.kv_blocks, setup.block_tokens,
            plan.rules.growth_reserve_tokens, setup.request_blocks,
        )  # fmt: skip
        self._pace = Pace(plan.speculation, self.batch)
        self._advance = Advance(clock, cost, self._end_steps)
        self._ready: list[tuple[ServedRequest, int]] = []

    def fits(self, rank: int, tokens: int) -> bool:
        """Whether a sequence of `tokens` tokens could be reserved now, with the blocks that the running (or next)
        step still takes left aside."""
        return self._advance.fits(self.batch, rank, tokens)

    def reserve(self, rank: int, tokens: int) -> None:
        """Keep a place for a sequence of `tokens` tokens that is on its way. The caller has checked that it fits."""
        self.batch.reserve(rank, tokens)
        self._loads.add(self._index, rank, 1)

    def receive(self, sequence: ServedRequest, rank: int) -> None:
        """The KV of a sequence has arrived; it joins at the next step boundary."""
        self._ready.append((sequence, rank))
        if not self._advance.steps:
            self._go()
        elif len(self._ready) == 1:
            self._advance.cut()

    def stands_still(self) -> bool:
        """Whether it does nothing though it holds sequences: never, if the scheduling is sound."""
        return not self._advance.steps and bool(self._ready or self.batch.running)

    def _end_steps(self) -> None:
        advance, now = self._advance, self._clock.now
        steps = advance.end()
        finished = self.batch.advance(steps)
        self._meter.steps += steps
        self._meter.work(advance.start_s, now, {"decode": now - advance.start_s})
        for sequence, rank in finished:
            self._loads.add(self._index, rank, -1)
            self._prefixes.answer(sequence)
            self._ledger.finish(sequence, now)
        self._go(freed=bool(finished))

    def _go(self, freed: bool = False) -> None:
        """At a step boundary: let the ready ones join, make room, and start the next steps."""
        batch = self.batch
        for sequence, rank in self._ready:
            self._pace.join(sequence, rank)
        self._ready.clear()
        for sequence, rank in batch.preempt():
            self._loads.add(self._index, rank, -1)
            self._ledger.preempt(sequence)
            self._preempted(sequence)
            freed = True
        if freed:
            self._freed(self._index)
        self._pace.adapt()
        if batch.running:
            self._advance.begin(batch, batch.next_change() - batch.step)
