"""The clock: SimPy timers with a callback, and nothing else of SimPy."""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import simpy
from simpy.events import NORMAL


class Timer:
    """What rings: to SimPy an event that has happened, and may happen again."""

    __slots__ = ("callback", "value")
    _ok = True

    def __init__(self, callback: "Callback", value: Any = None) -> None:
        self.callback = callback
        self.value = value
        """What the callback is to know."""

    @property
    def callbacks(self) -> "tuple[Callback, ...]":
        """As SimPy calls them; it takes them from an event that has rung, which this one does not mind."""
        return (self.callback,)

    @callbacks.setter
    def callbacks(self, taken: None) -> None:
        pass


Callback = Callable[[Timer], None]


class Clock(simpy.Environment):
    """Simulated time: `now` in seconds. Timers at the same time ring in the order in which they were set."""

    now = 0.0
    """A plain attribute: it is asked for more often than timers ring."""

    def __init__(self) -> None:
        super().__init__()
        self.events = 0
        """Times that timers were set; each is one SimPy event."""

    def at(self, time_s: float, callback: Callback, value: object = None) -> None:
        """Call `callback` at `time_s`, or now if that has passed by rounding."""
        self.set(Timer(callback, value), time_s)

    def set(self, timer: Timer, time_s: float) -> None:
        """Let a timer ring at `time_s`: a new one, or one that its owner sets again and again."""
        self.events = order = self.events + 1
        heappush(self._queue, (time_s if time_s > self.now else self.now, NORMAL, order, timer))  # type: ignore[misc]

    def run(self) -> None:  # type: ignore[override]  # to the end, and nowhere else
        """Until no timer is left: SimPy's loop, less what timers never do, which is to fail or to have waited."""
        queue: Any = self._queue
        while queue:
            self.now, _, _, timer = heappop(queue)
            timer.callback(timer)

    @property
    def pending(self) -> int:
        """Timers that have not rung yet."""
        return len(self._queue)

    def forget(self, *owners: object) -> None:
        """No timer rings any more for what `owners` wanted to do."""
        queue: Any = self._queue
        for *_, timer in queue:
            if any(getattr(timer.callback, "__self__", None) is owner for owner in owners):
                timer.callback = _nothing


def _nothing(_: Timer) -> None:
    """What a forgotten timer does."""
