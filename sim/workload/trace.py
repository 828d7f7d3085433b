"""Traces: the ones that ship, and files of users. Rows are requests; or clients (`sim.workload.clients`), whose
requests are drawn by the run's seed; or sessions (`sim.workload.sessions`), whose turns follow from one another.

Decisions, where a file of requests leaves room:
- Times count from the first request. Requests whose times go back are sorted, keeping the file's order among
  equals, and a note says so.
- A request with no output tokens failed where it was recorded: it is left out, and a note says how many.
  A prompt without tokens, and negative counts, are errors.
- Stamps that were rounded to a quantum are spread over it by the run's seed. The file's order is kept: the jittered
  times are sorted and dealt out in that order, so turns of one conversation stay in sequence.
"""

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from sim.scenario.errors import KeyPath
from sim.units import MICROSECOND_S, MILLISECOND_S
from sim.workload import clients, sessions
from sim.workload.clients import Clients
from sim.workload.prompts import Prompts
from sim.workload.randomness import generator
from sim.workload.sessions import Sessions
from sim.workload.table import Table, Wrong, at_least, fault, locate, read, real

Floats = NDArray[np.float64]

FOLDER = Path(__file__).parent / "traces"
KEY: KeyPath = ("workload", "trace")


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


@dataclass(frozen=True)
class Format:
    """The names of a format's columns, and what its times are written in (`s`, `ms` or `iso`)."""

    time: str
    time_unit: str
    input: str
    output: str
    blocks: str | None = None
    block_tokens: int | None = None


def shipped() -> tuple[str, ...]:
    """Names of the traces that ship."""
    return tuple(_index()["traces"])


def load(
    name: str, seed: int, base_folder: Path | None = None, until_s: float = math.inf
) -> Trace | Sessions:
    """The shipped trace of this name, or the trace in the file of this name.

    Args:
        name: one of `shipped()`, or a .csv or .jsonl file, plain or as .gz or .xz.
        seed: of the run; spreads stamps that were rounded to a quantum, and draws the requests of clients.
        base_folder: what a relative file name starts from; default the working directory.
        until_s: clients send nothing from here on.

    Raises:
        DeploymentError: if there is no such trace and no such file.
        ScenarioError: if a line of the file is broken, with its place; or nothing is left of it.
    """
    about = _index()["traces"].get(name)
    if about is None:
        content, about = _read(name, locate(name, base_folder, shipped(), KEY)), {}
    else:
        content = _shipped(name)
    if isinstance(content, Clients):
        prompts, times = content.draw(seed, until_s)
        return Trace(name, prompts, times)
    if isinstance(content, Sessions):
        return replace(content, starts_per_s=about.get("starts_per_s"))
    quantum_s = about.get("quantum_s")
    return content if quantum_s is None else _spread(content, quantum_s, seed)


@cache
def _index() -> dict[str, Any]:
    index: dict[str, Any] = yaml.safe_load((FOLDER / "traces.yaml").read_text(encoding="utf-8"))
    return index


@cache
def _shipped(name: str) -> Trace | Clients | Sessions:
    content = _read(name, FOLDER / _index()["traces"][name]["file"])
    if isinstance(content, Trace):
        for column in (content.arrival_s, content.prompts.input_tokens, content.prompts.output_tokens):
            assert column is not None
            column.flags.writeable = False  # every run of this process reads the same columns
    return content


def _spread(trace: Trace, quantum_s: float, seed: int) -> Trace:
    """Stamps t, rounded down to the quantum, become sorted uniform times in [t, t + quantum)."""
    assert trace.arrival_s is not None
    within = generator(seed, f"jitter {trace.name}").random(len(trace.arrival_s))
    return replace(trace, arrival_s=np.sort(trace.arrival_s + within * quantum_s))


def _read(name: str, path: Path) -> Trace | Clients | Sessions:
    """The content of a file. It makes many objects and no garbage: to look for some would take as long again."""
    collects = gc.isenabled()
    gc.disable()
    try:
        return _parse(name, read(path))
    finally:
        if collects:
            gc.enable()


def _parse(name: str, table: Table) -> Trace | Clients | Sessions:
    keys = table.columns.keys()
    if keys >= clients.KEYS:
        return clients.parse(name, table)
    if keys >= sessions.KEYS:
        return sessions.parse(name, table)
    return _requests(name, table)


