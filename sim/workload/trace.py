"""Traces: the ones that ship, and files of users. Rows are requests; or clients (`sim.workload.clients`), whose
requests are drawn by the run's seed; or sessions (`sim.workload.sessions`), whose turns follow from one another.

Decisions, where a file of requests leaves room:
- Times count from the first request. Requests whose times go back are sorted, keeping the file's order among
  equals, and a note says so.
- A request with no output tokens failed where it was recorded: it is left out, and a note says how many.
  A prompt without tokens, and negative counts, are errors.
- Columns have many names (`sim.workload.columns`), times many units (`sim.workload.times`).
- Stamps that were rounded to a quantum are spread over it by the run's seed. The file's order is kept: the jittered
  times are sorted and dealt out in that order, so turns of one conversation stay in sequence.
"""

import gc
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.scenario.errors import DeploymentError, KeyPath, Problem
from sim.scenario.section import MOST_SECONDS
from sim.workload import clients, sessions
from sim.workload.clients import Clients
from sim.workload.columns import FOLDER, Columns, columns_of, index
from sim.workload.hashes import Hashes, blocks_of, hashes
from sim.workload.prompts import Prompts
from sim.workload.randomness import generator
from sim.workload.reading import locate, read
from sim.workload.sessions import Sessions
from sim.workload.table import FileTable, at_least, fault
from sim.workload.times import DATES, UNIT_S, Unit, length_in_words, rate_per_s, reading_of, unit_of
from sim.workload.times import KEY as UNIT_KEY

Floats = NDArray[np.float64]

KEY: KeyPath = ("workload", "trace")
LEAST_ROWS, AHEAD = 10_000, 2
"""Rows of a file that are read in any case, so that unit and blocks can be told; and rows per request that is wanted,
since some may have failed."""


@dataclass(frozen=True)
class Reading:
    """How the file of a trace was read."""

    columns: Columns
    unit: Unit | None
    """None where the file has no times."""
    names: tuple[str, ...]
    """Of all its columns."""


@dataclass(frozen=True)
class Trace:
    """Requests as recorded, in order of arrival.

    `arrival_s` counts from the first request; None where the file has no times. `notes` are sentences about what
    was done to the file's rows.
    """

    name: str
    prompts: Prompts
    arrival_s: Floats | None
    notes: tuple[str, ...] = ()
    understood: Reading | None = None
    """What its file was understood as; None for what clients draw."""
    whole: bool = True
    """Whether these are all requests of the file; else it was read no further."""
    in_order: bool = True
    """Whether the file has them in order of arrival."""

    @property
    def span_s(self) -> float:
        """From the first request to the last; 0 where there are no times, or no requests, or all come at once."""
        span_s = 0.0 if self.arrival_s is None or not len(self.arrival_s) else float(self.arrival_s[-1])
        return span_s if span_s >= UNIT_S["ns"] else 0.0

    def described(self) -> str:
        """In words: columns, unit, requests, span, rate and mean lengths."""
        assert self.understood is not None
        columns, unit = self.understood.columns, self.understood.unit
        read = f"{columns.input} and {columns.output}"
        when = ""
        if unit is not None:
            read = (
                f"{columns.arrival} ({'dates' if unit.name == DATES else unit.name}, {unit.told_by}), {read}"
            )
            rate = rate_per_s(len(self.prompts), self.span_s)
            when = (
                f" in {length_in_words(self.span_s)} ({rate:,.3g} per second)" if self.span_s else " at once"
            )
        prompt, answer = (float(t.mean()) for t in (self.prompts.input_tokens, self.prompts.output_tokens))
        blocks = self.prompts.block_tokens
        hashed = f", hashes of blocks of {blocks} tokens" if blocks else ""
        return (
            f"{self.name}: read as {read}{hashed}: {'' if self.whole else 'its first '}{len(self.prompts):,} "
            f"requests{when}, on average "
            f"{prompt:,.0f} tokens in and {answer:,.0f} out"
        )


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
) -> Trace | Sessions:
    """The shipped trace of this name, or the trace in the file of this name.

    Args:
        name: one of `shipped()`, or a .csv, .jsonl or .parquet file; text plain or as .gz or .xz.
        seed: of the run; spreads stamps that were rounded to a quantum, and draws the requests of clients.
        base_folder: what a relative file name starts from; default the working directory.
        until_s: clients send nothing from here on.
        time_unit: of a file's times: s, ms, us or ns; None: found out.
        most: requests that are wanted. A file whose times rise is read little further than that.

    Raises:
        DeploymentError: if there is no such trace and no such file, or nothing tells the unit of its times.
        ScenarioError: if a line of the file is broken, with its place; or nothing is left of it.
    """
    about = index()["traces"].get(name)
    if about is None:
        path = locate(name, base_folder, shipped(), KEY)
        at = path.stat()
        content, about = (
            _own(name, path, time_unit, most, (path.resolve(), at.st_mtime_ns, at.st_size, at.st_ino)),
            {},
        )
    else:
        content = _shipped(name)
    if time_unit is not None and (about or not isinstance(content, Trace)):
        says = f"'{name}' tells the unit of its times itself; leave it out"
        raise DeploymentError([Problem(UNIT_KEY, says)])
    if isinstance(content, Clients):
        prompts, times = content.draw(seed, until_s)
        return Trace(name, prompts, times)
    if isinstance(content, Sessions):
        return replace(content, starts_per_s=about.get("starts_per_s"))
    quantum_s = about.get("quantum_s")
    return content if quantum_s is None else _spread(content, quantum_s, seed)


