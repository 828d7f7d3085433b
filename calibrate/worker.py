"""A process beside this one that answers requests one at a time, so that a hang or a crash costs one of them.

The process that answers is killed where it takes longer than it may, or ends by itself; the next request starts
another. Processes are forked from a server that has imported what they need and has touched no GPU, so that a new
one is there in a moment.
"""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any, Final

from sim.parallel import end_with_parent

PRELOADED: Final = "calibrate.preload"

Answerer = Callable[[Any], Any]


class Overdue(Exception):
    """A request that was not answered in time; its process is gone."""


class Died(Exception):
    """The process ended before it answered."""


class Failed(Exception):
    """What the answering function raised, in words."""


class Worker:
    """One process that runs `make(*arguments)` once and calls what that returns with each request."""

    def __init__(self, make: Callable[..., Answerer], *arguments: Any) -> None:
        self._make = make
        self._arguments = arguments
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([PRELOADED])
        self._process: Any = None
        self._connection: Connection | None = None

    def ask(self, request: Any, seconds: float) -> Any:
        """The answer. Raises Overdue after `seconds`, Died where the process ends, Failed for what it raised."""
        end = monotonic() + seconds
        connection = self._connection or self._start(seconds)
        try:
            connection.send(request)
            if not connection.poll(max(end - monotonic(), 0.0)):
                raise Overdue(f"no answer within {seconds:.3g} s")
            kind, answer = connection.recv()
        except (EOFError, OSError):
            code = self._ended()
            raise Died(f"the process ended with {code}") from None
        except BaseException:
            self.close()
            raise
        if kind == "lost":
            self.close()
        if kind != "answer":
            raise Failed(answer)
        return answer

    def start(self, seconds: float) -> None:
        """Have a process there before the first request. Raises Overdue after `seconds`."""
        if self._connection is None:
            self._start(seconds)

    def close(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ended(self) -> str:
        self._process.join(1.0)
        code = self._process.exitcode
        self.close()
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def _start(self, seconds: float) -> Connection:
        mine, its = self._context.Pipe()
        self._process = self._context.Process(
            target=_serve, args=(its, self._make, self._arguments), daemon=True
        )
        self._process.start()
        its.close()
        self._connection = mine
        if not mine.poll(max(seconds, 0.0)):
            self.close()
            raise Overdue(f"no new process within {seconds:.3g} s")
        with contextlib.suppress(EOFError, OSError):
            mine.recv()  # it is ready; one that has died already shows with the request
        return mine


def _serve(connection: Connection, make: Callable[..., Answerer], arguments: tuple[Any, ...]) -> None:
    """Answer until the other end closes. An exception that says `lost` ends the process: its GPU answers no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this process
    end_with_parent()  # a kernel may take minutes, and nobody would read its time
    answer = make(*arguments)
    connection.send("ready")
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        try:
            reply = ("answer", answer(request))
        except Exception as error:
            reply = ("lost" if getattr(error, "lost", False) else "failed", str(error))
        connection.send(reply)


def ahead(
    requests: Iterable[Any], workers: int, seconds: float, make: Callable[..., Answerer], *arguments: Any
) -> int:
    """Put requests to several processes at once until `seconds` are over; answers and failures do not matter.

    For what leaves something useful behind, such as compiled kernels on disk. Returns how many were answered.
    """
    end = monotonic() + seconds
    waiting: SimpleQueue[Any] = SimpleQueue()
    for request in requests:
        waiting.put(request)
    answered: list[bool] = []

    def work() -> None:
        worker = Worker(make, *arguments)
        try:
            while (left := end - monotonic()) > 0:
                with contextlib.suppress(Died, Failed):
                    worker.ask(waiting.get_nowait(), left)
                    answered.append(True)
        except (Empty, Overdue):
            return
        finally:
            worker.close()

    threads = [Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(answered)
