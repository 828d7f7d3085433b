"""When requests reach the cluster: at their own times (open loop), or one for each completion (closed loop)."""

from collections.abc import Callable
from typing import Protocol

from sim.cluster.clock import Clock, Timer
from sim.cluster.ledger import Ledger, Window
from sim.cluster.setup import Requests
from sim.serving.sequence import Sequence


class Frontend(Protocol):
    """Where requests enter the cluster."""

    def submit(self, sequences: list[Sequence]) -> None:
        """Take requests that arrived at the same time; those that can never fit are rejected."""
        ...


class OpenLoop:
    """Requests arrive at the times of the workload. One timer at a time."""

    def __init__(self, clock: Clock, ledger: Ledger, requests: Requests, ingress_s: float) -> None:
        self._clock, self._ledger, self._ingress_s = clock, ledger, ingress_s
        self._times: list[float] = requests.arrival_s.tolist()
        self._next = 0
        self._deliver: Callable[[list[Sequence]], None]

    def start(self, frontend: Frontend) -> None:
        """Set the first timer."""
        self._deliver = frontend.submit
        if self._times:
            self._clock.at(self._times[0] + self._ingress_s, self._arrive)

    def _arrive(self, _: Timer) -> None:
        times, first = self._times, self._next
        end, time_s = first + 1, times[first]
        while end < len(times) and times[end] == time_s:
            end += 1
        self._next = end
        if end < len(times):
            self._clock.at(times[end] + self._ingress_s, self._arrive)
        self._deliver([self._ledger.arrive(i, time_s) for i in range(first, end)])


class ClosedLoop:
    """`concurrency` requests are in flight: each completion starts the next, as long as there are more.

    The measurement window ends with the first completion that has no successor.
    """

    def __init__(
        self, clock: Clock, ledger: Ledger, concurrency: int, ingress_s: float, window: Window
    ) -> None:
        self._clock, self._ledger, self._window = clock, ledger, window
        self._concurrency, self._ingress_s = concurrency, ingress_s
        self._next = 0
        self._due: list[Sequence] = []
        self._due_s = -1.0
        self._deliver: Callable[[list[Sequence]], None]

    def start(self, frontend: Frontend) -> None:
        """Send the first `concurrency` requests."""
        self._deliver = frontend.submit
        self._ledger.on_end = self._send
        for _ in range(min(self._concurrency, self._ledger.total)):
            self._send()

    def _send(self) -> None:
        now = self._clock.now
        if self._next == self._ledger.total:
            self._window.end_s = min(self._window.end_s, now)
            return
        sequence = self._ledger.arrive(self._next, now)
        self._next += 1
        if self._due and self._due_s == now:
            self._due.append(sequence)
        else:
            self._due, self._due_s = [sequence], now
            self._clock.at(now + self._ingress_s, self._arrive, self._due)

    def _arrive(self, timer: Timer) -> None:
        if timer.value is self._due:
            self._due = []
        self._deliver(timer.value)
