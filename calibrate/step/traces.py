"""Traces of torch.profiler (Kineto) and nsys -> timed steps, with their kernels by family.

Steps are told by marks: ranges that engines put around them. A kernel belongs to the mark in which the host launched
it, whenever it ran. A step lasts from its first kernel to the next step's first; where a trace has no kernels (on a
CPU), from mark to mark, and the outermost operators stand for them.
"""

import gzip
import io
import json
import sqlite3
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from calibrate.step.formats import family_of, formats, patterns
from calibrate.step.timed import Beside, NoSteps, TimedStep
from sim.files import read_regular
from sim.units import GIB_BYTES
from sim.workload.unpacking import MOST_UNPACKED, SMALL_BYTES

MOST_BYTES: Final = 4 * GIB_BYTES
"""Of a trace."""
GZIP: Final = b"\x1f\x8b"
PROCESS: Final = ~0xFFFFFF
"""The bits of nsys's `globalTid` that name the process: all but the thread's."""


@dataclass(frozen=True, slots=True)
class Span:
    """Something with a name, from one second of a clock to another."""

    name: str
    start: float
    end: float
    launched: float = 0.0
    """When the host launched it, where it is a kernel."""


def read_kineto(path: Path, beside: Beside) -> list[TimedStep]:
    """Steps of a Chrome trace, packed or not. Raises OSError, NoSteps, and ValueError where it is no JSON."""
    raw = read_regular(path, MOST_BYTES)
    told = json.loads(_unpacked(raw) if raw.startswith(GZIP) else raw)
    events = told.get("traceEvents", []) if isinstance(told, dict) else told
    whole = [event for event in events if event.get("ph") == "X" and "dur" in event]
    first = min(
        (event["ts"] for event in whole), default=0.0
    )  # microseconds since 1970 leave no digits for kernels
    spans: dict[str, list[dict[str, Any]]] = {}
    for event in whole:
        spans.setdefault(event.get("cat", ""), []).append({**event, "ts": event["ts"] - first})
    launches = {
        event["args"]["correlation"]: event["ts"] * 1e-6
        for kind in ("cuda_runtime", "cuda_driver", "hip_runtime")
        for event in spans.get(kind, ())
        if "correlation" in event.get("args", {})
    }
    kernels = [
        _span(event, launches.get(event.get("args", {}).get("correlation")))
        for event in spans.get("kernel", ())
    ]
    marks = _marked([_span(event) for event in spans.get("user_annotation", ())])
    if not marks:
        marks = _marked([_span(event) for event in spans.get("gpu_user_annotation", ())])
        kernels = [Span(k.name, k.start, k.end, k.start) for k in kernels]
    kernels = kernels or _outermost([_span(event) for event in spans.get("cpu_op", ())])
    return _steps(path, marks, kernels, beside)


def _unpacked(raw: bytes) -> bytes:
    """Raises ValueError where it holds more than a trace of this packed size can."""
    most = min(MOST_BYTES, max(MOST_UNPACKED * len(raw), SMALL_BYTES))
    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
        whole = file.read(most + 1)
    if len(whole) > most:
        raise ValueError(f"{len(raw):,} bytes that hold more than {most:,}; no trace packs so well")
    return whole


def _span(event: Mapping[str, Any], launched: float | None = None) -> Span:
    start = event["ts"] * 1e-6
    return Span(event["name"], start, start + event["dur"] * 1e-6, start if launched is None else launched)


def _outermost(spans: Sequence[Span]) -> list[Span]:
    """Those inside none before them: operators call operators."""
    found: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start, -s.end)):
        if not found or span.start >= found[-1].end:
            found.append(span)
    return found


