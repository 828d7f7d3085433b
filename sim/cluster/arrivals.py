"""When requests reach the cluster: at times that are known from the start, or because others left."""

import math
from typing import Protocol

from sim.cluster.clock import Clock, Timer
from sim.cluster.ledger import Ledger
from sim.cluster.setup import Requests
from sim.cluster.window import Window
from sim.serving.served_request import ServedRequest
from sim.workload import Request


class Frontend(Protocol):
    """Where requests enter the cluster."""

    def submit(self, sequences: list[ServedRequest]) -> None:
        """Take requests that arrived at the same time; those that can never fit are rejected."""
        ...


class ArrivalProcess:
    """One timer at a time for the requests whose times are known; one for each moment at which followers arrive.

    The measurement window of a closed loop ends with the first request that leaves its place empty, that of an open
    loop with the last arrival, where only the run can tell which one that is.
    """

    def __init__(
        self, clock: Clock, ledger: Ledger, requests: Requests, ingress_s: float, window: Window
    ) -> None:
        self._clock, self._ledger, self._requests, self._window = clock, ledger, requests, window
        self._ingress_s, self._most = ingress_s, requests.most
        self._known = iter(requests)
        self._next: Request | None = None
        self._timer = Timer(self._arrive)
        self._due: list[Request] = []
        self._frontend: Frontend

    def start(self, frontend: Frontend) -> None:
        """Set the first timer."""
        self._frontend = frontend
        if not self._requests.ends:
            self._ledger.on_end = self._left
        self._await(next(self._known, None))

    def _await(self, request: Request | None) -> None:
        """NaN stands for the times of those that follow from others."""
        if request is None or request.arrival_s != request.arrival_s:
            self._next = None
            return
        self._next = request
        self._clock.set(self._timer, request.arrival_s + self._ingress_s)

    def _arrive(self, _: Timer) -> None:
        request = self._next
        if request is None or (self._most is not None and self._room == 0):
            return
        time_s, together, following = request.arrival_s, [request], next(self._known, None)
        while following is not None and following.arrival_s == time_s:
            together.append(following)
            following = next(self._known, None)
        self._await(following)
        self._enter(together)

    def _left(self, left: int) -> None:
        """Request `left` was completed or rejected: those that follow from it set out."""
        requests = self._requests
        following = () if self._room == 0 else requests.following(left, self._clock.now)
        for request in following:
            due = self._due
            if due and due[0].arrival_s == request.arrival_s:
                due.append(request)
            else:
                self._due = [request]
                self._clock.at(request.arrival_s + self._ingress_s, self._follow, self._due)
        if not requests.full or (requests.concurrency is not None and self._room == 0):
            self._window.end_s = min(self._window.end_s, self._clock.now)

    def _follow(self, timer: Timer) -> None:
        if timer.value is self._due:
            self._due = []
        self._enter(timer.value)

    def _enter(self, together: list[Request]) -> None:
        """These have arrived; those beyond the number of requests that the workload asks for have not."""
        if self._most is None:
            arrived = [*map(self._ledger.arrive, together)]
        else:
            window = self._window
            arrived = [self._ledger.arrive(request) for request in together[: self._room]]
            if arrived and self._room == 0 and window.start_s < self._clock.now < window.end_s < math.inf:
                window.end_s = self._clock.now
        self._frontend.submit(arrived)

    @property
    def _room(self) -> int | None:
        """Requests that may still arrive; None: any number."""
        return None if self._most is None else self._most - self._ledger.arrived
