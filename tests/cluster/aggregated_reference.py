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
        self.held_since = None

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

    def may_compute(self):
        limit = self.cluster.plan.rules.wait_all_ranks_steps
        waiting = sum(bool(q) for q in self.queues)
        if not self.running or any(self.partial) or not limit or not waiting:
            return True
        if self.held_since is None:
            self.held_since = self.steps
        return waiting == self.setup.dp or self.steps - self.held_since >= limit

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
        for rank in range(self.setup.dp) if self.may_compute() else ():
            budget = self.setup.chunk_tokens
            if self.setup.mixed:
                budget = max(0, budget - sum(r == rank for _, r in self.running))
            while budget:
                s = self.partial[rank]
                if s is None:
                    if not self.queues[rank] or not self.fits(rank, self.queues[rank][0]):
                        break
                    s = self.partial[rank] = self.queues[rank].pop(0)
                    self.resident.append((s, rank))
                new = min(budget, s.goal - s.computed)
                pairs[rank] += sum(s.computed + i + 1 for i in range(new))
                tokens[rank] += new
                held[rank] += s.computed + new
                s.computed += new
                budget -= new
                if s.computed == s.goal:
                    done.append((s, rank))
                    self.partial[rank] = None
        if tokens.any():
            self.held_since = None
        self.start_step(tokens, pairs / np.maximum(tokens, 1), held, done)

    def start_step(self, tokens, token_context, held, done):
        cost = self.cluster.costs["serve"]
        computes = bool(tokens.any())
        decodes = bool(self.running) and (self.setup.mixed or not computes)
        n, total = np.zeros(self.setup.dp), np.zeros(self.setup.dp)
        for s, r in self.running:
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
        self.step_for(seconds, lambda: self.end_step(done, computes, decodes))

    def end_step(self, done, computes, decodes):
        if decodes:
            self.steps += 1
            finished = []
            for s, r in self.running:
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
