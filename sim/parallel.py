"""The same function on many inputs, in processes of this machine or on a Ray cluster."""

import logging
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from threading import Thread
from typing import Any, Final, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

AHEAD: Final = 2
"""Inputs in flight per worker: none waits for its next one, and a long list is not sent over at once."""
ORPHANED: Final = 1
"""Exit code of a process whose parent has gone; nobody reads it."""
LOCAL: Final = "local"
"""The Ray address that means: start one here."""


def each(
    function: Callable[[In], Out], inputs: Sequence[In], workers: int, lost: Callable[[In], Out]
) -> Iterator[Out]:
    """`function` of every input, in the order of the inputs; see `completed`."""
    early: dict[int, Out] = {}
    following = 0
    for index, result in completed(function, inputs, workers, lost):
        early[index] = result
        while following in early:
            yield early.pop(following)
            following += 1


def completed(
    function: Callable[[In], Out], inputs: Sequence[In], workers: int, lost: Callable[[In], Out]
) -> Iterator[tuple[int, Out]]:
    """(index, `function` of that input) as they are done, on `workers` processes (1: in this one).

    A worker that dies (out of memory, say) takes its pool along: what was in flight is then tried one by one, and an
    input whose worker dies again gives `lost(input)`; the others go on in a fresh pool.
    """
    if workers <= 1 or len(inputs) <= 1:
        yield from enumerate(map(function, inputs))
        return
    waiting = deque(range(len(inputs)))
    while waiting:
        suspects = yield from _until_a_worker_dies(function, inputs, waiting, workers)
        for index in suspects:
            yield index, _alone(function, inputs[index], lost)


def _until_a_worker_dies(
    function: Callable[[In], Out], inputs: Sequence[In], waiting: deque[int], workers: int
) -> Generator[tuple[int, Out], None, list[int]]:
    """Takes from `waiting`; returns what was in flight when the pool broke, nothing if it never did."""
    flying: dict[Future[Out], int] = {}
    with _Pool(min(workers, len(waiting))) as pool:
        try:
            while waiting or flying:
                while waiting and len(flying) < AHEAD * workers:
                    flying[pool.submit(function, inputs[waiting[0]])] = waiting[0]
                    waiting.popleft()
                for future in wait(flying, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    yield flying.pop(future), result
        except BrokenProcessPool:
            return sorted(flying.values())
    return []


class Crew:
    """Workers that stay for several lists of inputs, so that what a process has learnt (imports, tables) is kept.

    `with Crew(2) as crew: crew.map(function, inputs, lost)`; with one worker everything runs in this process.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: _Pool | None = None

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(
        self, function: Callable[[In], Out], inputs: Sequence[In], lost: Callable[[In], Out]
    ) -> Iterator[Out]:
        """`function` of every input, in the order of the inputs. An input whose worker dies is tried once more, alone
        in a fresh one; if that dies, too, it gives `lost(input)`."""
        if self.workers <= 1:
            yield from map(function, inputs)
            return
        pool = self._pool = self._pool or _Pool(self.workers)
        futures = [pool.submit(function, one) for one in inputs]
        for one, future in zip(inputs, futures, strict=True):
            try:
                yield future.result()
            except BrokenProcessPool:
                self._pool = None
                yield _alone(function, one, lost)


def _alone(function: Callable[[In], Out], one: In, lost: Callable[[In], Out]) -> Out:
    """One input in a process of its own, which may die."""
    with _Pool(1) as pool:
        try:
            return pool.submit(function, one).result()
        except BrokenProcessPool:
            return lost(one)


class _Pool(ProcessPoolExecutor):
    """A fresh interpreter per worker: forking a process that has threads (numpy, a progress bar) may hang."""

    def __init__(self, workers: int) -> None:
        super().__init__(
            workers, mp_context=multiprocessing.get_context("spawn"), initializer=end_with_parent
        )

    def __exit__(self, *_: object) -> None:
        self.shutdown(cancel_futures=True)


def end_with(wait_for_end: Callable[[], object]) -> None:
    """Let this process end when `wait_for_end` returns, whatever it does then: nobody is left to want its answer."""

    def watch() -> None:
        wait_for_end()
        os._exit(ORPHANED)

    Thread(target=watch, daemon=True, name="ends with its parent").start()


def end_with_parent() -> None:
    """In a worker: a parent that is killed tells nobody, and its workers would wait, or compute, for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        end_with(lambda: connection.wait([parent.sentinel]))


def on_ray(
    function: Callable[[In], Out], inputs: Sequence[In], address: str, lost: Callable[[In], Out]
) -> Iterator[tuple[int, Out]]:
    """(index, `function` of that input) as they are done, on the Ray cluster at `address` (LOCAL: on one started here).

    An input whose worker dies more often than Ray tries again gives `lost(input)`. Raises ModuleNotFoundError without
    the extra `cluster`, ConnectionError where no cluster answers.
    """
    import ray  # noqa: PLC0415 - an extra

    ray.init(
        address=None if address == LOCAL else address,
        include_dashboard=False if address == LOCAL else None,
        log_to_driver=False,
        logging_level=logging.ERROR,
        ignore_reinit_error=True,
    )
    task = ray.remote(num_cpus=1)(function)
    most = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting, flying = deque(range(len(inputs))), dict[Any, int]()
    try:
        while waiting or flying:
            while waiting and len(flying) < most:
                index = waiting.popleft()
                flying[task.remote(inputs[index])] = index
            for done in ray.wait(list(flying))[0]:
                index = flying.pop(done)
                try:
                    result = ray.get(done)
                except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
                    result = lost(inputs[index])
                yield index, result
    finally:
        ray.shutdown()
