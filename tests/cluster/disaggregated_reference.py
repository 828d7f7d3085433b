"""The slow oracle of prefill workers, KV transfer and decode workers."""

import math

import numpy as np
from cluster_reference import Reference, Stepper

from sim.step import PromptLoad


class DecodeRef(Stepper):
    """One decode worker. `running`, `ready` and `reserved` (transfers on their way) hold (sequence, rank)."""

    def __init__(self, cluster):
        super().__init__(cluster, "decode")
        self.running, self.ready, self.reserved = [], [], []

    def seats(self, rank):
        return sum(r == rank for _, r in self.running + self.ready + self.reserved)

    def held(self, rank, ahead):
        """Blocks on a rank when every running sequence has done `ahead` more steps; a leaving one grows no more."""
        arriving = [s.prompt + s.generated for s, r in self.ready + self.reserved if r == rank]
        running = [
            s.tokens(min(s.done + ahead, s.steps - 1) if ahead else s.done)
            for s, r in self.running
            if r == rank
        ]
        return sum(self.blocks(t) for t in arriving + running)

    def fits(self, rank, seq):
        seats = self.seats(rank)
        reserve = self.blocks(self.cluster.plan.rules.growth_reserve_tokens) * seats
        room = self.setup.kv_blocks - self.held(rank, ahead=1)
        return seats < self.setup.max_sequences and self.blocks(seq.prompt + seq.generated) + reserve <= room

    def start_step(self):
        if self.running:
            n, total = np.zeros(self.setup.dp), np.zeros(self.setup.dp)
            for s, r in self.running:
                n[r] += 1
                total[r] += s.mean_context()
            self.step_for(self.cluster.costs["decode"].decode_s(n, total / np.maximum(n, 1)), self.end_step)

    def end_step(self):
        finished = []
        for s, r in self.running:
            s.done += 1
            if s.done == s.steps:
                finished.append((s, r))
        for s, r in finished:
            self.running.remove((s, r))
            self.cluster.complete(s)
        self.boundary(freed=bool(finished))

    def boundary(self, freed=False):
        for s, _ in self.ready:
            s.begin_stint(self.pace)
        self.running, self.ready = self.running + self.ready, []
        for rank in range(self.setup.dp):
            while self.held(rank, ahead=0) > self.setup.kv_blocks:
                victim = max((s for s, r in self.running if r == rank), key=lambda s: s.id)
                self.running.remove((victim, rank))
                victim.evict()
                self.cluster.enter(victim, front=True).wake()
                freed = True
        if freed:
            self.cluster.pump(self)
        self.adapt()
        self.start_step()

    def receive(self, seq, rank):
        self.reserved.remove((seq, rank))
        self.ready.append((seq, rank))
        if not self.stepping:
            self.boundary()


class PrefillRef(Stepper):
    def __init__(self, cluster):
        super().__init__(cluster, "prefill")
        self.queues = [[] for _ in range(self.setup.dp)]  # the first may be partly computed
        self.used = [0] * self.setup.dp
        self.under_way = 0

    def load(self, rank):
        """Tokens that no step has taken, and those of the fullest rank in the step that all ranks wait for."""
        return sum(s.goal - s.computed for s in self.queues[rank]) + self.under_way

    def add(self, seq, rank, front):
        seq.goal, seq.computed, seq.admitted = seq.prompt + seq.generated, seq.cached, False
        queue = self.queues[rank]
        place = 0 if front else len(queue)
        if front and queue and queue[0].admitted:
            place = 1
        queue.insert(place, seq)

    def wake(self):
        if not self.stepping:
            self.start_step()

    def start_step(self):
        (tokens, pairs, held), done = np.zeros((3, self.setup.dp)), []
        for rank, queue in enumerate(self.queues):
            budget = self.setup.chunk_tokens
            for s in list(queue):
                fits = self.used[rank] + self.blocks(s.goal) <= self.setup.kv_blocks
                if budget == 0 or not (s.admitted or fits):
                    break
                started = budget < self.setup.chunk_tokens
                if self.setup.whole_prompts and started and not s.admitted and s.goal - s.computed > budget:
                    break
                if not s.admitted:
                    s.admitted, s.started = True, self.cluster.now
                    self.used[rank] += self.blocks(s.goal)
                new = min(budget, s.goal - s.computed)
                pairs[rank] += sum(s.computed + i + 1 for i in range(new))
                tokens[rank] += new
                held[rank] += s.computed + new
                s.computed += new
                budget -= new
                if s.computed == s.goal:
                    queue.remove(s)
                    done.append((s, rank))
        self.under_way = int(tokens.max())
        if tokens.any():
            load = PromptLoad.alike(tokens, pairs / np.maximum(tokens, 1), held)
            seconds = self.cluster.costs["prefill"].prefill_s(load)
            self.step_for(seconds, lambda: self.end_step(done))

    def end_step(self, done):
        self.under_way = 0
        for s, rank in done:
            s.generated += 1
            if s.generated == s.output:
                self.used[rank] -= self.blocks(s.goal)
                if math.isnan(s.first_token):
                    s.first_token = self.cluster.now
                self.cluster.complete(s)
            else:
                self.cluster.offer(s, self, rank)
        self.wake()


class DisaggregatedReference(Reference):
    def __init__(self, requests, plan, costs, router="least_loaded"):
        super().__init__(requests, plan, costs, router)
        self.prefill = [PrefillRef(self) for _ in range(plan.pools["prefill"].workers)]
        self.decode = [DecodeRef(self) for _ in range(plan.pools["decode"].workers)]
        self.waiting = []
        self.nic_free = {}

    def enter(self, seq, front=False):
        worker, rank = self.route("prefill", self.prefill, seq)
        worker.add(seq, rank, front)
        return worker

    def place(self, seq, workers):
        ranks = [
            ((w.seats(r), sum(w.seats(q) for q in range(w.setup.dp))), r * len(self.decode) + i, w, r)
            for i, w in enumerate(self.decode)
            for r in range(w.setup.dp)
            if w in workers
        ]
        place = self.pick("decode", ranks, lambda w, r: w.fits(r, seq))
        if place:
            place[0].reserved.append((seq, place[1]))
        return place

    def offer(self, seq, sender, sender_rank):
        place = None if self.waiting else self.place(seq, self.decode)
        if place is None:
            self.waiting.append((seq, sender, sender_rank))
        else:
            early = self.plan.transfer.tail_fraction < 1
            self.send(seq, sender, sender_rank, place, seq.started if early else self.now)

    def pump(self, worker):
        workers = [worker]
        while self.waiting and (place := self.place(self.waiting[0][0], workers)):
            self.send(*self.waiting.pop(0), place, self.now)
            workers = self.decode

    def send(self, seq, sender, sender_rank, place, earliest):
        worker, rank = place
        t = self.plan.transfer
        gpus = min(p.gpus / p.dp for p in self.plan.pools.values())
        seconds = seq.goal * t.bytes_per_token / (t.bytes_per_s * gpus)
        out, into = ("out", id(sender), sender_rank), ("in", id(worker), rank)
        begin = max(earliest, self.nic_free.get(out, 0.0), self.nic_free.get(into, 0.0))
        end = max(begin + seconds, self.now + seconds * t.tail_fraction)
        self.nic_free[out] = self.nic_free[into] = end

        def arrive():
            if math.isnan(seq.first_token):
                seq.first_token = self.now
            worker.receive(seq, rank)
            sender.used[sender_rank] -= sender.blocks(seq.goal)
            sender.wake()

        self.after(end + t.latency_s - self.now, arrive)
