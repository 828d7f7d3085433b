"""The clock: SimPy timers with a callback, and nothing else of SimPy."""

from collections.abc import Callable
from typing import Any, Protocol

import simpy


class Timer(Protocol):
    """What rings: a SimPy timeout."""

    @property
    def value(self) -> Any:
        """What was given to `Clock.at`."""
        ...


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
        delay_s = time_s - self.now
        timer = simpy.Timeout(self, delay_s if delay_s > 0 else 0.0, value)
        timer.callbacks.append(callback)
        self.events += 1
