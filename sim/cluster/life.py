"""The life of workers: they start, serve, drain and leave, or fail and come back.

    off -> starting -> up -> draining -> off               an autoscaler or a schedule
    up -> failed -> [waiting for a node ->] restarting -> up   a failure

A worker holds its GPUs, and they are paid for, in every state but off. A failed worker looks up to the router until it
is found out: what is sent to it meanwhile is lost as well. Then its requests are asked again elsewhere, and it restarts
as a whole; where a node is away for repair, on a spare one, or else when the first node comes back.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from sim.cluster.clock import Clock, Timer
from sim.cluster.gpu_book import GpuBook, Worker
from sim.cluster.life_record import SERVING, LifeRecord
from sim.cluster.life_setup import LifeSetup
from sim.cluster.mortality import Mortal
from sim.cluster.retries import RetryLedger
from sim.cluster.scaling import Scaler
from sim.cluster.setup import PoolSetup
from sim.cluster.utilization import full_step_s, sequence_steps
from sim.scenario.errors import DeploymentError, Problem
from sim.serving.served_request import ServedRequest
from sim.units import HOUR_S
from sim.workload.randomness import generator

DRAIN_LOOK_S: Final = 1.0
"""Between two looks at whether a draining worker is empty; it is let go at the first that finds it so."""
DAY_S: Final = 24 * HOUR_S
MOST_LOOKS: Final = 200_000
"""Of an autoscaler or at a schedule: a month every 13 s. More would take longer than the requests between them."""
MOST_FAILURES: Final = 20_000
"""Likewise: four hundred days of 100,000 GPUs."""


class Life:
    """Of all workers of a cluster, until its requests are done."""

    def __init__(
        self, setup: LifeSetup, clock: Clock, ledger: RetryLedger, pools: Mapping[str, PoolSetup], cluster: Mortal
    ) -> None:  # fmt: skip
        self._setup, self._clock, self._ledger = setup, clock, ledger
        self._pools, self._cluster = pools, cluster
        self._book = GpuBook(clock, pools, setup.failing.node_gpus if setup.failing else 0)
        self._failed_s: list[float] = []
        self._lives: dict[Worker, int] = {}
        """How often each has started: what was planned for an earlier life is void."""
        self._lost: dict[Worker, list[ServedRequest]] = {}
        """Requests of workers whose failure nobody knows of yet."""
        self._without_node: deque[Worker] = deque()
        self._unmissed = 0
        """Nodes that are away and that nobody needs any more."""
        self._spares: list[Worker] = []
        self._chances: dict[Worker, np.random.Generator] = {}
        self._timers = self._looks = 0
        scaling = setup.scaling
        self._scalers = {r: Scaler(scaling, b) for r, b in scaling.pools.items()} if scaling else {}
        self._seen: dict[str, tuple[float, int, float]] = {}
        """At the last look at a pool: seconds of prompts, steps of sequences, seconds of service."""
        self._arrived = 0

    def start(self) -> None:
        """Time zero: the first workers serve."""
        setup = self._setup
        for role in self._pools:
            for worker in range(setup.workers[role]):
                self._serve((role, worker))
        if setup.failing:
            for number in range(setup.failing.spare_nodes):
                self._stand_by(("spare", number))
        if setup.scaling:
            self._at(setup.scaling.period_s, self._look)
        for second, workers in setup.schedule:
            self._at(second if second > 0 else DAY_S, self._follow, workers)

    def record(self, end_s: float) -> LifeRecord:
        """Everything until the end of the run."""
        return LifeRecord(self._ledger.counts(), self._ledger.retried_s, [s for s in self._failed_s if s <= end_s],
                          self._book.spans(end_s))  # fmt: skip

    # -- timers: they stop by themselves when the requests are done

    def _at(self, time_s: float, act: Callable[[Any], None], about: Any = None) -> None:
        self._timers += 1
        self._clock.at(time_s, self._ring, (act, about))

    def _looks_again(self, *key: str) -> None:
        self._looks += 1
        _check_count(self._looks, MOST_LOOKS, *key)

    def _ring(self, timer: Timer) -> None:
        self._timers -= 1
        if self._clock.pending == self._timers and not self._lost and not self._cluster.waits:
            return
        act, about = timer.value
        act(about)

    # -- states

    def _serve(self, who: Worker) -> None:
        self._book.set(who, "up")
        life = self._begin(who)
        self._cluster.open(*who)
        failing = self._setup.failing
        if failing and failing.per_gpu_s:
            rate_per_s = failing.per_gpu_s * self._pools[who[0]].gpus
            until_s = self._chance(who).exponential(1 / rate_per_s)
            self._at(self._clock.now + until_s, self._fail, (who, life))

    def _begin(self, who: Worker) -> int:
        self._lives[who] = life = self._lives.get(who, 0) + 1
        return life

    def _chance(self, who: Worker) -> np.random.Generator:
        if who not in self._chances:
            self._chances[who] = generator(self._setup.seed, f"failures/{who[0]}/{who[1]}")
        return self._chances[who]

    # -- failures

    def _fail(self, about: tuple[Worker, int]) -> None:
        who, life = about
        failing = self._setup.failing
        assert failing is not None
        if self._lives[who] != life or self._book.state(who) not in SERVING:
            return
        self._failed_s.append(self._clock.now)
        _check_count(len(self._failed_s), MOST_FAILURES, "failures", "per_gpu_hour")
        lost = self._cluster.fail(*who)
        self._ledger.lose(lost, self._clock.now)
        self._lost[who] = lost
        leaves = self._book.state(who) == "draining"
        self._book.set(who, "failed")
        self._at(self._clock.now + failing.detect_s, self._detect, (who, leaves))

    def _detect(self, about: tuple[Worker, bool]) -> None:
        who, leaves = about
        cluster, now = self._cluster, self._clock.now
        cluster.close(*who)
        lost = self._lost.pop(who) + cluster.detect(*who)
        self._replace(who, leaves)
        cluster.submit([self._ledger.retry(sequence, now) for sequence in lost])

    def _replace(self, who: Worker, leaves: bool) -> None:
        """It restarts, unless it was to leave; where a node is away for repair, it needs another."""
        failing = self._setup.failing
        assert failing is not None
        chance = self._chance(who)
        kinds = failing.repairs
        kind = kinds[chance.choice(len(kinds), p=[k.share for k in kinds])]
        away_s = chance.uniform(kind.least_h, kind.most_h) * HOUR_S
        if away_s:
            self._at(self._clock.now + away_s, self._repaired)
        if leaves:
            self._book.set(who, None)
            self._unmissed += away_s > 0
        elif not away_s:
            self._restart(who)
        elif self._spares:
            self._book.set(self._spares.pop(), None)
            self._restart(who)
        else:
            self._book.set(who, "waiting")
            self._without_node.append(who)

    def _restart(self, who: Worker) -> None:
        assert self._setup.failing is not None
        self._book.set(who, "restarting")
        self._at(self._clock.now + self._setup.failing.restart_s, self._started, (who, self._begin(who)))

    def _repaired(self, _: object) -> None:
        """A node is back: for the worker that has waited longest, or to stand by."""
        if self._without_node:
            self._restart(self._without_node.popleft())
        elif self._unmissed:
            self._unmissed -= 1
        else:
            self._stand_by(("spare", len(self._spares)))

    def _stand_by(self, spare: Worker) -> None:
        self._spares.append(spare)
        self._book.set(spare, "spare")

    # -- as many as are wanted

    def _started(self, about: tuple[Worker, int]) -> None:
        who, life = about
        if self._lives[who] == life and self._book.state(who) in ("starting", "restarting"):
            self._serve(who)

    def _follow(self, workers: Mapping[str, int]) -> None:
        """A row of the schedule."""
        self._looks_again("autoscale", "schedule")
        self._at(self._clock.now + DAY_S, self._follow, workers)
        for role, count in workers.items():
            self._want(role, count)

    def _look(self, _: object) -> None:
        """The autoscaler looks at the signal of each of its pools."""
        scaling, now = self._setup.scaling, self._clock.now
        assert scaling is not None
        self._looks_again("autoscale", "period_s")
        self._at(now + scaling.period_s, self._look)
        arrived, self._arrived = self._ledger.arrived - self._arrived, self._ledger.arrived
        for role, scaler in self._scalers.items():
            up = self._book.among(role, "up")
            if not up:
                continue
            if scaling.signal == "requests_per_s":
                signal = arrived / scaling.period_s / len(up)
            elif scaling.signal == "concurrency":
                signal = sum(self._cluster.requests(role, worker) for worker in up) / len(up)
            else:
                signal = self._utilization(role)
            self._want(role, scaler.wanted(signal, len(up), now))

    def _utilization(self, role: str) -> float:
        """Of a pool since the last look; see `sim.cluster.utilization`."""
        batches = self._cluster.batches(role)
        prompts_s = self._cluster.meters[role].spent_s("prefill", "cached")
        steps = sequence_steps(batches)
        served_s = self._book.served_s(role)
        prompts_before_s, steps_before, served_before_s = self._seen.get(role, (0.0, 0, 0.0))
        self._seen[role] = prompts_s, steps, served_s
        decode_s = max(0, steps - steps_before) * full_step_s(self._cluster.costs[role], batches)
        return (prompts_s - prompts_before_s + decode_s) / (served_s - served_before_s)

    def _want(self, role: str, count: int) -> None:
        """Start workers or let some go, so that `count` are there or on their way."""
        here = self._book.among(role, "starting", "up", "failed", "waiting", "restarting")
        for worker in self._book.among(role, "draining")[: max(0, count - len(here))]:
            self._book.set((role, worker), "up")
            self._cluster.open(role, worker)
            here.append(worker)
        off = (w for w in range(self._pools[role].workers) if self._book.state((role, w)) is None)
        for worker, _ in zip(off, range(count - len(here)), strict=False):
            self._book.set((role, worker), "starting")
            about = (role, worker), self._begin((role, worker))
            self._at(self._clock.now + self._setup.start_up_s[role], self._started, about)
        spare = [
            *self._book.among(role, "up")[1:],
            *self._book.among(role, "starting"),
        ]  # the last to serve stays
        for worker in spare[::-1][: max(0, len(here) - count)]:
            if self._book.state((role, worker)) == "starting":
                self._book.set((role, worker), None)
            else:
                self._drain((role, worker))

    def _drain(self, who: Worker) -> None:
        self._book.set(who, "draining")
        self._cluster.close(*who)
        self._let_go((who, self._clock.now))

    def _let_go(self, about: tuple[Worker, float]) -> None:
        """If it is empty; else look again."""
        who, since_s = about
        if self._book.state(who) != "draining" or self._book.since_s(who) != since_s:
            return
        if self._cluster.empty(*who):
            self._book.set(who, None)
            self._cluster.retire(*who)
        else:
            self._at(self._clock.now + DRAIN_LOOK_S, self._let_go, about)


def _check_count(count: int, most: int, *key: str) -> None:
    """Raises DeploymentError at the scenario's `key`, which says how often something comes again, if that is often."""
    if count > most:
        says = f"more than {most:,} times until the requests are done; expected fewer, or a shorter run"
        raise DeploymentError([Problem(key, says)])
