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
        self.steps_done = self.chosen = 0
        self.new = []

    def seats(self, rank):
        return sum(r == rank for _, r in self.running + self.ready + self.reserved)

    def held(self, rank, ahead):
        """Blocks on a rank when every running sequence has done `ahead` more steps; a leaving one grows no more."""
        arriving = [s.kept for s, r in self.ready + self.reserved if r == rank]
        running = [
            s.tokens(min(s.done + ahead, s.steps - 1) if ahead else s.done)
            for s, r in self.running
            if r == rank
        ]
        return sum(self.blocks(t) for t in arriving + running)

    def fits(self, rank, tokens):
        seats = self.seats(rank)
        reserve = self.blocks(self.cluster.plan.rules.growth_reserve_tokens) * seats
        room = self.setup.kv_blocks - self.held(rank, ahead=1)
        return seats < self.setup.max_sequences and self.blocks(tokens) + reserve <= room

    def start_step(self):
        if self.running:
            n, total = np.zeros(self.setup.dp), np.zeros(self.setup.dp)
            for s, r in self.running:
                n[r] += 1
                total[r] += s.mean_context()
            seconds = self.cluster.costs["decode"].decode_s(n, total / np.maximum(n, 1))
            for s in self.new:
                self.cluster.answer_client(s, self.cluster.now + seconds)
            self.new = []
            self.step_for(seconds, self.end_step)

    def end_step(self):
        self.steps_done += 1
        finished = []
        for s, r in self.running:
            s.done += 1
            if s.done == s.steps:
                finished.append((s, r))
        for s, r in finished:
            self.running.remove((s, r))
            self.chosen -= 1
            self.cluster.complete(s)
            s.finish = max(s.finish, s.answered)
        polls = not self.running or self.steps_done % self.cluster.handover.poll_every_steps == 0
        self.boundary(freed=bool(finished), polls=polls)

    def boundary(self, freed=False, polls=True):
        if polls:
            for s, _ in self.ready:
                s.begin_stint(self.pace)
                if self.cluster.handover.first_token == "joined":
                    self.cluster.answer_client(s, self.cluster.now)
                if self.cluster.handover.first_token == "stepped":
                    self.new.append(s)
            self.running, self.ready = self.running + self.ready, []
        for rank in range(self.setup.dp):
            while self.held(rank, ahead=0) > self.setup.kv_blocks:
                victim = max((s for s, r in self.running if r == rank), key=lambda s: s.id)
                self.running.remove((victim, rank))
                victim.evict()
                self.chosen -= 1
                if victim in self.new:
                    self.new.remove(victim)
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
        self.until = 0.0
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
            self.until = self.cluster.now + seconds
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


class Nobody:
    def wake(self):
        pass


class DisaggregatedReference(Reference):
    def __init__(self, requests, plan, costs, router="least_loaded"):
        super().__init__(requests, plan, costs, router)
        self.prefill = [PrefillRef(self) for _ in range(plan.pools["prefill"].workers)]
        self.decode = [DecodeRef(self) for _ in range(plan.pools["decode"].workers)]
        self.handover = plan.handover
        self.waiting = [[] for _ in (self.decode if self.handover.chooses_worker else [0])]
        self.places = {}
        self.turn = 0
        self.nic_free = {}
        for seq in self.seqs:
            seq.answered = 0.0

    def enter(self, seq, front=False):
        if self.handover.room_first and seq.output - seq.generated > 1 and not self.ask(seq, None):
            return Nobody()
        return self.queue(seq, front)

    def queue(self, seq, front=False):
        worker, rank = self.route("prefill", self.prefill, seq)
        worker.add(seq, rank, front)
        return worker

    def choose(self):
        if self.router == "round_robin":
            worker = self.decode[self.turn]
            self.turn = (self.turn + 1) % len(self.decode)
        else:
            worker = min(self.decode, key=lambda w: w.chosen)
        worker.chosen += 1
        return worker

    def ask(self, seq, sender):
        """A place on the decode side, or none, and then it waits for one."""
        workers, waiting = self.decode, self.waiting[0]
        if self.handover.chooses_worker:
            workers = [self.choose()]
            waiting = self.waiting[self.decode.index(workers[0])]
        place = None if waiting else self.place(seq, sender, workers)
        if place is None:
            waiting.append((seq, sender))
        return place

    def place(self, seq, sender, workers):
        tokens = seq.prompt + seq.generated + (sender is None and not self.handover.last_token_again)
        ranks = [
            ((w.seats(r), sum(w.seats(q) for q in range(w.setup.dp))), r * len(self.decode) + i, w, r)
            for i, w in enumerate(self.decode)
            for r in range(w.setup.dp)
            if w in workers
        ]
        place = self.pick("decode", ranks, lambda w, r: w.fits(r, tokens))
        if place:
            place[0].reserved.append((seq, place[1]))
            seq.kept = tokens
            if sender is None:
                self.places[seq] = place
        return place

    def offer(self, seq, sender, sender_rank):
        seq.generated -= self.handover.last_token_again
        early = self.plan.transfer.tail_fraction < 1
        if place := self.places.pop(seq, None):
            self.send(seq, (sender, sender_rank), place, seq.started if early else self.now)
        elif self.handover.relay_s:
            self.after(self.handover.relay_s, lambda: self.hear(seq, (sender, sender_rank), False))
        else:
            self.hear(seq, (sender, sender_rank), early)

    def hear(self, seq, sender, early):
        if place := self.ask(seq, sender):
            self.send(seq, sender, place, seq.started if early else self.now)

    def pump(self, worker):
        chooses = self.handover.chooses_worker
        waiting = self.waiting[self.decode.index(worker) if chooses else 0]
        workers, begun = [worker], []
        while waiting and (place := self.place(*waiting[0], workers)):
            seq, sender = waiting.pop(0)
            if sender is None:
                begun.append(seq)
            else:
                self.send(seq, sender, place, self.now)
            workers = [worker] if chooses else self.decode
        for prefiller in [self.queue(seq) for seq in begun]:
            prefiller.wake()

    def answer_client(self, seq, time_s):
        if math.isnan(seq.first_token):
            seq.first_token = max(time_s, seq.answered)

    def send(self, seq, sender, place, earliest):
        (sender, sender_rank), (worker, rank) = sender, place
        t = self.plan.transfer
        gpus = min(p.gpus / p.dp for p in self.plan.pools.values())
        seconds = seq.goal * t.bytes_per_token / (t.bytes_per_s * gpus)
        out, into = ("out", id(sender), sender_rank), ("in", id(worker), rank)
        begin = max(earliest, self.nic_free.get(out, 0.0), self.nic_free.get(into, 0.0))
        end = max(begin + seconds, self.now + seconds * t.tail_fraction)
        self.nic_free[out] = self.nic_free[into] = end

        def sent():
            seq.answered = sender.until if sender.stepping else self.now

        def arrive():
            if self.handover.first_token == "received":
                self.answer_client(seq, self.now)
            worker.receive(seq, rank)
            sender.used[sender_rank] -= sender.blocks(seq.goal)
            sender.wake()

        if self.handover.answers_between_steps:
            self.after(end - self.now, sent)
        self.after(end + t.latency_s - self.now, arrive)