@cache
def _shipped(name: str) -> Trace | Clients | Sessions:
    content = _read(name, FOLDER / index()["traces"][name]["file"])
    assert content is not None
    return content


def _own(
    name: str, path: Path, time_unit: str | None, most: int | None, state: tuple[object, ...]
) -> Trace | Clients | Sessions:
    """A user's file, as far as `most` requests need it."""
    if most is not None:
        begun = None
        with suppress(DeploymentError):  # what nothing tells here, the rows that follow may tell
            begun = _known(name, path, time_unit, max(LEAST_ROWS, AHEAD * most), state)
        if begun is not None and _suffices(begun, most):
            return begun
    content = _known(name, path, time_unit, math.inf, state)
    assert content is not None
    return content


def _suffices(begun: Trace | Clients | Sessions, most: int) -> bool:
    """Whether the whole file would give no other requests, if its times go on to rise."""
    return not isinstance(begun, Trace) or begun.whole or (begun.in_order and len(begun.prompts) >= most)


@lru_cache(maxsize=2)
def _known(
    name: str, path: Path, time_unit: str | None, most_rows: float, _state: tuple[object, ...]
) -> Trace | Clients | Sessions | None:
    """A command simulates a file and estimates beside, twice; it is read again only where it changed."""
    return _read(name, path, time_unit, most_rows)


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
    name: str, path: Path, time_unit: str | None = None, most_rows: float = math.inf
) -> Trace | Clients | Sessions | None:
    """The content of a file; None where it is one of clients or sessions and has more rows than that.

    Reading makes many objects and no garbage: to look for some would take as long again.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return _shared(_parse(name, read(path, most_rows), time_unit))
    finally:
        if collects:
            gc.enable()


def _parse(name: str, table: FileTable, time_unit: str | None) -> Trace | Clients | Sessions | None:
    keys = table.columns.keys()
    if keys >= clients.KEYS:
        return clients.parse(name, table) if table.whole else None
    if keys >= sessions.KEYS:
        return sessions.parse(name, table) if table.whole else None
    return _requests(name, table, time_unit)


def _requests(name: str, table: FileTable, time_unit: str | None) -> Trace:
    columns = columns_of(table)
    readings: dict[str, Callable[[object], Any]] = {columns.input: at_least(1), columns.output: at_least(0)}
    if columns.arrival is not None:
        readings[columns.arrival] = reading_of(table, columns.arrival)
    if columns.blocks is not None:
        readings[columns.blocks] = hashes
    cells = dict(zip(readings, table.convert(readings), strict=True))
    input_tokens, output_tokens = (
        np.array(cells[name], dtype=np.int64) for name in (columns.input, columns.output)
    )
    prompts = Prompts.of(input_tokens, output_tokens)
    notes: list[str] = []
    if columns.blocks is not None:
        prompts = _hashed(name, table, columns.blocks, prompts, cells[columns.blocks], notes)
    arrival_s, unit, in_order = None, None, True
    order = np.arange(len(table))
    if columns.arrival is not None:
        stamps = np.array(cells[columns.arrival])
        unit = unit_of(table, columns, stamps, time_unit)
        arrival_s = _seconds(name, stamps, unit)
        back = np.flatnonzero(np.diff(stamps) < 0)
        if len(back):
            in_order = False
            order = np.argsort(stamps, kind="stable")
            line = table.line_of[back[0] + 1]
            notes.append(f"{name}: times go back at line {line} ({len(back)} times in all); sorted")
    elif time_unit is not None:
        raise DeploymentError([Problem(UNIT_KEY, f"'{name}' has no times")])
    order = order[output_tokens[order] > 0]
    failed = len(table) - len(order)
    if failed == len(table) and table.whole:
        raise fault(table.file, (), None, None, "every request has zero output tokens")
    if failed:
        notes.append(f"{name}: {failed} of {len(table)} requests have no output tokens; left out")
    if arrival_s is not None:
        arrival_s = arrival_s[order] - arrival_s[order[:1]]
    return Trace(
        name,
        prompts.take(order),
        arrival_s,
        tuple(notes),
        Reading(columns, unit, tuple(table.columns)),
        whole=table.whole,
        in_order=in_order,
    )


def _seconds(name: str, stamps: Floats, unit: Unit) -> Floats:
    """Since the first request. Raises DeploymentError where that is longer than any run."""
    arrival_s: Floats = (stamps - stamps.min()) * unit.seconds
    if (last_s := float(arrival_s.max())) > MOST_SECONDS:
        says = f"'{name}' lasts {length_in_words(last_s)} in {unit.name}; expected at most"
        raise DeploymentError([Problem(UNIT_KEY, f"{says} {length_in_words(MOST_SECONDS)}")])
    return arrival_s


def _hashed(
    name: str, table: FileTable, column: str, prompts: Prompts, found: Hashes, notes: list[str]
) -> Prompts:
    """The prompts with the hashes of their blocks; says what is missing."""
    blocks = blocks_of(table, column, prompts.input_tokens, found)
    if blocks is None:
        notes.append(f"{name}: {column} is empty in every row; no prefix is known")
        return prompts
    if blocks.without:
        notes.append(f"{name}: {blocks.without:,} prompts have no {column}; they share nothing")
    return replace(prompts, blocks=blocks.hashes, block_tokens=blocks.tokens)
