"""The clock: SimPy timers with a callback, and nothing else of SimPy."""

from collections.abc import Callable
from typing import Any

import simpy


class Timer:
    """What rings: to SimPy an event that has happened, and of which it asks no more than this."""

    __slots__ = ("callbacks", "value")
    _ok = True

    def __init__(self, callback: "Callback", value: Any) -> None:
        self.callbacks = (callback,)
        self.value = value
        """What was given to `Clock.at`."""


Callback = Callable[[Timer], None]


class Clock(simpy.Environment):
    """Simulated time: `now` in seconds, `run` until no timer is left.

    Timers at the same time ring in the order in which they were set.
    """

    def __init__(self) -> None:
        super().__init__()
        self.events = 0
        """Timers set so far; each is one SimPy event."""

    def at(self, time_s: float, callback: Callback, value: object = None) -> None:
        """Call `callback` at `time_s`, or now if that has passed by rounding."""
        self.events += 1
        delay_s = time_s - self._now
        timer: Any = Timer(callback, value)
        self.schedule(timer, delay=delay_s if delay_s > 0.0 else 0.0)

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
