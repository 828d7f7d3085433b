"""`tokenworks trace`: what a trace file was understood as."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from sim.cli.files import print_json, save, spare, writer
from sim.cli.options import options
from sim.cli.terminal import Screen, number, percent, seconds
from sim.scenario.errors import LocatedProblem, Place, ScenarioError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sim.scenario.workload import TraceColumns

RESULT: Final = "trace.json"
FULL: Final = "\u2588"
PARTLY: Final = ("", *(chr(0x2590 - eighths) for eighths in range(1, 8)))
"""Blocks of one to seven eighths."""


def show_trace(
    file: Annotated[
        str,
        typer.Argument(
            help="a trace's file, or the name of a shipped one", metavar="FILE", show_default=False
        ),
    ],
    time_unit: Annotated[
        Literal["s", "ms", "us", "ns"] | None, typer.Option(help="what its times count, where nothing tells")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="which column is arrival, input (prompt tokens), output (generated tokens) or blocks (hashes), "
            "where its name is not known; may be given several times",
            metavar="ROLE=NAME",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="draws the requests of clients")] = 0,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, metavar="DIR", help="folder for trace.json")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="one JSON object as the last line of stdout; the rest to stderr")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no notes")] = False,
) -> None:
    """What a trace file was understood as: columns, unit, span, rate over time, lengths, prefixes seen before."""
    from sim.scenario.workload import TraceColumns
    from sim.workload import trace
    from sim.workload.columns import COLUMNS_KEY
    from sim.workload.summary import understood
    from sim.workload.times import KEY as UNIT_KEY

    screen = Screen(as_json, quiet)
    if out:
        spare([Path(file)], [out / RESULT])
    columns = _columns(column or [])
    named = {trace.KEY: "FILE", UNIT_KEY: "--time-unit", COLUMNS_KEY: "--column"}
    with options(named | {(*COLUMNS_KEY, role): f"--column {role}" for role in TraceColumns.model_fields}):
        data = understood(trace.load(file, seed, time_unit=time_unit, columns=columns))
    screen.show(_told(data))
    if out:
        save(out, writer(RESULT, data))
    if as_json:
        print_json(data)


def _columns(words: list[str]) -> "TraceColumns | None":
    """Texts `ROLE=NAME`. Raises ScenarioError with each that is none."""
    from sim.scenario.workload import TraceColumns

    roles = TraceColumns.model_fields
    told = dict(word.split("=", 1) for word in words if "=" in word)
    wrong = [word for word in words if word.partition("=")[0] not in roles or not word.partition("=")[2]]
    if wrong:
        says = f"expected ROLE=NAME, the role one of {', '.join(roles)}"
        raise ScenarioError([LocatedProblem((), says, Place(f"--column {word}")) for word in wrong])
    return TraceColumns(**told) if told else None


def _told(data: dict[str, Any]) -> "Iterator[RenderableType]":
    from rich.table import Table
    from rich.text import Text

    table = Table(title=data["trace"], title_justify="left", title_style="bold", box=None, show_header=False)
    for name, value in _rows(data):
        table.add_row(name, value)
    yield table
    if data["over_time"]:
        yield _over_time(data["over_time"])
    for name, parts in data["lengths"].items():
        if parts:
            yield _lengths(name, parts)
    for note in data["notes"]:
        yield Text(note, style="dim")


def _rows(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "kind", data["kind"]
    yield "requests", number(data["requests"])
    if data["sessions"] is not None:
        yield "sessions", number(data["sessions"])
    for role, column in (data["columns"] or {}).items():
        yield f"{role} from", column or "-"
    if data["ignored"]:
        yield "ignored", ", ".join(data["ignored"])
    if data["time_unit"] is not None:
        yield "times in", f"{data['time_unit']} ({data['time_unit_told_by']})"
    yield "span", seconds(data["span_s"])
    yield "rate", "-" if data["rate_per_s"] is None else f"{number(data['rate_per_s'])} requests/s"
    for name in ("input_tokens", "output_tokens"):
        lengths = data[name]
        yield (
            name.replace("_", " "),
            ", ".join(f"{statistic} {number(value)}" for statistic, value in (lengths or {}).items()) or "-",
        )
    if data["block_tokens"] is not None:
        yield "hashes of", f"{data['block_tokens']} tokens"
    if data["seen_before"] is not None:
        yield "seen before", f"{percent(data['seen_before'])} of the prompt tokens (a cache without end)"


def _over_time(parts: list[dict[str, Any]]) -> "RenderableType":
    """Equal parts of the span, with the rate as a bar."""
    from rich.table import Table

    table = Table(
        title="\nOver time", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0)
    )
    columns = ["from", "requests/s", "", "tokens in", "tokens out"]
    hashed = any(part["seen_before"] is not None for part in parts)
    for name in (*columns, *(["seen before"] if hashed else [])):
        table.add_column(name, justify="left" if name == "" else "right")
    most = max(part["requests_per_s"] for part in parts)
    for part in parts:
        rate, begins = part["requests_per_s"], seconds(part["from_s"]) if part["from_s"] else "0 s"
        cells = [begins, number(rate), bar(rate / most)]
        cells += [number(part["input_tokens"]), number(part["output_tokens"])]
        table.add_row(*cells, *([percent(part["seen_before"])] if hashed else []))
    return table


def _lengths(name: str, parts: list[dict[str, int]]) -> "RenderableType":
    """Requests by doublings of tokens, as bars."""
    from rich.table import Table

    title = f"\n{name.replace('_', ' ').capitalize()} of a request"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for column in ("tokens", "requests", ""):
        table.add_column(column, justify="left" if column == "" else "right")
    most, every = max(part["requests"] for part in parts), sum(part["requests"] for part in parts)
    for part in parts:
        share = percent(part["requests"] / every)
        bounds = f"{part['from']:,}" if part["from"] == part["to"] else f"{part['from']:,} to {part['to']:,}"
        table.add_row(bounds, share, bar(part["requests"] / most))
    return table


def bar(share: float, width: int = 40) -> str:
    """A bar of that share of the width, to an eighth of a letter."""
    eighths = round(share * width * 8)
    return FULL * (eighths // 8) + PARTLY[eighths % 8]
