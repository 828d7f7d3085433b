"""The slow oracle of the disaggregated cluster: one decode step at a time, blocks counted afresh at every question.

No SimPy and nothing of `sim.cluster` or `sim.serving`: a heap of events and dictionaries. Times follow from
`decode_s` and `prefill_s` alone.
"""

import heapq
import itertools
import math

import numpy as np


class Seq:
    def __init__(self, index, requests):
        self.id = index
        self.prompt = int(requests.input_tokens[index])
        self.output = int(requests.output_tokens[index])
        self.cached = min(int(requests.cached_tokens[index]), self.prompt - 1)
        self.generated = 0  # tokens generated before the current stint of decoding
        self.first_token = self.finish = math.nan
        self.preemptions = self.recomputed = 0


class DecodeRef:
    """One decode worker. `running` and `ready` hold (sequence, rank); `reserved` holds transfers on their way."""

    def __init__(self, cluster, setup):
        self.cluster, self.setup = cluster, setup
        self.running, self.ready, self.reserved = [], [], []
        self.stepping = False

    def seats(self, rank):
        return sum(r == rank for _, r in self.running + self.ready + self.reserved)

    def held(self, rank, ahead):
        """Blocks on a rank when every running sequence has done `ahead` more steps; a leaving one grows no more."""
        tokens = [s.prompt + s.generated for s, r in self.ready + self.reserved if r == rank]
        for s, r in self.running:
            if r == rank:
                done = min(s.done + ahead, s.steps - 1) if ahead else s.done
                tokens.append(s.prompt + s.generated + (s.output - s.generated) * done // s.steps)
        return sum(math.ceil(t / self.setup.block_tokens) for t in tokens)

    def fits(self, rank, seq):
        need = math.ceil((seq.prompt + seq.generated) / self.setup.block_tokens)
        reserve = math.ceil(self.cluster.plan.rules.growth_reserve_tokens / self.setup.block_tokens)
        seats = self.seats(rank)
        room = self.setup.kv_blocks - self.held(rank, ahead=1)
        return seats < self.setup.max_sequences and need + reserve * seats <= room

    def start_step(self):
        if not self.running:
            return
        self.stepping = True
        n, total = np.zeros(self.setup.dp), np.zeros(self.setup.dp)
        for s, r in self.running:
            n[r] += 1
            total[r] += s.prompt + s.generated + (s.output - s.generated) / s.steps * s.done
        seconds = self.cluster.costs["decode"].decode_s(n, total / np.maximum(n, 1))
        self.cluster.busy["decode"] += seconds
        self.cluster.after(seconds, self.end_step)

    def end_step(self):
        self.stepping = False
        freed = False
        for s, r in list(self.running):
            s.done += 1
            if s.done == s.steps:
                self.running.remove((s, r))
                self.cluster.complete(s)
                freed = True
        self.boundary(freed)

    def boundary(self, freed=False):
        for s, r in self.ready:
            s.done, s.steps = 0, self.cluster.plan.speculation.steps(s.id, s.output - s.generated)
            self.running.append((s, r))
        self.ready = []
        for rank in range(self.setup.dp):
            while self.held(rank, ahead=0) > self.setup.kv_blocks:
                victim = max((s for s, r in self.running if r == rank), key=lambda s: s.id)
                self.running.remove((victim, rank))
                victim.generated += (victim.output - victim.generated) * victim.done // victim.steps
                victim.preemptions += 1
                victim.recomputed += victim.prompt + victim.generated - victim.cached
                worker = self.cluster.route_prompt(victim, front=True)
                worker.start_step()
                freed = True
        if freed:
            self.cluster.pump(self)
        self.start_step()

    def receive(self, seq, rank):
        self.reserved.remove((seq, rank))
        self.ready.append((seq, rank))
        if not self.stepping:
            self.boundary()


class PrefillRef:
    def __init__(self, cluster, setup):
        self.cluster, self.setup = cluster, setup
        self.queues = [[] for _ in range(setup.dp)]  # the first may be partly computed
        self.blocks = [0] * setup.dp
        self.stepping = False

    def load(self, rank):
        return sum(s.goal - s.computed for s in self.queues[rank])

    def add(self, seq, rank, front):
        seq.goal, seq.computed, seq.admitted = seq.prompt + seq.generated, seq.cached, False
        queue = self.queues[rank]
        place = 0 if front else len(queue)
        if front and queue and queue[0].admitted:
            place = 1
        queue.insert(place, seq)

    def start_step(self):
        if self.stepping:
            return
        tokens, pairs = np.zeros(self.setup.dp), np.zeros(self.setup.dp)
        done = []
        for rank, queue in enumerate(self.queues):
            budget = self.setup.chunk_tokens
            for s in list(queue):
                need = math.ceil(s.goal / self.setup.block_tokens)
                if budget == 0 or (not s.admitted and self.blocks[rank] + need > self.setup.kv_blocks):
                    break
                if not s.admitted:
                    s.admitted, s.started = True, self.cluster.now
                    self.blocks[rank] += need
                new = min(budget, s.goal - s.computed)
                pairs[rank] += sum(s.computed + i + 1 for i in range(new))
                tokens[rank] += new
                s.computed += new
                budget -= new
                if s.computed == s.goal:
                    queue.remove(s)
                    done.append((s, rank))
        if tokens.any():
            self.stepping = True
            seconds = self.cluster.costs["prefill"].prefill_s(tokens, pairs / np.maximum(tokens, 1))
            self.cluster.busy["prefill"] += seconds
            self.cluster.after(seconds, lambda: self.end_step(done))

    def end_step(self, done):
        self.stepping = False
        for s, rank in done:
            s.generated += 1
            if s.generated == s.output:
                self.blocks[rank] -= math.ceil(s.goal / self.setup.block_tokens)
                if math.isnan(s.first_token):
                    s.first_token = self.cluster.now
                self.cluster.complete(s)
            else:
                self.cluster.offer(s, self, rank)
        self.start_step()


class ReferenceCluster:
    def __init__(self, requests, plan, costs, router="least_loaded"):
        self.requests, self.plan, self.costs, self.router = requests, plan, costs, router
        self.now, self.events, self.order = 0.0, [], itertools.count()
        self.busy = {"prefill": 0.0, "decode": 0.0}
        self.prefill = [PrefillRef(self, plan.pools["prefill"]) for _ in range(plan.pools["prefill"].workers)]
        self.decode = [DecodeRef(self, plan.pools["decode"]) for _ in range(plan.pools["decode"].workers)]
        self.waiting = []
        self.turns = {"prefill": 0, "decode": 0}
        self.nic_free = {}
        self.seqs = [Seq(i, requests) for i in range(len(requests.input_tokens))]

    def after(self, seconds, action):
        heapq.heappush(self.events, (self.now + seconds, next(self.order), action))

    def complete(self, seq):
        seq.finish, seq.generated = self.now, seq.output

    def pick(self, role, candidates, fits):
        """`candidates`: (load, number, worker, rank)."""
        pool = self.plan.pools[role]
        count = pool.workers * pool.dp
        if self.router == "round_robin":
            candidates = sorted(candidates, key=lambda c: (c[1] - self.turns[role]) % count)
        else:
            candidates = sorted(candidates, key=lambda c: c[:2])
        for _, number, worker, rank in candidates:
            if fits(worker, rank):
                self.turns[role] = (number + 1) % count
                return worker, rank
        return None

    def route_prompt(self, seq, front=False):
        candidates = [
            (w.load(r), r * len(self.prefill) + i, w, r)
            for i, w in enumerate(self.prefill)
            for r in range(w.setup.dp)
        ]
        worker, rank = self.pick("prefill", candidates, lambda w, r: True)
        worker.add(seq, rank, front)
        return worker

    def place(self, seq, workers):
        candidates = [
            (w.seats(r), r * len(self.decode) + i, w, r)
            for i, w in enumerate(self.decode)
            for r in range(w.setup.dp)
            if w in workers
        ]
        place = self.pick("decode", candidates, lambda w, r: w.fits(r, seq))
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
            sender.blocks[sender_rank] -= math.ceil(seq.goal / sender.setup.block_tokens)
            sender.start_step()

        self.after(end + t.latency_s - self.now, arrive)

    def arrive(self, group):
        workers = []
        for s in group:
            if all(
                math.ceil((s.prompt + s.output) / p.block_tokens) <= p.kv_blocks
                for p in self.plan.pools.values()
            ):
                workers.append(self.route_prompt(s))
        for worker in workers:
            worker.start_step()

    def run(self):
        times = self.requests.arrival_s.tolist()
        for time_s, group in itertools.groupby(self.seqs, key=lambda s: times[s.id]):
            members = list(group)
            heapq.heappush(
                self.events, (time_s, next(self.order), lambda members=members: self.arrive(members))
            )
        while self.events:
            self.now, _, action = heapq.heappop(self.events)
            action()
        return self
