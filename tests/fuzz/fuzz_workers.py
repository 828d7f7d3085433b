"""Cases in child processes with a limit on memory; one that does not answer is ended, and told as a hang."""

import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Final
from unittest import mock

import typer
from fuzz_bases import lay_out
from fuzz_case import SCENARIOS, WAITING, Verdict, judge

from sim.step import build
from sim.workload import trace, unpacking

GRACE_S: Final = 10.0
"""Beyond a case's limit: what does not even hear the alarm is ended then."""
COARSE: Final = 0.25
"""Grid points per doubling of a step table: most of a short run's time is the pricing of its steps."""


class Worker:
    """A child process that judges one case at a time."""

    def __init__(self, seed: int, limit_s: float, memory_bytes: int, kind: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, seed, limit_s, memory_bytes, kind), daemon=True
        )
        self.process.start()
        theirs.close()
        self.number = -1
        self.since = time.monotonic()

    def ask(self, number: int, run: bool) -> None:
        """Begin with a case."""
        self.number, self.since = number, time.monotonic()
        self.pipe.send((number, run))

    def end(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.join()


def judged(
    cases: int,
    runs: int,
    seed: int,
    workers: int = 1,
    limit_s: float = 20.0,
    memory_bytes: int = 4 * 2**30,
    first: int = 0,
    kind: str = SCENARIOS,
) -> Iterator[Verdict]:
    """The verdict of each of `cases` cases from number `first` on, in the order in which they end.

    The first of them that pass the check are run as well, `runs` in all.
    """  # fmt: skip
    numbers, left = iter(range(first, first + cases)), runs
    idle = [Worker(seed, limit_s, memory_bytes, kind) for _ in range(workers)]
    busy: dict[Connection, Worker] = {}
    commands = 3  # check, explain, run
    while True:
        while idle and (number := next(numbers, None)) is not None:
            worker = idle.pop()
            worker.ask(number, left > 0)
            busy[worker.pipe] = worker
        if not busy:
            break
        for ready in wait([*busy], timeout=1.0):
            worker = busy.pop(ready)
            try:
                verdict = worker.pipe.recv()
            except (EOFError, OSError):
                verdict = Verdict(worker.number, "", False, "the process died", "out of memory?")
                worker.end()
                worker = Worker(seed, limit_s, memory_bytes, kind)
            left -= verdict.passed
            idle.append(worker)
            yield verdict
        for pipe, worker in [*busy.items()]:
            if time.monotonic() - worker.since > commands * WAITING * limit_s + GRACE_S:
                worker.end()
                del busy[pipe]
                idle.append(Worker(seed, limit_s, memory_bytes, kind))
                yield Verdict(worker.number, "", False, "hang that hears no alarm", "")
    for worker in idle:
        worker.end()


def _serve(pipe: Connection, seed: int, limit_s: float, memory_bytes: int, kind: str) -> None:
    """Judge what is asked until the other side goes."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    os.setpgrp()  # reading from a terminal then fails instead of waiting
    trace.LEAST_ROWS, unpacking.PIECE_BYTES = (
        1,
        64,
    )  # a trace of some lines is a long one, and read no further
    with (
        tempfile.TemporaryDirectory(prefix="fuzz-") as name,
        mock.patch.multiple(build, POINTS_PER_OCTAVE=COARSE, PROMPT_POINTS_PER_OCTAVE=COARSE),
        mock.patch(
            "typer.testing._get_command", cache(typer.main.get_command)
        ),  # else built for each command
    ):
        folder = Path(name)
        bases = lay_out(folder)
        while True:
            try:
                number, run = pipe.recv()
            except EOFError:
                return
            pipe.send(judge(seed, number, folder, bases, run, limit_s, kind))