def read_nsys(path: Path, beside: Beside) -> list[TimedStep]:
    """Steps of an SQLite export, of the first GPU in it. Raises NoSteps, and sqlite3.Error where it is no such file."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as base:
        base.row_factory = sqlite3.Row
        names = dict(base.execute("SELECT id, value FROM StringIds").fetchall())
        launches = {
            (row["globalTid"] & PROCESS, row["correlationId"]): row["start"] * 1e-9
            for row in _rows(base, "CUPTI_ACTIVITY_KIND_RUNTIME", "start", "globalTid", "correlationId")
        }
        found = [
            *_rows(base, "CUPTI_ACTIVITY_KIND_KERNEL", "start", "end", "deviceId", "globalPid", "correlationId",
                   "demangledName"),
            *_rows(base, "CUPTI_ACTIVITY_KIND_GRAPH_TRACE", "start", "end", "deviceId", "globalPid", "correlationId"),
        ]  # fmt: skip
        first = min(((row["deviceId"], row["globalPid"]) for row in found), default=None)
        kernels = [
            _kernel(row, names, launches) for row in found if (row["deviceId"], row["globalPid"]) == first
        ]
        marks = [
            Span(row["text"] or names.get(row["textId"], ""), row["start"] * 1e-9, row["end"] * 1e-9)
            for row in _rows(base, "NVTX_EVENTS", "start", "end", "text", "textId", "globalTid")
            if row["end"] and (first is None or not first[1] or row["globalTid"] & PROCESS == first[1])
        ]
    return _steps(path, _marked(marks), kernels, beside)


def _kernel(
    row: Mapping[str, Any], names: Mapping[int, str], launches: Mapping[tuple[int, int], float]
) -> Span:
    start = row["start"] * 1e-9
    launched = launches.get((row["globalPid"], row["correlationId"]), start)
    return Span(names.get(row.get("demangledName", 0), "CUDA graph"), start, row["end"] * 1e-9, launched)


def _rows(base: sqlite3.Connection, table: str, *columns: str) -> Iterator[dict[str, Any]]:
    """Rows of a table with these columns, 0 where it has not got one; none where there is no such table."""
    there = {row["name"] for row in base.execute(f"PRAGMA table_info({table})")}
    if there:
        listed = ", ".join(f'"{name}"' if name in there else f"0 AS {name}" for name in columns)
        yield from (dict(row) for row in base.execute(f"SELECT {listed} FROM {table}"))


def _marked(spans: Sequence[Span]) -> list[Span]:
    """Those whose name says what a step computes, one after another."""
    return _outermost(
        [span for span in spans if any(p.search(span.name) for p in patterns("marks").values())]
    )


def _steps(path: Path, marks: Sequence[Span], kernels: Sequence[Span], beside: Beside) -> list[TimedStep]:
    """Each mark's step; the last one's time is that of its own."""
    starts = [mark.start for mark in marks]
    inside: list[list[Span]] = [[] for _ in marks]
    for kernel in kernels:
        i = bisect_right(starts, kernel.launched) - 1
        if i >= 0 and kernel.launched <= marks[i].end:
            inside[i].append(kernel)
    on_gpu = any(kernel.launched != kernel.start for kernel in kernels)
    spans = [
        Span(mark.name, min(k.start for k in found), max(k.end for k in found)) if on_gpu and found else mark
        for mark, found in zip(marks, inside, strict=True)
        if found or not on_gpu
    ]
    ran = [found for found in inside if found or not on_gpu]
    idle = float(formats()["idle_share"]["value"])
    steps: list[TimedStep] = []
    for i, (span, found) in enumerate(zip(spans, ran, strict=True)):
        own_s = span.end - span.start
        next_s = spans[i + 1].start - span.start if i + 1 < len(spans) else own_s
        seconds = next_s if 0 < next_s <= (1 + idle) * own_s else own_s
        families: dict[str, float] = {}
        for kernel in found:
            family = family_of(kernel.name)
            families[family] = families.get(family, 0.0) + kernel.end - kernel.start
        if seconds > 0:
            steps += _step(path, span.name, seconds, families, beside)
    if not steps:
        known = ", ".join(patterns("marks"))
        raise NoSteps(
            f"{path}: expected marks around steps ({known}; calibrate/step/formats.yaml) with kernels launched inside; "
            f"{len(marks):,} marks and {len(kernels):,} kernels were found"
        )
    return steps


def _step(
    path: Path, mark: str, seconds: float, families: Mapping[str, float], beside: Beside
) -> Iterator[TimedStep]:
    """What a mark says that it computes; nothing where it computes nothing."""
    found = next(match for p in patterns("marks").values() if (match := p.search(mark)))
    told = {name: float(value) for name, value in found.groupdict().items() if value is not None}
    sequences, tokens = int(told.get("sequences", 0)), int(told.get("tokens", 0))
    if not sequences and not tokens:
        return
    context = beside.context_in(path, told.get("context")) if sequences else 0.0
    pairs, held = beside.prompts(int(told.get("prompts", 1)), tokens, told.get("cached"))
    yield TimedStep(seconds, sequences, context, tokens, pairs, held, families=families)
