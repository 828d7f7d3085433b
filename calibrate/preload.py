"""What the server of `calibrate.worker` imports before it forks: seconds, in which it would not see its parent go."""

import os
from threading import Event, Thread
from typing import Final

from sim.parallel import ORPHANED

EVERY_S: Final = 0.2


def _watch(parent: int, done: Event) -> None:
    """End this process where its parent has gone before `done`."""
    while not done.wait(EVERY_S):
        if os.getppid() != parent:
            os._exit(ORPHANED)


_done = Event()
_watcher = Thread(target=_watch, args=(os.getppid(), _done), daemon=True)
_watcher.start()
try:
    import calibrate.trial  # noqa: F401
finally:
    _done.set()
    _watcher.join()  # to fork beside a thread may hang