def _requests(name: str, table: Table) -> Trace:
    form = _format(table)
    reading, unit_s = _TIMES[form.time_unit]
    readings = {form.input: at_least(1), form.output: at_least(0), form.time: reading, form.blocks: _hashes}
    known = {name: reads for name, reads in readings.items() if name is not None and name in table.columns}
    cells = dict(zip(known, table.convert(known), strict=True))
    input_tokens, output_tokens = (
        np.array(cells[name], dtype=np.int64) for name in (form.input, form.output)
    )
    prompts = Prompts.of(input_tokens, output_tokens)
    if form.blocks in cells:
        _check_hashes(table, form, input_tokens, cells[form.blocks])
        prompts = replace(prompts, blocks=cells[form.blocks], block_tokens=form.block_tokens)
    notes: list[str] = []
    arrival_s = None
    order = np.arange(len(table))
    if form.time in cells:
        stamps = np.array(cells[form.time])
        back = np.flatnonzero(np.diff(stamps) < 0)
        if len(back):
            order = np.argsort(stamps, kind="stable")
            line = table.line_of[back[0] + 1]
            notes.append(f"{name}: times go back at line {line} ({len(back)} times in all); sorted")
        arrival_s = (stamps - stamps.min()) * unit_s
    order = order[output_tokens[order] > 0]
    failed = len(table) - len(order)
    if failed == len(table):
        raise fault(table.file, (), None, None, "every request has zero output tokens")
    if failed:
        notes.append(f"{name}: {failed} of {len(table)} requests have no output tokens; left out")
    if arrival_s is not None:
        arrival_s = arrival_s[order] - arrival_s[order[0]]
    return Trace(name, prompts.take(order), arrival_s, tuple(notes))


def _format(table: Table) -> Format:
    formats = [Format(**form) for form in _index()["formats"].values()]
    for form in formats:
        if form.input in table.columns and form.output in table.columns:
            return form
    wanted = " or ".join(f"{form.input} and {form.output}" for form in formats)
    got = ", ".join(table.columns)
    raise fault(table.file, table.source, 1, 1, f"expected columns {wanted}; got {got[:120]}")


def _check_hashes(
    table: Table, form: Format, input_tokens: NDArray[np.int64], hashes: list[tuple[int, ...]]
) -> None:
    """Hashes of a prompt: one for each block that it begins, each standing for its block and all before it."""
    name, size = form.blocks, form.block_tokens
    assert name is not None and size is not None
    wrong: list[Wrong] = []
    before: dict[int, int | None] = {}
    for row, (ids, tokens) in enumerate(zip(hashes, input_tokens.tolist(), strict=True)):
        if len(ids) != -(-tokens // size):
            says = f"{name}: expected {-(-tokens // size)} for {tokens} tokens in blocks of {size}, got {len(ids)}"
            wrong.append((row, name, says))
        for block, previous in zip(ids, (None, *ids), strict=False):
            if before.setdefault(block, previous) != previous:
                says = f"{block} follows {previous} here and {before[block]} elsewhere"
                wrong.append((row, name, f"{name}: expected chained hashes; {says}"))
                break
    table.refuse(wrong)


def _hashes(cell: object) -> tuple[int, ...]:
    if not isinstance(cell, list) or not all(type(item) is int for item in cell):
        raise ValueError("expected a list of whole numbers")
    return tuple(cell)


def _iso_us(cell: object) -> int:
    """Microseconds of a date and time of day since 1970; UTC unless it says otherwise."""
    try:
        if not isinstance(cell, str):
            raise ValueError
        moment = datetime.fromisoformat(cell.strip())
    except ValueError:
        raise ValueError(
            f"expected a date and time such as 2023-11-16 18:15:46.68, got {str(cell)[:40]!r}"
        ) from None
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - _EPOCH) // timedelta(microseconds=1)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# How a stamp is read, and the seconds that one of its units lasts.
_TIMES: dict[str, tuple[Callable[[object], float], float]] = {
    "s": (real, 1.0),
    "ms": (real, MILLISECOND_S),
    "iso": (_iso_us, MICROSECOND_S),
}
