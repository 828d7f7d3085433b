"""The slow oracle of aggregated workers: prompts and decode on the same GPUs."""

import math

import numpy as np
from cluster_reference import Reference, Stepper

from sim.step import PromptLoad


class ServeRef(Stepper):
    """One aggregated worker. `resident`: prompts under way, whose blocks are reserved, as (sequence, rank)."""

    def __init__(self, cluster):
        super().__init__(cluster, "serve")
        self.running, self.resident, self.inbox = [], [], []
        self.queues = [[] for _ in range(self.setup.dp)]  # seen, but not started
        self.partial = [None] * self.setup.dp
        self.steps = self.polled_from = 0
        self.delayed_count = 0
        self.rest = self.waiting_iters = self.batching_iters = self.batch_wait_iters = 0

    def load(self, rank):
        return sum(r == rank for _, r in self.running + self.resident + self.inbox) + len(self.queues[rank])

    def held(self, rank, ahead):
        prompts = [s.goal + 1 for s, r in self.resident if r == rank]
        running = [
            s.tokens(min(s.done + ahead, s.steps - 1) if ahead else s.done)
            for s, r in self.running
            if r == rank
        ]
        return sum(self.blocks(t) for t in prompts + running)

    def fits(self, rank, seq):
        seats = sum(r == rank for _, r in self.running + self.resident)
        reserve = self.blocks(self.cluster.plan.rules.growth_reserve_tokens) * seats
        room = self.setup.kv_blocks - self.held(rank, ahead=1)
        return seats < self.setup.max_sequences and self.blocks(seq.goal + 1) + reserve <= room

    def wake(self):
        if not self.stepping:
            self.boundary(only_decoded=False)

    def queue(self, seq, rank, front=False):
        seq.goal, seq.computed = seq.prompt + seq.generated, seq.cached
        self.queues[rank].insert(0 if front else len(self.queues[rank]), seq)

    def preempt(self):
        for rank in range(self.setup.dp):
            while self.held(rank, ahead=0) > self.setup.kv_blocks:
                victim = max((s for s, r in self.running if r == rank), key=lambda s: s.id)
                self.running.remove((victim, rank))
                victim.evict()
                self.queue(victim, rank, front=True)

    def proposed(self, rank):
        """Tokens of the prompt under way and of those that find a seat and blocks, in order."""
        seats = sum(r == rank for _, r in self.running + self.resident)
        room = self.setup.kv_blocks - self.held(rank, ahead=1)
        found = self.partial[rank].goal - self.partial[rank].computed if self.partial[rank] else 0
        for s in self.queues[rank]:
            reserve = self.blocks(self.cluster.plan.rules.growth_reserve_tokens) * seats
            if seats == self.setup.max_sequences or self.blocks(s.goal + 1) + reserve > room:
                break
            found, seats, room = found + s.goal - s.computed, seats + 1, room - self.blocks(s.goal + 1)
        return found

    def may_compute(self):
        if not (self.running or any(self.queues) or any(self.partial)):
            return True
        rules = self.cluster.plan.rules
        new = [self.proposed(rank) for rank in range(self.setup.dp)]
        old = [sum(r == rank for _, r in self.running) for rank in range(self.setup.dp)]
        deferred = self.rest > 0 and any(old)
        self.rest = max(0, self.rest - 1)  # SGLang's `_should_defer_prefill`
        if self.setup.dp > 1:
            agreed = not rules.wait_all_ranks_steps or self.balance(rules, new, old)
        else:
            agreed = not rules.batch_wait_steps or self.batch_waiting(rules, new[0], old[0])
        return agreed and not deferred

    def balance(self, rules, new, old):
        """TensorRT-LLM's `_balance_adp_context_requests`, line by line."""
        if all(o < self.setup.max_sequences for o in old) and all(new):
            self.waiting_iters = 0
            if all(old):
                if self.batching_iters < rules.gather_prompts_steps:
                    self.batching_iters += 1
                    return False
                self.batching_iters = 0
            return True
        self.waiting_iters += 1
        padded = [o or not (n or rules.idle_rank_opens) for n, o in zip(new, old, strict=True)]
        if self.waiting_iters >= rules.wait_all_ranks_steps or not all(padded):
            self.waiting_iters = 0
            return True
        return False

    def batch_waiting(self, rules, new, old):
        """`_apply_batch_waiting`, with the condition on which it is called."""
        if not (new and old):
            return True
        tokens = new + old * rules.tokens_per_sequence
        if self.batch_wait_iters < rules.batch_wait_steps and tokens < rules.batch_wait_tokens:
            self.batch_wait_iters += 1
            return False
        self.batch_wait_iters = 0
        return True

    def negotiate(self):
        """SGLang's `_negotiate_should_allow_prefill_pure`, without watermark, slots and queue. A worker with nothing to
        run goes through its passes in no time."""
        most = self.cluster.plan.rules.delay_prompts_steps
        if not most or self.setup.dp == 1 or not any(self.queues):
            return True
        prefillable = [bool(q) and self.fits(rank, q[0]) for rank, q in enumerate(self.queues)]
        if all(prefillable) or not any(prefillable) or not (self.running or any(self.partial)):
            self.delayed_count = 0
            return True
        if self.delayed_count < most - 1:
            self.delayed_count += 1
            return False
        self.delayed_count = 0
        return True

    def boundary(self, only_decoded):
        self.preempt()
        self.adapt()
        if not only_decoded or not self.running:
            self.polled_from = self.steps
        if (self.steps - self.polled_from) % self.cluster.plan.rules.poll_every_steps == 0:
            for s, rank in self.inbox:
                self.queue(s, rank)
            self.inbox = []
        (tokens, pairs, held), done = np.zeros((3, self.setup.dp)), []
        may_compute = self.may_compute()
        allowed = may_compute and self.negotiate()
        for rank in range(self.setup.dp) if may_compute else ():
            budget = self.setup.chunk_tokens
            if self.setup.mixed:
                decoding = sum(r == rank for _, r in self.running)
                budget = max(0, budget - decoding * self.cluster.plan.rules.tokens_per_sequence)
            taken = False
            while budget:
                s = self.partial[rank]
                if s is None:
                    if not self.queues[rank] or not allowed or not self.fits(rank, self.queues[rank][0]):
                        break
                    whole = self.queues[rank][0].goal - self.queues[rank][0].computed
                    if self.setup.whole_prompts and taken and whole > budget:
                        break
                    s = self.partial[rank] = self.queues[rank].pop(0)
                    self.resident.append((s, rank))
                new = min(budget, s.goal - s.computed)
                pairs[rank] += sum(s.computed + i + 1 for i in range(new))
                tokens[rank] += new
                held[rank] += s.computed + new
                s.computed += new
                budget -= new
                taken = True
                if s.computed == s.goal:
                    done.append((s, rank))
                    self.partial[rank] = None
        if tokens.any():
            self.rest = self.cluster.plan.rules.rest_after_prompts_steps
        self.start_step(tokens, pairs / np.maximum(tokens, 1), held, done)

    def start_step(self, tokens, token_context, held, done):
        cost = self.cluster.costs["serve"]
        computes = bool(tokens.any())
        going = [(s, r) for s, r in self.running if self.decodes(r, tokens)]
        decodes = bool(going)
        n, total = np.zeros(self.setup.dp), np.zeros(self.setup.dp)
        for s, r in going:
            n[r] += 1
            total[r] += s.mean_context()
        context = total / np.maximum(n, 1)
        load = PromptLoad.alike(tokens, token_context, held)
        if computes and decodes:
            seconds = cost.mixed_s(n, context, load)
        elif computes:
            seconds = cost.prefill_s(load)
        elif decodes:
            seconds = cost.decode_s(n, context)
        else:
            return
        self.step_for(seconds, lambda: self.end_step(done, computes, going))

    def decodes(self, rank, tokens):
        """Of the ranks' schedulers in SGLang each has its own batch, prompts or answers, in a forward of all."""
        if self.setup.mixed or not tokens.any():
            return True
        return self.cluster.plan.rules.other_ranks_decode and not tokens[rank]

    def end_step(self, done, computes, going):
        if going:
            self.steps += 1
            finished = []
            for s, r in going:
                s.done += 1
                if s.done == s.steps:
                    finished.append((s, r))
            for s, r in finished:
                self.running.remove((s, r))
                self.cluster.complete(s)
        for s, rank in done:
            self.resident.remove((s, rank))
            s.generated += 1
            if math.isnan(s.first_token):
                s.first_token = self.cluster.now
            if s.generated == s.output:
                self.cluster.complete(s)
            else:
                s.begin_stint(self.pace)
                self.running.append((s, rank))
        self.boundary(only_decoded=not computes)


class AggregatedReference(Reference):
    def __init__(self, requests, plan, costs, router="least_loaded"):
        super().__init__(requests, plan, costs, router)
        self.workers = [ServeRef(self) for _ in range(plan.pools["serve"].workers)]

    def enter(self, seq):
        worker, rank = self.route("serve", self.workers, seq)
        worker.inbox.append((seq, rank))
        return worker
