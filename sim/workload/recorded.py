"""Files of requests: one request a row, at the time that it was recorded.

Decisions, where a file of requests leaves room:
- Times count from the first request. Requests whose times go back are sorted, keeping the file's order among
  equals, and a note says so.
- A request with no output tokens, or nothing in their place, failed where it was recorded: it is left out, and a
  note says how many.
  A prompt without tokens, and negative counts, are errors.
- Columns have many names (`sim.workload.columns`), times many units (`sim.workload.times`).
- Stamps that were rounded to a quantum are spread over it by the run's seed. The file's order is kept: the jittered
  times are sorted and dealt out in that order, so turns of one conversation stay in sequence.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.scenario.errors import DeploymentError, Problem
from sim.scenario.section import MOST_SECONDS
from sim.scenario.workload import TraceColumns
from sim.workload.columns import Columns, columns_of
from sim.workload.hashes import Hashes, blocks_of, hashes
from sim.workload.likely import maybe_times
from sim.workload.prompts import Prompts
from sim.workload.table import FileTable, at_least, fault, whole
from sim.workload.times import DATES, UNIT_S, Unit, length_in_words, rate_per_s, reading_of, unit_of
from sim.workload.times import KEY as UNIT_KEY

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Asked:
    """What a scenario says of a file, where the file does not tell."""

    time_unit: str | None = None
    columns: TraceColumns | None = None


@dataclass(frozen=True)
class Reading:
    """How the file of a trace was read."""

    columns: Columns
    unit: Unit | None
    """None where the file has no times."""
    names: tuple[str, ...]
    """Of all its columns."""
    maybe_times: str | None = None
    """Where it has no times: the one column that is not read and looks like some."""


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

    @property
    def looks_like_times(self) -> str:
        """Where there are no times: which column may hold them, in words; empty where none does."""
        maybe = self.understood and self.understood.maybe_times
        return f"{maybe} looks like times: `columns: {{arrival: {maybe}}}` reads it" if maybe else ""

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


def requests_of(name: str, table: FileTable, asked: Asked) -> Trace:
    """The requests of a table, one a row.

    Raises ScenarioError with what is wrong in it, at its place; DeploymentError where nothing tells the unit of its
    times or the order of day and month, or the table has not the columns that are asked for.
    """
    columns, time_unit = columns_of(table, asked.columns), asked.time_unit
    readings: dict[str, Callable[[object], Any]] = {columns.input: at_least(1), columns.output: _answered}
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
        Reading(columns, unit, tuple(table.columns), None if unit else maybe_times(table, columns)),
        whole=table.whole,
        in_order=in_order,
    )


def _answered(cell: object) -> int:
    """Tokens of an answer; 0 where there is none."""
    return 0 if cell is None or (isinstance(cell, str) and not cell.strip()) else whole(cell, 0)


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
