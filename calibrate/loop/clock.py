"""Seconds of this device for this program."""

import time


class Clock:
    """On a CPU the time that this thread computed and the time that it chose to sleep: not what the core gave to other
    programs. On a core of one's own this is the clock on the wall, which `wall` takes: a thread waits for a GPU."""

    def __init__(self, wall: bool) -> None:
        self.own, self._slept_s = not wall, 0.0
        self._begin_s = time.perf_counter()
        self._begin_own_s = self._own_s()

    def __call__(self) -> float:
        """Seconds since some moment."""
        return self._own_s() if self.own else time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Let seconds pass."""
        time.sleep(seconds)
        self._slept_s += seconds

    @property
    def elsewhere(self) -> float:
        """Share of the time on the wall, so far, in which this thread neither computed nor slept."""
        return max(0.0, 1 - (self._own_s() - self._begin_own_s) / (time.perf_counter() - self._begin_s))

    def _own_s(self) -> float:
        return time.thread_time() + self._slept_s
