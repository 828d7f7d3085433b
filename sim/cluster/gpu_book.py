"""The one place that books GPU time where workers come and go: who was in which state, from when until when."""

from collections import defaultdict
from collections.abc import Mapping

from sim.cluster.clock import Clock
from sim.cluster.life_record import SERVING, Span, State
from sim.cluster.setup import PoolSetup

Worker = tuple[str, int]
"""(role of its pool, index)"""


class GpuBook:
    """Of the workers of all pools, and of spare nodes."""

    def __init__(self, clock: Clock, pools: Mapping[str, PoolSetup], node_gpus: int) -> None:
        """`node_gpus`: of a node that is away for repair, or stands by."""
        self._clock, self._pools, self._node_gpus = clock, pools, node_gpus
        self._states: dict[Worker, tuple[State, float]] = {}
        """And since when; those that are off are not here."""
        self._spans: list[Span] = []
        self._served_s: defaultdict[str, float] = defaultdict(float)
        """By pool, of spans that are over."""

    def set(self, who: Worker, state: State | None) -> None:
        """From now on; None: off."""
        now = self._clock.now
        if who in self._states:
            before, since_s = self._states.pop(who)
            if before in SERVING:
                self._served_s[who[0]] += now - since_s
            if now > since_s:
                self._spans.append(self._span(who, before, since_s, now))
        if state is not None:
            self._states[who] = state, now

    def state(self, who: Worker) -> State | None:
        """What it is now; None: off."""
        return self._states[who][0] if who in self._states else None

    def since_s(self, who: Worker) -> float:
        """Since when; it is not off."""
        return self._states[who][1]

    def among(self, role: str, *states: State) -> list[int]:
        """Workers of a pool in one of these states, in order."""
        return sorted(w for (r, w), (state, _) in self._states.items() if r == role and state in states)

    def served_s(self, role: str) -> float:
        """Worker seconds that a pool has served so far."""
        now = self._clock.now
        return self._served_s[role] + sum(now - self.since_s((role, w)) for w in self.among(role, *SERVING))

    def spans(self, end_s: float) -> list[Span]:
        """All until then, in the order of their beginnings."""
        spans = [*self._spans]
        spans += [self._span(who, state, since_s, end_s) for who, (state, since_s) in self._states.items()]
        cut = [span._replace(end_s=min(span.end_s, end_s)) for span in spans if span.start_s < end_s]
        return sorted(cut, key=lambda span: (span.start_s, span.role, span.worker))

    def _span(self, who: Worker, state: State, start_s: float, end_s: float) -> Span:
        role, worker = who
        gpus = self._node_gpus if role == "spare" else self._pools[role].gpus
        away = min(gpus, self._node_gpus) if state == "waiting" else 0
        return Span(role, worker, state, start_s, end_s, gpus - away)
