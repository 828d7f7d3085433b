"""`tokenworks trace`: what a trace file was understood as."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sim.cli.files import print_json, save, writer
from sim.cli.terminal import Screen, number, percent, seconds

if TYPE_CHECKING:
    from rich.console import RenderableType


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
    seed: Annotated[int, typer.Option(min=0, help="draws the requests of clients")] = 0,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, metavar="DIR", help="folder for trace.json")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="one JSON object as the last line of stdout; the rest to stderr")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no notes")] = False,
) -> None:
    """What a trace file was understood as: columns, unit, span, rate, lengths, hashes."""
    from sim.workload import trace
    from sim.workload.summary import understood

    screen = Screen(as_json, quiet)
    data = understood(trace.load(file, seed, time_unit=time_unit))
    screen.show(_told(data))
    if out:
        save(out, writer("trace.json", data))
    if as_json:
        print_json(data)


def _told(data: dict[str, Any]) -> "Iterator[RenderableType]":
    from rich.table import Table
    from rich.text import Text

    table = Table(title=data["trace"], title_justify="left", title_style="bold", box=None, show_header=False)
    for name, value in _rows(data):
        table.add_row(name, value)
    yield table
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
