"""What `tokenworks validate --bench` shows to a person."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from sim.cli.terminal import number, percent, seconds
from sim.scenario.anchor import AnchorFile, factors_in_words
from sim.validation.bench.compare import LATENCIES, Compared, Comparison, Repeated

LABELS: Final = {
    "ttft": "TTFT",
    "tpot": "TPOT",
    "itl": "ITL",
    "e2e": "end to end",
    "requests_per_s": "requests/s",
    "output_tokens_per_s": "output tokens/s",
    "total_tokens_per_s": "tokens/s",
    "throughput": "tokens/s per GPU",
}


def comparison(found: Comparison) -> Iterator[RenderableType]:
    """Every run: what was repeated, and measured beside simulated."""
    for one in found.runs:
        yield _headline(one)
        yield _figures(list(one.cases()))
        yield from _footnotes(one)


def _headline(one: Repeated) -> Text:
    run = one.run
    text = Text.assemble((f"{run.id}: ", "bold"), f"{run.about['name']}: {run.requests:,} requests, ")
    text.append(f"{run.load_in_words()}, {run.lengths.in_words()} tokens\n  ")
    text.append(
        f"simulated: {one.scenario.model} on {one.gpus} GPUs {one.scenario.gpu}, {one.scenario.engine}"
    )
    return text


def _figures(cases: list[Compared]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("metric")
    for column in ("measured", "simulated", "error"):
        table.add_column(column, justify="right")
    table.add_column("differs by definition", overflow="fold")
    for one in cases:
        case = one.case
        shown = _written(case.metric)
        label = LABELS[case.metric] + ("" if one.statistic == "rate" else f" {one.statistic}")
        table.add_row(label, shown(case.published), shown(case.simulated), f"{case.error:+.1%}", case.note)
    return table


def _footnotes(one: Repeated) -> Iterator[Text]:
    reasons: dict[str, list[str]] = {}
    for left in one.left():
        reasons.setdefault(left.why, []).append(f"{LABELS[left.metric]} {left.statistic}")
    for why, names in reasons.items():
        yield Text(f"Not compared: {', '.join(names)}: {why}", style="dim")
    for note in one.notes:
        yield Text(note, style="dim")
    yield Text("")


def _written(metric: str) -> Any:
    return seconds if metric in LATENCIES else number


def anchored(form: AnchorFile, path: Path) -> Iterator[RenderableType]:
    """What an anchor changes at its points, and how far off it is elsewhere."""
    factors = (form.step_factor, form.prompt_factor, form.step_constant_s, form.ttft_added_s)
    if factors == (1.0, 1.0, 0.0, 0.0):
        why = (
            "The points contradict each other"
            if form.notes
            else "No correction comes nearer to TPOT and TTFT together than the simulation as it is"
        )
        yield Text(f"{why}: the anchor changes nothing.", style="bold")
    for note in form.notes:
        yield Text(f"{note[0].upper()}{note[1:]}.")
    yield Text.assemble(
        ("Anchor: ", "bold"),
        f"{factors_in_words(form.model_dump())}; written to {path}. Name it in a scenario: `anchor: {path.name}`",
    )
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("point")
    for column in ("metric", "measured", "simulated", "with the anchor", "from the others"):
        table.add_column(column, justify="right")
    for point in form.points:
        for name, told in point.items():
            if isinstance(told, dict):
                shown = _written(name)
                error = {
                    key: f"{shown(told[key])} ({told[key] / told['measured'] - 1:+.1%})"
                    for key in ("simulated", "anchored", "from_the_others")
                    if key in told
                }
                table.add_row(
                    str(point["id"]), LABELS[name], shown(told["measured"]), error["simulated"], error["anchored"],
                    error.get("from_the_others", "-"),
                )  # fmt: skip
    yield table
    if form.error is None:
        yield Text(
            "Its own error is not known: that takes a second point of the same deployment.", style="dim"
        )
        return
    told = form.error
    known = [
        f"{LABELS[name]} {percent(value)}"
        for name in ("tpot", "ttft", "throughput")
        if (value := getattr(told, name)) is not None
    ]
    yield Text(f"Its own error: {', '.join(known)} (median of {told.left_out} points, each from the others)")
