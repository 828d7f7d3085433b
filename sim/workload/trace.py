"""Traces: the ones that ship, and files of users. Rows are requests; or clients (`sim.workload.clients`), whose
requests are drawn by the run's seed; or sessions (`sim.workload.sessions`), whose turns follow from one another.
"""

import gc
import math
from contextlib import suppress
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from sim.scenario.errors import DeploymentError, KeyPath, Problem
from sim.scenario.workload import TraceColumns
from sim.workload import clients, sessions
from sim.workload.clients import Clients
from sim.workload.columns import COLUMNS_KEY, FOLDER, TRACE_KEY, index
from sim.workload.randomness import generator
from sim.workload.reading import locate, read
from sim.workload.recorded import Asked, Trace, requests_of
from sim.workload.sessions import Sessions
from sim.workload.table import FileTable
from sim.workload.times import KEY as UNIT_KEY

KEY: KeyPath = TRACE_KEY
LEAST_ROWS, AHEAD = 10_000, 2
"""Rows of a file that are read in any case, so that unit and blocks can be told; and rows per request that is wanted,
since some may have failed."""


def shipped() -> tuple[str, ...]:
    """Names of the traces that ship."""
    return tuple(index()["traces"])


def load(
    name: str,
    seed: int,
    base_folder: Path | None = None,
    until_s: float = math.inf,
    time_unit: str | None = None,
    most: int | None = None,
    columns: TraceColumns | None = None,
) -> Trace | Sessions:
    """The shipped trace of this name, or the trace in the file of this name.

    Args:
        name: one of `shipped()`, or a .csv, .jsonl or .parquet file; text plain or as .gz or .xz.
        seed: of the run; spreads stamps that were rounded to a quantum, and draws the requests of clients.
        base_folder: what a relative file name starts from; default the working directory.
        until_s: clients send nothing from here on.
        time_unit: of a file's times: s, ms, us or ns; None: found out.
        most: requests that are wanted. A file whose times rise is read little further than that.
        columns: which of a file's columns hold what; None: told by their names.

    Raises:
        DeploymentError: if there is no such trace and no such file, or nothing tells the unit of its times; or the file
            has not the columns.
        ScenarioError: if a line of the file is broken, with its place; or nothing is left of it.
    """
    about = index()["traces"].get(name)
    if about is None:
        path = locate(name, base_folder, shipped(), KEY)
        at = path.stat()
        content, about = (
            _own(
                name,
                path,
                Asked(time_unit, columns),
                most,
                (path.resolve(), at.st_mtime_ns, at.st_size, at.st_ino),
            ),
            {},
        )
    else:
        content = _shipped(name)
    if about or not isinstance(content, Trace):
        told = (
            (UNIT_KEY, time_unit, "the unit of its times"),
            (COLUMNS_KEY, columns, "what its columns are"),
        )
        if problems := [
            Problem(key, f"'{name}' tells {what} itself; leave it out") for key, given, what in told if given
        ]:
            raise DeploymentError(problems)
    if isinstance(content, Clients):
        prompts, times = content.draw(seed, until_s)
        return Trace(name, prompts, times)
    if isinstance(content, Sessions):
        return replace(content, starts_per_s=about.get("starts_per_s"))
    quantum_s = about.get("quantum_s")
    return content if quantum_s is None else _spread(content, quantum_s, seed)


def timeless(name: str, hint: str = "") -> DeploymentError:
    """What is wrong where neither a trace nor the scenario has times."""
    says = f"'{name}' has no times; give `workload.arrivals`"
    return DeploymentError([Problem(KEY, f"{says}. {hint}" if hint else says)])


@cache
def _shipped(name: str) -> Trace | Clients | Sessions:
    content = _read(name, FOLDER / index()["traces"][name]["file"], Asked())
    assert content is not None
    return content


def _own(
    name: str, path: Path, asked: Asked, most: int | None, state: tuple[object, ...]
) -> Trace | Clients | Sessions:
    """A user's file, as far as `most` requests need it."""
    if most is not None:
        begun = None
        with suppress(DeploymentError):  # what nothing tells here, the rows that follow may tell
            begun = _known(name, path, asked, max(LEAST_ROWS, AHEAD * most), state)
        if begun is not None and _suffices(begun, most):
            return begun
    content = _known(name, path, asked, math.inf, state)
    assert content is not None
    return content


def _suffices(begun: Trace | Clients | Sessions, most: int) -> bool:
    """Whether the whole file would give no other requests, if its times go on to rise."""
    return not isinstance(begun, Trace) or begun.whole or (begun.in_order and len(begun.prompts) >= most)


@lru_cache(maxsize=2)
def _known(
    name: str, path: Path, asked: Asked, most_rows: float, _state: tuple[object, ...]
) -> Trace | Clients | Sessions | None:
    """A command simulates a file and estimates beside, twice; it is read again only where it changed."""
    return _read(name, path, asked, most_rows)


def _shared(content: Trace | Clients | Sessions | None) -> Trace | Clients | Sessions | None:
    """With columns that nobody can change, since every run of this process reads the same ones."""
    if isinstance(content, Trace):
        for column in (content.arrival_s, content.prompts.input_tokens, content.prompts.output_tokens):
            if column is not None:
                column.flags.writeable = False
    return content


def _spread(trace: Trace, quantum_s: float, seed: int) -> Trace:
    """Stamps t, rounded down to the quantum, become sorted uniform times in [t, t + quantum)."""
    assert trace.arrival_s is not None
    within = generator(seed, f"jitter {trace.name}").random(len(trace.arrival_s))
    return replace(trace, arrival_s=np.sort(trace.arrival_s + within * quantum_s))


def _read(
    name: str, path: Path, asked: Asked, most_rows: float = math.inf
) -> Trace | Clients | Sessions | None:
    """The content of a file; None where it is one of clients or sessions and has more rows than that.

    Reading makes many objects and no garbage: to look for some would take as long again.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return _shared(_parse(name, read(path, most_rows), asked))
    finally:
        if collects:
            gc.enable()


def _parse(name: str, table: FileTable, asked: Asked) -> Trace | Clients | Sessions | None:
    keys = table.columns.keys()
    if keys >= clients.KEYS:
        return clients.parse(name, table) if table.whole else None
    if keys >= sessions.KEYS:
        return sessions.parse(name, table) if table.whole else None
    return requests_of(name, table, asked)
