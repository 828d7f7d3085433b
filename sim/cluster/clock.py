"""The clock: SimPy timers with a callback, and nothing else of SimPy."""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import simpy


class Timer:
    """What rings."""

    __slots__ = ("callback", "value")

    def __init__(self, callback: "Callback", value: Any) -> None:
        self.callback = callback
        self.value = value
        """What was given to `Clock.at`."""


Callback = Callable[[Timer], None]


class Clock(simpy.Environment):
    """Simulated time: `now` in seconds, `run` until no timer is left.

    Timers at the same time ring in the order in which they were set. The queue is SimPy's; its loop is not, which looks
    after processes and failures at every event, and there are only timers here.
    """

    now = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.events = 0
        """Timers set so far; each is one SimPy event."""

    def at(self, time_s: float, callback: Callback, value: object = None) -> None:
        """Call `callback` at `time_s`, or now if that has passed by rounding."""
        self.events += 1
        timer = Timer(callback, value)
        heappush(self._queue, (time_s if time_s > self.now else self.now, 0, self.events, timer))

    def step(self) -> None:
        """Ring the next timer."""
        self.now, _, _, timer = heappop(self._queue)
        timer.callback(timer)

    def run(self) -> None:  # type: ignore[override]
        """Ring until no timer is left: `step` without a call for each."""
        queue = self._queue
        while queue:
            self.now, _, _, timer = heappop(queue)
            timer.callback(timer)
