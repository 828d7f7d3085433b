"""The clock: SimPy timers with a callback, and nothing else of SimPy."""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import simpy
from simpy.events import NORMAL


class Timer:
    """What rings: to SimPy an event that has happened."""

    __slots__ = ("callbacks", "value")
    _ok = True

    def __init__(self, callback: "Callback", value: Any) -> None:
        self.callbacks = (callback,)
        self.value = value
        """What was given to `Clock.at`."""


Callback = Callable[[Timer], None]


class Clock(simpy.Environment):
    """Simulated time: `now` in seconds. Timers at the same time ring in the order in which they were set."""

    now = 0.0
    """A plain attribute: it is asked for more often than timers ring."""

    def __init__(self) -> None:
        super().__init__()
        self.events = 0
        """Timers set so far; each is one SimPy event."""

    def at(self, time_s: float, callback: Callback, value: object = None) -> None:
        """Call `callback` at `time_s`, or now if that has passed by rounding."""
        self.events = order = self.events + 1
        timer: Any = Timer(callback, value)
        heappush(self._queue, (time_s if time_s > self.now else self.now, NORMAL, order, timer))

    def run(self) -> None:  # type: ignore[override]  # to the end, and nowhere else
        """Until no timer is left: SimPy's loop, less what timers never do, which is to fail or to have waited."""
        queue = self._queue
        while queue:
            self.now, _, _, timer = heappop(queue)
            timer.callbacks[0](timer)

    @property
    def pending(self) -> int:
        """Timers that have not rung yet."""
        return len(self._queue)

    def forget(self, *owners: object) -> None:
        """No timer rings any more for what `owners` wanted to do."""
        for *_, timer in self._queue:
            callback: Any = timer.callbacks[0] if timer.callbacks else None
            if any(getattr(callback, "__self__", None) is owner for owner in owners):
                timer.callbacks = (_nothing,)  # type: ignore[assignment]


def _nothing(_: Timer) -> None:
    """What a forgotten timer does."""
