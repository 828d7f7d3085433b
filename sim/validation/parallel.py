"""The same function on many inputs, in processes, in the order of the inputs."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def each(
    function: Callable[[In], Out], inputs: Sequence[In], workers: int, lost: Callable[[In], Out]
) -> Iterator[Out]:
    """`function` of every input, in order, on `workers` processes (1: in this one).

    A worker that dies (out of memory, say) takes its pool along: the next input that has no result is then tried
    alone, and gives `lost(input)` if its worker dies again; the others go on in a fresh pool.
    """
    if workers <= 1 or len(inputs) <= 1:
        yield from map(function, inputs)
        return
    done = 0
    while done < len(inputs):
        try:
            for result in _pooled(function, inputs[done:], workers):
                done += 1
                yield result
        except BrokenProcessPool:
            try:
                result = next(_pooled(function, inputs[done : done + 1], 1))
            except BrokenProcessPool:
                result = lost(inputs[done])
            done += 1
            yield result


def _pooled(function: Callable[[In], Out], inputs: Sequence[In], workers: int) -> Iterator[Out]:
    # A fresh interpreter per worker: forking a process that has threads (numpy, a progress bar) may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(inputs)), mp_context=context) as pool:
        try:
            yield from pool.map(function, inputs)
        finally:
            pool.shutdown(cancel_futures=True)
