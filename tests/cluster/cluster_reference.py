"""The slow oracles' common ground: requests, a heap of events, arrivals and routing.

Nothing of `sim.cluster` or `sim.serving` and no SimPy: the oracles take one step at a time, ask only for the seconds of
one step, and count blocks afresh at every question.
"""

import heapq
import itertools
import math


class Seq:
    def __init__(self, index, requests):
        self.id = index
        self.prompt = int(requests.input_tokens[index])
        self.output = int(requests.output_tokens[index])
        self.cached = min(int(requests.cached_tokens[index]), self.prompt - 1)
        self.generated = 0  # tokens generated before the current stint of decoding
        self.arrival = self.first_token = self.finish = math.nan
        self.preemptions = self.recomputed = 0

    def begin_stint(self, speculation):
        self.done, self.steps = 0, speculation.steps(self.id, self.output - self.generated)

    def tokens(self, done):
        """Tokens that it holds blocks for after `done` steps of the stint."""
        return self.prompt + self.generated + (self.output - self.generated) * done // self.steps

    def mean_context(self):
        """As the cost sees it: tokens grow evenly over the stint."""
        return self.prompt + self.generated + (self.output - self.generated) / self.steps * self.done

    def evict(self):
        self.generated += (self.output - self.generated) * self.done // self.steps
        self.preemptions += 1
        self.recomputed += self.prompt + self.generated - self.cached


class Reference:
    """Runs until nothing is left to happen. Subclasses route: `enter(seq)` returns the worker to start."""

    def __init__(self, requests, plan, costs, router="least_loaded"):
        self.requests, self.plan, self.costs, self.router = requests, plan, costs, router
        self.now, self.events, self.order = 0.0, [], itertools.count()
        self.busy = dict.fromkeys(plan.pools, 0.0)
        self.turns = dict.fromkeys(plan.pools, 0)
        self.seqs = [Seq(i, requests) for i in range(len(requests.input_tokens))]
        self.unsent = iter(self.seqs)
        self.due = []

    def after(self, seconds, action):
        heapq.heappush(self.events, (self.now + seconds, next(self.order), action))

    def complete(self, seq):
        seq.finish, seq.generated = self.now, seq.output
        self.succeed()

    def succeed(self):
        """In a closed loop, the next request follows one that ended."""
        seq = next(self.unsent, None) if self.requests.concurrency is not None else None
        if seq is None:
            return
        seq.arrival = self.now
        if not self.due or self.due[0].arrival < self.now:
            self.due = [seq]
            due = self.due
            self.after(self.plan.rules.ingress_s, lambda: self.arrive(due))
        else:
            self.due.append(seq)

    def arrive(self, group):
        if group is self.due:
            self.due = []
        workers = []
        for s in group:
            tokens = s.prompt + s.output
            if all(math.ceil(tokens / p.block_tokens) <= p.kv_blocks for p in self.plan.pools.values()):
                workers.append(self.enter(s))
            else:
                self.succeed()
        for worker in workers:
            worker.wake()

    def pick(self, role, candidates, fits):
        """`candidates`: ((load of the rank, of its worker), number, worker, rank)."""
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

    def route(self, role, workers, seq):
        ranks = [
            ((w.load(r), sum(w.load(q) for q in range(w.setup.dp))), r * len(workers) + i, w, r)
            for i, w in enumerate(workers)
            for r in range(w.setup.dp)
        ]
        return self.pick(role, ranks, lambda w, r: True)

    def run(self):
        if self.requests.concurrency is None:
            for s, time_s in zip(self.seqs, self.requests.arrival_s.tolist(), strict=True):
                s.arrival = time_s
            for time_s, group in itertools.groupby(self.seqs, key=lambda s: s.arrival):
                members = list(group)
                self.after(time_s + self.plan.rules.ingress_s, lambda members=members: self.arrive(members))
        else:
            for _ in range(self.requests.concurrency):
                self.succeed()
        while self.events:
            self.now, _, action = heapq.heappop(self.events)
            action()
        return self


class Stepper:
    """A worker that takes one step at a time. Subclasses give `start_step`."""

    def __init__(self, cluster, role):
        self.cluster, self.role, self.setup = cluster, role, cluster.plan.pools[role]
        self.stepping = False
        self.pace = cluster.plan.speculation.at(1)

    def adapt(self):
        """At a step boundary: if the fullest rank's batch changes the drafts, every sequence starts a new stint."""
        batch = max(sum(r == rank for _, r in self.running) for rank in range(self.setup.dp))
        pace = self.cluster.plan.speculation.at(batch)
        if pace is not self.pace:
            self.pace = pace
            for s, _ in self.running:
                s.generated += (s.output - s.generated) * s.done // s.steps
                s.begin_stint(pace)

    def blocks(self, tokens):
        return math.ceil(tokens / self.setup.block_tokens)

    def step_for(self, seconds, end):
        self.stepping = True
        self.cluster.busy[self.role] += seconds

        def ring():
            self.stepping = False
            end()

        self.cluster.after(seconds, ring)
