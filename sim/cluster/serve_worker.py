"""An aggregated worker: prompts are computed and tokens generated on the same GPUs.

Steps with prompt tokens are one timer each; between them the worker advances many decode steps at once.
"""

from collections.abc import Callable

from sim.cluster.advance import Advance
from sim.cluster.clock import Clock, Timer
from sim.cluster.ledger import Ledger, Meter
from sim.cluster.prefill_worker import prefill_seconds
from sim.cluster.prefixes import Prefixes
from sim.cluster.setup import ClusterPlan
from sim.serving.admission import AdmissionGate, Refusals
from sim.serving.decode_batch import DecodeBatch
from sim.serving.prompt_gate import PromptDelay, prompt_gate
from sim.serving.prompts import Admit, Chunk, PromptQueues
from sim.serving.served_request import ServedRequest
from sim.serving.speculation import Pace
from sim.step import StepCost


class ServeWorker:
    """One worker. `mixed`: prompt tokens ride along in decode steps; otherwise decode pauses for them, on their ranks
    (`other_ranks_decode`) or on all."""

    def __init__(
        self,
        index: int,
        weigh: Callable[[int, int, ServedRequest, int], None],
        clock: Clock,
        ledger: Ledger,
        meter: Meter,
        plan: ClusterPlan,
        cost: StepCost,
        prefixes: Prefixes,
    ) -> None:
        """`weigh`: told (index, rank, request, 1 or -1) when a request comes and when it is done."""
        self._index, self._weigh = index, weigh
        self._setup = setup = plan.pools["serve"]
        self._clock, self._ledger, self._meter, self._cost = clock, ledger, meter, cost
        self._prefixes = prefixes
        self.batch = DecodeBatch(
            setup.dp, setup.max_sequences, setup.kv_blocks, setup.block_tokens,
            plan.rules.growth_reserve_tokens, setup.request_blocks, meter.peak,
        )  # fmt: skip
        self._pace = Pace(plan.speculation, self.batch)
        self._requests = 0
        """Waiting or served."""
        self._queues = PromptQueues(setup.dp, setup.whole_prompts)
        self._gate = AdmissionGate(plan.rules.poll_every_steps)
        self._tokens_per_sequence = plan.rules.tokens_per_sequence
        self._others_decode = plan.rules.other_ranks_decode
        self._holds = prompt_gate(plan.rules, setup.dp, setup.max_sequences)
        delay = plan.rules.delay_prompts_steps
        self._delay = PromptDelay(delay) if delay and setup.dp > 1 else None
        self._refusals = Refusals(setup.dp)
        self._advance = Advance(clock, cost, self.batch, self._end_decode)
        self._inbox: list[tuple[ServedRequest, int]] = []
        """Arrived since the worker last looked."""
        self._computing = False
        self._waiting: list[int] = []
        """Ranks that sit out the step with prompt tokens that runs, while others decode."""
        self._start_s = self._prompts_s = self._cached_s = self._decode_s = 0.0
        """Of the step with prompt tokens that runs: its seconds for them, `_cached_s` of these for cached prefixes, and
        those for decode."""

    def submit(self, sequence: ServedRequest, rank: int) -> None:
        """Take a request; `wake` starts an idle worker."""
        self._requests += 1
        sequence.blocked_s = -self._refusals.seconds(rank, self._clock.now)
        self._weigh(self._index, rank, sequence, 1)
        first = not self._queues.waiting[rank] and all(r != rank for _, r in self._inbox)
        self._inbox.append((sequence, rank))
        if self._advance.steps:
            self._notice(sequence, rank, first)

    def wake(self) -> None:
        """Start, if idle."""
        if not self._computing and not self._advance.steps:
            self._go(decoded=False)

    def stands_still(self) -> bool:
        """Whether it does nothing though it holds requests: never, if the scheduling is sound."""
        return not self._computing and not self._advance.steps and self._requests > 0

    def stop(self) -> None:
        """It fails: what it has worked until now is booked, and nothing after."""
        now, meter = self._clock.now, self._meter
        self._clock.forget(self, self._advance)
        if self._computing:
            whole_s = self._prompts_s + self._decode_s
            done = (now - self._start_s) / whole_s if whole_s else 0.0
            meter.work(self._start_s, now, "prefill", (self._prompts_s - self._cached_s) * done)
            meter.spend("cached", self._cached_s * done)
            meter.spend("decode", self._decode_s * done)
        elif self._advance.steps:
            meter.work(self._advance.start_s, now, "decode", now - self._advance.start_s)

    def _notice(self, sequence: ServedRequest, rank: int, first: bool) -> None:
        """A request came in during decode steps: end them where it can change what is done next."""
        gate, advance = self._gate, self._advance
        if gate.every > 1:
            if len(self._inbox) == 1:
                advance.cut(self._clock.now, gate.every, gate.steps_to_look(self.batch.step))
        elif first and (self._holds or self._delay or advance.fits(rank, sequence.context_tokens + 1)):
            advance.cut(self._clock.now)

    def _go(self, decoded: bool) -> None:
        """At a step boundary: make room, look for requests, and start the next step or steps."""
        batch, gate, step = self.batch, self._gate, self.batch.step
        if batch.tight:
            for sequence, rank in batch.preempt():
                self._ledger.preempt(sequence)
                self._prefixes.release(sequence)
                self._queues.add(sequence, rank, front=True)
        if not self._pace.fixed:
            self._pace.adapt()
        if not decoded or not batch.running:
            gate.restart(step)
        if self._inbox and gate.looks(step):
            for sequence, rank in self._inbox:
                self._queues.add(sequence, rank)
            self._inbox.clear()
        admit = self._admission()
        chunk = self._queues.plan(self._budgets(), admit) if admit else None
        if chunk is not None:
            if self._holds:
                self._holds.started()
            self._compute(chunk)
        elif batch.running:
            steps = batch.next_change() - step
            if self._inbox:
                steps = min(steps, gate.steps_to_look(step))
            if self._holds and not self._queues.empty:
                steps = min(steps, self._holds.steps() or steps)
            if self._delay:
                steps = min(steps, self._delay.steps() or steps)
            self._advance.begin(self._clock.now, steps)

    def _may_compute(self) -> bool:
        """Whether this step may compute prompt tokens. A gate is asked before every step of a worker that is not idle,
        whether a prompt waits or not."""
        queues, batch = self._queues, self.batch
        if self._holds is None or (queues.empty and not batch.running):
            return not queues.empty
        proposed = [
            queues.tokens(rank, batch.takes(rank, (s.prefill_tokens + 1 for s in waiting)))
            for rank, waiting in enumerate(queues.waiting)
        ]
        return self._holds.opens(proposed, batch.sequences) and not queues.empty

    def _admission(self) -> Admit | None:
        """Who may start in this step: whoever finds room, or nobody while it is delayed. None: no prompt goes on,
        either."""
        if self._delay is None:
            return self._admit if self._may_compute() else None
        if not self._may_compute():
            self._delay.skip()
            return None
        batch, queues = self.batch, self._queues
        ready = [
            bool(waiting) and batch.takes(rank, (waiting[0].prefill_tokens + 1,)) > 0
            for rank, waiting in enumerate(queues.waiting)
        ]
        idle = not batch.running and not queues.under_way
        return self._admit if self._delay.opens(ready, idle) else _nobody

    def _budgets(self) -> list[int]:
        """New prompt tokens that each rank may compute: in a mixed step the decoding sequences count, too, with their
        drafts (vLLM's max_num_batched_tokens and TensorRT-LLM's max_num_tokens cover all)."""
        chunk = self._setup.chunk_tokens
        if not self._setup.mixed:
            return [chunk] * self._setup.dp
        return [max(0, chunk - count * self._tokens_per_sequence) for count in self.batch.sequences]

    def _admit(self, sequence: ServedRequest, rank: int) -> bool:
        """Reserve a seat and blocks for a prompt and the token that follows it."""
        tokens, now = sequence.prefill_tokens + 1, self._clock.now
        if not self._advance.fits(rank, tokens):
            self._refusals.refuse(rank, now)
            return False
        sequence.blocked_s += self._refusals.admit(rank, now)
        self.batch.reserve(rank, tokens)
        self._prefixes.admit(sequence)
        return True

    def _compute(self, chunk: Chunk) -> None:
        now, cost = self._clock.now, self._cost
        self._ledger.start_prefill(chunk.started, now)
        self._computing, self._start_s = True, now
        self._meter.steps += 1
        self._meter.new_tokens += chunk.tokens
        self._waiting = waiting = self._sitting_out(chunk)
        alone_s, cached_s = prefill_seconds(cost, chunk)
        total_s, decode_s = alone_s, 0.0
        if self._setup.mixed and self.batch.running:
            each, attention_s, decode_s = self._advance.one_step()
            total_s = max(cost.together_s(each, attention_s, chunk), chunk.fetch_s)
        elif waiting:
            fullest, others, slowest_s, decode_s = self._advance.step_without(waiting)
            total_s = max(cost.beside_s(fullest, others, slowest_s, chunk), chunk.fetch_s)
        share = total_s / (alone_s + decode_s) if decode_s else 1.0
        self._prompts_s, self._cached_s, self._decode_s = alone_s * share, cached_s * share, decode_s * share
        if decode_s:
            self._advance.book(self._decode_s)
        cost.book_prefill(chunk, self._prompts_s)
        self._clock.at(now + total_s, self._end_compute, chunk)

    def _sitting_out(self, chunk: Chunk) -> list[int]:
        """The ranks that compute the chunk, if others decode beside it."""
        if not self._others_decode or self._setup.mixed:
            return []
        waiting, sequences = [prompts.rank for prompts in chunk.prompts], self.batch.sequences
        return waiting if self.batch.running > sum([sequences[rank] for rank in waiting]) else []

    def _end_compute(self, timer: Timer) -> None:
        chunk: Chunk = timer.value
        now, batch, ledger = self._clock.now, self.batch, self._ledger
        self._computing = False
        self._meter.work(self._start_s, now, "prefill", self._prompts_s - self._cached_s)
        if self._cached_s:
            self._meter.spend("cached", self._cached_s)
        if self._decode_s:
            self._meter.spend("decode", self._decode_s)
        if self._waiting:
            self._advance.sit_out(self._waiting)
        if self._waiting or (self._setup.mixed and batch.running):
            self._finish(batch.advance(1), now)
        for sequence, rank in chunk.completed:
            ledger.end_prefill(sequence, now)
            self._prefixes.computed(sequence)
            ledger.receive(sequence, now, now)
            ledger.deliver_first(sequence, now)
            if sequence.remaining_tokens:
                self._pace.join(sequence, rank)
            else:
                batch.cancel(rank, sequence.context_tokens)
                self._finish([(sequence, rank)], now)
        self._go(decoded=False)

    def _end_decode(self) -> None:
        now, steps = self._clock.now, self._advance.end()
        self._meter.work(self._advance.start_s, now, "decode", now - self._advance.start_s)
        self._meter.steps += steps
        if self._holds:
            self._holds.pass_by(steps - 1)
        if self._delay:
            self._delay.pass_by(steps - 1)
        self._finish(self.batch.advance(steps), now)
        self._go(decoded=True)

    def _finish(self, finished: list[tuple[ServedRequest, int]], now: float) -> None:
        for sequence, rank in finished:
            self._requests -= 1
            self._weigh(self._index, rank, sequence, -1)
            self._prefixes.release(sequence, answered=True)
            self._ledger.finish(sequence, now)


def _nobody(sequence: ServedRequest, rank: int) -> bool:
    return False
